package modelavg

import (
	"errors"

	"github.com/modelavg/modelavg/weighting"
)

// Every error of this package wraps one of these and says which model or index is meant, what was given and what is
// wanted. Those about models and weights are the values of package weighting, so that one errors.Is serves both.
var (
	ErrNoModels    = weighting.ErrNoModels              // there is nothing to average
	ErrWeightCount = weighting.ErrWeightCount           // not one weight per model
	ErrWeight      = weighting.ErrWeight                // NaN, infinite, or beyond the accumulator's range
	ErrWeightSum   = weighting.ErrWeightSum             // a mean's weights do not sum to one
	ErrDecay       = weighting.ErrDecay                 // not a number from 0 to 1
	ErrLength      = errors.New("lengths differ")       // a model is longer or shorter than dst
	ErrOverlap     = errors.New("dst overlaps a model") // and does not begin where the model begins
	ErrOption      = errors.New("option out of range")  // a negative number of workers, an unknown accumulation
)
