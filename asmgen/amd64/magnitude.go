package amd64

import (
	"fmt"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/operand" //nolint:revive // the operands are a language of their own
	"github.com/mmcloughlin/avo/reg"
)

// magnitudeBlock is how many bytes the magnitude functions take at a time.
const magnitudeBlock = 128

// magnitude writes, for words of 16 or 32 bits:
//
//	m := 0
//	for each word of the n bytes at x { m = max(m, word&mask) }
//	return m
//
// AVX-512 has no use for a longer one: the loads are all that it waits for.
func (g *generator) magnitude(wordBits int) {
	g.Function(fmt.Sprintf("magnitude%d%s", wordBits, g.isa.name))
	g.Attributes(attr.NOSPLIT)
	g.SignatureExpr("func(x *byte, n int, mask uint64) (m uint64)")
	g.Comment(
		fmt.Sprintf("m := 0; for each word of %d bits of the n bytes at x, which are whole blocks { m = max(m, word&mask) }",
			wordBits),
	)
	greater := func(a, b, out reg.VecVirtual) {
		if wordBits == 16 {
			g.VPMAXUW(a, b, out)
		} else {
			g.VPMAXUD(a, b, out)
		}
	}
	x, n := g.Load(g.Param("x"), g.GP64()), g.Load(g.Param("n"), g.GP64())
	mask := g.vec()
	g.VPBROADCASTQ(g.param("mask"), mask)
	var largest [magnitudeBlock / 32]reg.VecVirtual
	for i := range largest {
		largest[i] = g.vec()
		g.zero(largest[i])
	}
	next := g.label("magnitudes")
	g.Label(next)
	for i, m := range largest {
		word := g.vec()
		g.VPAND(Mem{Base: x, Disp: 32 * i}, mask, word)
		greater(word, m, m)
	}
	g.ADDQ(Imm(magnitudeBlock), x)
	g.SUBQ(Imm(magnitudeBlock), n)
	g.JNZ(LabelRef(next))

	g.Comment("The largest of one vector, then of its halves, down to a word.")
	m, half := largest[0], g.vec()
	for _, other := range largest[1:] {
		greater(other, m, m)
	}
	g.VEXTRACTI128(Imm(1), m, half.AsX())
	greater(half, m, m)
	for _, order := range []uint64{0x4e, 0xb1} { // the halves exchanged, then their halves
		g.VPSHUFD(Imm(order), m, half)
		greater(half, m, m)
	}
	if wordBits == 16 {
		g.VPSRLD(Imm(16), m, half)
		greater(half, m, m)
	}
	result := g.GP32()
	g.VMOVD(m.AsX(), result)
	if wordBits == 16 {
		g.MOVWLZX(result.As16(), result)
	}
	g.Store(result.As64(), g.ReturnIndex(0))
	g.VZEROUPPER()
	g.RET()
}
