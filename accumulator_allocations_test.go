//go:build !race

package modelavg_test

import (
	"math/rand/v2"
	"testing"

	"github.com/modelavg/modelavg"
)

// Under the race detector the kernels tell it what they read and write, and buffers on the stack move to the heap.
func TestAccumulatorAllocations(t *testing.T) {
	forEveryType(t, testAccumulatorAllocations[float32], testAccumulatorAllocations[float64],
		testAccumulatorAllocations[modelavg.Float16], testAccumulatorAllocations[modelavg.BFloat16])
}

func testAccumulatorAllocations[T modelavg.Element](t *testing.T) {
	rng := rand.New(rand.NewPCG(37, 38))
	model := randomModel[T](rng, 3000)
	dst := make([]T, len(model))
	for _, options := range [][]modelavg.Option{nil, {exactly}} {
		a, b := newAccumulator[T](t, len(model), options...), newAccumulator[T](t, len(model), options...)
		s, err := modelavg.NewSharded[T](len(model), 2, options...)
		must(t, err)
		must(t, b.Add(model, 1))
		buffer := make([]byte, 0, 1<<20)
		for name, f := range map[string]func(){
			"Add":          func() { must(t, a.Add(model, 3)) },
			"Merge":        func() { must(t, a.Merge(b)) },
			"Mean":         func() { must(t, a.Mean(dst)) },
			"AppendBinary": func() { must(t, second(a.AppendBinary(buffer))) },
			"CheckFinite":  func() { must(t, modelavg.CheckFinite(model)) },
			"Sharded":      func() { must(t, s.Add(model, 3)); must(t, s.Mean(dst)) },
		} {
			must(t, a.Add(model, 1))
			if got := testing.AllocsPerRun(10, f); got != 0 {
				t.Errorf("options %v: %s allocates %v times, want 0", options, name, got)
			}
		}
		if got := testing.AllocsPerRun(10, func() { a.Reset(); must(t, a.Add(model, 1)) }); got != 0 {
			t.Errorf("options %v: Reset and Add allocate %v times, want 0", options, got)
		}
	}
}

func second[A, B any](_ A, b B) B { return b }
