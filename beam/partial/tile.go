package partial

import (
	"encoding/binary"
	"math"
	"math/bits"
	"unsafe"

	"github.com/modelavg/modelavg/checkpoint"
	"github.com/modelavg/modelavg/internal/convert"
	"github.com/modelavg/modelavg/kernel"
)

// tileElements is how many elements are worked on at a time. They are copied to a tile first, which is aligned as the
// data, cut from files and messages, need not be; a tile stays in the innermost caches.
const tileElements = 4096

// A tile is elements of one dtype, in the byte order of the machine.
type tile struct {
	float64 [tileElements]float64
	float32 [tileElements]float32
	bits    [tileElements]uint16
}

// addTiles adds w times the elements of the data to the sum, tile by tile.
func addTiles[A float32 | float64](sum []A, data []byte, dtype checkpoint.DType, w float64,
	add func(t *tile, sum []A, data []byte, dtype checkpoint.DType, w float64),
) {
	t := new(tile)
	size := dtype.Bits() / 8
	for begin := 0; begin < len(sum); begin += tileElements {
		end := min(begin+tileElements, len(sum))
		add(t, sum[begin:end], data[begin*size:end*size], dtype, w)
	}
}

// addWide adds w times the elements of the data to the sum.
func addWide(t *tile, sum []float64, data []byte, dtype checkpoint.DType, w float64) {
	switch n := len(sum); dtype {
	case checkpoint.F64:
		load(t.float64[:n], data)
		kernel.AccumulateFloat64(sum, t.float64[:n], w)
	case checkpoint.F32:
		load(t.float32[:n], data)
		kernel.AccumulateFloat32(sum, t.float32[:n], w)
	default: // widened to float32, which is exact
		x := t.float32[:n]
		fill(x, float32(math.Copysign(0, -1)))
		addNarrow(t, x, data, dtype, 1)
		kernel.AccumulateFloat32(sum, x, w)
	}
}

// addNarrow adds w times the elements of the data, of 16 bits or less, to the sum.
func addNarrow(t *tile, sum []float32, data []byte, dtype checkpoint.DType, w float64) {
	x := t.bits[:len(sum)]
	switch dtype {
	case checkpoint.BF16:
		load(x, data)
		kernel.AccumulateBFloat16(sum, x, w)
		return
	case checkpoint.F16:
		load(x, data)
	default:
		convert.Float16From8(x, data, dtype)
	}
	kernel.AccumulateFloat16(sum, x, w)
}

// roundTiles writes the sum, divided and rounded, tile by tile.
func roundTiles[A float32 | float64](out []byte, sum []A, dtype checkpoint.DType, divisor float64,
	round func(t *tile, out []byte, sum []A, dtype checkpoint.DType, divisor float64),
) {
	t := new(tile)
	size := dtype.Bits() / 8
	for begin := 0; begin < len(sum); begin += tileElements {
		end := min(begin+tileElements, len(sum))
		round(t, out[begin*size:end*size], sum[begin:end], dtype, divisor)
	}
}

// roundWide writes sum[i]/divisor.
func roundWide(t *tile, out []byte, sum []float64, dtype checkpoint.DType, divisor float64) {
	switch n := len(sum); dtype {
	case checkpoint.F64:
		kernel.RoundFloat64(t.float64[:n], sum, divisor)
		store(out, t.float64[:n])
	case checkpoint.F32:
		kernel.RoundFloat32(t.float32[:n], sum, divisor)
		store(out, t.float32[:n])
	default:
		convert.Round(out, sum, divisor, dtype)
	}
}

// roundNarrow writes sum[i]/divisor, for a dtype of 16 bits or less.
func roundNarrow(t *tile, out []byte, sum []float32, dtype checkpoint.DType, divisor float64) {
	switch n := len(sum); dtype {
	case checkpoint.F16:
		kernel.RoundFloat16(t.bits[:n], sum, divisor)
		store(out, t.bits[:n])
	case checkpoint.BF16:
		kernel.RoundBFloat16(t.bits[:n], sum, divisor)
		store(out, t.bits[:n])
	default:
		convert.Round(out, sum, float32(divisor), dtype)
	}
}

// littleEndian says that the machine keeps numbers as files and messages do.
var littleEndian = binary.NativeEndian.Uint16([]byte{1, 0}) == 1

// load sets dst to the little-endian elements of src, which holds as many.
func load[T uint16 | float32 | float64](dst []T, src []byte) {
	p := bytesOf(dst)
	copy(p, src)
	toNative(p, int(unsafe.Sizeof(*new(T))))
}

// store writes the elements of src to dst, little-endian.
func store[T uint16 | float32 | float64](dst []byte, src []T) {
	copy(dst, bytesOf(src))
	toNative(dst, int(unsafe.Sizeof(*new(T))))
}

// bytesOf returns the memory of the elements.
func bytesOf[T uint16 | float32 | float64](x []T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(x))), len(x)*int(unsafe.Sizeof(*new(T))))
}

// toNative turns elements between little-endian and the byte order of the machine.
func toNative(p []byte, size int) {
	if littleEndian {
		return
	}
	switch size {
	case 2:
		for ; len(p) >= 2; p = p[2:] {
			binary.NativeEndian.PutUint16(p, bits.ReverseBytes16(binary.NativeEndian.Uint16(p)))
		}
	case 4:
		for ; len(p) >= 4; p = p[4:] {
			binary.NativeEndian.PutUint32(p, bits.ReverseBytes32(binary.NativeEndian.Uint32(p)))
		}
	default:
		for ; len(p) >= 8; p = p[8:] {
			binary.NativeEndian.PutUint64(p, bits.ReverseBytes64(binary.NativeEndian.Uint64(p)))
		}
	}
}
