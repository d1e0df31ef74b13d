package convert

import (
	"encoding/binary"
	"math"

	"github.com/modelavg/modelavg/checkpoint"
)

// IsNumber reports whether [Float64s] can read elements of d: the floats of this package, integers and BOOL.
func IsNumber(d checkpoint.DType) bool { return IsFloat(d) || d.IsInteger() }

// Float64s sets dst[i] to the value of element i of src. It is exact but for integers beyond 2^53, which are rounded to
// nearest even. src has len(dst) elements. Float64s panics if d is not one for which [IsNumber] is true.
func Float64s(dst []float64, src []byte, d checkpoint.DType) {
	switch d {
	case checkpoint.F64:
		read(dst, src, 8, func(p []byte) float64 { return math.Float64frombits(binary.LittleEndian.Uint64(p)) })
	case checkpoint.F32:
		read(dst, src, 4, func(p []byte) float64 { return float64(math.Float32frombits(binary.LittleEndian.Uint32(p))) })
	case checkpoint.BF16:
		read(dst, src, 2, func(p []byte) float64 {
			return float64(math.Float32frombits(uint32(binary.LittleEndian.Uint16(p)) << 16))
		})
	case checkpoint.F16:
		read(dst, src, 2, func(p []byte) float64 { return float64(float16Value(binary.LittleEndian.Uint16(p))) })
	case checkpoint.F8E5M2, checkpoint.F8E4M3:
		table := float16From[d]
		read(dst, src, 1, func(p []byte) float64 { return float64(float16Value(table[p[0]])) })
	case checkpoint.I64:
		read(dst, src, 8, func(p []byte) float64 { return float64(int64(binary.LittleEndian.Uint64(p))) })
	case checkpoint.U64:
		read(dst, src, 8, func(p []byte) float64 { return float64(binary.LittleEndian.Uint64(p)) })
	case checkpoint.I32:
		read(dst, src, 4, func(p []byte) float64 { return float64(int32(binary.LittleEndian.Uint32(p))) })
	case checkpoint.U32:
		read(dst, src, 4, func(p []byte) float64 { return float64(binary.LittleEndian.Uint32(p)) })
	case checkpoint.I16:
		read(dst, src, 2, func(p []byte) float64 { return float64(int16(binary.LittleEndian.Uint16(p))) })
	case checkpoint.U16:
		read(dst, src, 2, func(p []byte) float64 { return float64(binary.LittleEndian.Uint16(p)) })
	case checkpoint.I8:
		read(dst, src, 1, func(p []byte) float64 { return float64(int8(p[0])) })
	case checkpoint.U8, checkpoint.Bool:
		read(dst, src, 1, func(p []byte) float64 { return float64(p[0]) })
	default:
		panic("convert: dtype " + d.String() + " is no number")
	}
}

// read sets all of dst.
func read(dst []float64, src []byte, size int, value func(p []byte) float64) {
	for i := range dst {
		dst[i] = value(src[i*size:])
	}
}

// float16Value widens IEEE binary16 to float32, which is exact.
func float16Value(h uint16) float32 {
	magnitude := uint32(h & 0x7fff)
	// The multiplication raises the exponent by the difference of the biases, and normalizes subnormal numbers.
	bits := math.Float32bits(math.Float32frombits(magnitude<<13) * 0x1p112)
	if magnitude >= 0x7c00 { // infinity or NaN
		bits = 0x7f800000 | magnitude&0x3ff<<13
	}
	return math.Float32frombits(bits | uint32(h&0x8000)<<16)
}
