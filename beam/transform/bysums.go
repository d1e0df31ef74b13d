package transform

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/register"

	"github.com/modelavg/modelavg/beam/partial"
	"github.com/modelavg/modelavg/checkpoint"
	"github.com/modelavg/modelavg/merge"
)

func init() {
	register.DoFn4x1[context.Context, int, func(group), func(int, piece), error](new(splitPart))
	register.DoFn4x1[context.Context, group, func(run, *partial.Sum), func(int, piece), error](new(readGroup))
	register.DoFn4x1[context.Context, int, func(*piece) bool, func(Done), error](new(writePart))
	register.Function2x2(toPiece)
	register.Emitter1[group]()
	register.Emitter1[Done]()
	register.Emitter2[int, piece]()
	register.Emitter2[run, *partial.Sum]()
	register.Iter1[piece]()
}

// SumElements is how many elements of a tensor are summed at a time by [BySums], and how many the sums have that pass
// through the engine: 4 MiB of float32 accumulators, and twice that of float64.
const SumElements = 1 << 20

// A run is some elements of a tensor, and the part of the output that they are in. Sums are merged by it.
type run struct {
	Part   int
	Tensor string
	Offset int64 // of the first one in the tensor of the result, in bytes
	Length int64 // bytes in the result
}

// A group is some of the models, to be summed over a run. Without models it is a run that is no average.
type group struct {
	Run         run
	DType       string // of the result
	Accumulator string // the format of the sum
	Models      []int
	DTypes      []string // in each of the models
	Weights     []float64
}

// A piece is bytes of a tensor of the result.
type piece struct {
	Tensor string
	Offset int64
	Data   []byte
}

// BySums averages the parts of the output that the collection of their numbers, a PCollection<int>, has, and returns a
// [Done] for each: a PCollection<Done>. Sums of up to job.SumModels models are made in one worker, and merged by the
// engine. If that is all models, no sum is merged with another, and the bits are those of [ByReference]. More models
// leave less to be sent, fewer leave more to be done side by side. Tensors that are not averaged are made whole by one
// worker.
func BySums(s beam.Scope, job Job, parts beam.PCollection) beam.PCollection {
	s = s.Scope("modelavg.BySums")
	groups, begun := beam.ParDo2(s, &splitPart{Job: job}, parts)
	sums, whole := beam.ParDo2(s, &readGroup{Job: job}, beam.Reshuffle(s, groups))
	averages := beam.ParDo(s, toPiece, AverageSums(s, job.Weights == nil, sums))
	// Grouping by part fixes the averages before they are written: another attempt to write them finds the same ones.
	pieces := beam.GroupByKey(s, beam.Flatten(s, begun, whole, averages))
	return beam.ParDo(s, &writePart{Job: job}, pieces)
}

// toPiece puts an average in its place in a part.
func toPiece(r run, data []byte) (int, piece) {
	return r.Part, piece{Tensor: r.Tensor, Offset: r.Offset, Data: data}
}

// splitPart divides a part into runs and groups of models. It also emits an empty piece of the part, so that it is
// written even if nothing is in it.
type splitPart struct {
	Job Job
}

// ProcessElement emits the groups of a part.
func (f *splitPart) ProcessElement(ctx context.Context, part int, emit func(group), begin func(int, piece)) error {
	if f.Job.SumModels < 1 {
		return fmt.Errorf("sums of %d models, want 1 or more", f.Job.SumModels)
	}
	return f.Job.use(ctx, func(_ context.Context, o *opened) error {
		ranges, err := o.ranges(part)
		if err != nil {
			return err
		}
		steps := make(map[string]*merge.Step, len(o.plan.Steps))
		for i := range o.plan.Steps {
			steps[o.plan.Steps[i].Tensor.Name] = &o.plan.Steps[i]
		}
		begin(part, piece{})
		for _, r := range ranges {
			f.split(part, steps[r.Tensor], r, emit)
		}
		return nil
	})
}

// split emits the groups of a range of a tensor.
func (f *splitPart) split(part int, s *merge.Step, r checkpoint.TensorRange, emit func(group)) {
	dtypes := s.DTypes
	if dtypes == nil {
		dtypes = slices.Repeat([]checkpoint.DType{s.Tensor.DType}, len(s.Sources))
	}
	size := SumElements * int64(s.Tensor.DType.Bits()/8)
	for off := r.Offset; off < r.Offset+r.Length; off += size {
		g := group{Run: run{part, r.Tensor, off, min(size, r.Offset+r.Length-off)}, DType: s.Tensor.DType.String()}
		if s.Action != merge.Average {
			emit(g)
			continue
		}
		g.Accumulator = partial.Accumulator(append(slices.Clone(dtypes), s.Tensor.DType)...).String()
		for begin := 0; begin < len(s.Sources); begin += f.Job.SumModels {
			end := min(begin+f.Job.SumModels, len(s.Sources))
			g.Models, g.DTypes, g.Weights = s.Sources[begin:end], nil, nil
			for i := begin; i < end; i++ {
				w := 1.0
				if f.Job.Weights != nil {
					w = s.Weights[i]
				}
				g.DTypes = append(g.DTypes, dtypes[i].String())
				g.Weights = append(g.Weights, w)
			}
			emit(g)
		}
	}
}

