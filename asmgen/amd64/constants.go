package amd64

import (
	"fmt"

	"github.com/mmcloughlin/avo/attr"
	. "github.com/mmcloughlin/avo/operand" //nolint:revive // the operands are a language of their own
	"github.com/mmcloughlin/avo/reg"
)

// and is out = a & b.
func (g *generator) and(a Op, b, out reg.VecVirtual) {
	if g.isa == avx512 {
		g.VPANDD(a, b, out)
	} else {
		g.VPAND(a, b, out)
	}
}

// data remembers which read-only constants have been written, across the functions of one file.
var data map[string]Mem

// constant returns a read-only 32-bit word.
func (g *generator) constant(value uint32) Mem {
	return g.words(fmt.Sprintf("word%x", value), value)
}

// sequence returns the sixteen words first, first+step, ….
func (g *generator) sequence(name string, first, step uint32) Mem {
	words := make([]uint32, 16)
	for i := range words {
		words[i] = first + uint32(i)*step
	}
	return g.words(name, words...)
}

// interleave returns the indices that interleave eight words of one vector, from first on, with those of a second.
func (g *generator) interleave(name string, first uint32) Mem {
	words := make([]uint32, 16)
	for i := range words {
		words[i] = first + uint32(i/2) + uint32(i%2)*16
	}
	return g.words(name, words...)
}

func (g *generator) words(name string, words ...uint32) Mem {
	if m, ok := data[name]; ok {
		return m
	}
	m := g.StaticGlobal(name)
	g.DataAttributes(attr.NOPTR | attr.RODATA)
	for i, w := range words {
		g.AddDatum(4*i, U32(w))
	}
	data[name] = m
	return m
}
