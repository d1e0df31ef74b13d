//go:build !purego && !noasm

package kernel

import (
	"unsafe"

	"github.com/modelavg/modelavg/internal/implementation"
)

// weightedSumBlock runs weightedSumGeneric's loop on the implementation chosen for kind.
func weightedSumBlock(kind implementation.Kind, dst, x, w, acc unsafe.Pointer, n, models, offset int, divisor float64, flags int) {
	switch implementation.Chosen[kind] {
	case implementation.NEON:
		switch kind {
		case implementation.Float32:
			weightedSumFloat32NEON(dst, x, w, acc, n, models, offset, divisor, flags)
		case implementation.Float64:
			weightedSumFloat64NEON(dst, x, w, acc, n, models, offset, divisor, flags)
		case implementation.Float16:
			weightedSumFloat16NEON(dst, x, w, acc, n, models, offset, divisor, flags)
		case implementation.BFloat16:
			weightedSumBFloat16NEON(dst, x, w, acc, n, models, offset, divisor, flags)
		case implementation.Float32Native:
			weightedSumFloat32NativeNEON(dst, x, w, acc, n, models, offset, divisor, flags)
		case implementation.Float64Wider:
			weightedSumFloat64WiderNEON(dst, x, w, acc, n, models, offset, divisor, flags)
		}
	default:
		weightedSumGeneric(kind, dst, x, w, acc, n, models, offset, divisor, flags)
	}
}

// accumulateBlock runs accumulateGeneric's loop on the implementation chosen for kind.
func accumulateBlock(kind implementation.Kind, acc, x, w unsafe.Pointer, n, models, offset, _ int) {
	switch implementation.Chosen[kind] {
	case implementation.NEON:
		switch kind {
		case implementation.Float32:
			accumulateFloat32NEON(acc, x, w, n, models, offset)
		case implementation.Float64:
			accumulateFloat64NEON(acc, x, w, n, models, offset)
		case implementation.Float16:
			accumulateFloat16NEON(acc, x, w, n, models, offset)
		case implementation.BFloat16:
			accumulateBFloat16NEON(acc, x, w, n, models, offset)
		case implementation.Float32Native:
			accumulateFloat32NativeNEON(acc, x, w, n, models, offset)
		case implementation.Float64Wider:
			accumulateFloat64WiderNEON(acc, x, w, n, models, offset)
		}
	default:
		accumulateGeneric(kind, acc, x, w, n, models, offset)
	}
}
