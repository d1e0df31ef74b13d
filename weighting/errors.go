package weighting

import (
	"errors"
	"fmt"
	"math"
)

// The errors of this package wrap one of these and add which index is meant, what was given and what is wanted.
var (
	ErrNoModels    = errors.New("no models")                 // a vector for fewer than one model
	ErrWeightCount = errors.New("wrong number of weights")   // not one weight per model
	ErrWeight      = errors.New("invalid weight")            // NaN, infinite, or negative where a share is meant
	ErrWeightSum   = errors.New("weights do not sum to one") // or to zero, so that they cannot be made to
	ErrDecay       = errors.New("decay out of range")        // not a number from 0 to 1
	ErrHalfLife    = errors.New("half-life out of range")    // not a positive finite number
	ErrGamma       = errors.New("gamma out of range")        // not a finite number of at least 0
	ErrSigma       = errors.New("sigma out of range")        // not a number above 0, up to 1/√12
)

func checkModels(n int) error {
	if n < 1 {
		return fmt.Errorf("weighting: %w: got n = %d, want at least 1", ErrNoModels, n)
	}
	return nil
}

func checkDecay(n int, decay float64) error {
	if err := checkModels(n); err != nil {
		return err
	}
	if !(decay >= 0 && decay <= 1) { // so put, NaN fails
		return fmt.Errorf("weighting: %w: got %v, want 0 to 1", ErrDecay, decay)
	}
	return nil
}

func isFinite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }
