package transform

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"unicode/utf8"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"

	"github.com/modelavg/modelavg/checkpoint"
	"github.com/modelavg/modelavg/merge"
)

func init() {
	register.Function1x1(bytesOf)
	register.Function2x1(addBytes)
	register.DoFn1x1[int64, error](new(checkBytes))
}

// What an engine that shows metrics shows of a run, attempts that it has repeated included.
var (
	bytesRead    = beam.NewCounter("modelavg", "bytes_read")
	bytesWritten = beam.NewCounter("modelavg", "bytes_written")
)

// ErrUnfinished reports an unfinished output where that of a run is to be: another run is writing it, or was killed.
var ErrUnfinished = errors.New("there is an unfinished output")

// A Result says what [Average] did.
type Result struct {
	Path         string
	Parts        int
	BytesRead    int64 // tensor data in the models that the output is made of
	BytesWritten int64 // tensor data in the output

	// Report says more; it is nil if the output was made by sums, where numbers that are not finite are not counted.
	Report *merge.Report
}

// Average averages the models of the job in a pipeline that it gives to execute, which is a runner of Beam such as
// [prism.Execute] or [universal.Execute] and has to return when the pipeline has ended. The process that calls Average
// has to see the models and the output as the workers do. [beam.Init] must have been called.
//
// It makes the plan, runs the pipeline, looks whether all parts are complete and hold what was written, and puts the
// output at its path: see [merge.Plan.RunPart] and [merge.Finish], by which all that is made by reference is done.
//
// On any error, and when ctx is done, path is as it was, and the unfinished output is removed. There are two
// exceptions. An engine that goes on with a job which has failed may leave an unfinished output behind. And where the
// files of a complete output cannot be put in their places, they are left to be finished or discarded, as the error
// says. The error of a worker comes from the engine as text; it names file and tensor. If there is an unfinished output
// already, the error wraps [ErrUnfinished], and it is left alone: [checkpoint.DiscardParts] removes it.
//
// [prism.Execute]: https://pkg.go.dev/github.com/apache/beam/sdks/v2/go/pkg/beam/runners/prism#Execute
// [universal.Execute]: https://pkg.go.dev/github.com/apache/beam/sdks/v2/go/pkg/beam/runners/universal#Execute
func Average(ctx context.Context, job Job, execute func(context.Context, *beam.Pipeline) (beam.PipelineResult, error)) (
	*Result, error,
) {
	job.ID = rand.Text()
	r, err := job.prepare()
	if err != nil {
		return nil, err
	}
	key, err := job.key()
	if err != nil {
		return nil, err
	}
	p, s := beam.NewPipelineWithRoot()
	job.build(s, r.BytesWritten)
	_, err = execute(ctx, p)
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	// The workers may be in this process, and at work even though the job has failed.
	if err := errors.Join(err, jobs.end(key)); err != nil {
		return nil, discard(job.Output, err)
	}
	switch err := r.finish(ctx, &job); {
	case err == nil:
		return r, nil
	case ctx.Err() != nil, errors.Is(err, checkpoint.ErrMissingParts), errors.Is(err, checkpoint.ErrDamaged):
		return nil, discard(job.Output, err)
	default: // some of the files may be in their places already
		return nil, fmt.Errorf("all parts are complete and left as they are, but cannot be finished: %w", err)
	}
}

// discard removes the unfinished output because of the error, which it returns.
func discard(path string, err error) error {
	if _, discarding := checkpoint.DiscardParts(path); !errors.Is(discarding, checkpoint.ErrNoParts) {
		return errors.Join(err, discarding)
	}
	return err
}

