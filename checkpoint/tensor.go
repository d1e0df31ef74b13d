package checkpoint

import (
	"fmt"
	"math/bits"
	"strconv"
)

// A Tensor describes one tensor of a model: what it is called and what its bytes mean.
type Tensor struct {
	Name  string
	DType DType
	Shape []int64 // row-major; empty for a scalar
}

// Elements returns the number of elements, the product of the shape: 1 for a scalar. It is -1 for a tensor that
// [Tensor.Validate] refuses; [Open] returns no such tensor.
func (t Tensor) Elements() int64 {
	n, _, err := t.size()
	if err != nil {
		return -1
	}
	return n
}

// Bytes returns the size of the tensor's data in bytes. It is -1 for a tensor that [Tensor.Validate] refuses; [Open]
// returns no such tensor.
func (t Tensor) Bytes() int64 {
	_, n, err := t.size()
	if err != nil {
		return -1
	}
	return n
}

// Validate returns an error if the dtype is none, if a dimension is negative, if the number of elements or of bits
// overflows 64 bits, or if the elements, in a dtype of less than 8 bits, do not fill whole bytes. The error names the
// field and its value, not the tensor. The name is not looked at.
//
// The product of the dimensions is taken from the left, and overflows even if a later dimension is zero: that is the
// rule of the format.
func (t Tensor) Validate() error {
	_, _, err := t.size()
	return err
}

// size returns the number of elements and of bytes.
func (t Tensor) size() (elements, bytes int64, err error) {
	if !t.DType.Valid() {
		return 0, 0, fmt.Errorf("dtype: %v is no dtype", t.DType)
	}
	n := uint64(1)
	for i, d := range t.Shape {
		if d < 0 {
			return 0, 0, fmt.Errorf("shape %s: dimension %d is negative", shapeText(t.Shape), i)
		}
		hi, lo := bits.Mul64(n, uint64(d))
		if hi != 0 {
			return 0, 0, fmt.Errorf("shape %s: the number of elements overflows 64 bits", shapeText(t.Shape))
		}
		n = lo
	}
	hi, nbits := bits.Mul64(n, uint64(t.DType.Bits()))
	if hi != 0 {
		return 0, 0, fmt.Errorf("shape %s: the number of bits overflows 64 bits in %v", shapeText(t.Shape), t.DType)
	}
	if nbits%8 != 0 {
		return 0, 0, fmt.Errorf("shape %s: %d bits of %v are no whole number of bytes",
			shapeText(t.Shape), nbits, t.DType)
	}
	return int64(n), int64(nbits / 8), nil
}

// ShapeString returns the shape as in "[2 3]", and "[]" for a scalar.
func (t Tensor) ShapeString() string {
	b := []byte{'['}
	for i, d := range t.Shape {
		if i > 0 {
			b = append(b, ' ')
		}
		b = strconv.AppendInt(b, d, 10)
	}
	return string(append(b, ']'))
}

// String returns name, dtype and shape, as in `"w" F32 [2 3]`.
func (t Tensor) String() string { return quote(t.Name) + " " + t.kind() }

// kind returns dtype and shape, as in "F32 [2 3]".
func (t Tensor) kind() string { return t.DType.String() + " " + shapeText(t.Shape) }

// maxShown is how many dimensions are shown in an error; a hostile header may have millions.
const maxShown = 16

// shapeText returns the shape, and only its beginning if it is long.
func shapeText(shape []int64) string {
	b := []byte{'['}
	for i, d := range shape {
		if i > 0 {
			b = append(b, ' ')
		}
		if i == maxShown {
			b = append(b, "…"...)
			break
		}
		b = strconv.AppendInt(b, d, 10)
	}
	return string(append(b, ']'))
}
