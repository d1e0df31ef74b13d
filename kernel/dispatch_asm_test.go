//go:build (amd64 || arm64) && !purego && !noasm

package kernel

import (
	"bytes"
	"testing"
	"unsafe"

	"github.com/modelavg/modelavg/internal/implementation"
)

// The dispatchers get to the kernel of the kind, with all arguments where they belong: of every kind the same bytes give
// other sums, and no argument is one that a kernel could do without.
func TestDispatchers(t *testing.T) {
	const n, models, offset = 37, 3, 2
	rng := newRand(71)
	for _, impl := range implementation.Available() {
		if impl == implementation.Generic {
			continue
		}
		seen := map[string]implementation.Kind{}
		for kind := range implementation.Kind(implementation.Kinds) {
			var x [models][]byte
			for k := range x {
				x[k] = make([]byte, (offset+n)*elementSize(kind))
				for i := range x[k] {
					x[k][i] = byte(0x30 + rng.IntN(12)) // of every kind a number that is neither tiny nor huge
				}
			}
			w := []float64{0.25, 3, -1.5}
			weights, narrow := unsafe.Pointer(&w[0]), unsafe.Pointer(new(narrowWeights))
			sum := func(f func(dst, acc unsafe.Pointer)) []byte {
				acc, dst := new(tile), make([]byte, n*8)
				acc.clear(kind, n)
				for i := range n {
					*(*byte)(unsafe.Add(unsafe.Pointer(acc), i*accumulatorSize(kind))) = byte(i)
				}
				f(unsafe.Pointer(&dst[0]), unsafe.Pointer(acc))
				return append(dst, unsafe.Slice((*byte)(unsafe.Pointer(acc)), n*accumulatorSize(kind))...)
			}
			want := sum(func(dst, acc unsafe.Pointer) {
				weightedSums[impl][kind](dst, unsafe.Pointer(&x), weights, narrow, acc, n, models, offset, 0.5, scale)
			})
			got := sum(func(dst, acc unsafe.Pointer) {
				weightedSumAssembly(dst, unsafe.Pointer(&x), weights, narrow, acc, n, models, offset, 0.5, scale, number(kind, impl))
			})
			if !bytes.Equal(got, want) {
				t.Errorf("%v, %v: the dispatcher for weighted sums gives other bytes than the kernel", impl, kind)
			}
			if other, same := seen[string(got[:n])]; same {
				t.Errorf("%v: %v and %v give the same bytes, so that the test proves nothing", impl, kind, other)
			}
			seen[string(got[:n])] = kind

			want = sum(func(_, acc unsafe.Pointer) {
				accumulates[impl][kind](acc, unsafe.Pointer(&x), weights, narrow, n, models, offset)
			})
			got = sum(func(_, acc unsafe.Pointer) {
				accumulateAssembly(acc, unsafe.Pointer(&x), weights, narrow, n, models, offset, number(kind, impl))
			})
			if !bytes.Equal(got, want) {
				t.Errorf("%v, %v: the dispatcher for running sums gives other bytes than the kernel", impl, kind)
			}
		}
	}
}
