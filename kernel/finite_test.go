package kernel

import (
	"bytes"
	"testing"

	"github.com/modelavg/modelavg/internal/implementation"
)

// callAllFinite calls the exported function of the kind.
func callAllFinite(kind implementation.Kind, x []byte) bool {
	switch kind {
	case implementation.Float32:
		return AllFiniteFloat32(view[float32](x))
	case implementation.Float64:
		return AllFiniteFloat64(view[float64](x))
	case implementation.Float16:
		return AllFiniteFloat16(view[uint16](x))
	}
	return AllFiniteBFloat16(view[uint16](x))
}

// TestAllFinite puts an infinity or a NaN at every place of slices of the largest numbers, of every length and between NaNs,
// and at some places of a slice that takes several calls.
func TestAllFinite(t *testing.T) {
	each(t, streamingKinds, func(t *testing.T, kind implementation.Kind) {
		f := elementFormat(kind)
		largest := f.infinity() - 1
		special := []uint64{f.infinity(), f.infinity() + 1, f.quiet(), f.sign() - 1}
		for _, s := range special {
			special = append(special, s|f.sign())
		}
		memory := bytes.Repeat([]byte{0xff}, 4*magnitudeBytes)
		check := func(begin, n int, places []int) {
			x := memory[begin*f.size:][:n*f.size]
			for i := range n {
				f.put(x, i, largest|f.sign()*uint64(i&1))
			}
			if !callAllFinite(kind, x) {
				t.Fatalf("n=%d: the largest numbers are said not to be finite", n)
			}
			for _, i := range places {
				for _, s := range special {
					f.put(x, i, s)
					if callAllFinite(kind, x) {
						t.Fatalf("n=%d: %#x as element %d is said to be finite", n, s, i)
					}
				}
				f.put(x, i, largest)
			}
			copy(x, bytes.Repeat([]byte{0xff}, len(x)))
		}
		for n := range thin(300, 150) {
			places := make([]int, n)
			for i := range places {
				places[i] = i
			}
			check(1+n%5, n, places)
		}
		part := magnitudeBytes / f.size
		for _, n := range []int{part, part + 1, 2*part + 77, 3 * part} {
			check(3, n, []int{0, n / 2, part - 1, n - part, n - 1})
		}
	})
}
