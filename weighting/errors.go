package weighting

import (
	"errors"
	"fmt"
	"math"
)

// The errors of this package wrap one of these and add which index is meant, what was given and what is wanted.
var (
	ErrNoModels    = errors.New("no models")                 // a vector for fewer than one model
	ErrTooMany     = errors.New("too many models")           // a vector for more than 2³⁰ models (2²⁵ where int has 32 bits)
	ErrWeightCount = errors.New("wrong number of weights")   // not one weight per model
	ErrWeight      = errors.New("invalid weight")            // NaN, infinite, or negative where a share is meant
	ErrWeightSum   = errors.New("weights do not sum to one") // or to zero, so that they cannot be made to
	ErrDecay       = errors.New("decay out of range")        // not a number from 0 to 1
	ErrHalfLife    = errors.New("half-life out of range")    // not a positive finite number
	ErrGamma       = errors.New("gamma out of range")        // not a finite number of at least 0
	ErrSigma       = errors.New("sigma out of range")        // not a number above 0, up to 1/√12
)

// maxModels is the greatest length of a vector that is made from a number alone: 8 GiB, and less where int has 32 bits. A
// greater n is a mistake, and memory for it would end the process.
const maxModels = min(1<<30, math.MaxInt/64)

func checkModels(n int) error {
	switch {
	case n < 1:
		return fmt.Errorf("weighting: %w: got n = %d, want at least 1", ErrNoModels, n)
	case n > maxModels:
		return fmt.Errorf("weighting: %w: got n = %d, want at most %d", ErrTooMany, n, maxModels)
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
