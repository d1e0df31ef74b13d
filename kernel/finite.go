package kernel

import (
	"unsafe"

	"github.com/modelavg/modelavg/internal/implementation"
)

// AllFiniteFloat32 reports whether no element of x is infinite or NaN. Without elements that is so.
func AllFiniteFloat32(x []float32) bool {
	raceRead(x)
	return allFinite(implementation.Float32, unsafe.Pointer(unsafe.SliceData(x)), len(x))
}

// AllFiniteFloat64 reports whether no element of x is infinite or NaN. Without elements that is so.
func AllFiniteFloat64(x []float64) bool {
	raceRead(x)
	return allFinite(implementation.Float64, unsafe.Pointer(unsafe.SliceData(x)), len(x))
}

// AllFiniteFloat16 reports whether no element of x, which are IEEE binary16 bits, is infinite or NaN. Without elements
// that is so.
func AllFiniteFloat16(x []uint16) bool {
	raceRead(x)
	return allFinite(implementation.Float16, unsafe.Pointer(unsafe.SliceData(x)), len(x))
}

// AllFiniteBFloat16 reports whether no element of x, which are bfloat16 bits, is infinite or NaN. Without elements that is
// so.
func AllFiniteBFloat16(x []uint16) bool {
	raceRead(x)
	return allFinite(implementation.BFloat16, unsafe.Pointer(unsafe.SliceData(x)), len(x))
}

const (
	magnitudeBlock = 128       // bytes that the assembly takes at a time
	magnitudeBytes = 256 << 10 // and in one call, since it cannot be preempted
)

// infinity returns the bits of the kind's infinity. Those of a NaN without its sign are more, those of all others less.
func infinity(kind implementation.Kind) uint64 {
	switch kind {
	case implementation.Float16:
		return 0x7c00
	case implementation.BFloat16:
		return 0x7f80
	case implementation.Float32:
		return 0x7f800000
	}
	return 0x7ff00000_00000000
}

func allFinite(kind implementation.Kind, x unsafe.Pointer, n int) bool {
	size, infinity := elementSize(kind), infinity(kind)
	bytes := n * size
	if implementation.Chosen[kind] == implementation.Generic || bytes < magnitudeBlock {
		return allFiniteGeneric(x, n, size, infinity)
	}
	for i := 0; i < bytes; {
		part := min(bytes-i, magnitudeBytes) &^ (magnitudeBlock - 1)
		if part == 0 { // the rest is less than a block: the last one of x overlaps what was done
			i, part = bytes-magnitudeBlock, magnitudeBlock
		}
		if magnitude(unsafe.Add(x, i), part, size) >= infinity {
			return false
		}
		i += part
	}
	return true
}

// magnitude returns the largest absolute value among the n bytes at x, which are elements of so many bytes in whole
// blocks, as bits that are to be compared with those of infinity. Of an element of 8 bytes the upper half tells.
func magnitude(x unsafe.Pointer, n, size int) uint64 {
	switch size {
	case 2:
		return magnitude16Assembly(x, n, 0x7fff7fff_7fff7fff)
	case 4:
		return magnitude32Assembly(x, n, 0x7fffffff_7fffffff)
	}
	return magnitude32Assembly(x, n, 0x7fffffff_00000000) << 32
}

// allFiniteGeneric is the same as allFinite in Go. It looks at as many elements as a word holds at once: those that are not
// finite have all bits of their exponent set, and adding one to the exponent carries into the place of the sign.
func allFiniteGeneric(x unsafe.Pointer, n, size int, infinity uint64) bool {
	p := unsafe.Slice((*byte)(x), n*size)
	begin := min(int(-uintptr(x)&7), len(p)) // of the words
	if begin%size != 0 {
		begin = len(p)
	}
	end := begin + (len(p)-begin)&^7
	if !eachFinite(p[:begin], size, infinity) || !eachFinite(p[end:], size, infinity) {
		return false
	}
	if begin == end {
		return true
	}
	exponents := infinity
	for bits := size * 8; bits < 64; bits *= 2 {
		exponents |= exponents << bits
	}
	one := exponents &^ (exponents << 1) // the lowest bit of each exponent
	signs := exponents + one
	w := unsafe.Slice((*uint64)(unsafe.Pointer(unsafe.SliceData(p[begin:end]))), (end-begin)/8)
	var a, b, c, d uint64
	for ; len(w) >= 4; w = w[4:] {
		a |= w[0]&exponents + one
		b |= w[1]&exponents + one
		c |= w[2]&exponents + one
		d |= w[3]&exponents + one
	}
	for _, v := range w {
		a |= v&exponents + one
	}
	return (a|b|c|d)&signs == 0
}

// eachFinite looks at one element after the other.
func eachFinite(p []byte, size int, infinity uint64) bool {
	x := unsafe.Pointer(unsafe.SliceData(p))
	switch size {
	case 2:
		return allLess(unsafe.Slice((*uint16)(x), len(p)/2), 0x7fff, uint16(infinity))
	case 4:
		return allLess(unsafe.Slice((*uint32)(x), len(p)/4), 0x7fffffff, uint32(infinity))
	}
	return allLess(unsafe.Slice((*uint64)(x), len(p)/8), 0x7fffffff_ffffffff, infinity)
}

func allLess[T uint16 | uint32 | uint64](x []T, mask, infinity T) bool {
	for _, v := range x {
		if v&mask >= infinity {
			return false
		}
	}
	return true
}
