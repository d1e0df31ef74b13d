//go:build (!amd64 && !arm64) || purego || noasm

package kernel

import (
	"unsafe"

	"github.com/modelavg/modelavg/internal/implementation"
)

func weightedSumBlock(kind implementation.Kind, dst, x, w, acc unsafe.Pointer, n, models, offset int, divisor float64, flags int) {
	weightedSumGeneric(kind, dst, x, w, acc, n, models, offset, divisor, flags)
}

func accumulateBlock(kind implementation.Kind, acc, x, w unsafe.Pointer, n, models, offset, _ int) {
	accumulateGeneric(kind, acc, x, w, n, models, offset)
}
