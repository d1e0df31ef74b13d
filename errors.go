package modelavg

import (
	"errors"

	"github.com/modelavg/modelavg/weighting"
)

// Every error of this package wraps one of these and says which model or index is meant, what was given and what is
// wanted. Those about models and weights are the values of package weighting, so that one errors.Is serves both.
var (
	ErrNoModels    = weighting.ErrNoModels                       // there is nothing to average
	ErrWeightCount = weighting.ErrWeightCount                    // not one weight per model
	ErrWeight      = weighting.ErrWeight                         // NaN, infinite, or beyond the accumulator's range
	ErrWeightSum   = weighting.ErrWeightSum                      // a mean's weights do not sum to one
	ErrDecay       = weighting.ErrDecay                          // not a number from 0 to 1
	ErrHalfLife    = weighting.ErrHalfLife                       // not a positive finite number
	ErrGamma       = weighting.ErrGamma                          // not a finite number of at least 0
	ErrSigma       = weighting.ErrSigma                          // not a number above 0, up to 1/√12
	ErrLength      = errors.New("lengths differ")                // a model is longer or shorter than dst
	ErrOverlap     = errors.New("dst overlaps a model")          // and does not begin where the model begins
	ErrOption      = errors.New("option out of range")           // a negative number of workers, an unknown accumulation
	ErrState       = errors.New("invalid saved state")           // damaged, of another version, or of another element type
	ErrNoWeight    = errors.New("weights sum to zero")           // or none has been added, so that there is no mean
	ErrNotFinite   = errors.New("not finite")                    // NaN or infinite
	ErrMerge       = errors.New("accumulators cannot be merged") // one is exact and one is not, or they are the same
)
