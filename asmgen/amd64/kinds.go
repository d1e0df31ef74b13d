package amd64

import (
	. "github.com/mmcloughlin/avo/operand" //nolint:revive // the operands are a language of their own
	"github.com/mmcloughlin/avo/reg"
)

var kinds = []kind{float32Kind{}, float64Kind{}, float16Kind{}, bfloat16Kind{}, float32Native{}, float64Wider{}}

// simple is what the kinds with one register an accumulator share.
type simple struct{}

// vectors is half of the registers: AVX-512 has twice as many, and longer visits to a model suit the prefetchers.
func (simple) vectors(g *generator) int {
	if g.isa == avx512 {
		return 16
	}
	return 8
}

func (simple) registers() int     { return 1 }
func (simple) prepare(*generator) {}
func (simple) load(g *generator, a accumulator, acc Mem) {
	g.VMOVUPS(acc, a[0])
}

func (simple) save(g *generator, a accumulator, acc Mem) {
	g.VMOVUPS(a[0], acc)
}

// float32Kind accumulates float32 in float64.
type float32Kind struct{ simple }

func (float32Kind) name() string              { return "Float32" }
func (float32Kind) elementSize() int          { return 4 }
func (float32Kind) accumulatorSize() int      { return 8 }
func (float32Kind) lanes(g *generator) int    { return g.isa.bytes / 8 }
func (float32Kind) rawBytes(g *generator) int { return g.isa.bytes / 2 }

func (float32Kind) first(g *generator, a accumulator, weight reg.VecVirtual, x Op) {
	g.VCVTPS2PD(x, a[0])
	g.VMULPD(weight, a[0], a[0])
}

func (float32Kind) fold(g *generator, a accumulator, weight reg.VecVirtual, x Op) {
	wide := g.vec()
	g.VCVTPS2PD(x, wide)
	g.VFMADD231PD(wide, weight, a[0])
}

func (float32Kind) divide(g *generator, a accumulator, divisor reg.VecVirtual) {
	g.VDIVPD(divisor, a[0], a[0])
}

func (float32Kind) round(g *generator, a accumulator) reg.VecVirtual {
	narrow := a[0] // no new register, which the many of a block have no room for
	if g.isa == avx512 {
		g.VCVTPD2PS(a[0], narrow.AsY())
	} else {
		g.VCVTPD2PSY(a[0], narrow.AsX())
	}
	return narrow
}

// float64Kind accumulates float64 in float64.
type float64Kind struct{ simple }

func (float64Kind) name() string              { return "Float64" }
func (float64Kind) elementSize() int          { return 8 }
func (float64Kind) accumulatorSize() int      { return 8 }
func (float64Kind) lanes(g *generator) int    { return g.isa.bytes / 8 }
func (float64Kind) rawBytes(g *generator) int { return g.isa.bytes }

func (float64Kind) first(g *generator, a accumulator, weight reg.VecVirtual, x Op) {
	g.VMULPD(x, weight, a[0])
}

func (float64Kind) fold(g *generator, a accumulator, weight reg.VecVirtual, x Op) {
	g.VFMADD231PD(x, weight, a[0])
}

func (float64Kind) divide(g *generator, a accumulator, divisor reg.VecVirtual) {
	g.VDIVPD(divisor, a[0], a[0])
}

func (float64Kind) round(_ *generator, a accumulator) reg.VecVirtual { return a[0] }

// float32Native accumulates float32 in float32.
type float32Native struct{ simple }

func (float32Native) name() string              { return "Float32Native" }
func (float32Native) elementSize() int          { return 4 }
func (float32Native) accumulatorSize() int      { return 4 }
func (float32Native) lanes(g *generator) int    { return g.isa.bytes / 4 }
func (float32Native) rawBytes(g *generator) int { return g.isa.bytes }

func (float32Native) first(g *generator, a accumulator, weight reg.VecVirtual, x Op) {
	g.VMULPS(x, weight, a[0])
}

func (float32Native) fold(g *generator, a accumulator, weight reg.VecVirtual, x Op) {
	g.VFMADD231PS(x, weight, a[0])
}

func (float32Native) divide(g *generator, a accumulator, divisor reg.VecVirtual) {
	g.VDIVPS(divisor, a[0], a[0])
}

