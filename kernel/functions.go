package kernel

import (
	"unsafe"

	"github.com/modelavg/modelavg/internal/implementation"
)

// WeightedSumFloat32 sets dst[i] = Σ w[k]·x[k][i] over the models x, accumulated in float64 and rounded once to float32.
//
// It panics if there is no model, if len(w) != len(x), or if a model's length is not len(dst).
func WeightedSumFloat32(dst []float32, x [][]float32, w []float64) {
	raceModels(dst, x)
	weightedSum(implementation.Float32, unsafe.Pointer(unsafe.SliceData(dst)), unsafe.Pointer(unsafe.SliceData(x)),
		unsafe.SliceData(w), len(dst), len(x), len(w), 1)
}

// WeightedSumFloat64 sets dst[i] = Σ w[k]·x[k][i] over the models x, accumulated in float64 and rounded once to float64.
//
// It panics if there is no model, if len(w) != len(x), or if a model's length is not len(dst).
func WeightedSumFloat64(dst []float64, x [][]float64, w []float64) {
	raceModels(dst, x)
	weightedSum(implementation.Float64, unsafe.Pointer(unsafe.SliceData(dst)), unsafe.Pointer(unsafe.SliceData(x)),
		unsafe.SliceData(w), len(dst), len(x), len(w), 1)
}

// WeightedSumFloat16 sets dst[i] = Σ w[k]·x[k][i] over the models x, accumulated in float32 and rounded once to IEEE binary16 bits.
//
// It panics if there is no model, if len(w) != len(x), or if a model's length is not len(dst).
func WeightedSumFloat16(dst []uint16, x [][]uint16, w []float64) {
	raceModels(dst, x)
	weightedSum(implementation.Float16, unsafe.Pointer(unsafe.SliceData(dst)), unsafe.Pointer(unsafe.SliceData(x)),
		unsafe.SliceData(w), len(dst), len(x), len(w), 1)
}

// WeightedSumBFloat16 sets dst[i] = Σ w[k]·x[k][i] over the models x, accumulated in float32 and rounded once to bfloat16 bits.
//
// It panics if there is no model, if len(w) != len(x), or if a model's length is not len(dst).
func WeightedSumBFloat16(dst []uint16, x [][]uint16, w []float64) {
	raceModels(dst, x)
	weightedSum(implementation.BFloat16, unsafe.Pointer(unsafe.SliceData(dst)), unsafe.Pointer(unsafe.SliceData(x)),
		unsafe.SliceData(w), len(dst), len(x), len(w), 1)
}

// WeightedSumFloat32Native sets dst[i] = Σ w[k]·x[k][i] over the models x, accumulated in float32 and rounded once to float32.
//
// It panics if there is no model, if len(w) != len(x), or if a model's length is not len(dst).
func WeightedSumFloat32Native(dst []float32, x [][]float32, w []float64) {
	raceModels(dst, x)
	weightedSum(implementation.Float32Native, unsafe.Pointer(unsafe.SliceData(dst)), unsafe.Pointer(unsafe.SliceData(x)),
		unsafe.SliceData(w), len(dst), len(x), len(w), 1)
}

// WeightedSumFloat64Wider sets dst[i] = Σ w[k]·x[k][i] over the models x, accumulated in double-double and rounded once to float64.
//
// It panics if there is no model, if len(w) != len(x), or if a model's length is not len(dst).
func WeightedSumFloat64Wider(dst []float64, x [][]float64, w []float64) {
	raceModels(dst, x)
	weightedSum(implementation.Float64Wider, unsafe.Pointer(unsafe.SliceData(dst)), unsafe.Pointer(unsafe.SliceData(x)),
		unsafe.SliceData(w), len(dst), len(x), len(w), 1)
}

// MeanFloat32 sets dst[i] = (Σ x[k][i]) / len(x) over the models x: summed and divided in float64, rounded once to float32.
//
// It panics if there is no model or if a model's length is not len(dst).
func MeanFloat32(dst []float32, x [][]float32) {
	raceModels(dst, x)
	weightedSum(implementation.Float32, unsafe.Pointer(unsafe.SliceData(dst)), unsafe.Pointer(unsafe.SliceData(x)),
		nil, len(dst), len(x), -1, float64(len(x)))
}

// MeanFloat64 sets dst[i] = (Σ x[k][i]) / len(x) over the models x: summed and divided in float64, rounded once to float64.
//
// It panics if there is no model or if a model's length is not len(dst).
func MeanFloat64(dst []float64, x [][]float64) {
	raceModels(dst, x)
	weightedSum(implementation.Float64, unsafe.Pointer(unsafe.SliceData(dst)), unsafe.Pointer(unsafe.SliceData(x)),
		nil, len(dst), len(x), -1, float64(len(x)))
}

// MeanFloat16 sets dst[i] = (Σ x[k][i]) / len(x) over the models x: summed and divided in float32, rounded once to IEEE binary16 bits.
//
// It panics if there is no model or if a model's length is not len(dst).
func MeanFloat16(dst []uint16, x [][]uint16) {
	raceModels(dst, x)
	weightedSum(implementation.Float16, unsafe.Pointer(unsafe.SliceData(dst)), unsafe.Pointer(unsafe.SliceData(x)),
		nil, len(dst), len(x), -1, float64(len(x)))
}

// MeanBFloat16 sets dst[i] = (Σ x[k][i]) / len(x) over the models x: summed and divided in float32, rounded once to bfloat16 bits.
//
// It panics if there is no model or if a model's length is not len(dst).
func MeanBFloat16(dst []uint16, x [][]uint16) {
	raceModels(dst, x)
	weightedSum(implementation.BFloat16, unsafe.Pointer(unsafe.SliceData(dst)), unsafe.Pointer(unsafe.SliceData(x)),
		nil, len(dst), len(x), -1, float64(len(x)))
}

