package weighting

import (
	"fmt"
)

// Geometric returns weights that shrink by the factor decay with every step back in time:
//
//	w[k] = decay^age / (1 + decay + … + decay^(n−1)),   age = n−1−k
//
// The newest model has the greatest influence. It is the exponentially weighted mean of a list of n models, and equals
// the bias-corrected moving average m/(1−dⁿ) of Kingma and Ba, "Adam: A Method for Stochastic Optimization" (2015),
// section 3, after n steps.
//
// decay runs from 0 to 1. At 0 only the newest model counts (0⁰ is 1), at 1 all count alike; a greater decay means a
// longer memory, so less weight on the newest. The error wraps [ErrNoModels] when n < 1 and [ErrDecay] otherwise.
func Geometric(n int, decay float64) ([]float64, error) {
	if err := checkDecay(n, decay); err != nil {
		return nil, err
	}
	return geometric(n, double{hi: decay}), nil
}

// HalfLife returns weights that halve with every halfLife steps back in time, counted in models:
//
//	w[k] = 2^(−age/halfLife) / Σ 2^(−i/halfLife),   age = n−1−k
//
// They are those of [Geometric] with decay = 2^(−1/halfLife), the conversion that Karras et al. ("Analyzing and
// Improving the Training Dynamics of Diffusion Models", 2024) and others use; the decay is not rounded in between.
// The error wraps [ErrNoModels] when n < 1 and [ErrHalfLife] unless halfLife is positive and finite.
func HalfLife(n int, halfLife float64) ([]float64, error) {
	if err := checkModels(n); err != nil {
		return nil, err
	}
	if !(halfLife > 0) || !isFinite(halfLife) {
		return nil, fmt.Errorf("weighting: %w: got %v, want a positive finite number of models", ErrHalfLife, halfLife)
	}
	if halfLife < 1.0/2048 { // 2^(−2048) is below every float64
		return geometric(n, double{}), nil
	}
	return geometric(n, ln2.div(double{hi: halfLife}).neg().exp()), nil
}

// EMA returns the weights that a training loop's exponential moving average has given to the n models it has seen:
//
//	a ← model 0, then for each later model a ← decay·a + (1−decay)·model
//
//	w[0] = decay^(n−1),   w[k] = (1−decay)·decay^(n−1−k) for k ≥ 1
//
// This is the moving average of torch.optim.swa_utils.get_ema_multi_avg_fn, of timm's ModelEma and of Keras'
// ema_momentum. As the first model is copied it keeps more weight than its age warrants: three models with decay 0.9
// get 0.81, 0.09 and 0.10. Over thousands of steps that fades; for a short list of files [Geometric] is meant.
//
// decay runs from 0 (newest only) to 1 (oldest only). The error wraps [ErrNoModels] when n < 1 and [ErrDecay]
// otherwise.
func EMA(n int, decay float64) ([]float64, error) {
	if err := checkDecay(n, decay); err != nil {
		return nil, err
	}
	d, step := double{hi: decay}, twoSum(1, -decay)
	power := one // decay^age
	w := make([]float64, n)
	for k := n - 1; k > 0; k-- {
		w[k] = power.mul(step).float64()
		power = power.mul(d)
	}
	w[0] = power.float64()
	return w, nil
}

// ArticleRecurrence returns the weights of a recurrence that has been published as an exponentially weighted average.
// It runs from the newest model to the oldest, age j = 0, 1, …, n−1:
//
//	a ← 0, then a ← decay^j·model + (1−decay^j)·a
//
//	w[n−1−j] = decay^j · Π (1−decay^i) over i = j+1, …, n−1
//
// What it computes is not what is said of it. Each step mixes an older model into a sum that all later steps shrink,
// so it favours the OLDEST model for decay > ½ unless the list is long: three models with decay 0.8 get 0.64, 0.288
// and 0.072, oldest first, where [Geometric] gives 0.262, 0.328 and 0.410. The newest leads only for decay < ½. It is
// here to reproduce results; to average checkpoints use [Geometric].
//
// The source is the function exponential_weighted_average of the article "How do I calculate the average weight of
// multiple models?" (2024). decay runs from 0 (newest only) to 1 (oldest only). The error wraps [ErrNoModels] when
// n < 1 and [ErrDecay] otherwise.
func ArticleRecurrence(n int, decay float64) ([]float64, error) {
	if err := checkDecay(n, decay); err != nil {
		return nil, err
	}
	d, step := double{hi: decay}, twoSum(1, -decay)
	powers := make([]double, n)      // decay^j
	complements := make([]double, n) // 1 − decay^j
	powers[0] = one
	for j := 1; j < n; j++ {
		// 1 − dʲ = (1 − dʲ⁻¹) + dʲ⁻¹(1 − d) has no cancellation, however close d is to one.
		complements[j] = complements[j-1].add(powers[j-1].mul(step))
		powers[j] = powers[j-1].mul(d)
	}
	product := one
	w := make([]float64, n)
	for j := n - 1; j >= 0; j-- {
		w[n-1-j] = powers[j].mul(product).float64()
		product = product.mul(complements[j])
	}
	return w, nil
}

// geometric returns ratio^age over the sum of the powers, for 0 ≤ ratio ≤ 1.
func geometric(n int, ratio double) []float64 {
	shares := make([]double, n)
	shares[n-1] = one
	for k := n - 2; k >= 0; k-- {
		shares[k] = shares[k+1].mul(ratio)
	}
	return normalize(shares)
}