func (float32Native) round(_ *generator, a accumulator) reg.VecVirtual { return a[0] }

// float16Kind accumulates IEEE binary16 in float32.
type float16Kind struct{ simple }

func (float16Kind) name() string              { return "Float16" }
func (float16Kind) elementSize() int          { return 2 }
func (float16Kind) accumulatorSize() int      { return 4 }
func (float16Kind) lanes(g *generator) int    { return g.isa.bytes / 4 }
func (float16Kind) rawBytes(g *generator) int { return g.isa.bytes / 2 }

func (float16Kind) first(g *generator, a accumulator, weight reg.VecVirtual, x Op) {
	g.VCVTPH2PS(x, a[0])
	g.VMULPS(weight, a[0], a[0])
}

func (float16Kind) fold(g *generator, a accumulator, weight reg.VecVirtual, x Op) {
	wide := g.vec()
	g.VCVTPH2PS(x, wide)
	g.VFMADD231PS(wide, weight, a[0])
}

func (float16Kind) divide(g *generator, a accumulator, divisor reg.VecVirtual) {
	g.VDIVPS(divisor, a[0], a[0])
}

func (float16Kind) round(g *generator, a accumulator) reg.VecVirtual {
	const nearestEven = 0
	narrow := a[0]
	g.VCVTPS2PH(Imm(nearestEven), a[0], g.raw(narrow))
	return narrow
}

// bfloat16Kind accumulates bfloat16 in float32. A vector of elements is taken as 32-bit pairs: shifted left they are the
// elements of even index in float32, masked those of odd index; an accumulator has one register for each.
type bfloat16Kind struct{}

func (bfloat16Kind) name() string              { return "BFloat16" }
func (bfloat16Kind) elementSize() int          { return 2 }
func (bfloat16Kind) accumulatorSize() int      { return 4 }
func (bfloat16Kind) vectors(g *generator) int  { return simple{}.vectors(g) / 2 }
func (bfloat16Kind) registers() int            { return 2 }
func (bfloat16Kind) lanes(g *generator) int    { return g.isa.bytes / 2 }
func (bfloat16Kind) rawBytes(g *generator) int { return g.isa.bytes }

func (bfloat16Kind) prepare(g *generator) {
	upper := g.vec()
	if g.isa == avx512 {
		g.VPTERNLOGD(Imm(0xff), upper, upper, upper)
	} else {
		g.VPCMPEQD(upper, upper, upper)
	}
	g.VPSLLD(Imm(16), upper, upper)
	g.constants["upper"] = upper
}

func (bfloat16Kind) first(g *generator, a accumulator, weight reg.VecVirtual, x Op) {
	even, odd := a[0], a[1]
	g.VMOVUPS(x, odd)
	g.VPSLLD(Imm(16), odd, even)
	g.and(odd, g.constants["upper"], odd)
	g.VMULPS(even, weight, even)
	g.VMULPS(odd, weight, odd)
}

func (bfloat16Kind) fold(g *generator, a accumulator, weight reg.VecVirtual, x Op) {
	even, odd := g.vec(), g.vec()
	if IsRegister(x) {
		g.VPSLLD(Imm(16), x, even)
		g.and(x, g.constants["upper"], odd)
	} else {
		g.VMOVUPS(x, odd)
		g.VPSLLD(Imm(16), odd, even)
		g.and(odd, g.constants["upper"], odd)
	}
	g.VFMADD231PS(even, weight, a[0])
	g.VFMADD231PS(odd, weight, a[1])
}

func (bfloat16Kind) divide(g *generator, a accumulator, divisor reg.VecVirtual) {
	g.VDIVPS(divisor, a[0], a[0])
	g.VDIVPS(divisor, a[1], a[1])
}