// MeanFloat32Native sets dst[i] = (Σ x[k][i]) / len(x) over the models x: summed and divided in float32, rounded once to float32.
//
// It panics if there is no model or if a model's length is not len(dst).
func MeanFloat32Native(dst []float32, x [][]float32) {
	raceModels(dst, x)
	weightedSum(implementation.Float32Native, unsafe.Pointer(unsafe.SliceData(dst)), unsafe.Pointer(unsafe.SliceData(x)),
		nil, len(dst), len(x), -1, float64(len(x)))
}

// MeanFloat64Wider sets dst[i] = (Σ x[k][i]) / len(x) over the models x: summed and divided in double-double, rounded once to float64.
//
// It panics if there is no model or if a model's length is not len(dst).
func MeanFloat64Wider(dst []float64, x [][]float64) {
	raceModels(dst, x)
	weightedSum(implementation.Float64Wider, unsafe.Pointer(unsafe.SliceData(dst)), unsafe.Pointer(unsafe.SliceData(x)),
		nil, len(dst), len(x), -1, float64(len(x)))
}

// AccumulateFloat32 sets acc[i] = fma(w, x[i], acc[i]) in float64: it adds one model to a running sum.
//
// It panics if len(x) != len(acc).
func AccumulateFloat32(acc []float64, x []float32, w float64) {
	checkLength("len(x)", len(x), "len(acc)", len(acc))
	raceRead(x)
	raceWrite(acc)
	accumulate(implementation.Float32, unsafe.Pointer(unsafe.SliceData(acc)), unsafe.Pointer(&x), w, len(acc))
}

// AccumulateFloat64 sets acc[i] = fma(w, x[i], acc[i]) in float64: it adds one model to a running sum.
//
// It panics if len(x) != len(acc).
func AccumulateFloat64(acc []float64, x []float64, w float64) {
	checkLength("len(x)", len(x), "len(acc)", len(acc))
	raceRead(x)
	raceWrite(acc)
	accumulate(implementation.Float64, unsafe.Pointer(unsafe.SliceData(acc)), unsafe.Pointer(&x), w, len(acc))
}

// AccumulateFloat16 sets acc[i] = fma(w, x[i], acc[i]) in float32: it adds one model to a running sum.
//
// It panics if len(x) != len(acc).
func AccumulateFloat16(acc []float32, x []uint16, w float64) {
	checkLength("len(x)", len(x), "len(acc)", len(acc))
	raceRead(x)
	raceWrite(acc)
	accumulate(implementation.Float16, unsafe.Pointer(unsafe.SliceData(acc)), unsafe.Pointer(&x), w, len(acc))
}

// AccumulateBFloat16 sets acc[i] = fma(w, x[i], acc[i]) in float32: it adds one model to a running sum.
//
// It panics if len(x) != len(acc).
func AccumulateBFloat16(acc []float32, x []uint16, w float64) {
	checkLength("len(x)", len(x), "len(acc)", len(acc))
	raceRead(x)
	raceWrite(acc)
	accumulate(implementation.BFloat16, unsafe.Pointer(unsafe.SliceData(acc)), unsafe.Pointer(&x), w, len(acc))
}

// RoundFloat32 sets dst[i] = acc[i] / divisor, divided in float64 and rounded once to float32: it ends a running sum, and the
// divisor is the sum of its weights.
//
// It panics if len(acc) != len(dst).
func RoundFloat32(dst []float32, acc []float64, divisor float64) {
	checkLength("len(acc)", len(acc), "len(dst)", len(dst))
	raceRead(acc)
	raceWrite(dst)
	round(implementation.Float32, unsafe.Pointer(unsafe.SliceData(dst)), unsafe.Pointer(unsafe.SliceData(acc)), len(dst), divisor)
}

// RoundFloat64 sets dst[i] = acc[i] / divisor, divided in float64 and rounded once to float64: it ends a running sum, and the
// divisor is the sum of its weights.
//
// It panics if len(acc) != len(dst).
func RoundFloat64(dst []float64, acc []float64, divisor float64) {
	checkLength("len(acc)", len(acc), "len(dst)", len(dst))
	raceRead(acc)
	raceWrite(dst)
	round(implementation.Float64, unsafe.Pointer(unsafe.SliceData(dst)), unsafe.Pointer(unsafe.SliceData(acc)), len(dst), divisor)
}

// RoundFloat16 sets dst[i] = acc[i] / divisor, divided in float32 and rounded once to IEEE binary16 bits: it ends a running sum, and the
// divisor is the sum of its weights.
//
// It panics if len(acc) != len(dst).
func RoundFloat16(dst []uint16, acc []float32, divisor float64) {
	checkLength("len(acc)", len(acc), "len(dst)", len(dst))
	raceRead(acc)
	raceWrite(dst)
	round(implementation.Float16, unsafe.Pointer(unsafe.SliceData(dst)), unsafe.Pointer(unsafe.SliceData(acc)), len(dst), divisor)
}

// RoundBFloat16 sets dst[i] = acc[i] / divisor, divided in float32 and rounded once to bfloat16 bits: it ends a running sum, and the
// divisor is the sum of its weights.
//
// It panics if len(acc) != len(dst).
func RoundBFloat16(dst []uint16, acc []float32, divisor float64) {
	checkLength("len(acc)", len(acc), "len(dst)", len(dst))
	raceRead(acc)
	raceWrite(dst)
	round(implementation.BFloat16, unsafe.Pointer(unsafe.SliceData(dst)), unsafe.Pointer(unsafe.SliceData(acc)), len(dst), divisor)
}
