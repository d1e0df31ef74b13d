// Package amd64 writes the AVX2 and AVX-512 kernels.
//
// All of them have one shape, and the kinds of element and accumulator differ only in how a vector is widened, folded,
// divided and rounded:
//
//	blocks: while n ≥ block: accumulators ← −0 or acc; for each model: fold; divide; round; store,
//	        for blocks of many vectors, then of few, then of one
//	tail:   the last n mod lanes elements
//
// The tail is part of an overlapped last vector, which is computed before anything is stored and stored after everything
// else: so dst, or acc, may be one of the inputs. A few vectors are the first and the last ones side by side. Fewer
// elements than a vector are left to AVX2 (AVX-512), or gathered into a vector by pieces that overlap (AVX2).
package amd64

import (
	"bytes"
	"fmt"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	. "github.com/mmcloughlin/avo/operand" //nolint:revive // the operands are a language of their own
	"github.com/mmcloughlin/avo/pass"
	"github.com/mmcloughlin/avo/printer"
	"github.com/mmcloughlin/avo/reg"
)

// What the kernels share with package kernel.
const (
	flagStream  = 1
	flagDivide  = 2
	flagScale   = 4
	widerStride = 256 << 10 // bytes from a tile's sums to their compensations
	sliceHeader = 24        // bytes from one model's slice header to the next
)

// Generate returns the text of kernel_amd64.s.
func Generate() ([]byte, error) {
	data = map[string]Mem{}
	ctx := build.NewContext()
	ctx.ConstraintExpr("!purego,!noasm")
	for _, isa := range []isa{avx512, avx2} {
		for _, k := range kinds {
			g := &generator{Context: ctx, isa: isa, kind: k, name: k.name()}
			g.weightedSum()
			g.accumulate()
		}
	}
	g := &generator{Context: ctx, isa: avx2, kind: float32Kind{}, name: float32Kind{}.name()}
	g.weightedSumStaggered()
	g = &generator{Context: ctx, isa: avx2}
	g.magnitude(16)
	g.magnitude(32)
	file, err := ctx.Result()
	if err != nil {
		return nil, err
	}
	if err := pass.Compile.Execute(file); err != nil {
		return nil, err
	}
	text, err := printer.NewGoAsm(printer.Config{
		Argv: []string{"go", "generate", "./kernel"},
		Pkg:  "kernel",
	}).Print(file)
	if err != nil {
		return nil, err
	}
	return append(bytes.TrimRight(text, "\n"), '\n'), nil
}

// An isa is an instruction set.
type isa struct {
	name  string
	bytes int // in a vector
}

var (
	avx2   = isa{"AVX2", 32}
	avx512 = isa{"AVX512", 64}
)

// A generator writes the functions of one kind of element for one instruction set.
type generator struct {
	*build.Context
	isa
	kind
	name   string
	labels int

	dst, acc, n, index reg.Register // index: of the next element of every model
	negativeZero       reg.VecVirtual
	constants          map[string]reg.VecVirtual // that a kind keeps in registers
	narrowed           bool                      // the weights are those in narrow
	shortNaN           bool                      // no NaN in the accumulators has a bit that bfloat16 has no place for
}

// An accumulator is the registers that hold one vector of accumulators: one, or the two halves of a pair.
type accumulator []reg.VecVirtual

// A kind is an element type together with its accumulator.
type kind interface {
	name() string
	elementSize() int
	accumulatorSize() int
	vectors(g *generator) int  // accumulators in a block
	registers() int            // of an accumulator
	lanes(g *generator) int    // elements in an accumulator
	rawBytes(g *generator) int // of those elements in memory
	prepare(g *generator)      // constants that stay in registers
	fold(g *generator, a accumulator, weight reg.VecVirtual, x Op)
	divide(g *generator, a accumulator, divisor reg.VecVirtual)
	load(g *generator, a accumulator, acc Mem)
	save(g *generator, a accumulator, acc Mem)
	round(g *generator, a accumulator) reg.VecVirtual // to the elements, in rawBytes
}

