package merge

import (
	"encoding/binary"
	"math/bits"
	"unsafe"

	"github.com/modelavg/modelavg"
	"github.com/modelavg/modelavg/checkpoint"
)

// A buffer holds the same chunk of all models, and views of it as elements.
type buffer struct {
	data [][]byte // one for each model

	// The bytes of a chunk as elements, for the type that is being averaged. They are kept to be reused.
	float64s  [][]float64
	float32s  [][]float32
	float16s  [][]modelavg.Float16
	bfloat16s [][]modelavg.BFloat16
}

// newBuffer allocates chunks of the size for so many models.
func newBuffer(models, size int) *buffer {
	b := &buffer{
		data:      make([][]byte, models),
		float64s:  make([][]float64, models),
		float32s:  make([][]float32, models),
		float16s:  make([][]modelavg.Float16, models),
		bfloat16s: make([][]modelavg.BFloat16, models),
	}
	for i := range b.data {
		b.data[i] = alignedBytes(size)
	}
	return b
}

// alignedBytes allocates n bytes that begin at a multiple of alignment. The cast to elements needs 8, the rest is speed.
func alignedBytes(n int) []byte {
	p := make([]byte, n+alignment-1)
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(p))) & (alignment - 1)
	return p[skip:][:n:n]
}

// average averages the first n bytes of all chunks, into the first, which it returns. Weights nil means the mean.
func (b *buffer) average(dtype checkpoint.DType, n int, weights []float64) ([]byte, error) {
	var err error
	switch dtype {
	case checkpoint.F64:
		err = average(b.float64s, b.data, n, weights)
	case checkpoint.F32:
		err = average(b.float32s, b.data, n, weights)
	case checkpoint.F16:
		err = average(b.float16s, b.data, n, weights)
	case checkpoint.BF16:
		err = average(b.bfloat16s, b.data, n, weights)
	}
	return b.data[0][:n], err
}

// average averages the first n bytes of all data, as elements of type T, into data[0].
func average[T modelavg.Element](views [][]T, data [][]byte, n int, weights []float64) error {
	size := int(unsafe.Sizeof(*new(T)))
	for k, p := range data {
		toNative(p[:n], size)
		views[k] = unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(p))), n/size)
	}
	var err error
	if weights == nil {
		err = modelavg.Mean(views[0], views)
	} else {
		err = modelavg.WeightedSum(views[0], views, weights)
	}
	toNative(data[0][:n], size)
	return err
}

// littleEndian says that the machine keeps numbers as the files do.
var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// toNative turns elements between the byte order of the files, which is little-endian, and that of the machine.
func toNative(p []byte, size int) {
	if !littleEndian {
		reverse(p, size)
	}
}

// reverse reverses the bytes of every element.
func reverse(p []byte, size int) {
	switch size {
	case 2:
		for ; len(p) >= 2; p = p[2:] {
			binary.NativeEndian.PutUint16(p, bits.ReverseBytes16(binary.NativeEndian.Uint16(p)))
		}
	case 4:
		for ; len(p) >= 4; p = p[4:] {
			binary.NativeEndian.PutUint32(p, bits.ReverseBytes32(binary.NativeEndian.Uint32(p)))
		}
	case 8:
		for ; len(p) >= 8; p = p[8:] {
			binary.NativeEndian.PutUint64(p, bits.ReverseBytes64(binary.NativeEndian.Uint64(p)))
		}
	}
}
