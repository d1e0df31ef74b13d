package probe

import (
	"bytes"
	"testing"
	"unsafe"
)

func TestProbes(t *testing.T) {
	for _, length := range []int{Line, 3 * Line, 3*Line + 100} {
		for _, p := range append(append(append(Reads(), Copies()...), append(Updates(), goUpdates()...)...), goReads()...) {
			const margin = 64
			moved := length / Line * Line
			dst := allocate(length + 2*margin)
			src := allocate(length + 2*margin)
			for i := range dst {
				dst[i], src[i] = byte(i*7), byte(i*13+1)
			}
			want := bytes.Clone(dst)
			if p.BytesPerByte == 2 {
				copy(want[margin:margin+moved], src[margin:])
			}
			wantSource := bytes.Clone(src)
			p.Run(aligned(dst, margin), aligned(src, margin), length, 3)
			if !bytes.Equal(dst, want) {
				t.Errorf("%s over %d bytes: dst is not what it should be", p.Name, length)
			}
			if !bytes.Equal(src, wantSource) {
				t.Errorf("%s over %d bytes: src changed", p.Name, length)
			}
		}
	}
}

// aligned returns the address of b[margin].
func aligned(b []byte, margin int) unsafe.Pointer { return unsafe.Pointer(&b[margin]) }

// allocate returns n bytes at a multiple of 64, which stores past the caches want.
func allocate(n int) []byte {
	b := make([]byte, n+64)
	return b[-uintptr(unsafe.Pointer(unsafe.SliceData(b)))%64:][:n:n]
}

func TestCallDoesNotAllocate(t *testing.T) {
	dst, x, w := make([]float32, 8), [][]float32{make([]float32, 8)}, []float64{1}
	if allocations := testing.AllocsPerRun(10, func() { Call(dst, x, w, 5) }); allocations != 0 {
		t.Errorf("got %v allocations, want none", allocations)
	}
}
