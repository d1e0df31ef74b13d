package modelavg

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/modelavg/modelavg/internal/exact"
	"github.com/modelavg/modelavg/kernel"
)

// An Accumulator is a weighted mean whose models come one at a time, as in federated averaging: what it keeps is one
// sum, however many models are added.
//
//	sum ← sum + weight·model      Add
//	mean = sum / Σ weight         Mean
//
// # Exactness
//
// The sum is held in the accumulator format of the element (see [Accumulation]): float64 for float32 and float64,
// float32 for 16-bit elements. Add is one fused multiply-add for every element, in the order of the calls, and Mean
// divides once in that format and rounds once to T. The sum of the weights is exact, and rounded once to the
// accumulator format when Mean divides by it. Therefore, after models have been added in some order and nothing else
// has been done,
//
//   - with weights of one, the result has the bits of the function [Mean] for the same models;
//   - with any weights, it has the bits of [WeightedSum] if the divisor is one: if the weights sum to one exactly, or
//     to a number that rounds to one. Otherwise it is that sum, before it was rounded, divided by the sum of the
//     weights;
//   - if all models are the same and the weights positive, the result is that model, for up to 2²⁷ models in float32
//     and 4,000 in 16 bits, unless a sum overflows or its terms underflow.
//
// The order of the calls of Add, and how sums are merged, is seen in the last bits of the sum, as in every sum of
// floating-point numbers. An Accumulator made with WithAccumulation([Exact]) has no such order.
//
// # Weights
//
// A weight is a number of samples, or any other finite number; negative ones extrapolate, or take a model out again
// that was added before (without rounding only under [Exact]). A float32 accumulator takes a weight rounded to float32,
// also into the sum of the weights. A weight of zero, also one that becomes zero in float32, adds nothing: the model is
// not read, and not counted.
//
// NaNs and infinities in a model are added like other numbers, and stay. [CheckFinite] finds them before.
//
// # Use by several goroutines
//
// One goroutine at a time may use an Accumulator, methods that seem to read only included. [Sharded] is for several.
//
// The zero Accumulator has no elements; [Accumulator.UnmarshalBinary] gives it some.
type Accumulator[T Element] struct {
	n       int
	count   int // models added
	workers int
	weights exact.Sum

	// The sums are in one of these.
	wide   []float64
	narrow []float32
	exact  *exact.Vector
}

// NewAccumulator returns an Accumulator of n elements to which nothing has been added.
//
// It takes [WithWorkers], for Add, Mean and, unless it is exact, Merge, and [WithAccumulation] with
// [DefaultAccumulation], with what the element type's default is ([Wider], but for float64 [Native]), or with [Exact].
// It allocates 8 bytes for every element of float32 or float64 and 4 for those of 16 bits; with Exact, Add allocates.
// The error wraps [ErrLength] unless n is at least 0, or [ErrOption].
func NewAccumulator[T Element](n int, options ...Option) (*Accumulator[T], error) {
	if n < 0 || n > maxElements {
		return nil, fmt.Errorf("modelavg: %w: got n = %d, want 0 to %d", ErrLength, n, int64(maxElements))
	}
	s, isExact, err := gatherAccumulator[T](options)
	if err != nil {
		return nil, err
	}
	a := &Accumulator[T]{n: n, workers: s.workers}
	switch {
	case isExact:
		a.exact = exact.NewVector(n)
	case accumulatesInFloat32[T](DefaultAccumulation):
		a.narrow = make([]float32, n)
	default:
		a.wide = make([]float64, n)
	}
	a.Reset()
	return a, nil
}

// gatherAccumulator is gather for an accumulator.
func gatherAccumulator[T Element](options []Option) (s settings, isExact bool, err error) {
	accumulation := DefaultAccumulation
	rest := make([]Option, 0, len(options))
	for _, o := range options {
		if o.kind == accumulationOption {
			accumulation = Accumulation(o.value)
		} else {
			rest = append(rest, o)
		}
	}
	if s, err = gather(rest); err != nil {
		return s, false, err
	}
	var refused, want string
	switch any(*new(T)).(type) {
	case float32:
		refused, want = "Native", "Wider"
	case float64:
		refused, want = "Wider", "Native"
	}
	switch {
	case accumulation > Exact:
		return s, false, fmt.Errorf("modelavg: %w: got accumulation %d, want one of the constants",
			ErrOption, accumulation)
	case accumulation == Native && refused == "Native", accumulation == Wider && refused == "Wider":
		return s, false, fmt.Errorf("modelavg: %w: got accumulation %s, want %s or Exact for running sums of %T",
			ErrOption, refused, want, *new(T))
	}
	return s, accumulation == Exact, nil
}

