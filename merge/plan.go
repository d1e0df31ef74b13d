// Package merge averages model files in fixed memory.
//
// A [Plan] is made first, from the headers alone: which tensors the result has, what happens to each, which files are
// read and with what weight, how many bytes move and how much memory the buffers take. It can be printed and tested
// before a byte of tensor data is read. [Plan.Run] then writes the result, in chunks below the tensor, so that the
// memory does not grow with the models.
//
// # What happens to a tensor
//
// Its dtype decides. F64, F32, F16 and BF16 are averaged: in the accumulator format of package modelavg, rounded once
// to the same dtype, so that a tensor of a file gets the bits that [modelavg.Mean] or [modelavg.WeightedMean] give for
// the same slices. Integers and BOOL are counters, positions and masks, of which an average is not a meaningful value
// of the type: they are copied from the last model that is read, and the plan and the report name them. Every other
// dtype is refused by name.
//
// All models must have the same tensors, of equal dtype and shape; a [DifferenceError] names everything in which they
// differ. The result has the metadata of the first model.
//
// # Zero weights
//
// A model of weight zero has no part in the result: its header is compared with the others, which finds a file given
// by mistake, but its data is never read, so that no NaN in it can leak. It is not the source of copied tensors either.
package merge

import (
	"cmp"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"github.com/modelavg/modelavg/checkpoint"
	"github.com/modelavg/modelavg/weighting"
)

// An Action says what happens to one tensor.
type Action uint8

// The actions.
const (
	Average  Action = iota + 1 // the average of all models that are read
	CopyLast                   // the bytes of the last model that is read
)

// String returns "average" or "copy-last".
func (a Action) String() string {
	switch a {
	case Average:
		return "average"
	case CopyLast:
		return "copy-last"
	}
	return fmt.Sprintf("Action(%d)", uint8(a))
}

// A Source is one model of a plan.
type Source struct {
	Path   string
	Weight float64 // its share in the result; zero: the data is not read
	Bytes  int64   // bytes of tensor data that are read from it
}

// A Step is one tensor of the result.
type Step struct {
	Tensor checkpoint.Tensor
	Action Action
	Bytes  int64 // size of the tensor's data
}

// A Plan describes a merge completely. [Mean] and [WeightedMean] make it; it refers to the opened models, which have to
// stay open until [Plan.Run] returns. Its fields are for reading.
type Plan struct {
	Rule         string   // "mean" or "weighted mean"
	Sources      []Source // in the order given
	Steps        []Step   // in the order of the result file: by dtype, widest alignment first, then by name
	Metadata     map[string]string
	BytesRead    int64 // tensor data read from all sources
	BytesWritten int64 // tensor data written
	Workers      int   // goroutines that read, average and write
	ChunkBytes   int   // bytes of one tensor that a worker reads from one model at a time
	Memory       int64 // bytes of all buffers while the plan runs

	opened  []*checkpoint.Model // all models
	models  []*checkpoint.Model // those that are read, in order
	weights []float64           // theirs; nil for a mean
}

// An Option changes how a plan is run. No option changes a byte of the result.
type Option func(*options)

type options struct {
	workers    int
	chunkBytes int
}

// WithWorkers sets how many goroutines read, average and write. Zero or less, the default, means GOMAXPROCS. A plan
// uses no more than it has chunks.
func WithWorkers(n int) Option { return func(o *options) { o.workers = n } }

// WithChunkBytes sets how many bytes of a tensor are read from one model at a time; it is rounded up to a multiple of
// 64. Zero or less, the default, means 1 MiB for up to 8 models and less for more, at least 64 KiB, so that the chunks
// of all models together stay in the cache. The buffers of a run take this times the models that are read times the
// workers.
func WithChunkBytes(n int) Option { return func(o *options) { o.chunkBytes = n } }

// Mean plans the arithmetic mean of the models: the sum of all, divided by their number, as [modelavg.Mean] does it.
//
// The error is a [DifferenceError] when the models differ in their tensors, an [UnsupportedError] when they have a
// tensor that can be neither averaged nor copied, and wraps [weighting.ErrNoModels] when there are none.
func Mean(models []*checkpoint.Model, opts ...Option) (*Plan, error) {
	shares, err := weighting.Uniform(len(models))
	if err != nil {
		return nil, err
	}
	return newPlan("mean", models, shares, nil, opts)
}

// WeightedMean plans the sum of the models, each multiplied by its weight, as [modelavg.WeightedMean] does it. The
// weights must be finite, one for each model, and sum to one, as [weighting.Check] has it. A model of weight zero is not
// read.
//
// Errors are those of [Mean], and for the weights those of [weighting.Check].
func WeightedMean(models []*checkpoint.Model, weights []float64, opts ...Option) (*Plan, error) {
	if err := weighting.Check(weights, len(models)); err != nil {
		return nil, err
	}
	return newPlan("weighted mean", models, weights, weights, opts)
}

