package transform

import (
	"context"
	"errors"
	"fmt"

	"github.com/modelavg/modelavg/checkpoint"
	"github.com/modelavg/modelavg/merge"
)

// createPart begins to write a part of the output by sums. A part that merge.Plan.RunPart writes has other facts: the
// two do not mix.
func (j *Job) createPart(p *merge.Plan, first *checkpoint.Model, part int) (*checkpoint.PartWriter, error) {
	facts := []checkpoint.Fact{{Name: "way", Value: "by sums"}, {Name: "run", Value: j.ID}}
	number := checkpoint.Part{Number: part, Of: j.Parts}
	return checkpoint.CreatePart(j.Output, number, tensorsOf(p), p.Metadata, facts, j.create(first)...)
}

// tensorsOf returns the tensors of the output.
func tensorsOf(p *merge.Plan) []checkpoint.Tensor {
	all := make([]checkpoint.Tensor, len(p.Steps))
	for i := range p.Steps {
		all[i] = p.Steps[i].Tensor
	}
	return all
}

// createPart begins to write a part of the output by sums.
func (o *opened) createPart(part int) (*checkpoint.PartWriter, error) {
	p, err := o.makePlan()
	if err != nil {
		return nil, err
	}
	return o.job.createPart(p, o.all[0], part)
}

// ranges returns what the part has of which tensors.
func (o *opened) ranges(part int) ([]checkpoint.TensorRange, error) {
	w, err := o.createPart(part)
	if err != nil {
		return nil, err
	}
	return w.Ranges(), w.Close()
}

// A memory is a range of a tensor of the result, written to memory.
type memory struct {
	begin int64
	data  []byte
}

// WriteAt writes p to the range.
func (m *memory) WriteAt(_ string, p []byte, off int64) (int, error) {
	return copy(m.data[off-m.begin:], p), nil
}

// finishSums puts an output that was written by sums in its place, after a look at every byte of it.
func finishSums(ctx context.Context, path string) (err error) {
	u, err := checkpoint.OpenUnfinished(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, u.Close()) }()
	if err := u.Check(ctx, true, nil); err != nil {
		return err
	}
	if err := u.Commit(); err != nil {
		return err
	}
	if err := u.Remove(); err != nil {
		return fmt.Errorf("the output is written, but what is unfinished of it is not removed: %w", err)
	}
	return nil
}
