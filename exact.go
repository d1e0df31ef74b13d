package modelavg

import (
	"math"

	"github.com/modelavg/modelavg/internal/exact"
	"github.com/modelavg/modelavg/kernel"
)

// Exact makes an [Accumulator] hold its sums without any rounding. Only accumulators take it; the functions that
// average slices return an error that wraps [ErrOption].
//
// Mean then gives the exact Σ weight·model / Σ weight, correctly rounded to the element type: to the nearest number, of
// two that are equally near to the even one, subnormal numbers included, and to an infinity beyond the greatest.
// Weights are used as the float64 they are, for 16-bit elements too. Nothing overflows or underflows before the last
// step: any finite elements and weights will do.
//
// The result so depends on what has been added, and neither on the order of Add and Merge nor on which accumulator or
// goroutine a model came to first. The same holds for the bytes of [Accumulator.MarshalBinary]. A model that is added
// again with its weight negated leaves the mean of the others, unless it holds infinities or NaNs, and but for the sign
// of a zero: −0 becomes +0. Both times are counted, so that [Accumulator.Count] and the bytes are not those of the
// others alone.
//
// An element to which NaN was added, or infinities of both signs, is NaN; one to which infinities of one sign were
// added is infinite. An element whose sum is zero is −0 if all its products were −0, and else +0, before it is divided
// by the sum of the weights.
//
// It is a sum of integers, in as many digits as it takes, 8 bytes for each 32 bits: for ordinary models and weights
// that are numbers of samples two to five digits for every element. Elements are in blocks of 512 that share a range of
// digits; one element that is far smaller or greater than the rest makes its block larger. docs/performance.md has the
// speed.
const Exact Accumulation = Native + 1

// exactFormat returns the format of T.
func exactFormat[T Element]() exact.Format {
	switch any(*new(T)).(type) {
	case float32:
		return exact.Binary32
	case Float16:
		return exact.Binary16
	case BFloat16:
		return exact.BFloat16
	}
	return exact.Binary64
}

// addExact adds weight·model to the elements from low on, where a block begins.
func addExact[T Element](sums *exact.Vector, model []T, weight float64, low int) {
	var buffer [exact.BlockSize]float64
	format, w := exactFormat[T](), exact.NewWeight(weight)
	for i := 0; i < len(model); i += exact.BlockSize {
		x := model[i:min(len(model), i+exact.BlockSize)]
		sums.Add((low+i)/exact.BlockSize, valuesOf(x, &buffer), format, w)
	}
}

// divideExact sets dst to the quotients of the elements from low on, where a block begins.
func divideExact[T Element](dst []T, sums *exact.Vector, d *exact.Divisor, low int) {
	var buffer [exact.BlockSize]float64
	format := exactFormat[T]()
	for i := 0; i < len(dst); i += exact.BlockSize {
		out := dst[i:min(len(dst), i+exact.BlockSize)]
		q := buffer[:len(out)]
		sums.Divide((low+i)/exact.BlockSize, q, format, d)
		setValues(out, q)
	}
}

// valuesOf returns the values of x, in the buffer or where they are.
func valuesOf[T Element](x []T, buffer *[exact.BlockSize]float64) []float64 {
	var singles [exact.BlockSize]float32
	s := singles[:len(x)]
	switch any(*new(T)).(type) {
	case float64:
		return cast[float64](x)
	case float32:
		s = cast[float32](x)
	case Float16:
		fillSums(s, float32(math.Copysign(0, -1)))
		kernel.AccumulateFloat16(s, cast[uint16](x), 1)
	case BFloat16:
		fillSums(s, float32(math.Copysign(0, -1)))
		kernel.AccumulateBFloat16(s, cast[uint16](x), 1)
	}
	for i, v := range s {
		buffer[i] = float64(v)
	}
	return buffer[:len(x)]
}

// setValues sets dst to values that its element type has.
func setValues[T Element](dst []T, values []float64) {
	var singles [exact.BlockSize]float32
	s := singles[:len(dst)]
	switch any(*new(T)).(type) {
	case float64:
		copy(cast[float64](dst), values)
		return
	case float32:
		s = cast[float32](dst)
	}
	for i, v := range values {
		s[i] = float32(v)
	}
	switch any(*new(T)).(type) {
	case Float16:
		kernel.RoundFloat16(cast[uint16](dst), s, 1)
	case BFloat16:
		kernel.RoundBFloat16(cast[uint16](dst), s, 1)
	}
}
