package neon

import "fmt"

// foldDoc is what folding one model does to an accumulator.
func (k kind) foldDoc() []string {
	switch {
	case k.pair:
		return []string{
			"p = w·x; e = p − w·x exactly; s = h + p; b = s − h",
			"c = c + ((((s − b) − h) + (b − p)) + e); h = s",
		}
	case k.widen != nil:
		return []string{"a = fma(w, widen(x), a)"}
	}
	return []string{"a = fma(w, x, a)"}
}

// fold is a = fma(w, x, a), for elements at the address in register first.
func (g *generator) fold(p part) {
	atOnce := 8 // vectors of elements, in scratch
	if g.widen != nil {
		atOnce = 4
	}
	for done := 0; done < p.vectors; done += atOnce {
		vectors := min(atOnce, p.vectors-done)
		g.loadElements(p, done, vectors, scratch)
		if g.widen == nil {
			for v := range vectors {
				g.multiplyAdd(scratch+v, done+v)
			}
			continue
		}
		// The lower halves stay where the elements are, the upper halves follow.
		for v := range vectors {
			low, high := scratch+v, scratch+vectors+v
			if g.used(p) == 1 {
				high = none
			}
			g.widen(g.emitter, low, high, low)
		}
		for v := range vectors {
			g.multiplyAdd(scratch+v, 2*(done+v))
			if g.used(p) > 1 {
				g.multiplyAdd(scratch+vectors+v, 2*(done+v)+1)
			}
		}
	}
}

// multiplyAdd adds to accumulators the products of elements, or of halves that are widened, with the weight.
func (g *generator) multiplyAdd(elements, accumulators int) {
	if g.accumulator == 4 {
		g.word("fmla v%d.4s, v%d.4s, v%d.s[0]", accumulators, elements, weight)
	} else {
		g.word("fmla v%d.2d, v%d.2d, v%d.d[0]", accumulators, elements, weight)
	}
}

// loadElements loads some of the vectors of p from the address in register first, or the pieces of its only one.
func (g *generator) loadElements(p part, from, count, r int) {
	if p.piece > 0 {
		g.movePieces(load, p, first, second, g.element, r)
		return
	}
	g.move(load, first, from*vectorBytes, r, count)
}

// foldPairs is, for a sum h and its compensation c:
//
//	p = w·x; s = h + p; b = s − h
//	c = c + ((((s − b) − h) + (b − p)) + e) where e = p − w·x exactly
//	h = s
//
// There are registers for four numbers of each vector. The elements are loaded twice, so that e can take the place of p
// when that is spent: to load is cheaper than to move p out of the way before.
func (g *generator) foldPairs(p part) {
	h, c := 0, p.vectors
	product, s, b, lost := pairScratch, pairScratch+p.vectors, pairScratch+2*p.vectors, pairScratch+3*p.vectors
	all := func(write func(v int)) {
		for v := range p.vectors {
			write(v)
		}
	}
	arithmetic := func(name string, left, right, result int) {
		all(func(v int) { g.word(name+" v%d.2d, v%d.2d, v%d.2d", result+v, left+v, right+v) })
	}
	elements := lost
	g.loadElements(p, 0, p.vectors, elements)
	all(func(v int) { g.word("fmul v%d.2d, v%d.2d, v%d.d[0]", product+v, elements+v, weight) })
	arithmetic("fadd", h, product, s)
	arithmetic("fsub", s, h, b)
	arithmetic("fsub", s, b, lost)
	arithmetic("fsub", lost, h, lost)
	all(func(v int) { g.op("VMOV", "V%d.B16, V%d.B16", s+v, h+v) })
	arithmetic("fsub", b, product, b)
	elements = s
	g.loadElements(p, 0, p.vectors, elements)
	arithmetic("fadd", lost, b, lost)
	all(func(v int) { g.word("fmls v%d.2d, v%d.2d, v%d.d[0]", product+v, elements+v, weight) })
	arithmetic("fadd", lost, product, lost)
	arithmetic("fadd", c, lost, c)
}

// divide divides the accumulators of p by the divisor, or multiplies them with it, if the call says so.
func (g *generator) divide(p part) {
	if g.pair {
		g.op("TBZ", "$%d, R%d, %sDivided", flagDivide, flags, p.name)
		g.dividePairs(p)
		g.label(p.name + "Divided")
		return
	}
	arrangement := "%d.2d"
	if g.accumulator == 4 {
		arrangement = "%d.4s"
	}
	each := func(operation string) {
		for r := range g.used(p) {
			g.word(fmt.Sprintf("%s v%[2]s, v%[2]s, v%[2]s", operation, arrangement), r, r, divisor)
		}
	}
	g.op("TBNZ", "$%d, R%d, %sScale", flagScale, flags, p.name)
	g.op("TBZ", "$%d, R%d, %sDivided", flagDivide, flags, p.name)
	each("fdiv")
	g.op("JMP", "%sDivided", p.name)
	g.label(p.name + "Scale")
	each("fmul")
	g.label(p.name + "Divided")
}

// dividePairs is, for a sum h and its compensation c:
//
//	q = h/divisor; c = (fma(q, divisor, −h) + c)/divisor; h = q
func (g *generator) dividePairs(p part) {
	for v := range p.vectors {
		h, c, r := v, p.vectors+v, pairScratch+v
		g.op("VEOR", "V%d.B16, V%d.B16, V%d.B16", negativeZero, h, r)
		g.word("fdiv v%d.2d, v%d.2d, v%d.2d", h, h, divisor)
		g.op("VFMLA", "V%d.D2, V%d.D2, V%d.D2", divisor, h, r)
		g.word("fadd v%d.2d, v%d.2d, v%d.2d", c, r, c)
		g.word("fdiv v%d.2d, v%d.2d, v%d.2d", c, c, divisor)
	}
}

// round leaves the elements of p in the first registers.
func (g *generator) round(p part) {
	for v := range p.vectors {
		switch {
		case g.pair:
			// h − c, or h where c − c is not zero: where c is not finite.
			h, c, difference, mask := v, p.vectors+v, pairScratch+2*v, pairScratch+2*v+1
			g.word("fsub v%d.2d, v%d.2d, v%d.2d", difference, h, c)
			g.word("fsub v%d.2d, v%d.2d, v%d.2d", mask, c, c)
			g.op("VCMTST", "V%d.D2, V%[1]d.D2, V%[1]d.D2", mask)
			g.op("VBIF", "V%d.B16, V%d.B16, V%d.B16", mask, difference, h)
		case g.narrow != nil:
			low, high := g.halves(p, 2*v)
			g.narrow(g.emitter, v, low, high)
		}
	}
}

// halves returns the registers of the two accumulators of a vector of elements, of which the first is low: no high where
// the elements of p fill only half of a vector.
func (g *generator) halves(p part, low int) (_, high int) {
	if p.piece > 0 && p.piece < vectorBytes/2 {
		return low, none
	}
	return low, low + 1
}

// used returns how many registers of accumulators hold elements of p.
func (g *generator) used(p part) int {
	if g.widen != nil {
		if _, high := g.halves(p, 0); high == none {
			return 1
		}
	}
	return p.vectors * g.registers()
}
