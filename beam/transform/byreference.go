package transform

import (
	"context"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"

	"github.com/modelavg/modelavg/merge"
)

func init() {
	register.DoFn3x1[context.Context, int, func(Done), error](new(runPart))
}

// Done says that a part of the output is complete.
type Done struct {
	Part  int
	Bytes int64 // of tensors, written
}

// ByReference averages the parts of the output that the collection of their numbers, a PCollection<int>, has, and
// returns a [Done] for each: a PCollection<Done>.
func ByReference(s beam.Scope, job Job, parts beam.PCollection) beam.PCollection {
	s = s.Scope("modelavg.ByReference")
	return beam.ParDo(s, &runPart{Job: job}, beam.Reshuffle(s, parts))
}

// runPart averages and writes parts.
type runPart struct {
	Job Job
}

// ProcessElement does one part and emits what it has written.
func (f *runPart) ProcessElement(ctx context.Context, part int, emit func(Done)) error {
	return f.Job.use(ctx, func(ctx context.Context, o *opened) error {
		plan, err := o.makePlan()
		if err != nil {
			return err
		}
		report, err := plan.RunPart(ctx, o.job.Output, merge.Part{Number: part, Of: o.job.Parts}, nil)
		if err != nil {
			return err
		}
		bytesRead.Inc(ctx, report.BytesRead)
		bytesWritten.Inc(ctx, report.BytesWritten)
		emit(Done{part, report.BytesWritten})
		return nil
	})
}