// A kind that is a multiplier has a shorter way to fold the first model into −0 and, for pairs, 0: it is a product.
type multiplier interface {
	first(g *generator, a accumulator, weight reg.VecVirtual, x Op)
}

func (g *generator) vec() reg.VecVirtual {
	if g.isa == avx512 {
		return g.ZMM()
	}
	return g.YMM()
}

// raw returns the register, or the part of v, that holds a vector of elements.
func (g *generator) raw(v reg.Vec) reg.Register {
	switch g.rawBytes(g) {
	case 16:
		return v.AsX()
	case 32:
		return v.AsY()
	}
	return v.AsZ()
}

func (g *generator) label(name string) string {
	g.labels++
	return fmt.Sprintf("%s%d", name, g.labels)
}

func (g *generator) accumulators(n int) []accumulator {
	as := make([]accumulator, n)
	for i := range as {
		for range g.registers() {
			as[i] = append(as[i], g.vec())
		}
	}
	return as
}

// clear sets accumulators to −0 and the compensations of pairs to 0.
func (g *generator) clear(as []accumulator) {
	for _, a := range as {
		for j, r := range a {
			if _, pair := g.kind.(float64Wider); pair && j == 1 {
				g.zero(r)
			} else {
				g.VMOVAPS(g.negativeZero, r)
			}
		}
	}
}

func (g *generator) zero(r reg.VecVirtual) {
	if g.isa == avx512 {
		g.VPXORD(r, r, r)
	} else {
		g.VXORPS(r, r, r)
	}
}

// broadcast fills v with a float64 in memory, rounded to the accumulator format.
func (g *generator) broadcast(m Mem, v reg.VecVirtual) {
	if g.accumulatorSize() == 8 {
		g.VBROADCASTSD(m, v)
		return
	}
	// The rest of the result comes from a register that nothing waits for.
	g.VCVTSD2SS(m, g.negativeZero.AsX(), v.AsX())
	g.VBROADCASTSS(v.AsX(), v)
}

// narrowWeights is, for elements of 16 bits:
//
//	for k := range models { narrow[k] = float32(w[k]) }
//
// From then on the weights are read from narrow. To round one for each block takes time of the units that calculate, of
// which their conversions leave none. Native float32 waits for its loads.
//
// Of a NaN it clears what bfloat16 has no place for. Where the elements are bfloat16 as well, no result of theirs has such
// bits then: an operation takes its NaN from an operand, or gives the one with no bits but the first.
func (g *generator) narrowWeights() {
	g.narrowed = g.elementSize() == 2
	if !g.narrowed {
		return
	}
	loop, done := g.label("narrow"), g.label("narrowed")
	w, narrow, k, v := g.GP64(), g.GP64(), g.GP64(), g.XMM()
	g.MOVQ(g.param("models"), k)
	g.TESTQ(k, k)
	g.JZ(LabelRef(done))
	g.MOVQ(g.param("w"), w)
	g.MOVQ(g.param("narrow"), narrow)
	g.Label(loop)
	g.VCVTSD2SS(Mem{Base: w}, g.negativeZero.AsX(), v)
	if _, ok := g.kind.(bfloat16Kind); ok {
		const unordered = 3
		nan := g.XMM()
		g.VCMPSS(Imm(unordered), v, v, nan)
		g.VPSRLD(Imm(16), nan, nan)
		g.VPANDN(v, nan, v)
	}
	g.VMOVSS(v, Mem{Base: narrow})
	g.ADDQ(Imm(8), w)
	g.ADDQ(Imm(4), narrow)
	g.DECQ(k)
	g.JNZ(LabelRef(loop))
	g.Label(done)
}

