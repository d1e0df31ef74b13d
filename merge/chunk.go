package merge

import (
	"encoding/binary"
	"math"
	"math/bits"
	"unsafe"

	"github.com/modelavg/modelavg"
	"github.com/modelavg/modelavg/checkpoint"
	"github.com/modelavg/modelavg/internal/convert"
	"github.com/modelavg/modelavg/kernel"
)

// A buffer holds the same chunk of all sources of a step and of the result, and views of them as elements.
type buffer struct {
	data [][]byte // one for each source
	out  []byte

	// Where the former are in, each a page longer.
	dataRooms [][]byte
	outRoom   []byte

	// The bytes of a chunk as elements, for the type that is being averaged. They are kept to be reused.
	float64s  [][]float64
	float32s  [][]float32
	float16s  [][]modelavg.Float16
	bfloat16s [][]modelavg.BFloat16

	tile *tile // nil unless a step of the plan is mixed
}

// newBuffer allocates chunks of the size for so many sources.
func newBuffer(sources, size int, mixed bool) *buffer {
	b := &buffer{
		data:      make([][]byte, sources),
		dataRooms: make([][]byte, sources),
		outRoom:   alignedBytes(size+pageBytes, pageBytes),
		float64s:  make([][]float64, sources),
		float32s:  make([][]float32, sources),
		float16s:  make([][]modelavg.Float16, sources),
		bfloat16s: make([][]modelavg.BFloat16, sources),
	}
	for i := range b.data {
		b.dataRooms[i] = alignedBytes(size+pageBytes, pageBytes)
		b.placeData(i, 0)
	}
	if mixed {
		b.tile = new(tile)
	}
	b.placeOut(0, 1)
	return b
}

// The system copies between its pages and a buffer up to six times slower where the bytes that it stores are less than 64
// behind those that it loads, as far as their places in their pages go: a load then seems to want what was stored just
// before. It is an eighth slower where the places are others.

// placeOut puts out, for elements of so many bytes, where the offset in the file is in its page, or less than 64 bytes
// behind that.
func (b *buffer) placeOut(offset int64, size int) {
	skip := int(offset & (pageBytes - 1))
	if skip%size != 0 {
		skip = (skip + alignment - 1) &^ (alignment - 1)
	}
	b.out = within(b.outRoom, skip)
}

// placeData puts source i where the offset in its file is in its page, or less than 64 bytes before that: the kernels want
// it aligned.
func (b *buffer) placeData(i int, offset int64) {
	b.data[i] = within(b.dataRooms[i], int(offset&(pageBytes-1))&^(alignment-1))
}

// placeCopy puts source i, which is written as it is read, where neither the reads from that offset in its file nor the
// writes to that in the result are slow.
func (b *buffer) placeCopy(i int, from, to int64) {
	skip := to
	if behind := (to - from) & (pageBytes - 1); 0 < behind && behind < alignment {
		skip += 2 * alignment
	}
	b.data[i] = within(b.dataRooms[i], int(skip&(pageBytes-1)))
}

// within returns the room from byte skip on, of the same length for every skip of at most a page.
func within(room []byte, skip int) []byte {
	end := skip + len(room) - pageBytes
	return room[skip:end:end]
}

// bufferBytes returns how many bytes newBuffer allocates for chunks and tile.
func bufferBytes(sources, size int, mixed bool) int64 {
	n := int64(sources+1) * int64(size+pageBytes+pageBytes-1)
	if mixed {
		n += int64(unsafe.Sizeof(tile{}))
	}
	return n
}

// alignedBytes allocates n bytes that begin at a multiple of alignment. The cast to elements needs 8, the rest is speed.
func alignedBytes(n, alignment int) []byte {
	p := make([]byte, n+alignment-1)
	skip := -uintptr(unsafe.Pointer(unsafe.SliceData(p))) & uintptr(alignment-1)
	return p[skip:][:n:n]
}

// average averages n elements of all sources of the step into b.out. The sources are in the byte order of the machine
// afterwards.
func (b *buffer) average(s *Step, n int) error {
	for k := range s.Sources {
		size := s.dtype(k).Bits() / 8
		toNative(b.data[k][:n*size], size)
	}
	data := b.data[:len(s.Sources)]
	var err error
	switch {
	case s.mixed():
		b.tile.average(b.out, data, s, n)
		return nil // which writes the byte order of files
	case s.Tensor.DType == checkpoint.F64:
		err = average(b.out, b.float64s, data, n, s.weights)
	case s.Tensor.DType == checkpoint.F32:
		err = average(b.out, b.float32s, data, n, s.weights)
	case s.Tensor.DType == checkpoint.F16:
		err = average(b.out, b.float16s, data, n, s.weights)
	case s.Tensor.DType == checkpoint.BF16:
		err = average(b.out, b.bfloat16s, data, n, s.weights)
	}
	toNative(b.out[:n*s.width], s.width)
	return err
}

