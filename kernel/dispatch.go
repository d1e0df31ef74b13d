package kernel

import (
	"unsafe"

	"github.com/modelavg/modelavg/internal/implementation"
)

// chosen returns the implementation for kind, in a call with these flags.
func chosen(kind implementation.Kind, flags int) implementation.Implementation {
	if flags&past != 0 {
		return implementation.ChosenPast[kind]
	}
	return implementation.Chosen[kind]
}

// weightedSumBlock runs weightedSumGeneric's loop on the implementation chosen for kind. narrow has room for a float32 for
// each model, where accumulators are of that type; what it holds does not matter before or after.
func weightedSumBlock(kind implementation.Kind, dst, x, w, narrow, acc unsafe.Pointer, n, models, offset int, divisor float64, flags int) {
	impl := chosen(kind, flags)
	if impl == implementation.Generic || acc != nil && n < leastElements(kind, impl) {
		weightedSumGeneric(kind, dst, x, w, acc, n, models, offset, divisor, flags)
		return
	}
	weightedSumAssembly(dst, x, w, narrow, acc, n, models, offset, divisor, flags, number(kind, impl))
}

// accumulateBlock runs accumulateGeneric's loop on the implementation chosen for kind. narrow is that of
// weightedSumBlock, and the flags are those of the weighted sum that it is a part of.
func accumulateBlock(kind implementation.Kind, acc, x, w, narrow unsafe.Pointer, n, models, offset, flags int) {
	impl := chosen(kind, flags)
	if impl == implementation.Generic || n < leastElements(kind, impl) {
		accumulateGeneric(kind, acc, x, w, n, models, offset)
		return
	}
	accumulateAssembly(acc, x, w, narrow, n, models, offset, number(kind, impl))
}