// round adds 0x7fff, or 0x8000 where the last bit that stays is set, so that cutting off the lower half rounds to nearest
// even; a NaN is made quiet instead, so that it stays one, unless its lower half is known to be zero: to that 0x8000 is
// added without a carry.
func (bfloat16Kind) round(g *generator, a accumulator) reg.VecVirtual {
	if g.isa == avx512 {
		return g.roundBFloat16(a)
	}
	bias, one, quiet := g.vec(), g.vec(), g.vec()
	g.VPBROADCASTD(g.constant(0x7fff), bias)
	g.VPBROADCASTD(g.constant(1), one)
	if !g.shortNaN {
		g.VPBROADCASTD(g.constant(0x00400000), quiet)
	}
	var rounded [2]reg.VecVirtual
	for i, v := range a {
		r := g.vec()
		g.VPSRLD(Imm(16), v, r)
		g.VPAND(r, one, r)
		g.VPADDD(bias, r, r)
		g.VPADDD(v, r, r)
		if !g.shortNaN {
			const unordered = 3
			nan, quieted := g.vec(), g.vec()
			g.VCMPPS(Imm(unordered), v, v, nan)
			g.VPOR(quiet, v, quieted)
			g.VBLENDVPS(nan, quieted, r, r)
		}
		rounded[i] = r
	}
	even, odd := rounded[0], rounded[1]
	g.VPSRLD(Imm(16), even, even)
	g.VPBLENDW(Imm(0xaa), odd, even, odd)
	return odd
}

// roundBFloat16 is round with masks, and with the instruction that replaces numbers by their class: two thirds of the
// operations.
func (g *generator) roundBFloat16(a accumulator) reg.VecVirtual {
	var rounded [2]reg.VecVirtual
	for i, v := range a {
		r, last := g.vec(), g.K()
		g.VPTESTMD_BCST(g.constant(0x10000), v, last)
		g.VPADDD_BCST(g.constant(0x7fff), v, r)
		g.VPADDD_BCST(g.constant(0x8000), v, last, r)
		if !g.shortNaN {
			const quietNaN = 0x22 // of a quiet and of a signaling NaN the quiet one, and r of all others
			g.VFIXUPIMMPS_BCST(Imm(0), g.constant(quietNaN), v, r)
		}
		rounded[i] = r
	}
	even, odd := rounded[0], rounded[1]
	g.VPSRLD(Imm(16), even, even)
	const orWithMasked = 0xea // even | odd&upper
	g.VPTERNLOGD(Imm(orWithMasked), even, g.constants["upper"], odd)
	return odd
}

// load takes accumulators in their natural order apart into those of even and odd index.
func (bfloat16Kind) load(g *generator, a accumulator, acc Mem) {
	even, odd := a[0], a[1]
	if g.isa == avx512 {
		high := g.vec()
		g.VMOVUPS(acc.Offset(64), high)
		g.VMOVDQU32(g.sequence("even", 0, 2), even)
		g.VMOVDQU32(g.sequence("odd", 1, 2), odd)
		low := g.vec()
		g.VMOVUPS(acc, low)
		g.VPERMI2PS(high, low, even)
		g.VPERMI2PS(high, low, odd)
		return
	}
	low, high := g.vec(), g.vec()
	g.VMOVUPS(acc, low)
	g.VMOVUPS(acc.Offset(32), high)
	g.VSHUFPS(Imm(0x88), high, low, even) // 0 2 8 10 | 4 6 12 14
	g.VSHUFPS(Imm(0xdd), high, low, odd)
	g.VPERMPD(Imm(0xd8), even, even)
	g.VPERMPD(Imm(0xd8), odd, odd)
}

// save is the reverse of load.
func (bfloat16Kind) save(g *generator, a accumulator, acc Mem) {
	even, odd := a[0], a[1]
	low, high := g.vec(), g.vec()
	if g.isa == avx512 {
		g.VMOVDQU32(g.interleave("low", 0), low)
		g.VMOVDQU32(g.interleave("high", 8), high)
		g.VPERMI2PS(odd, even, low)
		g.VPERMI2PS(odd, even, high)
		g.VMOVUPS(low, acc)
		g.VMOVUPS(high, acc.Offset(64))
		return
	}
	first, second := g.vec(), g.vec()
	g.VUNPCKLPS(odd, even, first)  // 0 1 2 3 | 8 9 10 11
	g.VUNPCKHPS(odd, even, second) // 4 5 6 7 | 12 13 14 15
	g.VPERM2F128(Imm(0x20), second, first, low)
	g.VPERM2F128(Imm(0x31), second, first, high)
	g.VMOVUPS(low, acc)
	g.VMOVUPS(high, acc.Offset(32))
}