// Add adds a model with the given weight, which may be any finite number; with weight zero it does nothing.
//
// The model must be as long as the accumulator. It is only read, and not kept. Without [WithWorkers] the call does not
// allocate, but for [Exact] sums that need more digits than before. The error wraps [ErrLength] or, for a weight that
// is NaN, infinite or too large for the accumulator, [ErrWeight]; the sum is then as it was.
func (a *Accumulator[T]) Add(model []T, weight float64) error {
	if len(model) != a.n {
		return fmt.Errorf("modelavg: %w: the model has %d elements, want %d as in the accumulator",
			ErrLength, len(model), a.n)
	}
	if math.IsNaN(weight) || math.IsInf(weight, 0) {
		return fmt.Errorf("modelavg: %w: got %v, want a finite number", ErrWeight, weight)
	}
	used := rounded(weight, a.inFloat32())
	switch {
	case used == 0:
		return nil
	case math.IsInf(used, 0):
		return fmt.Errorf("modelavg: %w: got %v, want at most %v, for sums in float32",
			ErrWeight, weight, math.MaxFloat32)
	}
	if a.exact != nil {
		a.exact.Begin()
	}
	if workers := a.parts(); workers > 1 {
		a.addParallel(model, used, workers)
	} else {
		a.add(model, used, 0, a.n)
	}
	if a.exact != nil {
		a.exact.End()
	}
	a.weights.Add(used)
	a.count++
	return nil
}

// Merge adds all that has been added to other, which is left as it is.
//
// Both must have as many elements, and both or none must be [Exact]. An element of the sum is the sum of the two,
// rounded once unless it is exact. The call does not allocate, but as Add does. The error wraps [ErrLength] or
// [ErrMerge], also for other == nil and an accumulator that is merged with itself; the sum is then as it was.
func (a *Accumulator[T]) Merge(other *Accumulator[T]) error {
	switch {
	case other == nil || other == a:
		return fmt.Errorf("modelavg: %w: got nil or the accumulator itself, want another one", ErrMerge)
	case other.n != a.n:
		return fmt.Errorf("modelavg: %w: the other accumulator has %d elements, want %d", ErrLength, other.n, a.n)
	case other.isExact() != a.isExact():
		return fmt.Errorf("modelavg: %w: got one that is exact and one that is not, want two of a kind", ErrMerge)
	case other.count > math.MaxInt-a.count:
		return fmt.Errorf("modelavg: %w: got %d and %d models, want at most %d",
			ErrMerge, a.count, other.count, math.MaxInt)
	case other.count == 0:
		return nil
	}
	if a.exact != nil {
		a.exact.Merge(other.exact)
	} else if workers := a.parts(); workers > 1 {
		a.mergeParallel(other, workers)
	} else {
		a.merge(other, 0, a.n)
	}
	a.weights.Merge(&other.weights)
	a.count += other.count
	return nil
}

// Mean sets dst to the sum divided by the sum of the weights. The sum stays, and more models can be added.
//
// dst must be as long as the accumulator; it may be a model that has been added. Without [WithWorkers] the call does
// not allocate. The error wraps [ErrLength], [ErrNoWeight] if the weights sum to zero or there are none, or [ErrWeight]
// if their sum is too large for the accumulator; dst is then as it was.
func (a *Accumulator[T]) Mean(dst []T) error {
	if len(dst) != a.n {
		return fmt.Errorf("modelavg: %w: dst has %d elements, want %d as in the accumulator",
			ErrLength, len(dst), a.n)
	}
	var d divisor
	if !a.weights.Divisor(&d.exact) {
		return fmt.Errorf("modelavg: %w: got a sum of weights of zero, of %d models", ErrNoWeight, a.count)
	}
	if a.exact == nil {
		format := exact.Binary64
		if a.inFloat32() {
			format = exact.Binary32
		}
		if d.rounded = a.weights.Round(format); math.IsInf(d.rounded, 0) {
			return fmt.Errorf("modelavg: %w: got a sum of %d weights beyond ±2^%d, the range of the accumulator",
				ErrWeight, a.count, format.Most+1)
		}
	}
	if workers := a.parts(); workers > 1 {
		a.meanParallel(dst, d, workers)
	} else {
		a.mean(dst, &d, 0, a.n)
	}
	return nil
}

// A divisor is the sum of the weights, exact and rounded to the accumulator format.
type divisor struct {
	exact   exact.Divisor
	rounded float64
}

// Len returns the number of elements of a model.
func (a *Accumulator[T]) Len() int { return a.n }

