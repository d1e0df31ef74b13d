package merge

import (
	"github.com/modelavg/modelavg/checkpoint"
	"github.com/modelavg/modelavg/internal/convert"
	"github.com/modelavg/modelavg/kernel"
)

// The size of the blocks that allFinite adds up: small enough for the innermost cache.
const (
	blockElements = 2048
	blocks        = 7 // with the sum itself as many as the kernels take at a time
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
	var (
		weights [1 + blocks]float64
		views   [1 + blocks][]T
	)
	clear(scratch)
	dst := elements[T](scratch, blockElements)
	views[0] = dst // what was found before is found again
	done := 0
	for len(x)-done >= blockElements {
		n := min(blocks, (len(x)-done)/blockElements)
		for k := range n {
			views[1+k] = x[done+k*blockElements:][:blockElements]
		}
		sum(dst, views[:1+n], weights[:1+n])
		done += n * blockElements
	}
	if !convert.AllFinite(scratch[:blockElements*d.Bits()/8], d) {
		return -1
	}
	return done
}
