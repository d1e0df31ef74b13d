// Package merge averages model files in fixed memory.
//
// A [Plan] is made first, from the headers alone: which tensors the result has, what happens to each, which files are
// read and with what weight, how many bytes move and how much memory the buffers take. It can be printed and tested
// before a byte of tensor data is read. [Plan.Run] then writes the result, in chunks below the tensor, so that the
// memory does not grow with the models, and returns a [Report].
//
// # What happens to a tensor
//
// Its dtype decides. F64, F32, F16, BF16, F8_E4M3 and F8_E5M2 are averaged. Integers and BOOL are counters, positions
// and masks, of which an average is not a meaningful value of the type: they follow the [IntegerPolicy], and the plan
// and the report name them. Every other dtype is refused by name.
//
// All models must have the same tensors, of equal shape, unless the [KeyPolicy] allows more; a [DifferenceError] names
// everything in which they differ. The dtype of a tensor that is averaged may differ. The result has the metadata of the
// first model.
//
// # Precision
//
// A tensor that has the same dtype in all models and in the result, one of F64, F32, F16 and BF16, gets the bits that
// [modelavg.Mean] or [modelavg.WeightedMean] give for the same slices. In all other cases the models are summed in
// their order, by fused multiply-adds, in float64 if F64 or F32 is among the dtypes of models and result, in float32
// otherwise; a mean is divided by the number of models in that format; and the sum is rounded once to the dtype of the
// result, to nearest even. No element is rounded to a format in between.
//
// # Zero weights
//
// A model of weight zero has no part in the result: its header is compared with the others, which finds a file given
// by mistake, but its data is never read, so that no NaN in it can leak. It is not the source of integers either.
package merge

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"regexp"
	"runtime"
	"slices"

	"github.com/modelavg/modelavg/checkpoint"
	"github.com/modelavg/modelavg/internal/convert"
	"github.com/modelavg/modelavg/weighting"
)

// An Action says what happens to one tensor.
type Action uint8

// The actions.
const (
	Average   Action = iota + 1 // the average of its sources
	CopyLast                    // the bytes of the last source
	CopyFirst                   // the bytes of the first source
	CopyEqual                   // the bytes of all sources, which must be the same
	Max                         // the maximum of its sources
	Sum                         // the sum of its sources
)

var actionNames = map[Action]string{
	Average: "average", CopyLast: "copy-last", CopyFirst: "copy-first", CopyEqual: "copy-equal", Max: "max", Sum: "sum",
}

// String returns the name of the action: "average", "copy-last", "copy-first", "copy-equal", "max" or "sum".
func (a Action) String() string {
	if name, ok := actionNames[a]; ok {
		return name
	}
	return fmt.Sprintf("Action(%d)", uint8(a))
}

// copies reports whether the result is what is read of the first source.
func (a Action) copies() bool { return a == CopyLast || a == CopyFirst || a == CopyEqual }

// A Source is one model of a plan.
type Source struct {
	Path   string
	Weight float64 // its share in the result where no tensor weights and no missing tensors change it
	Bytes  int64   // bytes of tensor data that are read from it
}

// read reports whether any data is read from the source, or would be if it had any.
func (s *Source) read() bool { return s.Weight != 0 || s.Bytes != 0 }

// A Step is one tensor of the result. The slices are shared between steps and must not be changed.
type Step struct {
	Tensor  checkpoint.Tensor // as it is written
	Action  Action
	Sources []int              // the models that are read for it: ascending indices of Plan.Sources
	Weights []float64          // the effective weight of each of them; nil unless averaged
	DTypes  []checkpoint.DType // the dtype in each of them; nil if it is that of Tensor in all
	Bytes   int64              // size of the data that is written

	pattern  *regexp.Regexp // that gave it weights of its own, or nil
	elements int64
	width    int       // bytes of an element, in the widest of its dtypes
	weights  []float64 // as Weights, to calculate with; nil for a mean
}

// dtype returns the dtype in source i of the step.
func (s *Step) dtype(i int) checkpoint.DType {
	if s.DTypes == nil {
		return s.Tensor.DType
	}
	return s.DTypes[i]
}

// mixed reports whether the step is an average for which package modelavg has no function.
func (s *Step) mixed() bool {
	return s.Action == Average && (s.DTypes != nil || !s.Tensor.DType.IsFloat())
}

// An Omission is a tensor of a model that the result does not have.
type Omission struct {
	Tensor string
	Reason string // "excluded", "not in all models" or "in no model that is read"
}

// A Plan describes a merge completely. [Mean] and [WeightedMean] make it; it refers to the opened models, which have to
// stay open until [Plan.Run] returns. Its fields are for reading.
type Plan struct {
	Rule         string // "mean" or "weighted mean"
	Policies     Policies
	Sources      []Source     // in the order given
	Steps        []Step       // in the order of the result file: by dtype, widest alignment first, then by name
	Omissions    []Omission   // sorted by name
	Differences  []Difference // between the models, that the policies allow; model by model
	Metadata     map[string]string
	BytesRead    int64 // tensor data read from all sources
	BytesWritten int64 // tensor data written
	Workers      int   // goroutines that read, average and write
	ChunkBytes   int   // bytes of one tensor that a worker reads from one model at a time
	Memory       int64 // bytes of all buffers while the plan runs

	models []*checkpoint.Model
	create []checkpoint.CreateOption
}