// start sets accumulators to acc[i…] if there are any to continue from, else to −0.
func (g *generator) start(as []accumulator, acc reg.Register) {
	fresh, done := g.label("fresh"), g.label("started")
	g.CMPQ(g.param("acc"), Imm(0))
	g.JEQ(LabelRef(fresh))
	g.loadAll(as, acc)
	g.JMP(LabelRef(done))
	g.Label(fresh)
	g.clear(as)
	g.Label(done)
}

func (g *generator) loadAll(as []accumulator, acc reg.Register) { g.loadAt(as, acc, 0) }

// loadAt loads accumulators from so many bytes behind acc on.
func (g *generator) loadAt(as []accumulator, acc reg.Register, offset int) {
	for i, a := range as {
		g.load(g, a, Mem{Base: acc, Disp: offset + i*g.lanes(g)*g.accumulatorSize()})
	}
}

func (g *generator) saveAll(as []accumulator, acc reg.Register) {
	for i, a := range as {
		g.save(g, a, Mem{Base: acc, Disp: i * g.lanes(g) * g.accumulatorSize()})
	}
}

func (g *generator) param(name string) Mem {
	component, err := g.Param(name).Resolve()
	if err != nil {
		panic(err)
	}
	return component.Addr
}

// foldModels is:
//
//	for k := range models { for each a: a = fma(w[k], x[k][index…], a) }
//
// where fold is given the data pointer of the k-th model and the broadcast weight.
func (g *generator) foldModels(fold func(x reg.Register, weight reg.VecVirtual)) {
	done := g.label("folded")
	header, w, k := g.GP64(), g.GP64(), g.GP64()
	g.MOVQ(g.param("models"), k)
	g.TESTQ(k, k)
	g.JZ(LabelRef(done))
	g.MOVQ(g.param("x"), header)
	if g.narrowed {
		g.MOVQ(g.param("narrow"), w)
	} else {
		g.MOVQ(g.param("w"), w)
	}
	g.eachModel(header, w, k, fold)
	g.Label(done)
}

// eachModel is the loop of foldModels over so many models, at least one, from a slice header and a weight on. All three
// registers have moved on when it is over.
func (g *generator) eachModel(header, w, models reg.Register, fold func(x reg.Register, weight reg.VecVirtual)) {
	loop := g.label("models")
	x, weight, size := g.GP64(), g.vec(), 8
	g.Label(loop)
	g.MOVQ(Mem{Base: header}, x)
	if g.narrowed {
		g.VBROADCASTSS(Mem{Base: w}, weight)
		size = 4
	} else {
		g.broadcast(Mem{Base: w}, weight)
	}
	fold(x, weight)
	g.ADDQ(Imm(sliceHeader), header)
	g.ADDQ(Imm(uint64(size)), w)
	g.DECQ(models)
	g.JNZ(LabelRef(loop))
}

// foldVectors folds consecutive vectors of every model, from index on, into accumulators.
func (g *generator) foldVectors(as []accumulator, index reg.Register) {
	g.foldModels(g.vectorsFrom(as, index))
}

// vectorsFrom returns what folds consecutive vectors of one model, from index on, into accumulators.
func (g *generator) vectorsFrom(as []accumulator, index reg.Register) func(x reg.Register, weight reg.VecVirtual) {
	return func(x reg.Register, weight reg.VecVirtual) {
		for i, a := range as {
			g.fold(g, a, weight, Mem{
				Base: x, Index: index, Scale: uint8(g.elementSize()), Disp: i * g.lanes(g) * g.elementSize(),
			})
		}
	}
}

// divideAll divides accumulators by the divisor, or multiplies them with it, if the call says so.
func (g *generator) divideAll(as []accumulator) {
	scale, done := g.label("scale"), g.label("divided")
	g.TESTQ(U32(flagDivide|flagScale), g.param("flags"))
	g.JZ(LabelRef(done))
	divisor := g.vec()
	g.broadcast(g.param("divisor"), divisor)
	if _, pair := g.kind.(float64Wider); !pair {
		g.TESTQ(U32(flagScale), g.param("flags"))
		g.JNZ(LabelRef(scale))
	}
	for _, a := range as {
		g.divide(g, a, divisor)
	}
	if _, pair := g.kind.(float64Wider); !pair {
		g.JMP(LabelRef(done))
		g.Label(scale)
		for _, a := range as {
			for _, r := range a {
				g.scale(r, divisor)
			}
		}
	}
	g.Label(done)
}