// Weight returns the sum of the weights that have been added, as the accumulator took them, rounded once to float64.
func (a *Accumulator[T]) Weight() float64 { return a.weights.Round(exact.Binary64) }

// Count returns how many models have been added, those of weight zero not included. One that was taken out with a
// negative weight has been added twice.
func (a *Accumulator[T]) Count() int { return a.count }

// Reset makes the accumulator one to which nothing has been added. It keeps the memory.
func (a *Accumulator[T]) Reset() {
	a.count = 0
	a.weights = exact.Sum{}
	switch {
	case a.exact != nil:
		a.exact.Reset()
	case a.inFloat32():
		fillSums(a.narrow, float32(math.Copysign(0, -1)))
	default:
		fillSums(a.wide, math.Copysign(0, -1))
	}
}

// fillSums sets every element of s to v: −0, from which the first fused multiply-add gives the product itself, the sign
// of a zero included.
func fillSums[A float32 | float64](s []A, v A) {
	for i := range s {
		s[i] = v
	}
}

func (a *Accumulator[T]) isExact() bool { return a.exact != nil }

// inFloat32 reports whether the sums are held in float32.
func (a *Accumulator[T]) inFloat32() bool {
	return a.exact == nil && accumulatesInFloat32[T](DefaultAccumulation)
}

// ---- a range of elements, which begins at a multiple of exact.BlockSize

// add adds weight·model to the elements [low, high).
func (a *Accumulator[T]) add(model []T, weight float64, low, high int) {
	model = model[low:high:high]
	switch {
	case a.exact != nil:
		addExact(a.exact, model, weight, low)
		return
	case a.inFloat32():
		sum := a.narrow[low:high:high]
		switch any(*new(T)).(type) {
		case Float16:
			kernel.AccumulateFloat16(sum, cast[uint16](model), weight)
		case BFloat16:
			kernel.AccumulateBFloat16(sum, cast[uint16](model), weight)
		}
		return
	}
	sum := a.wide[low:high:high]
	switch any(*new(T)).(type) {
	case float32:
		kernel.AccumulateFloat32(sum, cast[float32](model), weight)
	case float64:
		kernel.AccumulateFloat64(sum, cast[float64](model), weight)
	}
}

// merge adds the elements [low, high) of two sums that are not exact.
func (a *Accumulator[T]) merge(other *Accumulator[T], low, high int) {
	if !a.inFloat32() {
		kernel.AccumulateFloat64(a.wide[low:high:high], other.wide[low:high:high], 1)
		return
	}
	sum := a.narrow[low:high:high]
	pair := [2][]float32{sum, other.narrow[low:high:high]}
	one := [2]float64{1, 1}
	kernel.WeightedSumFloat32Native(sum, pair[:], one[:])
}

// mean rounds the elements [low, high).
func (a *Accumulator[T]) mean(dst []T, d *divisor, low, high int) {
	dst = dst[low:high:high]
	if a.exact != nil {
		divideExact(dst, a.exact, &d.exact, low)
		return
	}
	switch any(*new(T)).(type) {
	case float32:
		kernel.RoundFloat32(cast[float32](dst), a.wide[low:high:high], d.rounded)
	case float64:
		kernel.RoundFloat64(cast[float64](dst), a.wide[low:high:high], d.rounded)
	case Float16:
		kernel.RoundFloat16(cast[uint16](dst), a.narrow[low:high:high], d.rounded)
	case BFloat16:
		kernel.RoundBFloat16(cast[uint16](dst), a.narrow[low:high:high], d.rounded)
	}
}

// ---- several goroutines

// parts returns among how many workers to divide the elements.
func (a *Accumulator[T]) parts() int {
	least := workerBytes / int(unsafe.Sizeof(*new(T)))
	if a.exact != nil {
		least = 8 * exact.BlockSize // each element costs more
	}
	return min(a.workers, a.n/least)
}

func (a *Accumulator[T]) addParallel(model []T, weight float64, workers int) {
	parallel(workers, func(i int) { a.add(model, weight, a.part(i, workers), a.part(i+1, workers)) })
}

func (a *Accumulator[T]) mergeParallel(other *Accumulator[T], workers int) {
	parallel(workers, func(i int) { a.merge(other, a.part(i, workers), a.part(i+1, workers)) })
}

func (a *Accumulator[T]) meanParallel(dst []T, d divisor, workers int) {
	parallel(workers, func(i int) { a.mean(dst, &d, a.part(i, workers), a.part(i+1, workers)) })
}

// part returns where the i-th of several parts begins.
func (a *Accumulator[T]) part(i, parts int) int { return boundary(i, parts, a.n, 0, exact.BlockSize) }
