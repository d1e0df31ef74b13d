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

// fold is a = fma(w, x, a), where the vectors x begin at scratch.
func (g *generator) fold(p part) {
	wide := scratch
	if g.widen != nil {
		wide += p.vectors
		for v := range p.vectors {
			low, high := g.halves(p, wide+2*v)
			g.widen(g.emitter, low, high, scratch+v)
		}
	}
	for r := range g.used(p) {
		g.op("VFMLA", "V%d.%[4]s, V%[2]d.%[4]s, V%[3]d.%[4]s", weight, wide+r, r, g.arrangement())
	}
}

// foldPairs is, for a sum h and its compensation c:
//
//	p = w·x; e = p − w·x exactly; s = h + p; b = s − h
//	c = c + ((((s − b) − h) + (b − p)) + e)
//	h = s
func (g *generator) foldPairs(p part) {
	// The first of as many registers as p has vectors. Those of x, p and b are used again once their numbers are spent:
	// for s, for b − p, and for the error of s.
	h, c := 0, p.vectors
	elements, product, e, b := scratch, scratch+p.vectors, scratch+2*p.vectors, scratch+3*p.vectors
	s, rest, lost := elements, product, b
	all := func(write func(v int)) {
		for v := range p.vectors {
			write(v)
		}
	}
	arithmetic := func(name string, left, right, result int) {
		all(func(v int) { g.word(name+" v%d.2d, v%d.2d, v%d.2d", result+v, left+v, right+v) })
	}
	all(func(v int) { g.word("fmul v%d.2d, v%d.2d, v%d.2d", product+v, weight, elements+v) })
	all(func(v int) { g.op("VMOV", "V%d.B16, V%d.B16", product+v, e+v) })
	all(func(v int) { g.op("VFMLS", "V%d.D2, V%d.D2, V%d.D2", weight, elements+v, e+v) })
	arithmetic("fadd", h, product, s)
	arithmetic("fsub", s, h, b)
	arithmetic("fsub", b, product, rest)
	arithmetic("fsub", s, b, lost)
	arithmetic("fsub", lost, h, lost)
	arithmetic("fadd", lost, rest, lost)
	arithmetic("fadd", lost, e, lost)
	arithmetic("fadd", c, lost, c)
	all(func(v int) { g.op("VMOV", "V%d.B16, V%d.B16", s+v, h+v) })
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
		h, c, r := v, p.vectors+v, scratch+v
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
			h, c, difference, mask := v, p.vectors+v, scratch+2*v, scratch+2*v+1
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