// scale multiplies one register of an accumulator.
func (g *generator) scale(r, factor reg.VecVirtual) {
	if g.accumulatorSize() == 8 {
		g.VMULPD(factor, r, r)
	} else {
		g.VMULPS(factor, r, r)
	}
}

// storeAll rounds accumulators and stores the elements, past the caches if the call says so. Vectors of elements that
// are half as wide as the accumulators are stored by twos past the caches, which want whole lines; into them one by one,
// since units that put two together are those that convert.
func (g *generator) storeAll(as []accumulator) {
	elements := g.roundAll(as)
	step := g.rawBytes(g)
	if len(as) == 1 {
		g.VMOVUPS(elements[0], Mem{Base: g.dst})
		return
	}
	past, done := g.label("past"), g.label("stored")
	g.TESTQ(U32(flagStream), g.param("flags"))
	g.JNZ(LabelRef(past))
	g.storeCached(elements)
	g.JMP(LabelRef(done))
	g.Label(past)
	if len(as) == g.vectors(g) && step < g.isa.bytes {
		for i := range len(elements) / 2 {
			low, high := elements[2*i], elements[2*i+1]
			wide := low.(reg.Vec)
			if step == 16 {
				g.VINSERTF128(Imm(1), high, wide.AsY(), wide.AsY())
				elements[i] = wide.AsY()
			} else {
				g.VINSERTF64X4(Imm(1), high, wide.AsZ(), wide.AsZ())
				elements[i] = wide.AsZ()
			}
		}
		elements = elements[:len(elements)/2]
		step *= 2
	}
	for i, e := range elements {
		g.VMOVNTPS(e, Mem{Base: g.dst, Disp: i * step})
	}
	g.Label(done)
}

// roundAll rounds accumulators to elements.
func (g *generator) roundAll(as []accumulator) (elements []reg.Register) {
	for _, a := range as {
		elements = append(elements, g.raw(g.round(g, a)))
	}
	return elements
}

// storeCached stores vectors of elements.
func (g *generator) storeCached(elements []reg.Register) {
	for i, e := range elements {
		g.VMOVUPS(e, Mem{Base: g.dst, Disp: i * g.rawBytes(g)})
	}
}

// prologue loads what both functions use.
func (g *generator) prologue() {
	g.constants = map[string]reg.VecVirtual{}
	g.n = g.Load(g.Param("n"), g.GP64())
	g.index = g.Load(g.Param("offset"), g.GP64())
	g.negativeZero = g.vec()
	g.signBits(g.negativeZero)
	g.prepare(g)
}

// signBits sets the sign bit of every accumulator in v, and no other.
func (g *generator) signBits(v reg.VecVirtual) {
	if g.isa == avx512 {
		g.VPTERNLOGD(Imm(0xff), v, v, v)
	} else {
		g.VPCMPEQD(v, v, v)
	}
	if g.accumulatorSize() == 8 {
		g.VPSLLQ(Imm(63), v, v)
	} else {
		g.VPSLLD(Imm(31), v, v)
	}
}