// prepare makes the plan, to see that there is one, begins the result and the unfinished output, and sets the number of
// parts.
func (j *Job) prepare() (r *Result, err error) {
	if err := j.check(); err != nil {
		return nil, err
	}
	plan, models, err := j.open()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closeAll(models)) }()
	nonFinite, overflow := plan.Policies.NonFinite, plan.Policies.Overflow
	if j.SumModels > 0 && (nonFinite != merge.NonFinitePropagate || overflow != merge.OverflowInf) {
		return nil, fmt.Errorf("policies %s for what is not finite and %s for overflows, want %s and %s for sums",
			nonFinite, overflow, merge.NonFinitePropagate, merge.OverflowInf)
	}
	if j.Parts == 0 {
		j.Parts = int((plan.BytesWritten + PartBytes - 1) / PartBytes)
		j.Parts = max(j.Parts, 1)
	}
	// What one machine refuses to write is refused here too.
	if err := checkpoint.CheckCreate(j.Output, tensorsOf(plan), plan.Metadata, j.create(models[0])...); err != nil {
		return nil, err
	}
	u, err := checkpoint.OpenUnfinished(j.Output)
	switch {
	case errors.Is(err, checkpoint.ErrNoParts):
	case err != nil:
		return nil, err
	default:
		return nil, errors.Join(j.unfinished(), u.Close())
	}
	if err := j.begin(plan, models[0]); errors.Is(err, checkpoint.ErrOtherPlan) {
		return nil, errors.Join(j.unfinished(), err) // which began a moment ago
	} else if err != nil {
		return nil, discard(j.Output, err)
	}
	return &Result{Path: j.Output, Parts: j.Parts, BytesRead: plan.BytesRead, BytesWritten: plan.BytesWritten}, nil
}

// check returns an error for what no plan says.
func (j *Job) check() error {
	for _, path := range append([]string{j.Output}, j.Models...) {
		if !utf8.ValidString(path) {
			return fmt.Errorf("path %q is no UTF-8, as which it is sent to the workers", path)
		}
	}
	switch {
	case j.Output == "":
		return errors.New("the path of the output is empty")
	case j.Parts < 0:
		return fmt.Errorf("%d parts, want 1 or more, or 0", j.Parts)
	case j.SumModels < 0:
		return fmt.Errorf("sums of %d models, want 1 or more, or 0", j.SumModels)
	case j.Workers < 0:
		return fmt.Errorf("%d goroutines for a part, want 1 or more, or 0", j.Workers)
	case j.MaxShardSize < 0:
		return fmt.Errorf("shards of %d bytes, want 1 or more, or 0", j.MaxShardSize)
	}
	return nil
}

func (j *Job) unfinished() error {
	return fmt.Errorf("%s: %w: another run is writing it, or was killed and it is to be discarded", j.Output,
		ErrUnfinished)
}

// begin begins the unfinished output, before there is anything to run. It so is that of this run, to be removed if that
// fails, and what cannot be written is known here.
func (j *Job) begin(plan *merge.Plan, first *checkpoint.Model) error {
	if j.SumModels > 0 {
		w, err := j.createPart(plan, first, 1)
		if err != nil {
			return err
		}
		return w.Close()
	}
	ended, end := context.WithCancelCause(context.Background())
	end(errBegun)
	_, err := plan.RunPart(ended, j.Output, merge.Part{Number: 1, Of: j.Parts}, nil)
	if errors.Is(err, errBegun) {
		return nil
	}
	return err
}

// errBegun ends a part as soon as the unfinished output is there for it, and nothing is written.
var errBegun = errors.New("the unfinished output is begun")

// build builds the pipeline. It fails unless so many bytes are written.
func (j *Job) build(s beam.Scope, bytes int64) {
	numbers := make([]int, j.Parts)
	for i := range numbers {
		numbers[i] = i + 1
	}
	average := ByReference
	if j.SumModels > 0 {
		average = BySums
	}
	done := average(s, *j, beam.CreateList(s, numbers))
	beam.ParDo0(s, &checkBytes{Output: j.Output, Want: bytes}, beam.Combine(s, addBytes, beam.ParDo(s, bytesOf, done)))
}

func bytesOf(d Done) int64 { return d.Bytes }

func addBytes(a, b int64) int64 { return a + b }

// checkBytes fails unless it gets the number of bytes it wants.
type checkBytes struct {
	Output string
	Want   int64
}

// ProcessElement compares.
func (f *checkBytes) ProcessElement(got int64) error {
	if got != f.Want {
		return fmt.Errorf("%s: parts of %d bytes are written, want %d", f.Output, got, f.Want)
	}
	return nil
}

// finish puts the output in its place.
func (r *Result) finish(ctx context.Context, j *Job) error {
	if j.SumModels > 0 {
		return finishSums(ctx, j.Output)
	}
	f, err := merge.Finish(ctx, j.Output)
	if err != nil {
		return err
	}
	r.Report = f.Report
	return nil
}
