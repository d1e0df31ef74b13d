package merge

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/modelavg/modelavg"
	"github.com/modelavg/modelavg/checkpoint"
	"github.com/modelavg/modelavg/internal/convert"
	"github.com/modelavg/modelavg/weighting"
)

// Errors that a policy asks for. They come wrapped in text that names file, tensor and element.
var (
	// ErrNonFinite reports a NaN or an infinity in a model, under [NonFiniteError].
	ErrNonFinite = errors.New("not a finite number")

	// ErrOverflow reports an average of finite numbers that is too large for its dtype, under [OverflowError].
	ErrOverflow = errors.New("average too large")

	// ErrIntegers reports integers that differ between models, under [IntegersError], and a sum that is out of the range of
	// its dtype, under [IntegersSum].
	ErrIntegers = errors.New("integer policy")
)

// An IntegerPolicy says what becomes of integer and BOOL tensors, of which an average is no value of the type.
type IntegerPolicy string

// The integer policies. Weights have no part in them, except that a model of weight zero is not read.
const (
	IntegersLast  IntegerPolicy = "last"  // copied from the last model that is read: the default
	IntegersFirst IntegerPolicy = "first" // copied from the first model that is read
	IntegersMax   IntegerPolicy = "max"   // the greatest of all, element by element; for BOOL, whether any is true
	IntegersSum   IntegerPolicy = "sum"   // the sum, an error where it overflows; for BOOL, whether any is true
	IntegersError IntegerPolicy = "error" // copied; an error if they are not the same in all models that are read
)

// A KeyPolicy says which tensors the result has when models have different ones.
type KeyPolicy string

// The key policies.
const (
	KeysStrict       KeyPolicy = "strict"       // all models must have the same: the default
	KeysIntersection KeyPolicy = "intersection" // those that all models have
	KeysUnion        KeyPolicy = "union"        // those that any model has: averaged over the models that have them
)

// A NonFinitePolicy says what happens when an element of a model is NaN or infinite.
type NonFinitePolicy string

// The policies for numbers that are not finite. They are counted in any case.
const (
	NonFinitePropagate NonFinitePolicy = "propagate" // they are averaged as IEEE 754 has it: the default
	NonFiniteError     NonFinitePolicy = "error"     // an error
)

// An OverflowPolicy says what happens when models are finite and their average is too large for its dtype.
type OverflowPolicy string

// The overflow policies. Overflows are counted in any case.
const (
	OverflowInf      OverflowPolicy = "inf"      // infinity, or NaN in F8_E4M3, which has no infinities: the default
	OverflowSaturate OverflowPolicy = "saturate" // the largest finite number of the dtype, with the sign
	OverflowError    OverflowPolicy = "error"    // an error
)

// Policies are the rules of a plan for what is not plain averaging.
type Policies struct {
	Integers  IntegerPolicy
	Keys      KeyPolicy
	NonFinite NonFinitePolicy
	Overflow  OverflowPolicy
	DType     checkpoint.DType // of all averaged tensors of the result; zero: each as in the first model that has it
}

// String returns the policies for people, in one line.
func (p Policies) String() string {
	dtype := "as in the first model"
	if p.DType != 0 {
		dtype = p.DType.String()
	}
	return fmt.Sprintf("integers %s, keys %s, non-finite %s, overflow %s, dtype %s",
		p.Integers, p.Keys, p.NonFinite, p.Overflow, dtype)
}

// check fills in the defaults and refuses what is no policy.
func (p *Policies) check() error {
	if p.DType != 0 && !convert.IsFloat(p.DType) {
		return fmt.Errorf("merge: %w: dtype %v, want one of %s", modelavg.ErrOption, p.DType, averagedDTypes)
	}
	return errors.Join(
		choose("integers", &p.Integers, IntegersLast, IntegersFirst, IntegersMax, IntegersSum, IntegersError),
		choose("keys", &p.Keys, KeysStrict, KeysIntersection, KeysUnion),
		choose("non-finite", &p.NonFinite, NonFinitePropagate, NonFiniteError),
		choose("overflow", &p.Overflow, OverflowInf, OverflowSaturate, OverflowError),
	)
}

const averagedDTypes = "F64, F32, F16, BF16, F8_E4M3 and F8_E5M2"

// choose sets *got to the first of the values if it is empty, and returns an error if it is none of them.
func choose[T ~string](name string, got *T, values ...T) error {
	if *got == "" {
		*got = values[0]
	}
	if slices.Contains(values, *got) {
		return nil
	}
	list := make([]string, len(values))
	for i, v := range values {
		list[i] = string(v)
	}
	return fmt.Errorf("merge: %w: %s policy %q, want one of %s", modelavg.ErrOption, name, *got, strings.Join(list, ", "))
}

// An Option changes a plan.
type Option func(*options)

type options struct {
	policies         Policies
	include, exclude []*regexp.Regexp
	rules            []tensorWeights
	metadata         map[string]string
	create           []checkpoint.CreateOption
	workers          int
	chunkBytes       int
	ctx              context.Context
}

// tensorWeights are the weights of the tensors that match.
type tensorWeights struct {
	pattern *regexp.Regexp
	weights []float64
}

// WithIntegers sets what becomes of integer and BOOL tensors.
func WithIntegers(p IntegerPolicy) Option { return func(o *options) { o.policies.Integers = p } }

// WithKeys sets which tensors the result has when models have different ones. Under [KeysUnion] the weights of the
// models that have a tensor are divided by their sum; a mean divides by the number of models that have it.
func WithKeys(p KeyPolicy) Option { return func(o *options) { o.policies.Keys = p } }

