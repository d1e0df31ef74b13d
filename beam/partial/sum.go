// Package partial holds sums of some of the models, to be merged where they meet and rounded once, at the end.
//
// A [Sum] is what a worker that has read some of the models hands on to another. It holds, for a run of elements of one
// tensor, Σ w·x over its models in the accumulator format, which is one wider than that of the elements, and Σ w. Sums
// of the same run are merged in any order; [Sum.Round] divides and rounds to the dtype of the average, once.
//
// # How much the order matters
//
// Additions in an accumulator round, so that the order in which sums are merged may change the last bits of it. Every
// term passes through at most K roundings, for K models, in whatever order (one for its product, one for each of K−1
// additions), so that a sum differs from the exact one by at most
//
//	γ(K)·Σ|w·x|,  γ(K) = K·u/(1−K·u),  u = 2⁻⁵³ in float64 and 2⁻²⁴ in float32
//
// (N. J. Higham, "Accuracy and Stability of Numerical Algorithms", second edition, 2002, section 4.2), as long as no
// product underflows. Two orders differ by at most twice that. A sum of float32 elements is so exact that its order
// shows only where it lies within that distance of the middle between two float32: there the neighbor may come out. If
// all models are added to one Sum in their order, the bits are those of packages modelavg and merge; those of [Sum.Mean]
// if float64 has the sum of the weights exactly, as it does for numbers of models and of samples. The sum of other
// weights is rounded as well.
package partial

import (
	"fmt"
	"math"
	"slices"

	"github.com/modelavg/modelavg/checkpoint"
	"github.com/modelavg/modelavg/internal/convert"
	"github.com/modelavg/modelavg/kernel"
)

// A Sum is the weighted sum of some models over a run of elements. The zero value is the empty sum of no format: merged
// with another, it becomes equal to that. A Sum must not be used from several goroutines at once.
type Sum struct {
	dtype  checkpoint.DType // of the average
	models int64
	weight float64

	// The accumulators: one of the two, the other is nil.
	wide   []float64
	narrow []float32
}

// Accumulator returns the format in which elements of the dtypes are summed: F64 if F64 or F32 is among them, F32
// otherwise.
func Accumulator(dtypes ...checkpoint.DType) checkpoint.DType {
	if slices.Contains(dtypes, checkpoint.F64) || slices.Contains(dtypes, checkpoint.F32) {
		return checkpoint.F64
	}
	return checkpoint.F32
}

// New returns the empty sum of n elements for an average of the given dtype, which is one of F64, F32, F16, BF16,
// F8_E4M3 and F8_E5M2. The format of the accumulators is F64 or F32, as [Accumulator] has it for the dtypes of all
// models and of the average: sums in different formats cannot be merged.
func New(dtype, accumulator checkpoint.DType, n int) (*Sum, error) {
	s := &Sum{dtype: dtype}
	switch {
	case !convert.IsFloat(dtype):
		return nil, fmt.Errorf("partial: a sum of dtype %v, want a float of 8 bits or more", dtype)
	case n < 0:
		return nil, fmt.Errorf("partial: a sum of %d elements, want 0 or more", n)
	case accumulator == checkpoint.F64:
		s.wide = make([]float64, n)
		fill(s.wide, math.Copysign(0, -1)) // −0 + x is x, also where x is −0
	case accumulator == checkpoint.F32 && Accumulator(dtype) == checkpoint.F32:
		s.narrow = make([]float32, n)
		fill(s.narrow, float32(math.Copysign(0, -1)))
	default:
		return nil, fmt.Errorf("partial: a sum of dtype %v in accumulators of %v, want %v", dtype, accumulator,
			Accumulator(dtype))
	}
	return s, nil
}

func fill[T any](p []T, x T) {
	for i := range p {
		p[i] = x
	}
}

// Len returns the number of elements.
func (s *Sum) Len() int { return len(s.wide) + len(s.narrow) }

// DType returns the dtype of the average, or zero for the zero Sum.
func (s *Sum) DType() checkpoint.DType { return s.dtype }

// Accumulator returns the format of the accumulators, F64 or F32, or zero for the zero Sum.
func (s *Sum) Accumulator() checkpoint.DType {
	switch {
	case s.dtype == 0:
		return 0
	case s.wide != nil:
		return checkpoint.F64
	}
	return checkpoint.F32
}

// Models returns how many models have been added, here and in what was merged.
func (s *Sum) Models() int64 { return s.models }

// Weight returns the sum of their weights, in float64.
func (s *Sum) Weight() float64 { return s.weight }