// weightedSum is:
//
//	for i := range n {
//		a := −0 or, if acc != nil, acc[i]
//		for k := range models { a = fma(w[k], x[k][offset+i], a) }
//		if flags&divide != 0 { a /= divisor } else if flags&scale != 0 { a *= divisor }
//		dst[i] = round(a)
//	}
func (g *generator) weightedSum() {
	name := "weightedSum" + g.name + g.isa.name
	g.Function(name)
	g.Attributes(attr.NOSPLIT)
	g.SignatureExpr("func(dst, x, w, narrow, acc *byte, n, models, offset int, divisor float64, flags int)")
	g.Comment(
		"for i := range n {",
		"	a := −0 or, if acc != nil, acc[i]",
		"	for k := range models { a = fma(w[k], x[k][offset+i], a) }",
		"	if flags&divide != 0 { a /= divisor } else if flags&scale != 0 { a *= divisor }",
		"	dst[i] = round(a)",
		"}",
	)
	lanes := g.lanes(g)
	small, many, blocks, done := g.label("small"), g.label("many"), g.label("blocks"), g.label("done")
	if g.isa == avx512 {
		g.CMPQ(g.param("n"), I32(int32(lanes)))
		g.JLT(LabelRef(small))
	}
	g.dst = g.Load(g.Param("dst"), g.GP64())
	g.acc = g.Load(g.Param("acc"), g.GP64())
	g.prologue()
	if g.isa == avx2 {
		g.CMPQ(g.n, I32(int32(lanes)))
		g.JLT(LabelRef(small))
	}
	g.TESTQ(g.acc, g.acc)
	g.JNZ(LabelRef(many))
	g.fewVectors(many)

	g.Label(many)
	g.narrowWeights()
	g.Comment("The overlapped last vector, before anything is stored.")
	last := g.vec()
	g.TESTQ(U32(uint32(lanes-1)), g.n)
	g.JZ(LabelRef(blocks))
	{
		index, acc := g.GP64(), g.GP64()
		g.LEAQ(Mem{Base: g.n, Disp: -lanes}, index)
		g.LEAQ(Mem{Base: g.acc, Index: index, Scale: uint8(g.accumulatorSize())}, acc)
		g.ADDQ(g.index, index)
		a := g.accumulators(1)
		g.start(a, acc)
		g.foldVectors(a, index)
		g.divideAll(a)
		g.VMOVAPS(g.raw(g.round(g, a[0])), g.raw(last))
	}

	g.Label(blocks)
	g.blocksOfCommonCalls(done)
	g.eachBlock(func(as []accumulator) {
		g.start(as, g.acc)
		g.foldVectors(as, g.index)
		g.divideAll(as)
		g.storeAll(as)
	})

	g.TESTQ(g.n, g.n)
	g.JZ(LabelRef(done))
	g.VMOVUPS(g.raw(last), Mem{
		Base: g.dst, Index: g.n, Scale: uint8(g.elementSize()), Disp: -lanes * g.elementSize(),
	})

	g.Label(done)
	fenced := g.label("fenced")
	g.TESTQ(U32(flagStream), g.param("flags"))
	g.JZ(LabelRef(fenced))
	g.SFENCE()
	g.Label(fenced)
	g.VZEROUPPER()
	g.RET()

	g.Comment("Fewer elements than a vector, without accumulators to start from.")
	g.Label(small)
	if g.isa == avx512 {
		g.smallOnAVX2()
		return
	}
	g.TESTQ(g.n, g.n)
	g.JZ(LabelRef(done))
	g.narrowed = false
	g.smallPieces()
}

