package kernel

import (
	"math"
	"strconv"
	"sync"
	"unsafe"

	"github.com/modelavg/modelavg/internal/implementation"
)

// The driver cuts a call into pieces that the implementations take: chunks, because assembly cannot be preempted; groups
// of models, because the processor follows only so many streams; a head and a body, because non-temporal stores want
// aligned addresses. None of it changes a bit of the result: elements never meet, and an accumulator that is put down
// between two groups keeps its format.
//
// It works on untyped pointers and an implementation.Kind rather than on type parameters: a call through a type
// parameter's dictionary makes every pointer escape, and with it the caller's stack.

// Flags of weightedSum.
const (
	stream = 1 << iota // store past the caches; dst is aligned to streamAlign
	divide             // divide by the divisor before rounding
	scale              // multiply by the divisor before rounding, not for Float64Wider
	past               // a part of a call that the first-level cache is of no use to; changes nothing but the choice
)

const (
	few         = 8                            // models of which a short call goes straight to an implementation
	group       = 12                           // models that are read side by side, at most
	tileGroup   = 8                            // models that are read side by side into a tile, at most
	chunkBytes  = 256 << 10                    // of dst, in one call of an implementation
	tileBytes   = 512 << 10                    // of accumulators, between two groups, at most
	widerStride = tileBytes / 2                // from the sums of a tile to their compensations
	sliceHeader = int(unsafe.Sizeof([]byte{})) // bytes from one model's slice header to the next
	sliceLength = sliceHeader / 3              // offset of the length in it
	streamAlign = 64                           // bytes
)

// streamThreshold is the number of bytes read and written by a call from which it is large, and non-temporal stores pay.
var streamThreshold = max(lastLevelCache(), 8<<20)

// tileSize is the bytes of a tile that are in use: half of the second-level cache. The longer the stretch that is read of
// a group of models before the next one, the better for the prefetchers, as long as the sums stay in that cache.
var tileSize = min(tileBytes, max(implementation.SecondLevelCache()/2, 128<<10))

func lastLevelCache() int {
	if size := implementation.LastLevelCache(); size > 0 {
		return size
	}
	return 32 << 20
}

// elementSize returns the bytes of an element of dst and x.
func elementSize(kind implementation.Kind) int {
	switch kind {
	case implementation.Float16, implementation.BFloat16:
		return 2
	case implementation.Float32, implementation.Float32Native:
		return 4
	}
	return 8
}

// accumulatorSize returns the bytes of an accumulator, or of each half of a pair.
func accumulatorSize(kind implementation.Kind) int {
	switch kind {
	case implementation.Float16, implementation.BFloat16, implementation.Float32Native:
		return 4
	}
	return 8
}

// A tile holds accumulators between two groups of models.
type tile [tileBytes / 8]float64

var tiles = sync.Pool{New: func() any { return new(tile) }}

// tileElements returns how many accumulators a tile holds.
func tileElements(kind implementation.Kind) int {
	if kind == implementation.Float64Wider {
		return tileSize / 2 / 8
	}
	return tileSize / accumulatorSize(kind)
}

// clear sets the first n accumulators to −0, and their compensations to 0.
func (t *tile) clear(kind implementation.Kind, n int) {
	switch {
	case accumulatorSize(kind) == 4:
		fill(unsafe.Slice((*float32)(unsafe.Pointer(t)), n), float32(math.Copysign(0, -1)))
	case kind == implementation.Float64Wider:
		fill(t[:n], math.Copysign(0, -1))
		clear(t[widerStride/8:][:n])
	default:
		fill(t[:n], math.Copysign(0, -1))
	}
}

// fill sets every element of s to v, mostly by copies of a short stretch that stays in the first-level cache.
func fill[A float32 | float64](s []A, v A) {
	head := s[:min(len(s), 512)]
	for i := range head {
		head[i] = v
	}
	for i := len(head); i < len(s); i += len(head) {
		copy(s[i:], head)
	}
}

var ones = [group]float64{1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1}

// narrowWeights is where an implementation puts the weights of one group, rounded to its accumulators' format.
type narrowWeights [group]float32

