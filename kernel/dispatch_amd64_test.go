//go:build !purego && !noasm

package kernel

import (
	"unsafe"

	"github.com/modelavg/modelavg/internal/implementation"
)

// The kernels, called without a dispatcher.

var weightedSums = map[implementation.Implementation][implementation.Kinds]func(dst, x, w, narrow, acc unsafe.Pointer,
	n, models, offset int, divisor float64, flags int){
	implementation.AVX2: {
		weightedSumFloat32AVX2,
		weightedSumFloat64AVX2,
		weightedSumFloat16AVX2,
		weightedSumBFloat16AVX2,
		weightedSumFloat32NativeAVX2,
		weightedSumFloat64WiderAVX2,
	},
	implementation.AVX512: {
		weightedSumFloat32AVX512,
		weightedSumFloat64AVX512,
		weightedSumFloat16AVX512,
		weightedSumBFloat16AVX512,
		weightedSumFloat32NativeAVX512,
		weightedSumFloat64WiderAVX512,
	},
}

var accumulates = map[implementation.Implementation][implementation.Kinds]func(acc, x, w, narrow unsafe.Pointer,
	n, models, offset int){
	implementation.AVX2: {
		accumulateFloat32AVX2,
		accumulateFloat64AVX2,
		accumulateFloat16AVX2,
		accumulateBFloat16AVX2,
		accumulateFloat32NativeAVX2,
		accumulateFloat64WiderAVX2,
	},
	implementation.AVX512: {
		accumulateFloat32AVX512,
		accumulateFloat64AVX512,
		accumulateFloat16AVX512,
		accumulateBFloat16AVX512,
		accumulateFloat32NativeAVX512,
		accumulateFloat64WiderAVX512,
	},
}
