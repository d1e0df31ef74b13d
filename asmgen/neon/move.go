package neon

import (
	"fmt"
	"math/bits"
)

// storeElements stores the elements of p at dst, a block past the caches if the call says so, and moves on.
func (g *generator) storeElements(p part) {
	if p.piece > 0 {
		g.movePieces(store, p, dst, other, g.element, 0)
		return
	}
	if p.name == "block" {
		g.op("TBZ", "$%d, R%d, blockKeep", flagStream, flags)
		for v := 0; v < p.vectors; v += 2 {
			if v == 0 {
				g.word("stnp q%d, q%d, [x%d]", v, v+1, dst)
			} else {
				g.word("stnp q%d, q%d, [x%d,#%d]", v, v+1, dst, v*vectorBytes)
			}
		}
		g.op("B", "blockStored")
		g.label("blockKeep")
		g.move(store, dst, 0, 0, p.vectors)
		g.label("blockStored")
	} else {
		g.move(store, dst, 0, 0, p.vectors)
	}
	g.op("ADD", "$%d, R%d", p.vectors*vectorBytes, dst)
}

// moveAccumulators loads or stores the accumulators of p.
func (g *generator) moveAccumulators(d direction, p part) {
	if p.piece == 0 {
		g.moveResults(d, p.acc, 0, p.vectors, g.registers())
		return
	}
	g.movePieces(d, p, p.acc, otherAcc, g.accumulator, 0)
	if g.pair {
		g.op("ADD", "$%d, R%d, R%d", widerStride, p.acc, compensation)
		g.movePieces(d, p, compensation, otherAcc, g.accumulator, p.vectors)
	}
}

// moveResults loads or stores, for some vectors, each with as many registers: elements, or accumulators. Those of a pair
// are all sums first, then all compensations.
func (g *generator) moveResults(d direction, base, r, vectors, each int) {
	if !g.pair || each == 1 {
		g.move(d, base, 0, r, vectors*each)
		return
	}
	g.op("ADD", "$%d, R%d, R%d", widerStride, base, compensation)
	g.move(d, base, 0, r, vectors)
	g.move(d, compensation, 0, r+vectors, vectors)
}

// A direction says whether registers are loaded or stored.
type direction bool

const (
	load  direction = false
	store direction = true
)

// move loads or stores consecutive vectors, offset bytes after the address in register base.
func (g *generator) move(d direction, base, offset, r, count int) {
	for i := 0; i < count; i++ {
		address := fmt.Sprintf("(R%d)", base)
		if o := offset + i*vectorBytes; o > 0 {
			address = fmt.Sprintf("%d(R%d)", o, base)
		}
		if i+1 < count {
			registers := fmt.Sprintf("(F%d, F%d)", r+i, r+i+1)
			g.transfer(d, "FLDPQ", "FSTPQ", address, registers)
			i++
		} else {
			g.transfer(d, "FMOVQ", "FMOVQ", address, fmt.Sprintf("F%d", r+i))
		}
	}
}

// movePieces loads or stores the two pieces of p, or its single element, with numbers of size bytes: they lie side by
// side in vector r or, when they are vectors themselves, in r and r+1. It uses register far for the second address.
func (g *generator) movePieces(d direction, p part, base, far, size, r int) {
	near, lane := fmt.Sprintf("(R%d)", base), ""
	elements := p.piece / g.element
	if elements > 1 {
		g.further(base, size, far)
	}
	switch elements * size {
	case 16:
		g.transfer(d, "FMOVQ", "FMOVQ", near, fmt.Sprintf("F%d", r))
		g.transfer(d, "FMOVQ", "FMOVQ", fmt.Sprintf("(R%d)", far), fmt.Sprintf("F%d", r+1))
		return
	case 8:
		lane = "D"
		g.transfer(d, "FMOVD", "FMOVD", near, fmt.Sprintf("F%d", r))
	case 4:
		lane = "S"
		g.transfer(d, "FMOVS", "FMOVS", near, fmt.Sprintf("F%d", r))
	case 2:
		lane = "H"
		if d == load { // by way of a general register, which clears the other lanes
			g.op("MOVHU", "%s, R%d", near, far)
			g.op("FMOVS", "R%d, F%d", far, r)
		} else {
			g.op("VST1", "V%d.H[0], %s", r, near)
		}
	}
	if elements > 1 {
		g.transfer(d, "VLD1", "VST1", fmt.Sprintf("(R%d)", far), fmt.Sprintf("V%d.%s[1]", r, lane))
	}
}

// transfer writes a load or a store, whose operands come in the opposite order.
func (g *generator) transfer(d direction, loads, stores, address, register string) {
	if d == load {
		g.op(loads, "%s, %s", address, register)
	} else {
		g.op(stores, "%s, %s", register, address)
	}
}

// further sets register to to the address or index in base, moved by distance numbers of size bytes.
func (g *generator) further(base, size, to int) {
	g.op("ADD", "R%d<<%d, R%d, R%d", distance, bits.TrailingZeros(uint(size)), base, to)
}