// fewVectors does weightedSum for one vector of elements up to a few, without accumulators to start from, and returns. It
// goes to more if there are more elements. The first vectors and the last, as many of each, cover them all: one loop
// over the models does what would take one for each size of block and one for the tail.
func (g *generator) fewVectors(more string) {
	few := g.vectors(g)
	if g.isa == avx512 {
		few /= 4 // of more long vectors, what is done twice takes longer than the loops that are saved
	}
	if few < 2 {
		return
	}
	g.CMPQ(g.n, I32(int32(few*g.lanes(g))))
	g.JGT(LabelRef(more))
	for count := 2; count <= few; count *= 2 {
		next := g.label("few")
		if 2*count <= few {
			g.CMPQ(g.n, I32(int32(count*g.lanes(g))))
			g.JGT(LabelRef(next))
		}
		offset := func(vector int) int { return vector * g.lanes(g) * g.elementSize() }
		last := g.GP64()
		g.LEAQ(Mem{Base: g.index, Index: g.n, Scale: 1, Disp: -count / 2 * g.lanes(g)}, last)
		as := g.accumulators(count)
		g.clear(as)
		g.foldModels(func(x reg.Register, weight reg.VecVirtual) {
			for i := range count / 2 {
				m := Mem{Base: x, Index: g.index, Scale: uint8(g.elementSize()), Disp: offset(i)}
				g.fold(g, as[i], weight, m)
				m.Index = last
				g.fold(g, as[count/2+i], weight, m)
			}
		})
		g.divideAll(as)
		for _, a := range as {
			a[0] = g.round(g, a)
		}
		for i := range count / 2 {
			g.VMOVUPS(g.raw(as[i][0]), Mem{Base: g.dst, Disp: offset(i)})
			g.VMOVUPS(g.raw(as[count/2+i][0]), Mem{
				Base: g.dst, Index: g.n, Scale: uint8(g.elementSize()), Disp: offset(i - count/2),
			})
		}
		g.VZEROUPPER()
		g.RET()
		if 2*count <= few {
			g.Label(next)
		}
	}
}

// blocksOfCommonCalls does the large blocks of weightedSum for the most common numbers of models, without accumulators to
// start from. What a block does for the sake of the loop over the models is up to half of its instructions where these
// are few: here their addresses stay in registers, as do the weights if there is room, and there is no loop. And bfloat16
// knows where its NaNs come from.
//
// It goes to finished when no element is left.
func (g *generator) blocksOfCommonCalls(finished string) {
	kind, ok := g.kind.(multiplier)
	if !ok {
		return
	}
	done := g.label("common")
	block := g.vectors(g) * g.lanes(g)
	g.CMPQ(g.n, I32(int32(block)))
	g.JLT(LabelRef(done))
	g.CMPQ(g.param("acc"), Imm(0))
	g.JNE(LabelRef(done))
	for _, common := range []struct {
		models int
		name   string
	}{{2, "two"}, {3, "three"}, {4, "four"}, {8, "eight"}} {
		other := g.label("other")
		g.CMPQ(g.param("models"), Imm(uint64(common.models)))
		g.JNE(LabelRef(other))
		g.blocksOf(common.models, g.label(common.name), kind, finished, done)
		g.Label(other)
	}
	g.Label(done)
}

// blocksOf does blocks of so many models, from the label on, while there are elements for one. It goes to finished when no
// element is left, else to rest.
//
// What a block does for the sake of some flag lies behind the loop, so that the others run straight through it.
func (g *generator) blocksOf(models int, next string, kind multiplier, finished, rest string) {
	header, w := g.GP64(), g.GP64()
	g.MOVQ(g.param("x"), header)
	weightSize := 8
	if g.narrowed {
		g.MOVQ(g.param("narrow"), w)
		weightSize = 4
	} else {
		g.MOVQ(g.param("w"), w)
	}
	broadcast := func(k int) reg.VecVirtual {
		weight, m := g.vec(), Mem{Base: w, Disp: k * weightSize}
		if g.narrowed {
			g.VBROADCASTSS(m, weight)
		} else {
			g.broadcast(m, weight)
		}
		return weight
	}
	stay := g.isa == avx512 || models <= 4 && g.registers() == 1
	xs, weights := make([]reg.Register, models), make([]reg.VecVirtual, models)
	for k := range models {
		x := g.GP64()
		g.MOVQ(Mem{Base: header, Disp: k * sliceHeader}, x)
		xs[k] = x
		if stay {
			weights[k] = broadcast(k)
		}
	}
	acc := g.acc
	g.acc = nil // there is none: its register is for an address
	block := g.vectors(g) * g.lanes(g)
	g.Label(next)
	as := g.accumulators(g.vectors(g))
	for k := range models {
		if !stay {
			weights[k] = broadcast(k)
		}
		for i, a := range as {
			m := Mem{Base: xs[k], Index: g.index, Scale: uint8(g.elementSize()), Disp: i * g.lanes(g) * g.elementSize()}
			if k == 0 {
				kind.first(g, a, weights[k], m)
			} else {
				g.fold(g, a, weights[k], m)
			}
		}
	}
	flagged, end := g.label("flagged"), g.label("end")
	g.shortNaN = g.narrowed
	g.TESTQ(U32(flagStream|flagDivide|flagScale), g.param("flags"))
	g.JNZ(LabelRef(flagged))
	g.storeCached(g.roundAll(as))
	g.advance(block)
	g.CMPQ(g.n, I32(int32(block)))
	g.JGE(LabelRef(next))
	g.Label(end)
	g.TESTQ(g.n, g.n)
	g.JZ(LabelRef(finished))
	g.XORQ(acc, acc)
	g.JMP(LabelRef(rest))

	g.Label(flagged)
	g.divideAll(as)
	g.storeAll(as)
	g.advance(block)
	g.CMPQ(g.n, I32(int32(block)))
	g.JGE(LabelRef(next))
	g.JMP(LabelRef(end))
	g.shortNaN = false
	g.acc = acc
}