// float64Wider accumulates float64 in a pair (sum, compensation) of float64, whose value is sum − compensation.
type float64Wider struct{}

func (float64Wider) name() string              { return "Float64Wider" }
func (float64Wider) elementSize() int          { return 8 }
func (float64Wider) accumulatorSize() int      { return 8 }
func (float64Wider) vectors(*generator) int    { return 4 }
func (float64Wider) registers() int            { return 2 }
func (float64Wider) lanes(g *generator) int    { return g.isa.bytes / 8 }
func (float64Wider) rawBytes(g *generator) int { return g.isa.bytes }

// prepare keeps a 1 to add with: a processor that has as many units for multiplications as for additions, and half of
// each for nothing else, would otherwise leave the former idle.
func (float64Wider) prepare(g *generator) {
	one := g.vec()
	g.broadcast(g.words("one64", 0, 0x3ff00000), one)
	g.constants["one"] = one
}

// first is fold for h = −0 and c = 0, where all but the product and its error are zeros:
//
//	h = w·x; c = (h − w·x exactly) + 0
//
// Where the product is not finite c is not either, which is all that matters of it then.
func (float64Wider) first(g *generator, a accumulator, weight reg.VecVirtual, x Op) {
	h, c := a[0], a[1]
	e := g.vec()
	g.VMOVUPD(x, e)
	g.VMULPD(e, weight, h)
	g.VFNMADD213PD(h, weight, e) // e = −e·w + h
	g.zero(c)
	g.VADDPD(e, c, c)
}

// fold is, for the sum h and the compensation c:
//
//	p = w·x; e = p − w·x exactly; s = h + p; b = s − h
//	c = c + (((s − b) − h) + (b − p)) + e
//	h = s
//
// Some of the additions are written as fused ones of a product by 1.
func (float64Wider) fold(g *generator, a accumulator, weight reg.VecVirtual, x Op) {
	h, c := a[0], a[1]
	one := g.constants["one"]
	e, p, s, b, t := g.vec(), g.vec(), g.vec(), g.vec(), g.vec()
	g.VMOVUPD(x, e)
	g.VMULPD(e, weight, p)
	g.VFNMADD213PD(p, weight, e) // e = −e·w + p
	g.VADDPD(p, h, s)
	g.VSUBPD(h, s, b)
	g.VSUBPD(b, s, t)
	g.VSUBPD(h, t, t)
	g.VFMSUB132PD(one, p, b) // b = b·1 − p
	g.VADDPD(b, t, t)
	g.VADDPD(e, t, t)
	g.VFMADD231PD(t, one, c) // c = t·1 + c
	g.VMOVAPD(s, h)
}

// divide is, for the sum h and the compensation c:
//
//	q = h/divisor; c = (fma(q, divisor, −h) + c)/divisor; h = q
func (float64Wider) divide(g *generator, a accumulator, divisor reg.VecVirtual) {
	h, c := a[0], a[1]
	q, r := g.vec(), g.vec()
	g.VDIVPD(divisor, h, q)
	g.VMOVAPD(q, r)
	g.VFMSUB213PD(h, divisor, r) // r = r·divisor − h
	g.VADDPD(c, r, c)
	g.VDIVPD(divisor, c, c)
	g.VMOVAPD(q, h)
}

// round is h − c, or h where c is not finite.
func (float64Wider) round(g *generator, a accumulator) reg.VecVirtual {
	h, c := a[0], a[1]
	difference, result := g.vec(), g.vec()
	g.VSUBPD(c, c, difference)
	g.VSUBPD(c, h, result)
	const unordered = 3
	if g.isa == avx512 {
		infinite := g.K()
		g.VCMPPD(Imm(unordered), difference, difference, infinite)
		g.VMOVAPD(h, infinite, result)
	} else {
		g.VCMPPD(Imm(unordered), difference, difference, difference)
		g.VBLENDVPD(difference, h, result, result)
	}
	return result
}

func (float64Wider) load(g *generator, a accumulator, acc Mem) {
	g.VMOVUPD(acc, a[0])
	g.VMOVUPD(acc.Offset(widerStride), a[1])
}

func (float64Wider) save(g *generator, a accumulator, acc Mem) {
	g.VMOVUPD(a[0], acc)
	g.VMOVUPD(a[1], acc.Offset(widerStride))
}