// weightsFrom returns the weights of the models from first on; w == nil stands for ones, of one group at most.
func weightsFrom(w *float64, first int) unsafe.Pointer {
	if w == nil {
		return unsafe.Pointer(&ones)
	}
	return unsafe.Add(unsafe.Pointer(w), first*8)
}

// division returns what tells an implementation to divide by the divisor. One by a power of two, as of a mean of 2, 4 or
// 8 models, is a multiplication: the same bits, at a tenth of the time.
func division(kind implementation.Kind, divisor float64) (float64, int) {
	const fractionBits, bias = 52, 1023
	bits := math.Float64bits(divisor)
	switch {
	case divisor == 1:
		return divisor, 0
	case bits<<(64-fractionBits) == 0 && bits>>fractionBits-bias < 64 && kind != implementation.Float64Wider:
		return 1 / divisor, scale
	}
	return divisor, divide
}

// weightedSum is dst[i] = round(Σ w[k]·x[k][i] / divisor). x points to the first of the models' slice headers; w == nil
// stands for weights of one; a divisor of 1 divides nothing.
//
// It panics if there is no model, if a model's length is not n, or if the number of weights given is not that of the
// models; −1 stands for none expected.
func weightedSum(kind implementation.Kind, dst, x unsafe.Pointer, w *float64, n, models, given int, divisor float64) {
	if models == 0 || given >= 0 && given != models {
		panic(weightsMessage(models, given))
	}
	for k := range models {
		if length := *(*int)(unsafe.Add(x, k*sliceHeader+sliceLength)); length != n {
			panic(lengthMessage(k, length, n))
		}
	}
	if models > few || n > chunkBytes/8 {
		weightedSumLong(kind, dst, x, w, n, models, divisor)
		return
	}
	// What follows is kept short: it is a good part of the time of a call of a few elements.
	divisor, flags := division(kind, divisor)
	weights := weightsFrom(w, 0)
	if impl := implementation.Chosen[kind]; impl != implementation.Generic {
		var narrow narrowWeights
		weightedSumAssembly(dst, x, weights, unsafe.Pointer(&narrow), nil, n, models, 0, divisor, flags, number(kind, impl))
		return
	}
	weightedSumGeneric(kind, dst, x, weights, nil, n, models, 0, divisor, flags)
}

// weightedSumLong is weightedSum for more than an implementation takes at once.
func weightedSumLong(kind implementation.Kind, dst, x unsafe.Pointer, w *float64, n, models int, divisor float64) {
	divisor, flags := division(kind, divisor)
	size := elementSize(kind)
	each := size * (models + 1) // bytes that an element moves
	first := 0
	switch {
	case n >= streamThreshold/each:
		flags |= past
		if streams(kind, dst, x, models) {
			head := min(n, int(-uintptr(dst)&(streamAlign-1))/size)
			weightedSumRange(kind, dst, x, w, 0, head, models, divisor, flags)
			first, flags = head, flags|stream
		}
	case models <= few:
	case n > tileSize/each:
		flags |= manyFlag(kind, x, models)
	case models <= tileBytes/16:
		if staggers(kind, x, n, models) {
			weightedSumGroups(kind, dst, x, w, n, models, divisor, flags)
			return
		}
		flags |= crowdedFlag(kind, x, n, models)
		if models > group {
			weightedSumShort(kind, dst, x, w, n, models, divisor, flags)
			return
		}
	}
	weightedSumRange(kind, dst, x, w, first, n, models, divisor, flags)
}

// weightedSumShort is weightedSum for more models than a group, of so few elements that they lie in the caches: there a
// stream more costs nothing, and all models are read side by side. It takes a tile for the weights alone: for ones if
// there are none, and for those that are rounded.
func weightedSumShort(kind implementation.Kind, dst, x unsafe.Pointer, w *float64, n, models int, divisor float64, flags int) {
	t := tiles.Get().(*tile)
	defer tiles.Put(t)
	if w == nil {
		fill(t[:models], 1)
		w = &t[0]
	}
	weightedSumBlock(kind, dst, x, unsafe.Pointer(w), unsafe.Pointer(&t[models]), nil, n, models, 0, divisor, flags)
}

