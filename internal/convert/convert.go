// Package convert turns the bytes of tensors into numbers and numbers into the bytes of tensors, each rounded once.
//
// It knows what package kernel does not: the floats of 8 bits, and the way from float64 to the formats of 16 and 8 bits
// in one step. By way of float32 a number would be rounded twice, which gives a wrong neighbour where the first rounding
// meets the middle between two numbers of the narrow format.
//
// All []byte hold little-endian elements, as model files do.
package convert

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/modelavg/modelavg/checkpoint"
)

// A layout says how a float format uses its bits: sign, exponent and fraction, from the top.
type layout struct {
	size     int    // of an element in bytes
	fraction int    // bits of the fraction
	bias     int    // of the exponent
	largest  uint64 // bits of the largest finite number
	infinity uint64 // bits of infinity; what stands for it where there is none
	nan      uint64 // bits of a quiet NaN
}

// layouts holds the formats that are averaged. F8_E4M3 has no infinities: the largest exponent belongs to numbers, but
// for one pattern, which is NaN ("OCP 8-bit Floating Point Specification", revision 1.0, 2023, section 5).
var layouts = map[checkpoint.DType]layout{
	checkpoint.F64:    {8, 52, 1023, 0x7fef_ffff_ffff_ffff, 0x7ff0_0000_0000_0000, 0x7ff8_0000_0000_0000},
	checkpoint.F32:    {4, 23, 127, 0x7f7f_ffff, 0x7f80_0000, 0x7fc0_0000},
	checkpoint.F16:    {2, 10, 15, 0x7bff, 0x7c00, 0x7e00},
	checkpoint.BF16:   {2, 7, 127, 0x7f7f, 0x7f80, 0x7fc0},
	checkpoint.F8E5M2: {1, 2, 15, 0x7b, 0x7c, 0x7e},
	checkpoint.F8E4M3: {1, 3, 7, 0x7e, 0x7f, 0x7f},
}

// IsFloat reports whether d is a format of this package: F64, F32, F16, BF16, F8_E5M2 or F8_E4M3.
func IsFloat(d checkpoint.DType) bool {
	_, ok := layouts[d]
	return ok
}

// layoutOf returns the layout of d. It panics if there is none, as all functions do that are given such a dtype.
func layoutOf(d checkpoint.DType) layout {
	l, ok := layouts[d]
	if !ok {
		panic(fmt.Sprintf("convert: dtype %v is no float that is averaged", d))
	}
	return l
}

// sign returns the sign bit of the format.
func (l *layout) sign() uint64 { return 1 << (8*l.size - 1) }

// round returns the bits of x, rounded to nearest even. What is too large becomes infinity, or NaN in F8_E4M3.
func (l *layout) round(x float64) uint64 {
	const (
		fraction64 = 52
		bias64     = 1023
		infinity64 = 0x7ff0_0000_0000_0000
	)
	magnitude := math.Float64bits(x)
	var sign uint64
	if magnitude>>63 != 0 {
		sign = l.sign()
		magnitude &^= 1 << 63
	}
	if magnitude > infinity64 {
		return sign | l.nan
	}
	drop := fraction64 - l.fraction
	var bits uint64
	if least := uint64(bias64-l.bias+1) << fraction64; magnitude < least {
		// Below the least normal number all numbers of the format are multiples of the same unit. Added to 2^52 units, x is
		// rounded to a multiple of it by the addition, and the multiple is what the sum has more than 2^52 units.
		offset := math.Ldexp(1, fraction64+1-l.bias-l.fraction)
		bits = math.Float64bits(math.Float64frombits(magnitude)+offset) - math.Float64bits(offset)
	} else {
		bits = magnitude - uint64(bias64-l.bias)<<fraction64
		if drop > 0 {
			bits += 1<<(drop-1) - 1 + bits>>drop&1 // a carry into the exponent is right
			bits >>= drop
		}
	}
	if bits > l.largest {
		bits = l.infinity
	}
	return sign | bits
}

// value returns the number that the bits stand for. Every format is a subset of float64.
func (l *layout) value(bits uint64) float64 {
	sign := bits & l.sign()
	magnitude := bits &^ l.sign()
	var x float64
	switch exponent := int(magnitude >> l.fraction); {
	case magnitude > l.largest:
		x = math.NaN()
		if l.infinity != l.nan && magnitude == l.infinity {
			x = math.Inf(1)
		}
	case exponent == 0:
		x = math.Ldexp(float64(magnitude), 1-l.bias-l.fraction)
	default:
		x = math.Ldexp(float64(magnitude&(1<<l.fraction-1)|1<<l.fraction), exponent-l.bias-l.fraction)
	}
	if sign != 0 {
		x = -x
	}
	return x
}

// Round writes src[i]/divisor, divided in float64 and rounded once to d, to nearest even, to dst. What is too large
// becomes infinity, or NaN in F8_E4M3, which has no infinities. dst has len(src) elements.
func Round[T float32 | float64](dst []byte, src []T, divisor T, d checkpoint.DType) {
	l := layoutOf(d)
	switch l.size {
	case 1:
		for i, x := range src {
			dst[i] = byte(l.round(float64(x / divisor)))
		}
	case 2:
		for i, x := range src {
			binary.LittleEndian.PutUint16(dst[2*i:], uint16(l.round(float64(x/divisor))))
		}
	case 4:
		for i, x := range src {
			binary.LittleEndian.PutUint32(dst[4*i:], math.Float32bits(float32(x/divisor)))
		}
	default:
		for i, x := range src {
			binary.LittleEndian.PutUint64(dst[8*i:], math.Float64bits(float64(x/divisor)))
		}
	}
}

// The floats of 8 bits as IEEE binary16, which holds all of them exactly.
var float16From = map[checkpoint.DType]*[256]uint16{
	checkpoint.F8E5M2: float16Table(checkpoint.F8E5M2),
	checkpoint.F8E4M3: float16Table(checkpoint.F8E4M3),
}

func float16Table(d checkpoint.DType) *[256]uint16 {
	from, to := layoutOf(d), layoutOf(checkpoint.F16)
	var table [256]uint16
	for i := range table {
		table[i] = uint16(to.round(from.value(uint64(i))))
	}
	return &table
}

// Float16From8 sets dst[i] to the bits, in IEEE binary16, of the number src[i], a float of 8 bits. That is exact.
func Float16From8(dst []uint16, src []byte, d checkpoint.DType) {
	table := float16From[d]
	for i, b := range src {
		dst[i] = table[b]
	}
}
