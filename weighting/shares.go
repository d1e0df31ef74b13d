package weighting

import (
	"fmt"
	"math"
)

// Uniform returns n equal weights, the plain mean:
//
//	w[k] = 1/n
//
// Stochastic weight averaging (Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization",
// 2018) and the uniform soup of Wortsman et al. (2022) use it. The error wraps [ErrNoModels] when n < 1.
func Uniform(n int) ([]float64, error) {
	if err := checkModels(n); err != nil {
		return nil, err
	}
	w := make([]float64, n)
	for k := range w {
		w[k] = 1 / float64(n)
	}
	return w, nil
}

// Normalized returns w divided by its sum:
//
//	w[k] / Σ w[i]
//
// It takes numbers of any scale, such as validation scores: their sum may exceed the largest float64. w itself is left
// as it is. The error wraps [ErrNoModels] for an empty w, [ErrWeight] when a number is NaN, infinite or negative (a
// negative share has no meaning once it is divided by a sum that it lowers), and [ErrWeightSum] when all are zero.
func Normalized(w []float64) ([]float64, error) {
	if len(w) == 0 {
		return nil, fmt.Errorf("weighting: %w: got no weights, want at least 1", ErrNoModels)
	}
	largest := 0.0
	for k, x := range w {
		if !isFinite(x) || x < 0 {
			return nil, fmt.Errorf("weighting: %w: weight %d is %v, want a finite number, not negative", ErrWeight, k, x)
		}
		largest = max(largest, x)
	}
	if largest == 0 {
		return nil, fmt.Errorf("weighting: %w: the sum of all %d is 0, want a positive sum", ErrWeightSum, len(w))
	}
	// Scaled by a power of two, which is exact, the sum cannot overflow and products stay clear of underflow.
	_, exponent := math.Frexp(largest)
	shares := make([]double, len(w))
	for k, x := range w {
		shares[k].hi = math.Ldexp(x, -exponent)
	}
	return normalize(shares), nil
}

// Counts returns the weights of federated averaging: the share of each model in the samples seen by all.
//
//	w[k] = samples[k] / Σ samples[i]
//
// The formula is that of McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data"
// (2017), Algorithm 1. A model without samples gets weight zero. The total may exceed the range of int64.
//
// Counts are signed, as len and most wire formats give them, so that a negative one, which is a defect upstream, is
// seen here; as an unsigned number it would be the largest share of all. The error wraps [ErrNoModels] for an empty
// list, [ErrWeight] for a negative count and [ErrWeightSum] when all counts are zero.
func Counts(samples []int64) ([]float64, error) {
	if len(samples) == 0 {
		return nil, fmt.Errorf("weighting: %w: got no sample counts, want at least 1", ErrNoModels)
	}
	shares := make([]double, len(samples))
	some := false
	for k, n := range samples {
		if n < 0 {
			return nil, fmt.Errorf("weighting: %w: sample count %d is %d, want 0 or more", ErrWeight, k, n)
		}
		some = some || n > 0
		shares[k] = twoSum(float64(n>>32)*(1<<32), float64(n&(1<<32-1))) // both halves are exact
	}
	if !some {
		return nil, fmt.Errorf("weighting: %w: the sum of all %d sample counts is 0, want a positive sum",
			ErrWeightSum, len(samples))
	}
	return normalize(shares), nil
}

// Linear returns weights that grow by the same step from each model to the next, the weighted moving average (WMA):
//
//	w[k] = (k+1) / (1 + 2 + … + n) = 2(k+1) / (n(n+1)),   k = 0 oldest
//
// It is the WMA of Li et al., "Model Merging in Pre-training of Large Language Models" (2025). The error wraps
// [ErrNoModels] when n < 1.
func Linear(n int) ([]float64, error) {
	if err := checkModels(n); err != nil {
		return nil, err
	}
	total := twoProduct(float64(n), float64(n)+1).scale(0.5)
	w := make([]float64, n)
	for k := range w {
		w[k] = double{hi: float64(k + 1)}.div(total).float64()
	}
	return w, nil
}

// normalize returns shares divided by their sum. The sum is positive and far from overflow and underflow.
func normalize(shares []double) []float64 {
	var total double
	for _, s := range shares {
		total = total.add(s)
	}
	w := make([]float64, len(shares))
	for k, s := range shares {
		w[k] = s.div(total).float64()
	}
	return w
}
