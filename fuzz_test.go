package modelavg_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"testing"
	"unsafe"

	"github.com/modelavg/modelavg/internal/implementation"
	"github.com/modelavg/modelavg/kernel"
)

// Differential fuzzing: on bytes of any kind every implementation gives the bits of the generic one, up to the sign and
// the payload of a NaN, and writes no byte beside its result.

// fuzzFormat is what the fuzz targets need to know about a kind.
type fuzzFormat struct {
	element, accumulator int    // bytes
	infinity             uint64 // of the element
}

var fuzzFormats = [implementation.Kinds]fuzzFormat{
	implementation.Float32:       {4, 8, 0x7f800000},
	implementation.Float64:       {8, 8, 0x7ff0000000000000},
	implementation.Float16:       {2, 4, 0x7c00},
	implementation.BFloat16:      {2, 4, 0x7f80},
	implementation.Float32Native: {4, 4, 0x7f800000},
	implementation.Float64Wider:  {8, 8, 0x7ff0000000000000},
}

func fuzzKind(b byte) implementation.Kind { return implementation.Kind(b % implementation.Kinds) }

const (
	fuzzMargin   = 128
	fuzzCanary   = 0xa5
	fuzzLine     = 64
	fuzzLongest  = 640
	fuzzMostKept = 40 // models
)

// fuzzMemory returns size bytes that begin offset elements behind the beginning of a line, and a function that reports
// whether the bytes around them are as they were.
func fuzzMemory(size, elementSize int, offset byte) (b []byte, intact func() bool) {
	whole := make([]byte, size+2*fuzzMargin+2*fuzzLine)
	for i := range whole {
		whole[i] = fuzzCanary
	}
	begin := int(-uintptr(unsafe.Pointer(unsafe.SliceData(whole)))&(fuzzLine-1)) + fuzzMargin
	begin += int(offset) * elementSize % fuzzLine
	return whole[begin : begin+size : begin+size], func() bool {
		for i, v := range whole {
			if v != fuzzCanary && (i < begin || i >= begin+size) {
				return false
			}
		}
		return true
	}
}

// fuzzModel returns n elements made of the bytes from k on, over and over.
func fuzzModel(elements []byte, k, n, elementSize int, offset byte) []byte {
	b, _ := fuzzMemory(n*elementSize, elementSize, offset)
	clear(b)
	if len(elements) > 0 {
		for i := range b {
			b[i] = elements[(k*len(elements)/7+i)%len(elements)]
		}
	}
	return b
}

func fuzzModels(models byte, elements []byte, n, elementSize int, offset byte) [][]byte {
	x := make([][]byte, 1+models%fuzzMostKept)
	for k := range x {
		x[k] = fuzzModel(elements, k, n, elementSize, offset+byte(k))
	}
	return x
}

// fuzzWeights returns the weights in the bytes, then 1/n for those that are missing.
func fuzzWeights(weights []byte, n int) []float64 {
	w := make([]float64, n)
	for k := range w {
		w[k] = 1 / float64(n)
		if len(weights) >= 8 {
			w[k] = math.Float64frombits(binary.LittleEndian.Uint64(weights))
			weights = weights[8:]
		}
	}
	return w
}

func fuzzView[T any](b []byte) []T {
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/int(unsafe.Sizeof(*new(T))))
}

func fuzzViews[T any](x [][]byte) [][]T {
	v := make([][]T, len(x))
	for k := range x {
		v[k] = fuzzView[T](x[k])
	}
	return v
}

// fuzzDiffer describes the first element of size bytes in which got is not want, or returns "".
func fuzzDiffer(got, want []byte, size int, infinity uint64) string {
	bits := func(b []byte) uint64 {
		switch size {
		case 2:
			return uint64(binary.NativeEndian.Uint16(b))
		case 4:
			return uint64(binary.NativeEndian.Uint32(b))
		}
		return binary.NativeEndian.Uint64(b)
	}
	isNaN := func(v uint64) bool { return v&(1<<(8*size-1)-1) > infinity }
	for i := 0; i < len(want); i += size {
		if g, w := bits(got[i:]), bits(want[i:]); g != w && !(isNaN(g) && isNaN(w)) {
			return fmt.Sprintf("element %d of %d is %#x, want %#x", i/size, len(want)/size, g, w)
		}
	}
	return ""
}

// fuzzEach runs f on every implementation, the generic one first, which the others are compared with: f returns the
// result, which it may overwrite the next time.
func fuzzEach(t *testing.T, size int, infinity uint64, f func() []byte) {
	t.Helper()
	available := implementation.Available()
	var want []byte
	for i := range available {
		impl := available[len(available)-1-i]
		restore, err := implementation.Force(impl.String())
		if err != nil {
			t.Fatal(err)
		}
		got := f()
		restore()
		if i == 0 {
			want = append([]byte(nil), got...)
		} else if d := fuzzDiffer(got, want, size, infinity); d != "" {
			t.Errorf("%v: %s", impl, d)
		}
	}
}

// fuzzSum compares a weighted sum, or for w == nil a mean, into memory of its own or over one of the models.
func fuzzSum(t *testing.T, kind implementation.Kind, x [][]byte, w []float64, offset, inPlace byte) {
	f := fuzzFormats[kind]
	over := int(inPlace) - 1
	fuzzEach(t, f.element, f.infinity, func() []byte {
		dst, intact := fuzzMemory(len(x[0]), f.element, offset)
		models := append([][]byte(nil), x...)
		if over >= 0 && over < len(x) {
			copy(dst, x[over])
			models[over] = dst
		}
		fuzzCall(kind, dst, models, w)
		if !intact() {
			t.Errorf("a byte beside dst was written")
		}
		return dst
	})
}