// Mean plans the arithmetic mean of the models: the sum of all, divided by their number, as [modelavg.Mean] does it.
//
// The error is a [DifferenceError] when the models differ in a way that the policies do not allow, an
// [UnsupportedError] when they have a tensor that can be neither averaged nor copied, a [PatternError] for a pattern
// that matches nothing, and wraps [weighting.ErrNoModels] when there are none and [modelavg.ErrOption] for an unknown
// policy.
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
	return newPlan("weighted mean", models, weights, slices.Clone(weights), opts)
}

// checkModels returns an error if one of the models is nil.
func checkModels(models []*checkpoint.Model) error {
	if i := slices.Index(models, nil); i >= 0 {
		return fmt.Errorf("merge: model %d of %d is nil, want an opened one", i, len(models))
	}
	return nil
}

// newPlan makes the plan; shares are the weights to show, weights those to calculate with, nil for a mean.
func newPlan(rule string, models []*checkpoint.Model, shares, weights []float64, opts []Option) (*Plan, error) {
	if err := checkModels(models); err != nil {
		return nil, err
	}
	o, err := gather(len(models), opts)
	if err != nil {
		return nil, err
	}
	p := &Plan{
		Rule: rule, Policies: o.policies, Metadata: models[0].Metadata(), models: slices.Clone(models), create: o.create,
	}
	if o.metadata != nil {
		if p.Metadata == nil {
			p.Metadata = make(map[string]string)
		}
		maps.Copy(p.Metadata, o.metadata)
	}
	for i, m := range models {
		p.Sources = append(p.Sources, Source{Path: m.Path(), Weight: shares[i]})
	}
	c, err := p.compare(o)
	if err != nil {
		return nil, err
	}
	if err := p.addSteps(c, o, weights); err != nil {
		return nil, err
	}
	slices.SortFunc(p.Omissions, func(a, b Omission) int { return cmp.Compare(a.Tensor, b.Tensor) })
	p.count()
	p.size(o)
	return p, nil
}

// compare compares the models and notes what is excluded.
func (p *Plan) compare(o *options) (*comparison, error) {
	include, exclude := newMatcher("include", o.include), newMatcher("exclude", o.exclude)
	kept := make(map[string]bool)
	c, err := compare(o.ctx, p.models, o.policies.Keys, func(name string) bool {
		if len(o.include)+len(o.exclude) == 0 {
			return true
		}
		keep, ok := kept[name]
		if !ok {
			included, excluded := include.first(name) >= 0, exclude.first(name) >= 0
			keep = (included || len(o.include) == 0) && !excluded
			kept[name] = keep
			if !keep {
				p.Omissions = append(p.Omissions, Omission{name, "excluded"})
			}
		}
		return keep
	})
	for _, m := range []*matcher{include, exclude} {
		if unused := m.unused(); unused != nil {
			return nil, unused
		}
	}
	if err != nil {
		return nil, err
	}
	p.Differences = c.allowed
	return c, nil
}

// addSteps decides what happens to every tensor.
func (p *Plan) addSteps(c *comparison, o *options, weights []float64) error {
	patterns := newMatcher("tensor weights", patternsOf(o.rules))
	groups := &groups{weights: weights, rules: o.rules, made: make(map[string]*group)}

	var refused []checkpoint.Tensor
	p.Steps = slices.Grow(p.Steps, len(c.candidates))
	for i := range c.candidates {
		if i%4096 == 4095 && o.ctx.Err() != nil {
			return context.Cause(o.ctx)
		}
		cand := &c.candidates[i]
		name := cand.tensor.Name
		if o.policies.Keys == KeysIntersection && !cand.complete() {
			p.Omissions = append(p.Omissions, Omission{name, "not in all models"})
			continue
		}
		if d := cand.tensor.DType; !convert.IsFloat(d) && !d.IsInteger() {
			refused = append(refused, cand.tensor)
			continue
		}
		rule := patterns.first(name)
		g, err := groups.of(cand, rule)
		if err != nil {
			return err
		}
		if g == nil {
			p.Omissions = append(p.Omissions, Omission{name, "in no model that is read"})
			continue
		}
		s, err := p.newStep(cand, g)
		if err != nil {
			return err
		}
		if rule >= 0 {
			s.pattern = o.rules[rule].pattern
		}
		p.Steps = append(p.Steps, s)
	}
	if refused != nil {
		i := slices.IndexFunc(p.models, func(m *checkpoint.Model) bool {
			_, ok := m.Tensor(refused[0].Name)
			return ok
		})
		return &UnsupportedError{Path: p.models[i].Path(), Tensors: refused}
	}
	if err := patterns.unused(); err != nil {
		return err
	}
	// The order of the result file, which is also that of most inputs: all files are read and written from front to
	// back.
	slices.SortFunc(p.Steps, func(a, b Step) int {
		return cmp.Or(cmp.Compare(b.Tensor.DType, a.Tensor.DType), cmp.Compare(a.Tensor.Name, b.Tensor.Name))
	})
	return nil
}