// Add adds w times a model: every element is fma(w, x, sum), as [kernel.AccumulateFloat32] and its like do it. The data
// is little-endian elements of the dtype, which may be another than that of the average, and is not kept.
//
// Accumulators of F32 take a weight rounded to float32, also into the sum of the weights. A weight of zero, also one that
// becomes zero in float32, adds nothing: neither what is not finite in the model nor the model to their number.
//
// It is an error, and the sum is as it was, if the data is not Len elements, if w is not finite in the format of the
// accumulators, or if the dtype is no float or too wide for them.
func (s *Sum) Add(data []byte, dtype checkpoint.DType, w float64) error {
	used := s.inAccumulator(w)
	switch {
	case s.dtype == 0:
		return fmt.Errorf("partial: a model is added to the zero Sum, want one that New has made")
	case !convert.IsFloat(dtype):
		return fmt.Errorf("partial: a model of dtype %v, want a float of 8 bits or more", dtype)
	case s.wide == nil && Accumulator(dtype) != checkpoint.F32:
		return fmt.Errorf("partial: a model of dtype %v for accumulators of F32, want them to be F64", dtype)
	case math.IsNaN(used) || math.IsInf(used, 0):
		return fmt.Errorf("partial: the weight of a model is %v, want a number that is finite in %v", w,
			s.Accumulator())
	case len(data) != s.Len()*dtype.Bits()/8:
		return fmt.Errorf("partial: a model of %d bytes, want %d: %d elements of %v", len(data),
			s.Len()*dtype.Bits()/8, s.Len(), dtype)
	}
	if used == 0 {
		return nil
	}
	if s.wide != nil {
		addTiles(s.wide, data, dtype, used, addWide)
	} else {
		addTiles(s.narrow, data, dtype, used, addNarrow)
	}
	s.models++
	s.weight += used
	return nil
}

// inAccumulator returns x rounded to the format of the accumulators.
func (s *Sum) inAccumulator(x float64) float64 {
	if s.wide != nil {
		return x
	}
	return float64(float32(x))
}

// Merge adds the models of another sum, which is not changed: every element is the sum of the two, rounded in the
// accumulator format. It is an error, and s is as it was, if the two differ in length, dtype or format, or if other is
// nil.
func (s *Sum) Merge(other *Sum) error {
	switch {
	case other == nil:
		return fmt.Errorf("partial: merge of nil, want a sum")
	case other.dtype == 0:
		return nil
	case s.dtype == 0:
		*s = *other
		s.wide, s.narrow = slices.Clone(other.wide), slices.Clone(other.narrow)
		return nil
	case s.dtype != other.dtype || s.Accumulator() != other.Accumulator() || s.Len() != other.Len():
		return fmt.Errorf("partial: merge of %d elements of %v in %v, want %d of %v in %v", other.Len(), other.dtype,
			other.Accumulator(), s.Len(), s.dtype, s.Accumulator())
	case other.models > math.MaxInt64-s.models:
		return fmt.Errorf("partial: merge of %d and %d models, want %d at most", s.models, other.models, math.MaxInt64)
	}
	if s.wide != nil {
		kernel.AccumulateFloat64(s.wide, other.wide, 1) // fma(1, x, sum) is x + sum
	} else {
		kernel.WeightedSumFloat32Native(s.narrow, [][]float32{s.narrow, other.narrow}, []float64{1, 1})
	}
	s.models += other.models
	s.weight += other.weight
	return nil
}

// Mean returns the sum divided by its weight, as [Sum.Round] does. A weight of zero, as that of no models, and one that
// is not finite in the format of the accumulators are errors.
func (s *Sum) Mean() ([]byte, error) {
	if !s.divides(s.weight) {
		return nil, fmt.Errorf("partial: the weights of %d models have the sum %v, want one that is finite in %v and not "+
			"zero", s.models, s.weight, s.Accumulator())
	}
	return s.Round(s.weight)
}

// divides reports whether a divisor is another number than zero in the format of the accumulators.
func (s *Sum) divides(divisor float64) bool {
	d := s.inAccumulator(divisor)
	return d != 0 && !math.IsNaN(d) && !math.IsInf(d, 0)
}

// Round returns the sum divided by the divisor, in the accumulator format, and rounded once to the dtype of the
// average, to nearest even: little-endian elements. The divisor is 1 for a weighted mean whose weights sum to one, and
// for a mean the number of its models, each added with weight 1. No models are an error, and so is a divisor that is zero
// or not finite in that format.
func (s *Sum) Round(divisor float64) ([]byte, error) {
	switch {
	case s.models == 0:
		return nil, fmt.Errorf("partial: a sum of no models has no average")
	case !s.divides(divisor):
		return nil, fmt.Errorf("partial: a sum is divided by %v, want a number that is finite in %v and not zero",
			divisor, s.Accumulator())
	}
	out := make([]byte, s.Len()*s.dtype.Bits()/8)
	if s.wide != nil {
		roundTiles(out, s.wide, s.dtype, divisor, roundWide)
	} else {
		roundTiles(out, s.narrow, s.dtype, divisor, roundNarrow)
	}
	return out, nil
}
