package modelavg

import (
	"math"
	"strconv"

	"github.com/modelavg/modelavg/kernel"
)

// A Float16 holds the 16 bits of an IEEE 754 binary16 number. It is not a number to Go: float32(h) converts the bits, and
// h.Float32() the value. A []uint16 of such bits, or a slice of another type with the same representation, converts
// without a copy by unsafe.Slice.
type Float16 uint16

// A BFloat16 holds the 16 bits of a bfloat16 number: the upper half of a float32. As for [Float16], b.Float32() is the
// value, and slices of the bits convert without a copy by unsafe.Slice.
type BFloat16 uint16

// NewFloat16 returns f rounded to nearest even; beyond the range of Float16, about ±65504, it is an infinity.
func NewFloat16(f float32) Float16 {
	var bits [1]uint16
	kernel.RoundFloat16(bits[:], []float32{f}, 1)
	return Float16(bits[0])
}

// NewBFloat16 returns f rounded to nearest even.
func NewBFloat16(f float32) BFloat16 {
	var bits [1]uint16
	kernel.RoundBFloat16(bits[:], []float32{f}, 1)
	return BFloat16(bits[0])
}

// Float32 returns the value of h, which float32 holds exactly.
func (h Float16) Float32() float32 {
	sum := [1]float32{float32(math.Copysign(0, -1))}
	kernel.AccumulateFloat16(sum[:], []uint16{uint16(h)}, 1)
	return sum[0]
}

// Float32 returns the value of b, which float32 holds exactly.
func (b BFloat16) Float32() float32 {
	sum := [1]float32{float32(math.Copysign(0, -1))}
	kernel.AccumulateBFloat16(sum[:], []uint16{uint16(b)}, 1)
	return sum[0]
}

// String returns the value of h in decimal.
func (h Float16) String() string { return strconv.FormatFloat(float64(h.Float32()), 'g', -1, 32) }

// String returns the value of b in decimal.
func (b BFloat16) String() string { return strconv.FormatFloat(float64(b.Float32()), 'g', -1, 32) }
