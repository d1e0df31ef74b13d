package kernel

import (
	"math"
	"testing"
	"unsafe"

	"github.com/modelavg/modelavg/internal/implementation"
)

// TestNaNPayloads gives NaNs of the largest and the smallest payload as weights, divisors and accumulators of calls of
// every length: the sum stays a NaN. Rounded like a number the one would carry into the sign and become a zero, and the
// other be cut off to an infinity. Models of 16 bits cannot show it: the lower bits of their NaNs are zeros.
func TestNaNPayloads(t *testing.T) {
	eachKind(t, allKinds, func(t *testing.T, kind implementation.Kind) {
		f, a := elementFormat(kind), accumulatorFormat(kind)
		rng := newRand(18)
		sources := newPool(rng, f, ordinary, 2048)
		accumulators := a.randomElements(rng, ordinary, widerStride/a.size+2048)
		nans := newBuffer(len(accumulators), 0).b
		dst := newBuffer(2048*8, 0)
		for n := 1; n <= beyondBlocks; n += thin(1, 5) {
			// The largest payload alone: of an operand that is a NaN arithmetic makes a quiet one, which is not cut off.
			nan := math.Float64frombits(math.MaxUint64&^binary64.sign() | rng.Uint64()&binary64.sign())
			for i := range len(nans) / a.size {
				payload := []uint64{1, 1<<a.fraction - 1}[rng.IntN(2)]
				a.put(nans, i, a.infinity()|payload|rng.Uint64()&a.sign())
			}
			check := func(what string, acc []byte, models int, w []float64, divisor float64, flags int) {
				t.Helper()
				var from unsafe.Pointer
				if acc != nil {
					from = unsafe.Pointer(&acc[0])
				}
				x := headers(kind, sources.models(models, n))
				narrow := unsafe.Pointer(unsafe.SliceData(make([]float32, models)))
				onEach(t, func(impl implementation.Implementation) {
					d := dst.at(n*f.size, 0)
					weightedSumBlock(kind, unsafe.Pointer(&d.b[0]), x, accumulatorWeights(w, models), narrow, from, n, models, 0,
						divisor, flags)
					for i := range n {
						if got := f.at(d.b, i); !f.isNaN(got) {
							t.Fatalf("%v: n=%d models=%d %s: element %d is %#x, want a NaN", impl, n, models, what, i, got)
						}
					}
				})
			}
			for _, flag := range []int{0, stream} {
				for _, models := range []int{1, 2, 3, 4, 8} {
					w := randomWeights(rng, kind, ordinary, models)
					check("accumulators", nans, models, w, 1, flag)
					w[rng.IntN(models)] = nan
					check("weight", nil, models, w, 1, flag)
					check("weight, accumulators", accumulators, models, w, 1, flag)
				}
				check("rounded accumulators", nans, 0, nil, 1, flag)
				check("rounded and divided accumulators", nans, 0, nil, 3, divide|flag)
				check("rounded, divisor", accumulators, 0, nil, nan, divide|flag)
			}
		}
	})
}