// newStep makes the step of a tensor that comes from the models of the group.
func (p *Plan) newStep(c *candidate, g *group) (Step, error) {
	s := Step{Tensor: c.tensor, Action: Average, Sources: g.sources, Weights: g.shares, weights: g.weights}
	if s.Tensor.DType.IsInteger() {
		s.Weights, s.weights = nil, nil
		switch p.Policies.Integers {
		case IntegersLast:
			s.Action, s.Sources = CopyLast, g.sources[len(g.sources)-1:]
		case IntegersFirst:
			s.Action, s.Sources = CopyFirst, g.sources[:1]
		case IntegersMax:
			s.Action = Max
		case IntegersSum:
			s.Action = Sum
		case IntegersError:
			s.Action = CopyEqual
		}
	} else if p.Policies.DType != 0 {
		s.Tensor.DType = p.Policies.DType
	}
	s.elements, s.Bytes = s.Tensor.Elements(), s.Tensor.Bytes()
	if s.Bytes < 0 {
		return s, fmt.Errorf("tensor %q: %v: the result would be too large", s.Tensor.Name, s.Tensor.Validate())
	}
	bits := s.Tensor.DType.Bits()
	for i, k := range s.Sources {
		d := c.dtypes[k]
		if d != s.Tensor.DType && s.DTypes == nil {
			s.DTypes = slices.Repeat([]checkpoint.DType{s.Tensor.DType}, len(s.Sources))
		}
		if s.DTypes != nil {
			s.DTypes[i] = d
		}
		bits = max(bits, d.Bits())
	}
	s.width = bits / 8
	return s, nil
}

// count sums the bytes that the steps move.
func (p *Plan) count() {
	for i := range p.Steps {
		s := &p.Steps[i]
		p.BytesWritten += s.Bytes
		for i, k := range s.Sources {
			n := s.elements * int64(s.dtype(i).Bits()/8)
			p.Sources[k].Bytes += n
			p.BytesRead += n
		}
	}
}

// The chunk of one model, and of all models together. Reads of 512 KiB reach the full speed of the page cache; writes of
// more make the system look for larger pages, which it finds among those that were not used for long. A few MiB in all
// stay in the cache of the processor between reading and averaging.
const (
	maxChunkBytes = 512 << 10
	minChunkBytes = 64 << 10
	allChunkBytes = 8 << 20
	pageBytes     = 4 << 10
	alignment     = 64 // a cache line, and a multiple of every element size
)

// size fixes chunk, workers and memory.
func (p *Plan) size(o *options) {
	var largest int64 // bytes of one tensor in one model
	sources, mixed := 1, false
	for i := range p.Steps {
		s := &p.Steps[i]
		largest = max(largest, s.elements*int64(s.width))
		sources = max(sources, len(s.Sources))
		mixed = mixed || s.mixed()
	}
	chunk := o.chunkBytes
	if chunk <= 0 {
		chunk = min(max(allChunkBytes/sources&^(pageBytes-1), minChunkBytes), maxChunkBytes)
	}
	// No buffer is larger than the largest tensor.
	p.ChunkBytes = roundUp(int(min(int64(chunk), max(largest, 1))))

	workers := o.workers
	if workers <= 0 {
		workers = defaultWorkers()
	}
	var chunks int64
	for _, x := range p.pieces() {
		chunks += p.chunks(x)
	}
	p.Workers = int(min(int64(workers), max(chunks, 1)))
	p.Memory = int64(p.Workers) * bufferBytes(sources, p.ChunkBytes, mixed)
}

// defaultWorkers returns how many workers keep all processors busy. A worker waits in reads and writes for a good part of
// the time, and then another one can calculate.
func defaultWorkers() int {
	n := runtime.GOMAXPROCS(0)
	return n + min(n, 4)
}

// roundUp returns the next multiple of alignment.
func roundUp(n int) int { return (n + alignment - 1) &^ (alignment - 1) }

// perChunk returns how many elements of the step a chunk has.
func (p *Plan) perChunk(s *Step) int64 { return int64(p.ChunkBytes / s.width) }

// pieces returns all steps as pieces.
func (p *Plan) pieces() []piece {
	pieces := make([]piece, len(p.Steps))
	for i := range p.Steps {
		pieces[i] = piece{step: i, elements: p.Steps[i].elements}
	}
	return pieces
}

// names returns the names of the tensors with one of the actions, sorted.
func (p *Plan) names(actions ...Action) []string {
	var names []string
	for i := range p.Steps {
		if slices.Contains(actions, p.Steps[i].Action) {
			names = append(names, p.Steps[i].Tensor.Name)
		}
	}
	slices.Sort(names)
	return names
}

// MarshalText returns the name of the action, as String does.
func (a Action) MarshalText() ([]byte, error) { return []byte(a.String()), nil }