// WithNonFinite sets what happens when an element of a model is NaN or infinite.
func WithNonFinite(p NonFinitePolicy) Option { return func(o *options) { o.policies.NonFinite = p } }

// WithOverflow sets what happens when an average of finite numbers is too large for its dtype.
func WithOverflow(p OverflowPolicy) Option { return func(o *options) { o.policies.Overflow = p } }

// WithDType sets the dtype of all averaged tensors of the result: F64, F32, F16, BF16, F8_E4M3 or F8_E5M2. Without it,
// each has that of the first model that has it.
func WithDType(d checkpoint.DType) Option { return func(o *options) { o.policies.DType = d } }

// WithInclude leaves out of the result all tensors whose name matches none of the patterns. They are not compared
// either. A pattern that matches no tensor of any model is a [PatternError].
func WithInclude(patterns ...*regexp.Regexp) Option {
	return func(o *options) { o.include = append(o.include, patterns...) }
}

// WithExclude leaves out of the result all tensors whose name matches one of the patterns, also those that
// [WithInclude] asks for. They are not compared either. A pattern that matches no tensor of any model is a
// [PatternError].
func WithExclude(patterns ...*regexp.Regexp) Option {
	return func(o *options) { o.exclude = append(o.exclude, patterns...) }
}

// WithTensorWeights gives the tensors whose name matches the pattern weights of their own, one for each model, which
// must be as [WeightedMean] wants them. It may be used several times; for a tensor the first pattern that matches
// counts. A pattern that no tensor of the result matches is a [PatternError].
func WithTensorWeights(pattern *regexp.Regexp, weights ...float64) Option {
	rule := tensorWeights{pattern, slices.Clone(weights)}
	return func(o *options) { o.rules = append(o.rules, rule) }
}

// WithMetadata adds to the metadata of the result, which is that of the first model; it replaces values of the same key.
func WithMetadata(metadata map[string]string) Option {
	metadata = maps.Clone(metadata)
	return func(o *options) {
		if o.metadata == nil {
			o.metadata = make(map[string]string)
		}
		maps.Copy(o.metadata, metadata)
	}
}

// WithCreateOptions sets how package checkpoint writes the result.
func WithCreateOptions(opts ...checkpoint.CreateOption) Option {
	return func(o *options) { o.create = append(o.create, opts...) }
}

// WithContext makes the planning stop when ctx is done: the error is its cause. It has no meaning for [Plan.Run], which has
// a context of its own.
func WithContext(ctx context.Context) Option { return func(o *options) { o.ctx = ctx } }

// WithWorkers sets how many goroutines read, average and write. Zero or less, the default, means GOMAXPROCS and up to
// four more, since they wait for files a part of the time. A plan uses no more than it has chunks. It changes no byte of
// the result.
func WithWorkers(n int) Option { return func(o *options) { o.workers = n } }

// WithChunkBytes sets how many bytes of a tensor are read from one model at a time; it is rounded up to a multiple of
// 64. Zero or less, the default, means 512 KiB for up to 16 models and less for more, at least 64 KiB, so that the chunks
// of all models together stay in the cache. The buffers of a run take this times the models that are read, and one,
// times the workers. It changes no byte of the result.
func WithChunkBytes(n int) Option { return func(o *options) { o.chunkBytes = n } }

// gather puts the options together.
func gather(models int, opts []Option) (*options, error) {
	o := new(options)
	for _, opt := range opts {
		opt(o)
	}
	if o.ctx == nil {
		o.ctx = context.Background()
	}
	if err := o.policies.check(); err != nil {
		return nil, err
	}
	for _, list := range []struct {
		option   string
		patterns []*regexp.Regexp
	}{{"include", o.include}, {"exclude", o.exclude}, {"tensor weights", patternsOf(o.rules)}} {
		if i := slices.Index(list.patterns, nil); i >= 0 {
			return nil, fmt.Errorf("merge: %w: %s: pattern %d is nil", modelavg.ErrOption, list.option, i)
		}
	}
	for _, r := range o.rules {
		if err := weighting.Check(r.weights, models); err != nil {
			return nil, fmt.Errorf("weights of tensors %q: %w", r.pattern, err)
		}
	}
	return o, nil
}

// patternsOf returns the patterns of the rules.
func patternsOf(rules []tensorWeights) []*regexp.Regexp {
	patterns := make([]*regexp.Regexp, len(rules))
	for i, r := range rules {
		patterns[i] = r.pattern
	}
	return patterns
}

// A PatternError reports a pattern that matches no tensor.
type PatternError struct {
	Option  string // "include", "exclude" or "tensor weights"
	Pattern string
}

// Error names the option and its pattern.
func (e *PatternError) Error() string {
	return fmt.Sprintf("%s: pattern %q matches no tensor", e.Option, e.Pattern)
}

// A matcher is a list of patterns that remembers which of them have matched.
type matcher struct {
	option   string
	patterns []*regexp.Regexp
	used     []bool
}

func newMatcher(option string, patterns []*regexp.Regexp) *matcher {
	return &matcher{option, patterns, make([]bool, len(patterns))}
}

// first returns the index of the first pattern that matches, or -1. It tries them all: a pattern of which every tensor
// is taken by an earlier one is no mistake in spelling.
func (m *matcher) first(name string) int {
	first := -1
	for i, p := range m.patterns {
		if p.MatchString(name) {
			m.used[i] = true
			if first < 0 {
				first = i
			}
		}
	}
	return first
}

// unused returns a PatternError for the first pattern that has matched nothing.
func (m *matcher) unused() error {
	if i := slices.Index(m.used, false); i >= 0 {
		return &PatternError{m.option, m.patterns[i].String()}
	}
	return nil
}
