//go:build !purego && !noasm

package kernel

import (
	"unsafe"

	"github.com/modelavg/modelavg/internal/implementation"
)

// chosen returns the implementation for kind, in a call with these flags.
func chosen(kind implementation.Kind, flags int) implementation.Implementation {
	if flags&large != 0 {
		return implementation.ChosenPast[kind]
	}
	return implementation.Chosen[kind]
}

// weightedSumBlock runs weightedSumGeneric's loop on the implementation chosen for kind.
func weightedSumBlock(kind implementation.Kind, dst, x, w, acc unsafe.Pointer, n, models, offset int, divisor float64, flags int) {
	impl := chosen(kind, flags)
	if acc != nil && n < vectorElements(kind, impl) {
		impl = implementation.Generic
	}
	switch impl {
	case implementation.AVX512:
		switch kind {
		case implementation.Float32:
			weightedSumFloat32AVX512(dst, x, w, acc, n, models, offset, divisor, flags)
		case implementation.Float64:
			weightedSumFloat64AVX512(dst, x, w, acc, n, models, offset, divisor, flags)
		case implementation.Float16:
			weightedSumFloat16AVX512(dst, x, w, acc, n, models, offset, divisor, flags)
		case implementation.BFloat16:
			weightedSumBFloat16AVX512(dst, x, w, acc, n, models, offset, divisor, flags)
		case implementation.Float32Native:
			weightedSumFloat32NativeAVX512(dst, x, w, acc, n, models, offset, divisor, flags)
		case implementation.Float64Wider:
			weightedSumFloat64WiderAVX512(dst, x, w, acc, n, models, offset, divisor, flags)
		}
	case implementation.AVX2:
		switch kind {
		case implementation.Float32:
			weightedSumFloat32AVX2(dst, x, w, acc, n, models, offset, divisor, flags)
		case implementation.Float64:
			weightedSumFloat64AVX2(dst, x, w, acc, n, models, offset, divisor, flags)
		case implementation.Float16:
			weightedSumFloat16AVX2(dst, x, w, acc, n, models, offset, divisor, flags)
		case implementation.BFloat16:
			weightedSumBFloat16AVX2(dst, x, w, acc, n, models, offset, divisor, flags)
		case implementation.Float32Native:
			weightedSumFloat32NativeAVX2(dst, x, w, acc, n, models, offset, divisor, flags)
		case implementation.Float64Wider:
			weightedSumFloat64WiderAVX2(dst, x, w, acc, n, models, offset, divisor, flags)
		}
	default:
		weightedSumGeneric(kind, dst, x, w, acc, n, models, offset, divisor, flags)
	}
}

// accumulateBlock runs accumulateGeneric's loop on the implementation chosen for kind. The flags are those of the
// weighted sum that it is a part of.
func accumulateBlock(kind implementation.Kind, acc, x, w unsafe.Pointer, n, models, offset, flags int) {
	impl := chosen(kind, flags)
	if n < vectorElements(kind, impl) {
		impl = implementation.Generic
	}
	switch impl {
	case implementation.AVX512:
		switch kind {
		case implementation.Float32:
			accumulateFloat32AVX512(acc, x, w, n, models, offset)
		case implementation.Float64:
			accumulateFloat64AVX512(acc, x, w, n, models, offset)
		case implementation.Float16:
			accumulateFloat16AVX512(acc, x, w, n, models, offset)
		case implementation.BFloat16:
			accumulateBFloat16AVX512(acc, x, w, n, models, offset)
		case implementation.Float32Native:
			accumulateFloat32NativeAVX512(acc, x, w, n, models, offset)
		case implementation.Float64Wider:
			accumulateFloat64WiderAVX512(acc, x, w, n, models, offset)
		}
	case implementation.AVX2:
		switch kind {
		case implementation.Float32:
			accumulateFloat32AVX2(acc, x, w, n, models, offset)
		case implementation.Float64:
			accumulateFloat64AVX2(acc, x, w, n, models, offset)
		case implementation.Float16:
			accumulateFloat16AVX2(acc, x, w, n, models, offset)
		case implementation.BFloat16:
			accumulateBFloat16AVX2(acc, x, w, n, models, offset)
		case implementation.Float32Native:
			accumulateFloat32NativeAVX2(acc, x, w, n, models, offset)
		case implementation.Float64Wider:
			accumulateFloat64WiderAVX2(acc, x, w, n, models, offset)
		}
	default:
		accumulateGeneric(kind, acc, x, w, n, models, offset)
	}
}
