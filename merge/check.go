package merge

import (
	"errors"

	"github.com/modelavg/modelavg/checkpoint"
)

// Check returns the error that [Plan.Run] would return for the path before it reads any data, and writes nothing: where
// the format that the name says cannot hold a tensor of the result, for example, or something is at path that is not
// replaced. It is [checkpoint.CheckCreate] for the plan.
func (p *Plan) Check(path string) error {
	if p == nil || len(p.models) == 0 {
		return errNoPlan
	}
	return checkpoint.CheckCreate(path, p.tensors(), p.Metadata, p.create...)
}

var errNoPlan = errors.New("merge: the plan has no models: want a plan that Mean or WeightedMean has made")