// eachBlock does as much as it can in blocks of many vectors, then of few, then of one.
func (g *generator) eachBlock(body func(as []accumulator)) {
	for count := g.vectors(g); ; count = max(count/4, 1) {
		block := count * g.lanes(g)
		next, done := g.label("block"), g.label("blocksDone")
		g.CMPQ(g.n, I32(int32(block)))
		g.JLT(LabelRef(done))
		g.Label(next)
		body(g.accumulators(count))
		g.advance(block)
		g.CMPQ(g.n, I32(int32(block)))
		g.JGE(LabelRef(next))
		g.Label(done)
		if count == 1 {
			return
		}
	}
}

// advance moves to the elements after the next count.
func (g *generator) advance(count int) {
	if g.dst != nil {
		g.ADDQ(I32(int32(count*g.elementSize())), g.dst)
	}
	if g.acc != nil {
		g.ADDQ(I32(int32(count*g.accumulatorSize())), g.acc)
	}
	g.ADDQ(I32(int32(count)), g.index)
	g.SUBQ(I32(int32(count)), g.n)
}

// smallOnAVX2 leaves what is less than a vector to the same function on AVX2, whose vectors are half as long: it is done
// sooner than a vector under a mask.
func (g *generator) smallOnAVX2() {
	g.Instruction(&ir.Instruction{
		Opcode:     "JMP",
		Operands:   []Op{Mem{Symbol: Symbol{Name: "·weightedSum" + g.name + avx2.name}, Base: reg.StaticBase}},
		IsTerminal: true,
	})
}

// smallPieces does what is left of weightedSum when n < lanes, and returns. With the size of a piece at most n elements
// and at least half of them, the first piece and the last cover them all; side by side they make a vector.
func (g *generator) smallPieces() {
	var sizes []int
	for size := g.rawBytes(g) / 2; size >= g.elementSize(); size /= 2 {
		sizes = append(sizes, size)
	}
	for i, size := range sizes {
		next := g.label("smaller")
		if i < len(sizes)-1 {
			g.CMPQ(g.n, Imm(uint64(size/g.elementSize())))
			g.JLT(LabelRef(next))
		}
		a := g.accumulators(1)
		g.clear(a)
		g.foldModels(func(x reg.Register, weight reg.VecVirtual) {
			address := g.GP64()
			g.LEAQ(Mem{Base: x, Index: g.index, Scale: uint8(g.elementSize())}, address)
			g.fold(g, a[0], weight, g.raw(g.gather(address, size)))
		})
		g.divideAll(a)
		g.scatter(g.round(g, a[0]), size)
		g.VZEROUPPER()
		g.RET()
		g.Label(next)
	}
}