// newPlan makes the plan; shares are the weights to show, weights those to calculate with, nil for a mean.
func newPlan(rule string, models []*checkpoint.Model, shares, weights []float64, opts []Option) (*Plan, error) {
	var o options
	for _, opt := range opts {
		opt(&o)
	}
	if err := compare(models); err != nil {
		return nil, err
	}
	p := &Plan{Rule: rule, Metadata: models[0].Metadata(), opened: slices.Clone(models)}
	if err := p.addSteps(models[0]); err != nil {
		return nil, err
	}
	for i, m := range models {
		p.Sources = append(p.Sources, Source{Path: m.Path(), Weight: shares[i]})
		if shares[i] == 0 {
			continue
		}
		p.models = append(p.models, m)
		if weights != nil {
			p.weights = append(p.weights, weights[i])
		}
	}
	p.count()
	p.size(o)
	return p, nil
}

// addSteps decides the action for every tensor of the model.
func (p *Plan) addSteps(m *checkpoint.Model) error {
	var refused []checkpoint.Tensor
	for _, t := range m.Tensors() {
		action, ok := actionFor(t.DType)
		if !ok {
			refused = append(refused, t)
			continue
		}
		p.Steps = append(p.Steps, Step{Tensor: t, Action: action, Bytes: t.Bytes()})
	}
	if refused != nil {
		return &UnsupportedError{Path: m.Path(), Tensors: refused}
	}
	// The order of the result file, which is also that of most inputs: all files are read and written from front to
	// back.
	slices.SortFunc(p.Steps, func(a, b Step) int {
		return cmp.Or(cmp.Compare(b.Tensor.DType, a.Tensor.DType), cmp.Compare(a.Tensor.Name, b.Tensor.Name))
	})
	return nil
}

// actionFor returns what is done with tensors of the dtype, and whether anything can be.
func actionFor(d checkpoint.DType) (Action, bool) {
	switch {
	case d.IsFloat():
		return Average, true
	case d.IsInteger():
		return CopyLast, true
	}
	return 0, false
}

// count sums the bytes that the steps move.
func (p *Plan) count() {
	last := p.lastRead()
	for _, s := range p.Steps {
		p.BytesWritten += s.Bytes
		for i := range p.Sources {
			if s.Action == Average && p.Sources[i].Weight != 0 || s.Action == CopyLast && i == last {
				p.Sources[i].Bytes += s.Bytes
				p.BytesRead += s.Bytes
			}
		}
	}
}

// lastRead returns the index of the last source with a weight.
func (p *Plan) lastRead() int {
	i := len(p.Sources) - 1
	for p.Sources[i].Weight == 0 {
		i--
	}
	return i
}

// The chunk of one model, and of all models together. Reads of 1 MiB reach the full speed of the page cache; a few MiB
// in all stay in the cache of the processor between reading and averaging.
const (
	maxChunkBytes = 1 << 20
	minChunkBytes = 64 << 10
	allChunkBytes = 8 << 20
	pageBytes     = 4 << 10
	alignment     = 64 // a cache line, and a multiple of every element size
)

// size fixes chunk, workers and memory.
func (p *Plan) size(o options) {
	chunk := o.chunkBytes
	if chunk <= 0 {
		chunk = min(max(allChunkBytes/len(p.models)&^(pageBytes-1), minChunkBytes), maxChunkBytes)
	}
	var largest int64
	for _, s := range p.Steps {
		largest = max(largest, s.Bytes)
	}
	// No buffer is larger than the largest tensor.
	p.ChunkBytes = roundUp(int(min(int64(chunk), max(largest, 1))))

	workers := o.workers
	if workers <= 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	var chunks int64
	for _, s := range p.Steps {
		chunks += p.chunks(s)
	}
	p.Workers = int(min(int64(workers), max(chunks, 1)))
	p.Memory = int64(p.Workers) * int64(len(p.models)) * int64(p.ChunkBytes)
}

// roundUp returns the next multiple of alignment.
func roundUp(n int) int { return (n + alignment - 1) &^ (alignment - 1) }

// chunks returns in how many chunks the step is done.
func (p *Plan) chunks(s Step) int64 {
	return (s.Bytes + int64(p.ChunkBytes) - 1) / int64(p.ChunkBytes)
}

// names returns the names of the tensors with this action, sorted.
func (p *Plan) names(a Action) []string {
	var names []string
	for _, s := range p.Steps {
		if s.Action == a {
			names = append(names, s.Tensor.Name)
		}
	}
	slices.Sort(names)
	return names
}

// Weights returns the effective weights for people: one line for each source, its weight and its path.
func (p *Plan) Weights() string {
	var b strings.Builder
	for _, s := range p.Sources {
		fmt.Fprintf(&b, "weight %-11.6g %s", s.Weight, s.Path)
		if s.Weight == 0 {
			b.WriteString(" (not read)")
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// String returns the plan for people: the rule, the effective weights, what happens to how many tensors, the bytes that
// move and the memory that it takes, in several lines.
func (p *Plan) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s of %s\n%s", p.Rule, plural(len(p.Sources), "model"), p.Weights())
	b.WriteString(tensorCounts(len(p.names(Average)), p.names(CopyLast), p.Sources[p.lastRead()].Path))
	fmt.Fprintf(&b, "\nreads %s, writes %s, with %s of buffers (%s, chunks of %s)\n",
		formatBytes(p.BytesRead), formatBytes(p.BytesWritten), formatBytes(p.Memory),
		plural(p.Workers, "worker"), formatBytes(int64(p.ChunkBytes)))
	return b.String()
}
