package convert

import (
	"encoding/binary"

	"github.com/modelavg/modelavg/checkpoint"
)

// lanes returns a word with x in every element.
func (l *layout) lanes(x uint64) uint64 {
	for size := l.size; size < 8; size *= 2 {
		x |= x << (8 * size)
	}
	return x
}

// special returns the least magnitude that is not finite. In all formats it is one that is greater than all finite
// ones, and so are those above it.
func (l *layout) special() uint64 { return l.largest + 1 }

// AllFinite reports whether all elements of p are finite. It goes through p at several times the speed of memory.
func AllFinite(p []byte, d checkpoint.DType) bool {
	l := layoutOf(d)
	// An addition carries into the sign bit where the magnitude is special, and never out of the element: the sign bit
	// itself is cleared before.
	sign := l.lanes(l.sign())
	add := l.lanes(l.sign() - l.special())
	for len(p) >= 32 {
		found := (binary.LittleEndian.Uint64(p)&^sign + add) |
			(binary.LittleEndian.Uint64(p[8:])&^sign + add) |
			(binary.LittleEndian.Uint64(p[16:])&^sign + add) |
			(binary.LittleEndian.Uint64(p[24:])&^sign + add)
		if found&sign != 0 {
			return false
		}
		p = p[32:]
	}
	for i := range len(p) / l.size {
		if !l.finite(p, i) {
			return false
		}
	}
	return true
}

// bits returns the bits of element i.
func (l *layout) bits(p []byte, i int) uint64 {
	p = p[i*l.size:]
	switch l.size {
	case 1:
		return uint64(p[0])
	case 2:
		return uint64(binary.LittleEndian.Uint16(p))
	case 4:
		return uint64(binary.LittleEndian.Uint32(p))
	}
	return binary.LittleEndian.Uint64(p)
}

// finite reports whether element i is finite.
func (l *layout) finite(p []byte, i int) bool { return l.bits(p, i)&^l.sign() <= l.largest }

// CountSpecial returns how many elements of p are NaN and how many are infinite, and the index of the first such, -1 if
// there is none.
func CountSpecial(p []byte, d checkpoint.DType) (nan, inf, first int) {
	if AllFinite(p, d) {
		return 0, 0, -1
	}
	l := layoutOf(d)
	first = -1
	for i := range len(p) / l.size {
		if l.finite(p, i) {
			continue
		}
		if first < 0 {
			first = i
		}
		if magnitude := l.bits(p, i) &^ l.sign(); l.infinity != l.nan && magnitude == l.infinity {
			inf++
		} else {
			nan++
		}
	}
	return nan, inf, first
}

// Overflows calls visit for every element of p, of dtype d, that is not finite although the elements of all inputs are:
// what was too large for d. The inputs have as many elements as p, of the dtypes from, one for each.
func Overflows(p []byte, d checkpoint.DType, inputs [][]byte, from []checkpoint.DType, visit func(i int)) {
	if AllFinite(p, d) {
		return
	}
	l := layoutOf(d)
	layouts := make([]layout, len(from))
	for k := range from {
		layouts[k] = layoutOf(from[k])
	}
elements:
	for i := range len(p) / l.size {
		if l.finite(p, i) {
			continue
		}
		for k := range layouts {
			if !layouts[k].finite(inputs[k], i) {
				continue elements
			}
		}
		visit(i)
	}
}

// Saturate replaces element i of p by the largest finite number with its sign.
func Saturate(p []byte, i int, d checkpoint.DType) {
	l := layoutOf(d)
	bits := l.bits(p, i)&l.sign() | l.largest
	for k := range l.size {
		p[i*l.size+k] = byte(bits >> (8 * k))
	}
}