// readGroup reads a run of the models of a group and adds them up. What is no average it makes whole.
type readGroup struct {
	Job Job
}

// ProcessElement emits the sum of a group, or the piece that is no sum.
func (f *readGroup) ProcessElement(ctx context.Context, g group, sum func(run, *partial.Sum),
	whole func(int, piece),
) error {
	return f.Job.use(ctx, func(ctx context.Context, o *opened) error {
		if len(g.Models) > 0 {
			s, err := o.sum(ctx, &g)
			if err == nil {
				sum(g.Run, s)
			}
			return err
		}
		plan, err := o.makePlan()
		if err != nil {
			return err
		}
		m := memory{g.Run.Offset, make([]byte, g.Run.Length)}
		r := merge.Range{Tensor: g.Run.Tensor, Offset: g.Run.Offset, Length: g.Run.Length}
		if _, err := plan.RunRange(ctx, r, &m); err != nil {
			return err
		}
		whole(g.Run.Part, piece{g.Run.Tensor, g.Run.Offset, m.data})
		return nil
	})
}

// sum returns the sum of the models of a group.
func (o *opened) sum(ctx context.Context, g *group) (*partial.Sum, error) {
	dtype, err := checkpoint.ParseDType(g.DType)
	if err != nil {
		return nil, err
	}
	accumulator, err := checkpoint.ParseDType(g.Accumulator)
	if err != nil {
		return nil, err
	}
	s, err := partial.New(dtype, accumulator, int(g.Run.Length)/(dtype.Bits()/8))
	if err != nil {
		return nil, err
	}
	for i, k := range g.Models {
		data, err := o.read(ctx, g, i)
		if err != nil {
			return nil, err
		}
		d, err := checkpoint.ParseDType(g.DTypes[i])
		if err != nil {
			return nil, err
		}
		if err := s.Add(data, d, g.Weights[i]); err != nil {
			return nil, fmt.Errorf("%s: tensor %q: %w", o.job.Models[k], g.Run.Tensor, err)
		}
	}
	return s, nil
}

// read returns the bytes of a run in model i of its group.
func (o *opened) read(ctx context.Context, g *group, i int) ([]byte, error) {
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	m, err := o.model(g.Models[i])
	if err != nil {
		return nil, err
	}
	t, _ := m.Tensor(g.Run.Tensor)
	if got := t.DType.String(); got != g.DTypes[i] {
		return nil, fmt.Errorf("%s: tensor %q: dtype %s, was %s when the plan was made", m.Path(), g.Run.Tensor, got,
			g.DTypes[i])
	}
	to, err := checkpoint.ParseDType(g.DType)
	if err != nil {
		return nil, err
	}
	from, into := int64(t.DType.Bits()), int64(to.Bits())
	p := make([]byte, g.Run.Length*from/into)
	if n, err := m.ReadAt(g.Run.Tensor, p, g.Run.Offset*from/into); n < len(p) {
		if err == nil || errors.Is(err, io.EOF) {
			err = fmt.Errorf("%s: tensor %q: read %d of %d bytes: %w", m.Path(), g.Run.Tensor, n, len(p),
				io.ErrUnexpectedEOF)
		}
		return nil, err
	}
	bytesRead.Inc(ctx, int64(len(p)))
	return p, m.Unchanged()
}

// writePart writes the pieces of a part.
type writePart struct {
	Job Job
}

// ProcessElement writes a part and emits what it has written.
func (f *writePart) ProcessElement(ctx context.Context, part int, pieces func(*piece) bool, emit func(Done)) error {
	return f.Job.use(ctx, func(ctx context.Context, o *opened) (err error) {
		w, err := o.createPart(part)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, w.Close()) }()
		d := Done{Part: part}
		var p piece
		for pieces(&p) {
			if len(p.Data) == 0 {
				continue // the empty one of splitPart
			}
			if _, err := w.WriteAt(p.Tensor, p.Data, p.Offset); err != nil {
				return err
			}
			d.Bytes += int64(len(p.Data))
			p = piece{}
		}
		if err := w.Commit(ctx, nil); err != nil {
			return err
		}
		bytesWritten.Inc(ctx, d.Bytes)
		emit(d)
		return nil
	})
}
