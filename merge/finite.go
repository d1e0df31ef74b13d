package merge

import (
	"github.com/modelavg/modelavg/checkpoint"
	"github.com/modelavg/modelavg/internal/convert"
	"github.com/modelavg/modelavg/kernel"
)

// The size of the blocks that allFinite adds up: small enough for the innermost cache.
const (
	blockElements = 2048
	blocks        = 8
)

// A sums is where allFinite adds up blocks, of elements of at most 8 bytes.
type sums struct {
	bytes []byte // aligned
}

// sumsBytes is the size of sums.
const sumsBytes = 8 * blockElements

// allFinite reports whether all elements of p, which is aligned and in the byte order of files, are finite.
//
// It is the sum of blocks, each multiplied by zero, that shows it: zero times a finite number is zero, and zero times NaN
// or infinity is NaN, which stays in the sum. The kernels do that faster than the bits can be looked at in Go.
func (s *sums) allFinite(p []byte, d checkpoint.DType) bool {
	n := len(p) * 8 / d.Bits()
	var done int // elements, -1 if they are not all finite
	if littleEndian {
		switch d {
		case checkpoint.F64:
			done = sumBlocks(elements[float64](p, n), s.bytes, d, kernel.WeightedSumFloat64)
		case checkpoint.F32:
			done = sumBlocks(elements[float32](p, n), s.bytes, d, kernel.WeightedSumFloat32Native)
		case checkpoint.F16:
			done = sumBlocks(elements[uint16](p, n), s.bytes, d, kernel.WeightedSumFloat16)
		case checkpoint.BF16:
			done = sumBlocks(elements[uint16](p, n), s.bytes, d, kernel.WeightedSumBFloat16)
		}
	}
	return done >= 0 && convert.AllFinite(p[done*d.Bits()/8:], d)
}

// sumBlocks returns how many elements of x it has looked at, all that fill whole blocks, or -1 if some are not finite.
func sumBlocks[T any](x []T, scratch []byte, d checkpoint.DType, sum func(dst []T, x [][]T, w []float64)) int {
	const group = blocks * blockElements
	var (
		weights [blocks]float64
		views   [blocks][]T
	)
	dst := elements[T](scratch, blockElements)
	done := 0
	for ; len(x)-done >= group; done += group {
		for k := range views {
			views[k] = x[done+k*blockElements:][:blockElements]
		}
		sum(dst, views[:], weights[:])
		if !convert.AllFinite(scratch[:blockElements*d.Bits()/8], d) {
			return -1
		}
	}
	return done
}
