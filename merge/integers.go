package merge

import (
	"bytes"
	"fmt"
	"math/big"
	"math/bits"

	"github.com/modelavg/modelavg/checkpoint"
)

// combine puts the maximum or the sum of n elements of all sources of the step, from element first on, into b.out.
func (b *buffer) combine(p *Plan, s *Step, first int64, n int) error {
	switch s.Tensor.DType {
	case checkpoint.Bool: // a byte of 0 or 1: the maximum is whether any is true
		return combine[uint8](b, p, s, first, n, Max)
	case checkpoint.U8:
		return combine[uint8](b, p, s, first, n, s.Action)
	case checkpoint.I8:
		return combine[int8](b, p, s, first, n, s.Action)
	case checkpoint.U16:
		return combine[uint16](b, p, s, first, n, s.Action)
	case checkpoint.I16:
		return combine[int16](b, p, s, first, n, s.Action)
	case checkpoint.U32:
		return combine[uint32](b, p, s, first, n, s.Action)
	case checkpoint.I32:
		return combine[int32](b, p, s, first, n, s.Action)
	case checkpoint.U64:
		return combine[uint64](b, p, s, first, n, s.Action)
	}
	return combine[int64](b, p, s, first, n, s.Action)
}

type integer interface {
	int8 | uint8 | int16 | uint16 | int32 | uint32 | int64 | uint64
}

func combine[T integer](b *buffer, p *Plan, s *Step, first int64, n int, action Action) error {
	views := make([][]T, len(s.Sources))
	for k := range views {
		toNative(b.data[k][:n*s.width], s.width)
		views[k] = elements[T](b.data[k], n)
	}
	out := elements[T](b.out, n)
	if action == Max {
		copy(out, views[0])
		for _, x := range views[1:] {
			for i, v := range x {
				out[i] = max(out[i], v)
			}
		}
	} else if i := sum(out, views); i < n {
		exact := new(big.Int)
		for _, x := range views {
			v := new(big.Int).SetInt64(int64(x[i]))
			if x[i] > 0 {
				v.SetUint64(uint64(x[i]))
			}
			exact.Add(exact, v)
		}
		return fmt.Errorf("%s: tensor %q: element %d: %w: the sum %v is out of the range of %v", p.paths(s), s.Tensor.Name,
			first+int64(i), ErrIntegers, exact, s.Tensor.DType)
	}
	toNative(b.out[:n*s.width], s.width)
	return nil
}

// sum puts the sums of the elements of all x, which are as long as out, into out. It returns the index of the first that
// is out of range, or their number. What is out of range before the last element is added does not matter.
func sum[T integer](out []T, x [][]T) int {
	for i := range out {
		var low uint64 // of the 128 bits of the sum
		var high int64
		for k := range x {
			v := x[k][i]
			var carry uint64
			low, carry = bits.Add64(low, uint64(v), 0) // a negative one has all bits above its own set
			high += int64(carry)
			if v < 0 {
				high--
			}
		}
		total := T(low)
		switch {
		case uint64(total) != low, total < 0 && high != -1, total >= 0 && high != 0:
			return i
		}
		out[i] = total
	}
	return len(out)
}

// equal returns an error unless the n elements, from element first on, are the same in all sources of the step.
func (b *buffer) equal(p *Plan, s *Step, first int64, n int) error {
	want := b.data[0][:n*s.width]
	for k := 1; k < len(s.Sources); k++ {
		got := b.data[k][:n*s.width]
		if bytes.Equal(got, want) {
			continue
		}
		i := 0
		for got[i] == want[i] {
			i++
		}
		i -= i % s.width
		return fmt.Errorf("%s: tensor %q: element %d: %w: it is %s, in %s it is %s", p.Sources[s.Sources[k]].Path,
			s.Tensor.Name, first+int64(i/s.width), ErrIntegers, integerText(got[i:], s.Tensor.DType),
			p.Sources[s.Sources[0]].Path, integerText(want[i:], s.Tensor.DType))
	}
	return nil
}

// integerText returns the first element of p.
func integerText(p []byte, d checkpoint.DType) string {
	size := d.Bits() / 8
	var u uint64
	for i := size - 1; i >= 0; i-- {
		u = u<<8 | uint64(p[i])
	}
	switch d {
	case checkpoint.I8, checkpoint.I16, checkpoint.I32, checkpoint.I64:
		return fmt.Sprint(int64(u<<(64-8*size)) >> (64 - 8*size))
	}
	return fmt.Sprint(u)
}
