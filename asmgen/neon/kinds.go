package neon

// none stands for a register that is not there.
const none = -1

// A kind is an element type together with its accumulator.
type kind struct {
	name        string
	element     int  // bytes
	accumulator int  // bytes
	pair        bool // an accumulator is two registers: a sum and its negated compensation

	// Where the accumulator is wider than the element: a vector of elements becomes two of accumulators, and they become
	// one of elements. When only the lower elements of the vector count, high is none.
	widen  func(e *emitter, low, high, elements int) // low may be elements
	narrow func(e *emitter, elements, low, high int) // elements may be low

	constants map[int]uint32 // words that widen or narrow want in all lanes of a register
}

var kinds = []kind{
	{name: "Float32", element: 4, accumulator: 8, widen: widenFloat32, narrow: narrowFloat32},
	{name: "Float64", element: 8, accumulator: 8},
	{name: "Float16", element: 2, accumulator: 4, widen: widenFloat16, narrow: narrowFloat16},
	{
		name: "BFloat16", element: 2, accumulator: 4,
		widen: widenBFloat16, narrow: narrowBFloat16, constants: map[int]uint32{zero: 0, halfLess: 0x7fff, quiet: 0x00400000},
	},
	{name: "Float32Native", element: 4, accumulator: 4},
	{name: "Float64Wider", element: 8, accumulator: 8, pair: true},
}

// registers returns how many registers the accumulators of one vector of elements take.
func (k kind) registers() int {
	if k.pair {
		return 2
	}
	return k.accumulator / k.element
}

// lanes returns how many elements a vector has.
func (k kind) lanes() int { return vectorBytes / k.element }

// vectors returns how many vectors of elements a block has. More of them take fewer loads of headers and weights, and the
// more sums there are, the more of them can be under way at once; adding to a pair is many instructions and takes many
// registers.
func (k kind) vectors() int {
	if k.pair {
		return 4
	}
	return 16 / k.registers()
}

func widenFloat32(e *emitter, low, high, elements int) {
	if high != none {
		e.word("fcvtl2 v%d.2d, v%d.4s", high, elements)
	}
	e.word("fcvtl v%d.2d, v%d.2s", low, elements)
}

func narrowFloat32(e *emitter, elements, low, high int) {
	e.word("fcvtn v%d.2s, v%d.2d", elements, low)
	if high != none {
		e.word("fcvtn2 v%d.4s, v%d.2d", elements, high)
	}
}

func widenFloat16(e *emitter, low, high, elements int) {
	if high != none {
		e.word("fcvtl2 v%d.4s, v%d.8h", high, elements)
	}
	e.word("fcvtl v%d.4s, v%d.4h", low, elements)
}

func narrowFloat16(e *emitter, elements, low, high int) {
	e.word("fcvtn v%d.4h, v%d.4s", elements, low)
	if high != none {
		e.word("fcvtn2 v%d.8h, v%d.4s", elements, high)
	}
}

// Registers that hold the constants of bfloat16.
const (
	zero     = 29
	halfLess = 30 // half a unit in the last place of a bfloat16, less one
	quiet    = 31 // the bit of a quiet NaN
)

// widenBFloat16 puts a bfloat16 above sixteen zero bits, which makes it a float32.
func widenBFloat16(e *emitter, low, high, elements int) {
	if high != none {
		e.op("VZIP2", "V%d.H8, V%d.H8, V%d.H8", elements, zero, high)
	}
	e.op("VZIP1", "V%d.H8, V%d.H8, V%d.H8", elements, zero, low)
}

// narrowBFloat16 adds 0x7fff, and 1 where the last bit that stays is set, so that cutting off the lower half rounds to
// nearest even. A NaN is made quiet instead, so that it stays one.
func narrowBFloat16(e *emitter, elements, low, high int) {
	for _, v := range []int{low, high} {
		if v == none {
			continue
		}
		rounded, t := scratch+2*v%8, scratch+2*v%8+1
		e.op("VADD", "V%d.S4, V%d.S4, V%d.S4", halfLess, v, rounded)
		e.op("VSHL", "$15, V%d.S4, V%d.S4", v, t)
		e.op("VUSRA", "$31, V%d.S4, V%d.S4", t, rounded)
		e.word("fcmeq v%d.4s, v%d.4s, v%d.4s", t, v, v)
		e.op("VORR", "V%d.B16, V%d.B16, V%[2]d.B16", quiet, v)
		e.op("VBIT", "V%d.B16, V%d.B16, V%d.B16", t, rounded, v)
	}
	e.op("VUZP2", "V%d.H8, V%d.H8, V%d.H8", max(low, high), low, elements)
}
