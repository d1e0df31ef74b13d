package weighting

import (
	"fmt"
	"math"
)

// Tolerance is the greatest distance from one that [Check] accepts in a sum of weights. It is that of NumPy's
// isclose(sum, 1), |sum − 1| ≤ atol + rtol·1 with the defaults atol = 1e-8 and rtol = 1e-5: wide enough for weights
// written with five digits, such as three of 0.33333.
const Tolerance = 1e-8 + 1e-5

// Check reports whether w can weigh the mean of n models: one weight per model, every weight finite, and a sum within
// [Tolerance] of one. Negative weights are legal, they extrapolate. The sum is compensated, so large weights of
// opposite sign are judged by their exact sum.
//
// It returns nil or an error that wraps [ErrNoModels], [ErrWeightCount], [ErrWeight] or [ErrWeightSum] and says the
// numbers found. It does not allocate unless it returns an error.
func Check(w []float64, n int) error {
	if n < 1 {
		return checkModels(n)
	}
	if len(w) != n {
		return fmt.Errorf("weighting: %w: got %d weights for %d models, want one per model", ErrWeightCount, len(w), n)
	}
	var sum double
	plain := 0.0 // for the message, when sum overflows to NaN
	for k, x := range w {
		if !isFinite(x) {
			return fmt.Errorf("weighting: %w: weight %d is %v, want a finite number", ErrWeight, k, x)
		}
		sum = sum.add(double{hi: x})
		plain += x
	}
	if !(math.Abs(sum.sub(one).float64()) <= Tolerance) { // so put, NaN fails
		found := sum.float64()
		if math.IsNaN(found) {
			found = plain
		}
		return fmt.Errorf("weighting: %w: got a sum of %v, want 1 ± %v", ErrWeightSum, found, float64(Tolerance))
	}
	return nil
}
