package modelavg

import (
	"fmt"
	"math"
	"runtime/debug"
	"sync"
	"unsafe"

	"github.com/modelavg/modelavg/kernel"
	"github.com/modelavg/modelavg/weighting"
)

// An Element is a type of numbers that models consist of.
type Element interface {
	float32 | float64 | Float16 | BFloat16
}

// Mean sets every dst[i] to the arithmetic mean of models[0][i], models[1][i], …:
//
//	dst[i] = (models[0][i] + models[1][i] + … ) / len(models)
//
// The sum is taken in the order of the models and, like the division, in the accumulator format (see [Accumulation]);
// the quotient is rounded once to T. For float64 the result has the bits of NumPy's mean over axis 0, but for two cases:
// the mean of negative zeros alone is −0 here and 0 there, and NumPy adds models of a single element in another order.
// The sum may overflow the accumulator where the mean would not: that of K models in bfloat16 or native float32 above
// [math.MaxFloat32]/K, and in float64 above [math.MaxFloat64]/K. WeightedMean with weights of 1/K does not.
//
// All models must be as long as dst. dst may be one of them, exactly; models may share memory among themselves. The
// error wraps [ErrNoModels], [ErrLength], [ErrOverlap] or [ErrOption]; dst is then as it was. Without [WithWorkers] the
// call does not allocate, but for a scratch buffer that calls with more than 8 models share and a garbage collection may
// take.
func Mean[T Element](dst []T, models [][]T, options ...Option) error {
	s, err := gather(options)
	if err != nil {
		return err
	}
	if err := checkModels(dst, models); err != nil {
		return err
	}
	run(dst, models, nil, s)
	return nil
}

// WeightedMean sets every dst[i] to the mean of models[0][i], models[1][i], … with the given weights, one per model:
//
//	dst[i] = weights[0]·models[0][i] + weights[1]·models[1][i] + …
//
// The weights must sum to one within [weighting.Tolerance], that of NumPy's isclose; they are used as given, not
// rescaled. Package weighting makes such weights. Otherwise it is [WeightedSum], and a model of weight zero is not read.
// Averaging a model with itself gives the model back, bit for bit, for 16-bit elements and for float32 with the default
// accumulation, when the weights sum to one as closely as those of package weighting do.
//
// The error wraps [ErrNoModels], [ErrLength], [ErrOverlap], [ErrWeightCount], [ErrWeight], [ErrWeightSum] or
// [ErrOption]; dst is then as it was.
func WeightedMean[T Element](dst []T, models [][]T, weights []float64, options ...Option) error {
	s, err := gather(options)
	if err != nil {
		return err
	}
	if err := checkModels(dst, models); err != nil {
		return err
	}
	if err := weighting.Check(weights, len(models)); err != nil {
		return fmt.Errorf("modelavg: %w", err)
	}
	return sum(dst, models, unsafe.SliceData(weights), s)
}

// ExponentialMean sets every dst[i] to the exponentially weighted mean of models[0][i], the oldest, to the newest,
// models[len(models)−1][i]:
//
//	dst[i] = Σ decay^age · models[k][i] / Σ decay^age,   age = len(models)−1−k
//
// The newest model has the greatest influence, and each step back in time multiplies it by decay, which runs from 0
// (the newest model alone) to 1 (the plain mean). The weights are those of [weighting.Geometric]; other exponential
// rules are functions of that package, to be used with [WeightedMean]. Otherwise it is WeightedMean.
//
// The error wraps [ErrNoModels], [ErrLength], [ErrOverlap], [ErrDecay] or [ErrOption]; dst is then as it was. The call
// allocates the weights.
func ExponentialMean[T Element](dst []T, models [][]T, decay float64, options ...Option) error {
	s, err := gather(options)
	if err != nil {
		return err
	}
	if err := checkModels(dst, models); err != nil {
		return err
	}
	weights, err := weighting.Geometric(len(models), decay)
	if err != nil {
		return fmt.Errorf("modelavg: %w", err)
	}
	return sum(dst, models, unsafe.SliceData(weights), s)
}

// WeightedSum sets every dst[i] to the sum of models[0][i], models[1][i], … with the given coefficients, one per model:
//
//	dst[i] = coefficients[0]·models[0][i] + coefficients[1]·models[1][i] + …
//
// The coefficients may be any finite numbers: negative ones extrapolate, and 1, λ, −λ add a task vector. The products
// are added in the order of the models, by fused multiply-adds in the accumulator format (see [Accumulation]), and the
// sum is rounded once to T. Coefficients are float64; a float32 accumulator takes them rounded to float32.
//
// A model with coefficient zero, also one that becomes zero in a float32 accumulator, is not read: its NaNs and
// infinities have no effect. If all are zero the result is +0.
//
// All models must be as long as dst. dst may be one of them, exactly; models may share memory among themselves. The
// error wraps [ErrNoModels], [ErrLength], [ErrOverlap], [ErrWeightCount], [ErrWeight] for a coefficient that is NaN,
// infinite, or too large for the accumulator, or [ErrOption]; dst is then as it was. Without [WithWorkers] the call does
// not allocate, unless some coefficients are zero and more than 64 are not, but for the scratch buffer of [Mean].
func WeightedSum[T Element](dst []T, models [][]T, coefficients []float64, options ...Option) error {
	s, err := gather(options)
	if err != nil {
		return err
	}
	if err := checkModels(dst, models); err != nil {
		return err
	}
	if len(coefficients) != len(models) {
		return fmt.Errorf("modelavg: %w: got %d coefficients for %d models, want one per model",
			ErrWeightCount, len(coefficients), len(models))
	}
	return sum(dst, models, unsafe.SliceData(coefficients), s)
}

