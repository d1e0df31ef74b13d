package weighting

import (
	"fmt"
	"math"
)

// A moving average takes in one model after another,
//
//	a ← kept·a + added·model,   kept + added = 1
//
// and a schedule says what is kept and what is added at update t, counted from 1. Both numbers are rounded once, but
// for ties too close to call: one minus the other would lose the smaller one's bits.

// CorrectedDecay returns what update t = 1, 2, … of a bias-corrected moving average keeps and adds:
//
//	added = (1 − decay) / (1 − decay^t),   kept = 1 − added
//
// It is m ← decay·m + (1−decay)·model from m = 0, divided by 1−decay^t (Kingma and Ba, "Adam: A Method for Stochastic
// Optimization", 2015, section 3), written as a recurrence of the quotient. n updates give the models the weights of
// [Geometric]. The first update keeps nothing; later ones tend to decay and 1−decay. With decay 1 it is the plain mean.
//
// Both results are NaN unless t ≥ 1 and decay is from 0 to 1.
func CorrectedDecay(t int64, decay float64) (kept, added float64) {
	switch {
	case t < 1 || !(decay >= 0 && decay <= 1):
		return math.NaN(), math.NaN()
	case t == 1:
		return 0, 1
	case decay == 1:
		return both(one.div(integer(t)))
	case decay == 0:
		return 0, 1
	}
	rate := twoSum(1, -decay)
	if rate.hi*float64(t) > 80 { // decay^t < e^−80 < 2^−115
		return both(rate)
	}
	if rate.hi*float64(t) < 0x1p-10 {
		// 1 − decay^t would cancel: divide by the rate r before, (1 − (1−r)^t)/r = t − t(t−1)/2·r + …
		term := integer(t)
		sum := term
		for j := int64(1); j < min(t, 12); j++ {
			term = term.mul(rate.neg()).mul(integer(t - j)).div(integer(j + 1))
			sum = sum.add(term)
		}
		return both(one.div(sum))
	}
	remainder := one.sub(power(double{hi: decay}, integer(t)))
	return both(rate.div(remainder))
}

// InverseGammaDecay returns what update t = 1, 2, … of a moving average with this warm-up keeps and adds:
//
//	added = (1 + (t−1)/inverseGamma)^−exponent,   kept = 1 − added
//
// Diffusers (use_ema_warmup), timm (use_warmup) and ema-pytorch compute it so, with the number of updates before this
// one in place of t−1, and with inverseGamma 1 and exponent 2/3 by default (they call it power). 1 and 1 give the plain
// mean of the models. The first update keeps nothing.
//
// Both results are NaN unless t ≥ 1 and inverseGamma and exponent are positive and finite.
func InverseGammaDecay(t int64, inverseGamma, exponent float64) (kept, added float64) {
	if t < 1 || !(inverseGamma > 0) || !(exponent > 0) || !isFinite(inverseGamma) || !isFinite(exponent) {
		return math.NaN(), math.NaN()
	}
	if t == 1 {
		return 0, 1
	}
	scale := double{hi: inverseGamma}
	base := scale.div(scale.add(integer(t - 1)))
	if base.hi == 0 || !isFinite(base.lo) { // inverseGamma near the ends of the float64 range
		return both(double{hi: math.Pow(1+float64(t-1)/inverseGamma, -exponent)})
	}
	return both(power(base, double{hi: exponent}))
}

// PowerDecay returns what update t = 1, 2, … of the power-function moving average keeps and adds:
//
//	kept = (1 − 1/t)^(gamma+1),   added = 1 − kept
//
// It is equation 127 of Karras et al. (EDM2, 2024). n updates give the models the weights of [Power]. The first update
// keeps nothing; gamma 0 is the plain mean.
//
// Both results are NaN unless t ≥ 1 and gamma is finite and at least 0.
func PowerDecay(t int64, gamma float64) (kept, added float64) {
	if t < 1 || !(gamma >= 0) || !isFinite(gamma) {
		return math.NaN(), math.NaN()
	}
	if t == 1 {
		return 0, 1
	}
	base := integer(t - 1).div(integer(t))
	added, kept = both(power(base, twoSum(gamma, 1)))
	return kept, added
}

// HalfLifeDecay returns the decay with which a model's weight halves in halfLife updates, 2^(−1/halfLife). The error
// wraps [ErrHalfLife] unless halfLife is positive and finite.
func HalfLifeDecay(halfLife float64) (float64, error) {
	if !(halfLife > 0) || !isFinite(halfLife) {
		return 0, fmt.Errorf("weighting: %w: got %v, want a positive finite number of updates", ErrHalfLife, halfLife)
	}
	if halfLife < 1.0/2048 { // 2^(−2048) is below every float64
		return 0, nil
	}
	return ln2.div(double{hi: halfLife}).neg().exp().float64(), nil
}

// PowerGamma returns the exponent gamma of a power-function moving average of relative width sigma, as [PowerSigma]
// defines it. The error wraps [ErrSigma] unless 0 < sigma ≤ 1/√12.
func PowerGamma(sigma float64) (float64, error) {
	if !(sigma > 0 && sigma <= maxSigma) {
		return 0, fmt.Errorf("weighting: %w: got %v, want above 0, up to 1/√12 = %.6f", ErrSigma, sigma, maxSigma)
	}
	return gammaOf(sigma), nil
}

// both returns 1 − added and added, each rounded once.
func both(added double) (rest, share float64) {
	return one.sub(added).float64(), added.float64()
}

// integer returns n > 0 exactly.
func integer(n int64) double {
	return twoSum(float64(n>>32)*(1<<32), float64(n&(1<<32-1)))
}
