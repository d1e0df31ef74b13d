package kernel

import "math"

// fma32 returns x·y + z rounded once to float32.
//
// The product of two float32 is exact in float64. Their sum with z is not, and rounding it to float64 and then to float32
// would round twice; so the float64 sum is rounded to odd, after which the second rounding is the only one (Boldo and
// Melquiond, "Emulation of FMA and correctly rounded sums", 2008).
func fma32(x, y, z float32) float32 {
	product := float64(float64(x) * float64(y))
	addend := float64(z)
	sum := product + addend
	b := sum - product
	lost := (product - (sum - b)) + (addend - b)
	if lost < 0 || lost > 0 { // neither when the sum is exact, infinite or NaN
		bits := math.Float64bits(sum)
		if bits&1 == 0 {
			if (lost > 0) == (sum > 0) {
				bits++
			} else {
				bits--
			}
			sum = math.Float64frombits(bits)
		}
	}
	return float32(sum)
}

// float32FromFloat16 widens IEEE 754 binary16, which float32 holds exactly.
func float32FromFloat16(h uint16) float32 {
	sign := uint32(h&0x8000) << 16
	magnitude := uint32(h & 0x7fff)
	switch {
	case magnitude >= 0x7c00: // Inf or NaN
		return math.Float32frombits(sign | 0x7f800000 | (magnitude&0x3ff)<<13)
	case magnitude >= 0x0400: // normal: the exponent's bias grows from 15 to 127
		return math.Float32frombits(sign | (magnitude<<13 + (127-15)<<23))
	}
	subnormal := float32(magnitude) * 0x1p-24
	return math.Float32frombits(sign | math.Float32bits(subnormal))
}

// float16FromFloat32 rounds to IEEE 754 binary16, to nearest even; overflow gives an infinity.
func float16FromFloat32(f float32) uint16 {
	bits := math.Float32bits(f)
	sign := uint16(bits >> 16 & 0x8000)
	bits &= 0x7fffffff
	switch {
	case bits > 0x7f800000: // NaN
		return sign | 0x7e00
	case bits >= 0x47800000: // 65536 and more
		return sign | 0x7c00
	case bits < 0x38800000: // below 2^−14: one unit in the last place of [½, 1) is the least subnormal, 2^−24
		return sign | uint16(math.Float32bits(math.Float32frombits(bits)+0.5)-0x3f000000)
	}
	bits -= (127 - 15) << 23
	return sign | uint16((bits+0xfff+bits>>13&1)>>13) // a carry into the exponent is right, up to infinity
}

// float32FromBFloat16 widens bfloat16, which is the upper half of a float32.
func float32FromBFloat16(b uint16) float32 { return math.Float32frombits(uint32(b) << 16) }

// bfloat16FromFloat32 rounds to bfloat16, to nearest even; overflow gives an infinity.
func bfloat16FromFloat32(f float32) uint16 {
	bits := math.Float32bits(f)
	if bits&0x7fffffff > 0x7f800000 { // NaN: keep it one when the low half is cut off
		return uint16(bits>>16) | 0x40
	}
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}