// streams reports whether a large call is to store past the caches: dst is none of the models, so that nobody has its
// lines in a cache yet, and can be aligned.
func streams(kind implementation.Kind, dst, x unsafe.Pointer, models int) bool {
	if uintptr(dst)&uintptr(elementSize(kind)-1) != 0 {
		return false
	}
	for k := range models {
		if *(*unsafe.Pointer)(unsafe.Add(x, k*sliceHeader)) == dst {
			return false
		}
	}
	return true
}

// weightedSumRange is weightedSum for the elements [first, end).
func weightedSumRange(kind implementation.Kind, dst, x unsafe.Pointer, w *float64, first, end, models int, divisor float64, flags int) {
	if models > group {
		weightedSumTiles(kind, dst, x, w, first, end, models, divisor, flags)
		return
	}
	size := elementSize(kind)
	var narrow narrowWeights
	for i := first; i < end; i += chunkBytes / size {
		n := min(chunkBytes/size, end-i)
		weightedSumBlock(kind, unsafe.Add(dst, i*size), x, weightsFrom(w, 0), unsafe.Pointer(&narrow), nil, n, models, i,
			divisor, flags)
	}
}

// weightedSumTiles is weightedSumRange for more models than are read side by side: it folds group after group into a
// tile of accumulators, and the last group rounds it.
func weightedSumTiles(kind implementation.Kind, dst, x unsafe.Pointer, w *float64, first, end, models int, divisor float64, flags int) {
	t := tiles.Get().(*tile)
	defer tiles.Put(t)
	acc := unsafe.Pointer(t)
	var narrow narrowWeights
	size := elementSize(kind)
	for i := first; i < end; i += tileElements(kind) {
		n := min(tileElements(kind), end-i)
		t.clear(kind, n)
		k := 0
		for ; models-k > tileGroup; k += tileGroup {
			accumulateBlock(kind, acc, unsafe.Add(x, k*sliceHeader), weightsFrom(w, k), unsafe.Pointer(&narrow), n, tileGroup,
				i, flags)
		}
		rest := models - k
		weightedSumBlock(kind, unsafe.Add(dst, i*size), unsafe.Add(x, k*sliceHeader), weightsFrom(w, k),
			unsafe.Pointer(&narrow), acc, n, rest, i, divisor, flags)
	}
}

// accumulate is acc[i] += w·x[i], rounded once in the accumulator format.
func accumulate(kind implementation.Kind, acc, x unsafe.Pointer, w float64, n int) {
	var narrow narrowWeights
	for i := 0; i < n; i += chunkBytes / 8 {
		accumulateBlock(kind, unsafe.Add(acc, i*accumulatorSize(kind)), x, unsafe.Pointer(&w), unsafe.Pointer(&narrow),
			min(chunkBytes/8, n-i), 1, i, 0)
	}
}

// round is dst[i] = round(acc[i] / divisor): a weighted sum of no models that starts from acc.
func round(kind implementation.Kind, dst, acc unsafe.Pointer, n int, divisor float64) {
	divisor, flags := division(kind, divisor)
	for i := 0; i < n; i += chunkBytes / 8 {
		weightedSumBlock(kind, unsafe.Add(dst, i*elementSize(kind)), nil, nil, nil, unsafe.Add(acc, i*accumulatorSize(kind)),
			min(chunkBytes/8, n-i), 0, 0, divisor, flags)
	}
}

// The texts are made apart, and the panics are not: what can come back from them would cost a call of a few elements as
// much as its arithmetic.

func weightsMessage(models, weights int) string {
	if models == 0 {
		return "kernel: no models"
	}
	return "kernel: len(w) is " + strconv.Itoa(weights) + ", want len(x) = " + strconv.Itoa(models)
}

func lengthMessage(k, got, want int) string {
	return "kernel: len(x[" + strconv.Itoa(k) + "]) is " + strconv.Itoa(got) + ", want len(dst) = " + strconv.Itoa(want)
}

func checkLength(what string, got int, of string, want int) {
	if got != want {
		panic("kernel: " + what + " is " + strconv.Itoa(got) + ", want " + of + " = " + strconv.Itoa(want))
	}
}