// gather loads the first and the last piece of n elements at address side by side.
func (g *generator) gather(address reg.Register, size int) reg.VecVirtual {
	first := Mem{Base: address}
	last := Mem{Base: address, Index: g.n, Scale: uint8(g.elementSize()), Disp: -size}
	v := g.YMM()
	switch size {
	case 16:
		g.VMOVDQU(first, v.AsX())
		g.VINSERTI128(Imm(1), last, v, v)
	case 8:
		g.VMOVQ(first, v.AsX())
		g.VPINSRQ(Imm(1), last, v.AsX(), v.AsX())
	case 4:
		g.VMOVD(first, v.AsX())
		g.VPINSRD(Imm(1), last, v.AsX(), v.AsX())
	case 2:
		word := g.GP32()
		g.MOVWLZX(first, word)
		g.VMOVD(word, v.AsX())
	}
	return v
}

// scatter is the reverse of gather: it stores the two pieces in v at dst.
func (g *generator) scatter(v reg.VecVirtual, size int) {
	first := Mem{Base: g.dst}
	last := Mem{Base: g.dst, Index: g.n, Scale: uint8(g.elementSize()), Disp: -size}
	switch size {
	case 16:
		g.VMOVDQU(v.AsX(), first)
		g.VEXTRACTI128(Imm(1), v.AsY(), last)
	case 8:
		g.VMOVQ(v.AsX(), first)
		g.VPEXTRQ(Imm(1), v.AsX(), last)
	case 4:
		g.VMOVD(v.AsX(), first)
		g.VPEXTRD(Imm(1), v.AsX(), last)
	case 2:
		g.VPEXTRW(Imm(0), v.AsX(), first)
	}
}

// accumulate is:
//
//	for i := range n {
//		for k := range models { acc[i] = fma(w[k], x[k][offset+i], acc[i]) }
//	}
func (g *generator) accumulate() {
	name := "accumulate" + g.name + g.isa.name
	g.Function(name)
	g.Attributes(attr.NOSPLIT)
	g.SignatureExpr("func(acc, x, w, narrow *byte, n, models, offset int)")
	g.Comment(
		"for i := range n {",
		"	for k := range models { acc[i] = fma(w[k], x[k][offset+i], acc[i]) }",
		"}",
	)
	g.dst = nil
	g.acc = g.Load(g.Param("acc"), g.GP64())
	g.prologue()
	lanes := g.lanes(g)

	blocks, done := g.label("blocks"), g.label("done")
	g.CMPQ(g.n, I32(int32(lanes)))
	g.JLT(LabelRef(done))
	g.narrowWeights()

	g.Comment("The overlapped last vector, before anything is stored.")
	last := g.accumulators(1)
	g.TESTQ(U32(uint32(lanes-1)), g.n)
	g.JZ(LabelRef(blocks))
	{
		index, acc := g.GP64(), g.GP64()
		g.LEAQ(Mem{Base: g.n, Disp: -lanes}, index)
		g.LEAQ(Mem{Base: g.acc, Index: index, Scale: uint8(g.accumulatorSize())}, acc)
		g.ADDQ(g.index, index)
		g.loadAll(last, acc)
		g.foldVectors(last, index)
	}

	g.Label(blocks)
	g.eachBlock(func(as []accumulator) {
		g.loadAll(as, g.acc)
		g.foldVectors(as, g.index)
		g.saveAll(as, g.acc)
	})

	g.TESTQ(g.n, g.n)
	g.JZ(LabelRef(done))
	{
		acc := g.GP64()
		g.LEAQ(Mem{
			Base: g.acc, Index: g.n, Scale: uint8(g.accumulatorSize()), Disp: -lanes * g.accumulatorSize(),
		}, acc)
		g.saveAll(last, acc)
	}
	g.Label(done)
	g.VZEROUPPER()
	g.RET()
}