func fuzzCall(kind implementation.Kind, dst []byte, x [][]byte, w []float64) {
	switch kind {
	case implementation.Float32:
		if w == nil {
			kernel.MeanFloat32(fuzzView[float32](dst), fuzzViews[float32](x))
		} else {
			kernel.WeightedSumFloat32(fuzzView[float32](dst), fuzzViews[float32](x), w)
		}
	case implementation.Float64:
		if w == nil {
			kernel.MeanFloat64(fuzzView[float64](dst), fuzzViews[float64](x))
		} else {
			kernel.WeightedSumFloat64(fuzzView[float64](dst), fuzzViews[float64](x), w)
		}
	case implementation.Float16:
		if w == nil {
			kernel.MeanFloat16(fuzzView[uint16](dst), fuzzViews[uint16](x))
		} else {
			kernel.WeightedSumFloat16(fuzzView[uint16](dst), fuzzViews[uint16](x), w)
		}
	case implementation.BFloat16:
		if w == nil {
			kernel.MeanBFloat16(fuzzView[uint16](dst), fuzzViews[uint16](x))
		} else {
			kernel.WeightedSumBFloat16(fuzzView[uint16](dst), fuzzViews[uint16](x), w)
		}
	case implementation.Float32Native:
		if w == nil {
			kernel.MeanFloat32Native(fuzzView[float32](dst), fuzzViews[float32](x))
		} else {
			kernel.WeightedSumFloat32Native(fuzzView[float32](dst), fuzzViews[float32](x), w)
		}
	case implementation.Float64Wider:
		if w == nil {
			kernel.MeanFloat64Wider(fuzzView[float64](dst), fuzzViews[float64](x))
		} else {
			kernel.WeightedSumFloat64Wider(fuzzView[float64](dst), fuzzViews[float64](x), w)
		}
	}
}

// FuzzWeightedSum compares weighted sums. kind, models and length are taken modulo what there is; offset is that of dst
// in elements; inPlace is the model to write over, counted from one, or none.
func FuzzWeightedSum(f *testing.F) {
	f.Add(byte(0), byte(1), uint16(5), byte(0), byte(0), []byte{}, []byte{0, 0, 128, 63, 0, 0, 0, 64})
	f.Fuzz(func(t *testing.T, kind, models byte, length uint16, offset, inPlace byte, weights, elements []byte) {
		k, n := fuzzKind(kind), int(length)%fuzzLongest
		x := fuzzModels(models, elements, n, fuzzFormats[k].element, offset)
		fuzzSum(t, k, x, fuzzWeights(weights, len(x)), offset, inPlace)
	})
}

// FuzzMean compares means; the arguments are those of FuzzWeightedSum.
func FuzzMean(f *testing.F) {
	f.Add(byte(1), byte(2), uint16(9), byte(3), byte(1), []byte{0, 0, 0, 0, 0, 0, 240, 63})
	f.Fuzz(func(t *testing.T, kind, models byte, length uint16, offset, inPlace byte, elements []byte) {
		k, n := fuzzKind(kind), int(length)%fuzzLongest
		fuzzSum(t, k, fuzzModels(models, elements, n, fuzzFormats[k].element, offset), nil, offset, inPlace)
	})
}

// FuzzAccumulate compares a running sum of the models, from accumulators of any bits on, and its division and rounding.
func FuzzAccumulate(f *testing.F) {
	f.Add(byte(2), byte(3), uint16(17), byte(1), 3.0, []byte{}, []byte{0, 60, 1, 128})
	f.Fuzz(func(t *testing.T, kind, models byte, length uint16, offset byte, divisor float64, weights, elements []byte) {
		k, n := implementation.Kind(kind%4), int(length)%fuzzLongest
		format := fuzzFormats[k]
		x := fuzzModels(models%8, elements, n, format.element, offset)
		w := fuzzWeights(weights, len(x))
		start := fuzzModel(weights, 3, n, format.accumulator, offset)
		run := func() (acc, dst []byte) {
			acc, accIntact := fuzzMemory(len(start), format.accumulator, offset)
			dst, dstIntact := fuzzMemory(n*format.element, format.element, offset+1)
			copy(acc, start)
			for i := range x {
				switch k {
				case implementation.Float32:
					kernel.AccumulateFloat32(fuzzView[float64](acc), fuzzView[float32](x[i]), w[i])
				case implementation.Float64:
					kernel.AccumulateFloat64(fuzzView[float64](acc), fuzzView[float64](x[i]), w[i])
				case implementation.Float16:
					kernel.AccumulateFloat16(fuzzView[float32](acc), fuzzView[uint16](x[i]), w[i])
				case implementation.BFloat16:
					kernel.AccumulateBFloat16(fuzzView[float32](acc), fuzzView[uint16](x[i]), w[i])
				}
			}
			switch k {
			case implementation.Float32:
				kernel.RoundFloat32(fuzzView[float32](dst), fuzzView[float64](acc), divisor)
			case implementation.Float64:
				kernel.RoundFloat64(fuzzView[float64](dst), fuzzView[float64](acc), divisor)
			case implementation.Float16:
				kernel.RoundFloat16(fuzzView[uint16](dst), fuzzView[float32](acc), divisor)
			case implementation.BFloat16:
				kernel.RoundBFloat16(fuzzView[uint16](dst), fuzzView[float32](acc), divisor)
			}
			if !accIntact() || !dstIntact() {
				t.Error("a byte beside acc or dst was written")
			}
			return acc, dst
		}
		infinity := uint64(0x7f800000)
		if format.accumulator == 8 {
			infinity = 0x7ff0000000000000
		}
		fuzzEach(t, format.accumulator, infinity, func() []byte { acc, _ := run(); return acc })
		fuzzEach(t, format.element, format.infinity, func() []byte { _, dst := run(); return dst })
	})
}