// checkModels reports an error unless there is a model, every model is as long as dst, and none overlaps dst without
// beginning where dst begins.
func checkModels[T Element](dst []T, models [][]T) error {
	if len(models) == 0 {
		return fmt.Errorf("modelavg: %w: got an empty list, want at least one model", ErrNoModels)
	}
	begin := uintptr(unsafe.Pointer(unsafe.SliceData(dst)))
	size := uintptr(len(dst)) * unsafe.Sizeof(*new(T))
	for k, m := range models {
		if len(m) != len(dst) {
			return fmt.Errorf("modelavg: %w: model %d has %d elements, want %d as in dst", ErrLength, k, len(m), len(dst))
		}
		// Differences of unsigned addresses wrap: each is below size if one range begins inside the other.
		at := uintptr(unsafe.Pointer(unsafe.SliceData(m)))
		if at != begin && (at-begin < size || begin-at < size) {
			return fmt.Errorf("modelavg: %w: model %d begins %+d bytes from dst, want the same address or separate memory",
				ErrOverlap, k, int(at-begin))
		}
	}
	return nil
}

// sum checks the values of the weights, one a model, takes out the models that have none, and runs the rest. The models
// have been checked.
//
// The weights come as a pointer, here and below: a third slice would find no more registers, and be read back from the
// stack before it has arrived there, which takes as long as the average of a few elements.
func sum[T Element](dst []T, models [][]T, first *float64, s settings) error {
	narrow := accumulatesInFloat32[T](s.accumulation)
	weights := unsafe.Slice(first, len(models))
	if ordinary(weights, narrow) {
		run(dst, models, first, s)
		return nil
	}
	zeros := 0
	for k, w := range weights {
		if math.IsNaN(w) || math.IsInf(w, 0) {
			return fmt.Errorf("modelavg: %w: weight %d is %v, want a finite number", ErrWeight, k, w)
		}
		if used := rounded(w, narrow); used == 0 {
			zeros++
		} else if math.IsInf(used, 0) {
			return fmt.Errorf("modelavg: %w: weight %d is %v, want at most %v, for sums in float32", ErrWeight, k, w, math.MaxFloat32)
		}
	}
	if zeros == len(models) {
		clear(dst)
	} else {
		runNonzero(dst, models, weights, narrow, s)
	}
	return nil
}

// ordinary reports whether all weights are finite, and not zero, in the accumulator. It says in a few instructions of
// almost every call that there is nothing to look at more closely.
func ordinary(weights []float64, narrow bool) bool {
	for _, w := range weights {
		// A number less itself is zero unless it is infinite or NaN.
		if narrow {
			if v := float32(w); v == 0 || v-v != 0 {
				return false
			}
		} else if w == 0 || w-w != 0 {
			return false
		}
	}
	return true
}

// rounded returns w as the accumulator takes it.
func rounded(w float64, narrow bool) float64 {
	if narrow {
		return float64(float32(w))
	}
	return w
}

// runNonzero is run without the models of weight zero. It is a function of its own so that the buffers are on the stack
// of no other call.
//
//go:noinline
func runNonzero[T Element](dst []T, models [][]T, weights []float64, narrow bool, s settings) {
	var modelBuffer [64][]T
	var weightBuffer [64]float64
	x, w := modelBuffer[:0], weightBuffer[:0]
	for k, m := range models {
		if rounded(weights[k], narrow) != 0 {
			x, w = append(x, m), append(w, weights[k])
		}
	}
	run(dst, x, unsafe.SliceData(w), s)
}

// workerBytes is the least output of a worker: less is done before another goroutine has started.
const workerBytes = 64 << 10

// lineBytes is the size of the pieces in which processors share memory. A range that begins elsewhere would have two
// workers write to one of them.
const lineBytes = 64

// run applies the weights to the models, of which there is one at least; without weights it takes the mean.
func run[T Element](dst []T, models [][]T, weights *float64, s settings) {
	if s.workers > 1 {
		if workers := min(s.workers, len(dst)/(workerBytes/int(unsafe.Sizeof(*new(T))))); workers > 1 {
			divide(dst, models, weights, workers, s.accumulation)
			return
		}
	}
	apply(dst, models, weights, s.accumulation)
}

