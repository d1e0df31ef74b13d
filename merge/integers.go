package merge

import (
	"bytes"
	"fmt"

	"github.com/modelavg/modelavg/checkpoint"
)

// combine puts the maximum or the sum of n elements of all sources of the step, from element first on, into b.out.
func (b *buffer) combine(s *Step, first int64, n int) error {
	if s.Tensor.DType == checkpoint.Bool { // a byte of 0 or 1: the maximum is whether any is true
		return combine[uint8](b, s, first, n, Max)
	}
	switch s.Tensor.DType {
	case checkpoint.U8:
		return combine[uint8](b, s, first, n, s.Action)
	case checkpoint.I8:
		return combine[int8](b, s, first, n, s.Action)
	case checkpoint.U16:
		return combine[uint16](b, s, first, n, s.Action)
	case checkpoint.I16:
		return combine[int16](b, s, first, n, s.Action)
	case checkpoint.U32:
		return combine[uint32](b, s, first, n, s.Action)
	case checkpoint.I32:
		return combine[int32](b, s, first, n, s.Action)
	case checkpoint.U64:
		return combine[uint64](b, s, first, n, s.Action)
	}
	return combine[int64](b, s, first, n, s.Action)
}

type integer interface {
	int8 | uint8 | int16 | uint16 | int32 | uint32 | int64 | uint64
}

func combine[T integer](b *buffer, s *Step, first int64, n int, action Action) error {
	for k := range s.Sources {
		toNative(b.data[k][:n*s.width], s.width)
	}
	out := elements[T](b.out, n)
	copy(out, elements[T](b.data[0], n))
	for k := 1; k < len(s.Sources); k++ {
		x := elements[T](b.data[k], n)
		for i, v := range x {
			if action == Max {
				out[i] = max(out[i], v)
				continue
			}
			sum := out[i] + v
			if (v >= 0) != (sum >= out[i]) {
				return fmt.Errorf("tensor %q: element %d: %w: the sum %d + %d is out of the range of %v",
					s.Tensor.Name, first+int64(i), ErrIntegers, out[i], v, s.Tensor.DType)
			}
			out[i] = sum
		}
	}
	toNative(b.out[:n*s.width], s.width)
	return nil
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
