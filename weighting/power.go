package weighting

import (
	"fmt"
	"math"
)

// Power returns the weights of the power-function moving average with exponent gamma over n equally spaced models:
//
//	β = (1 − 1/t)^(gamma+1), then a ← β·a + (1−β)·model, for t = 1, …, n
//
//	w[k] = ((k+1)/n)^(gamma+1) − (k/n)^(gamma+1)
//
// It is equation 127 and Algorithm 2 of Karras et al., "Analyzing and Improving the Training Dynamics of Diffusion
// Models" (EDM2, 2024), telescoped. The weight grows roughly as t^gamma, so the memory is a fixed fraction of the
// training rather than a fixed number of steps: gamma 0 is the plain mean, 1 close to [Linear], and a greater gamma
// looks less far back. The error wraps [ErrNoModels] when n < 1 and [ErrGamma] unless gamma is finite and at least 0.
func Power(n int, gamma float64) ([]float64, error) {
	if err := checkModels(n); err != nil {
		return nil, err
	}
	if !(gamma >= 0) || !isFinite(gamma) {
		return nil, fmt.Errorf("weighting: %w: got %v, want a finite number of at least 0", ErrGamma, gamma)
	}
	exponent := twoSum(gamma, 1)
	w := make([]float64, n)
	below := double{} // (k/n)^(gamma+1)
	for k := range w {
		above := power(double{hi: float64(k + 1)}.div(double{hi: float64(n)}), exponent)
		w[k] = above.sub(below).float64()
		below = above
	}
	return w, nil
}

// PowerSigma returns the weights of [Power] for a given width: sigma is the standard deviation of the weight's
// distribution over time, as a fraction of the whole training (sigma_rel in EDM2, which tracks 0.05 and 0.10).
// gamma is the largest root of
//
//	sigma² = (gamma+1) / ((gamma+2)² (gamma+3))
//
// which sigma = 0.05, 0.10, 0.15, 0.20 and 0.25 place at 16.97, 6.94, 3.56, 1.83 and 0.72. The error wraps
// [ErrNoModels] when n < 1 and [ErrSigma] unless 0 < sigma ≤ 1/√12 = 0.288675…, the width of the plain mean.
func PowerSigma(n int, sigma float64) ([]float64, error) {
	if err := checkModels(n); err != nil {
		return nil, err
	}
	if !(sigma > 0 && sigma <= maxSigma) {
		return nil, fmt.Errorf("weighting: %w: got %v, want above 0, up to 1/√12 = %.6f", ErrSigma, sigma, maxSigma)
	}
	return Power(n, gammaOf(sigma))
}

// maxSigma is the float64 nearest to 1/√12, the standard deviation of a uniform distribution over [0, 1].
const maxSigma = 0.28867513459481288225457439025097872782380087563506

// gammaOf returns the largest root of g³ + 7g² + (16−s)g + (12−s), s = sigma⁻².
func gammaOf(sigma float64) float64 {
	if sigma < 1e-17 { // here g = 1/sigma − 3 + …, and the 3 is less than the rounding
		return min(1/sigma, math.MaxFloat64)
	}
	// The constant term decides the root when sigma is near its greatest value: subtract before rounding.
	s := one.div(twoProduct(sigma, sigma))
	excess := max(s.sub(double{hi: 12}).float64(), 0) // s − 12
	// The polynomial is convex for g ≥ 0 and positive at √s, so Newton's method descends to the root from there.
	g := math.Sqrt(s.float64())
	for range 100 {
		f := float64((float64((g+7)*g)+(4-excess))*g) - excess // the conversions keep the compiler from fusing
		slope := float64((float64(3*g)+14)*g) + (4 - excess)
		next := max(g-f/slope, 0)
		if next >= g {
			break
		}
		g = next
	}
	return g
}

// power returns x^y for 0 < x ≤ 1 and y ≥ 1.
func power(x, y double) double {
	if x == one {
		return one
	}
	logarithm := x.log()
	if logarithm.hi*y.hi < -800 { // also where the product overflows
		return double{}
	}
	return logarithm.mul(y).exp()
}