// divide is apply on several goroutines. They get copies of the weights and of the models' headers, so that the
// compiler can leave the caller's on its stack, in calls that start no goroutine as well.
func divide[T Element](dst []T, models [][]T, weights *float64, workers int, a Accumulation) {
	elementSize := int(unsafe.Sizeof(*new(T)))
	var shared *float64 // nil for the mean; not slices.Clone, whose result may be its argument for the compiler
	if weights != nil {
		clone := make([]float64, len(models))
		copy(clone, unsafe.Slice(weights, len(models)))
		shared = &clone[0]
	}
	type part struct {
		dst    []T
		models [][]T
	}
	address := uintptr(unsafe.Pointer(unsafe.SliceData(dst)))
	lead := int(-address%lineBytes) / elementSize
	parts := make([]part, workers)
	for i := range parts {
		low := boundary(i, workers, len(dst), lead, lineBytes/elementSize)
		high := boundary(i+1, workers, len(dst), lead, lineBytes/elementSize)
		x := make([][]T, len(models))
		for k, m := range models {
			x[k] = m[low:high:high]
		}
		parts[i] = part{dst[low:high:high], x}
	}
	parallel(workers, func(i int) {
		apply(parts[i].dst, parts[i].models, shared, a)
	})
}

// boundary returns where the i-th of several parts of n elements begins: parts differ by at most one line of elements,
// and lines begin lead elements after the first.
func boundary(i, parts, n, lead, line int) int {
	switch i {
	case 0:
		return 0
	case parts:
		return n
	}
	lines := (n - lead) / line
	return lead + (lines/parts*i+min(i, lines%parts))*line
}

// parallel calls work(0) on this goroutine and work(1), …, work(n−1) on others, and returns when all have returned. If
// one panics, parallel panics too, after the others have ended.
func parallel(n int, work func(i int)) {
	var wg sync.WaitGroup
	var once sync.Once
	var caught *workerPanic
	for i := 1; i < n; i++ {
		wg.Go(func() {
			defer func() {
				if value := recover(); value != nil {
					stack := debug.Stack()
					once.Do(func() { caught = &workerPanic{value, stack} })
				}
			}()
			work(i)
		})
	}
	func() {
		defer wg.Wait() // also when work(0) panics: nobody may write to dst after the call
		work(0)
	}()
	if caught != nil {
		panic(caught)
	}
}

// A workerPanic carries a panic from a worker's goroutine to the caller's.
type workerPanic struct {
	value any
	stack []byte
}

func (p *workerPanic) Error() string {
	return fmt.Sprintf("modelavg: panic in a worker: %v\n\n%s", p.value, p.stack)
}

func (p *workerPanic) Unwrap() error {
	err, _ := p.value.(error)
	return err
}

// accumulatesInFloat32 reports whether sums of T are held in float32.
func accumulatesInFloat32[T Element](a Accumulation) bool {
	switch unsafe.Sizeof(*new(T)) { // known when compiling, other than the type
	case 8:
		return false
	case 4:
		return a == Native
	}
	return true
}

// apply calls the kernel of T for the whole of dst; no weights stand for the mean.
func apply[T Element](dst []T, models [][]T, first *float64, a Accumulation) {
	var weights []float64
	if first != nil {
		weights = unsafe.Slice(first, len(models))
	}
	switch unsafe.Sizeof(*new(T)) { // known when compiling, other than the type
	case 4:
		d, x := recast[float32](dst, models)
		switch {
		case weights == nil && a == Native:
			kernel.MeanFloat32Native(d, x)
		case weights == nil:
			kernel.MeanFloat32(d, x)
		case a == Native:
			kernel.WeightedSumFloat32Native(d, x, weights)
		default:
			kernel.WeightedSumFloat32(d, x, weights)
		}
	case 8:
		d, x := recast[float64](dst, models)
		switch {
		case weights == nil && a == Wider:
			kernel.MeanFloat64Wider(d, x)
		case weights == nil:
			kernel.MeanFloat64(d, x)
		case a == Wider:
			kernel.WeightedSumFloat64Wider(d, x, weights)
		default:
			kernel.WeightedSumFloat64(d, x, weights)
		}
	default:
		d, x := recast[uint16](dst, models)
		_, isFloat16 := any(*new(T)).(Float16)
		switch {
		case weights == nil && isFloat16:
			kernel.MeanFloat16(d, x)
		case weights == nil:
			kernel.MeanBFloat16(d, x)
		case isFloat16:
			kernel.WeightedSumFloat16(d, x, weights)
		default:
			kernel.WeightedSumBFloat16(d, x, weights)
		}
	}
}

// recast returns the same memory as slices of E, which has the representation of T.
func recast[E, T any](dst []T, models [][]T) ([]E, [][]E) {
	return *(*[]E)(unsafe.Pointer(&dst)), *(*[][]E)(unsafe.Pointer(&models))
}
