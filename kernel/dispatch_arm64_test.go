//go:build !purego && !noasm

package kernel

import (
	"unsafe"

	"github.com/modelavg/modelavg/internal/implementation"
)

// The kernels, called without a dispatcher.

var weightedSums = map[implementation.Implementation][implementation.Kinds]func(dst, x, w, narrow, acc unsafe.Pointer,
	n, models, offset int, divisor float64, flags int){
	implementation.NEON: {
		weightedSumFloat32NEON,
		weightedSumFloat64NEON,
		weightedSumFloat16NEON,
		weightedSumBFloat16NEON,
		weightedSumFloat32NativeNEON,
		weightedSumFloat64WiderNEON,
	},
}

var accumulates = map[implementation.Implementation][implementation.Kinds]func(acc, x, w, narrow unsafe.Pointer,
	n, models, offset int){
	implementation.NEON: {
		accumulateFloat32NEON,
		accumulateFloat64NEON,
		accumulateFloat16NEON,
		accumulateBFloat16NEON,
		accumulateFloat32NativeNEON,
		accumulateFloat64WiderNEON,
	},
}
