package kernel

import (
	"unsafe"

	"github.com/modelavg/modelavg/internal/implementation"
)

// Models are crowded if all of them begin at the same line of a page, as large slices do, which Go puts at the beginning of
// one: they compete for the ways of a first-level cache that tells the lines of a page apart. Here is what many models are
// done by for that.

// crowded reports whether the models are.
func crowded(x unsafe.Pointer, models int) bool {
	const page, line = 4096, 64
	first := *(*uintptr)(x)
	for k := 1; k < models; k++ {
		if address := *(*uintptr)(unsafe.Add(x, k*sliceHeader)); (address/line^first/line)%(page/line) != 0 {
			return false
		}
	}
	return true
}

// What weightedSumStaggered shares with package asmgen.
const (
	staggeredGroup = 6   // models
	staggeredLag   = 256 // elements
	staggeredBlock = 32  // elements
)

// So many elements of so many models pay for groups of them.
const (
	staggeredElements = 1024
	staggeredModels   = 24
)

// staggers reports whether groups of models are to follow one another: where more of them are crowded than a first-level
// cache has ways, and the processor fetches lines that it has no place for.
func staggers(kind implementation.Kind, x unsafe.Pointer, n, models int) bool {
	impl := implementation.Staggered[kind]
	return impl != implementation.Generic && impl == implementation.Chosen[kind] && n >= staggeredElements &&
		models > few && models <= staggeredModels && crowded(x, models)
}

// weightedSumGroups is weightedSum for what staggers: with weightedSumStaggered, and the last few elements without. It
// takes a tile for the sums that a group leaves to the next.
func weightedSumGroups(kind implementation.Kind, dst, x unsafe.Pointer, w *float64, n, models int, divisor float64, flags int) {
	t := tiles.Get().(*tile)
	defer tiles.Put(t)
	if w == nil {
		weights := t[len(t)-models:] // behind the sums, which lie at the beginning of lines
		fill(weights, 1)
		w = &weights[0]
	}
	whole := n &^ (staggeredBlock - 1)
	weightedSumStaggered(dst, x, unsafe.Pointer(w), unsafe.Pointer(t), whole, models, divisor, flags)
	if whole < n {
		weightedSumBlock(kind, unsafe.Add(dst, whole*elementSize(kind)), x, unsafe.Pointer(w), unsafe.Pointer(t), nil,
			n-whole, models, whole, divisor, flags)
	}
}

// From so many bytes of so many models on another implementation pays where models are crowded.
const (
	crowdedBytes  = 2 << 10
	crowdedModels = 16
)

// crowdedFlag returns the flag past if the models are crowded and that pays, and no flag otherwise. What is fastest past
// the caches is fastest there: on the machines where that differs it reads a line in fewer pieces. It is not where models
// come from memory, which with fewer of them costs more than it gains elsewhere.
func crowdedFlag(kind implementation.Kind, x unsafe.Pointer, n, models int) int {
	switch kind {
	case implementation.Float32, implementation.Float16:
		if models >= crowdedModels && n*elementSize(kind) >= crowdedBytes && crowded(x, models) {
			return past
		}
	}
	return 0
}

// manyFlag returns the flag of a call of more than few models that do not fit half of the second-level cache: past, which
// pays there already, but for what takes longer to widen than its lines to arrive, unless these are crowded and read side
// by side.
func manyFlag(kind implementation.Kind, x unsafe.Pointer, models int) int {
	switch kind {
	case implementation.Float32, implementation.Float16:
		if models > group || !crowded(x, models) {
			return 0
		}
	}
	return past
}
