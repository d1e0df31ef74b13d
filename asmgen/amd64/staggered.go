package amd64

import (
	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/operand" //nolint:revive // the operands are a language of their own
	"github.com/mmcloughlin/avo/reg"
)

// What weightedSumStaggered shares with package kernel.
const (
	staggeredGroup = 6   // models
	staggeredLag   = 256 // elements
)

// weightedSumStaggered is weightedSum for more models than a group, of which the lines in one place of a page are more
// than the first-level cache has ways: the prefetcher fetches those that come next for all models, and so drives the first
// of them out again before they are read. Here it has a group of models in each place.
//
// The groups follow one another at a distance, and hand their sums on in a ring of accumulators for each but the last:
//
//	last := (models−1) / group
//	for i := −last·lag; i < n; i += block {
//		for g := last; g ≥ 0; g-- { // the last first: it takes what the one before it is about to replace
//			for p := range block from i + (last−g)·lag on, if 0 ≤ p < n {
//				a := −0 or, if g > 0, ring[g−1][p mod lag]
//				for k := range models of g { a = fma(w[k], x[k][p], a) }
//				if g < last { ring[g][p mod lag] = a; continue }
//				if flags&divide != 0 { a /= divisor } else if flags&scale != 0 { a *= divisor }
//				dst[p] = round(a)
//			}
//		}
//	}
//
// n is a multiple of a block, and last is given.
func (g *generator) weightedSumStaggered() {
	g.Function("weightedSumStaggered" + g.name + g.isa.name)
	g.Attributes(attr.NOSPLIT)
	g.SignatureExpr("func(dst, x, w, ring *byte, n, models, last int, divisor float64, flags int)")
	g.Comment(
		"for g := range groups of models, each at some distance behind the one before it {",
		"	for i := range n {",
		"		a := −0 or, but for the first group, what the one before it has left",
		"		for k := range models of g { a = fma(w[k], x[k][i], a) }",
		"		leave a, but for the last group:",
		"		if flags&divide != 0 { a /= divisor } else if flags&scale != 0 { a *= divisor }",
		"		dst[i] = round(a)",
		"	}",
		"}",
	)
	const weightBytes = 8
	ringBytes := staggeredLag * g.accumulatorSize()
	block := g.vectors(g) * g.lanes(g)

	g.n = g.Load(g.Param("n"), g.GP64())
	g.negativeZero = g.vec()
	g.signBits(g.negativeZero)
	i, header, weight, ring, models := g.GP64(), g.GP64(), g.GP64(), g.GP64(), g.GP64()
	last := g.Load(g.Param("last"), g.GP64())
	g.IMUL3Q(I32(-staggeredLag), last, i)

	p := g.GP64()
	step, earlier, fresh, started, skip := g.label("step"), g.label("earlier"), g.label("fresh"), g.label("started"),
		g.label("skip")
	g.Label(step)
	g.IMUL3Q(I32(staggeredGroup*sliceHeader), last, header)
	g.ADDQ(g.param("x"), header)
	g.IMUL3Q(I32(staggeredGroup*weightBytes), last, weight)
	g.ADDQ(g.param("w"), weight)
	g.IMUL3Q(I32(-staggeredGroup), last, models)
	g.ADDQ(g.param("models"), models)
	g.MOVQ(i, p)
	g.ANDQ(I32(staggeredLag-1), p)
	g.IMUL3Q(I32(int32(ringBytes)), last, ring)
	g.ADDQ(g.param("ring"), ring)
	g.LEAQ(Mem{Base: ring, Index: p, Scale: uint8(g.accumulatorSize())}, ring)
	g.MOVQ(i, p)
	g.CMPQ(p, g.n)
	g.JCC(LabelRef(earlier)) // without a sign: from n on, or before 0
	{
		as := g.accumulators(g.vectors(g))
		g.loadAt(as, ring, -ringBytes)
		g.foldGroup(as, header, weight, models, p)
		g.divideAll(as)
		g.dst = g.GP64()
		g.MOVQ(g.param("dst"), g.dst)
		g.LEAQ(Mem{Base: g.dst, Index: p, Scale: uint8(g.elementSize())}, g.dst)
		g.storeCached(g.roundAll(as))
	}

	g.Label(earlier)
	g.SUBQ(U32(staggeredGroup*sliceHeader), header)
	g.SUBQ(U32(staggeredGroup*weightBytes), weight)
	g.SUBQ(I32(int32(ringBytes)), ring)
	g.ADDQ(I32(staggeredLag), p)
	g.CMPQ(p, g.n)
	g.JCC(LabelRef(skip))
	{
		as := g.accumulators(g.vectors(g))
		g.CMPQ(header, g.param("x"))
		g.JEQ(LabelRef(fresh))
		g.loadAt(as, ring, -ringBytes)
		g.JMP(LabelRef(started))
		g.Label(fresh)
		g.clear(as)
		g.Label(started)
		g.MOVQ(U32(staggeredGroup), models)
		g.foldGroup(as, header, weight, models, p)
		g.saveAll(as, ring)
	}
	g.Label(skip)
	g.CMPQ(header, g.param("x"))
	g.JNE(LabelRef(earlier))
	g.ADDQ(I32(int32(block)), i)
	g.CMPQ(i, g.n)
	g.JLT(LabelRef(step))
	g.VZEROUPPER()
	g.RET()
}

// foldGroup folds consecutive vectors, from index on, of so many models into accumulators. It leaves models at zero.
func (g *generator) foldGroup(as []accumulator, header, weight, models, index reg.Register) {
	h, w := g.GP64(), g.GP64()
	g.MOVQ(header, h)
	g.MOVQ(weight, w)
	g.eachModel(h, w, models, g.vectorsFrom(as, index))
}