// average averages the first n elements, of type T, of all data into out. Weights nil means the mean.
func average[T modelavg.Element](out []byte, views [][]T, data [][]byte, n int, weights []float64) error {
	for k, p := range data {
		views[k] = elements[T](p, n)
	}
	if weights == nil {
		return modelavg.Mean(elements[T](out, n), views[:len(data)])
	}
	return modelavg.WeightedSum(elements[T](out, n), views[:len(data)], weights)
}

// elements returns the first n elements of p, which is aligned.
func elements[T any](p []byte, n int) []T {
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(p))), n)
}

// tileElements is how many elements are summed at a time where dtypes differ. The sums stay in the innermost caches.
const tileElements = 4096

// A tile is what is needed to sum elements of several dtypes.
type tile struct {
	sum64   [tileElements]float64
	sum32   [tileElements]float32
	float32 [tileElements]float32
	float16 [tileElements]uint16
}

// average averages n elements of all data, which are in the byte order of the machine, into out, in that of files.
func (t *tile) average(out []byte, data [][]byte, s *Step, n int) {
	wide := isWide(s.Tensor.DType)
	for k := range data {
		wide = wide || isWide(s.dtype(k))
	}
	divisor := 1.0
	if s.weights == nil {
		divisor = float64(len(data))
	}
	size := s.Tensor.DType.Bits() / 8
	for begin := 0; begin < n; begin += tileElements {
		m := min(tileElements, n-begin)
		dst := out[begin*size:][:m*size]
		if wide {
			sum := t.sum64[:m]
			fill(sum, math.Copysign(0, -1)) // -0 + x is x, also where x is -0
			for k, p := range data {
				t.add64(sum, p, begin, s.dtype(k), weight(s, k))
			}
			convert.Round(dst, sum, divisor, s.Tensor.DType)
			continue
		}
		sum := t.sum32[:m]
		fill(sum, float32(math.Copysign(0, -1)))
		for k, p := range data {
			t.add32(sum, p, begin, s.dtype(k), weight(s, k))
		}
		convert.Round(dst, sum, float32(divisor), s.Tensor.DType)
	}
}

// isWide reports whether tensors of the dtype are summed in float64.
func isWide(d checkpoint.DType) bool { return d == checkpoint.F64 || d == checkpoint.F32 }

// weight returns the factor of source k.
func weight(s *Step, k int) float64 {
	if s.weights == nil {
		return 1
	}
	return s.weights[k]
}

func fill[T any](p []T, x T) {
	for i := range p {
		p[i] = x
	}
}

// add64 adds w times the elements of p from index begin on to the sum.
func (t *tile) add64(sum []float64, p []byte, begin int, d checkpoint.DType, w float64) {
	switch n := begin + len(sum); d {
	case checkpoint.F64:
		kernel.AccumulateFloat64(sum, elements[float64](p, n)[begin:], w)
	case checkpoint.F32:
		kernel.AccumulateFloat32(sum, elements[float32](p, n)[begin:], w)
	default: // widened to float32, which is exact
		x := t.float32[:len(sum)]
		fill(x, float32(math.Copysign(0, -1)))
		t.add32(x, p, begin, d, 1)
		kernel.AccumulateFloat32(sum, x, w)
	}
}

// add32 adds w times the elements of p from index begin on to the sum. They are of 16 bits or less.
func (t *tile) add32(sum []float32, p []byte, begin int, d checkpoint.DType, w float64) {
	switch n := begin + len(sum); d {
	case checkpoint.F16:
		kernel.AccumulateFloat16(sum, elements[uint16](p, n)[begin:], w)
	case checkpoint.BF16:
		kernel.AccumulateBFloat16(sum, elements[uint16](p, n)[begin:], w)
	default:
		x := t.float16[:len(sum)]
		convert.Float16From8(x, p[begin:n], d)
		kernel.AccumulateFloat16(sum, x, w)
	}
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
