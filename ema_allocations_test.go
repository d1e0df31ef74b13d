//go:build !race

package modelavg_test

import (
	"math/rand/v2"
	"testing"

	"github.com/modelavg/modelavg"
)

// Under the race detector the kernels tell it what they read and write, and blocks on the stack move to the heap.

func TestEMAAllocations(t *testing.T) {
	t.Run("float32", testEMAAllocations[float32])
	t.Run("float64", testEMAAllocations[float64])
	t.Run("Float16", testEMAAllocations[modelavg.Float16])
	t.Run("BFloat16", testEMAAllocations[modelavg.BFloat16])
}

func testEMAAllocations[T modelavg.Element](t *testing.T) {
	const n = 3000
	model := randomModel[T](rand.New(rand.NewPCG(39, 40)), n)
	dst := make([]T, n)
	for _, rule := range emaRules[T]() {
		e, err := rule.make(n)
		must(t, err)
		var saved []byte
		if got := testing.AllocsPerRun(100, func() {
			_ = e.Update(model)
			_ = e.Average(dst, modelavg.WithWorkers(1))
		}); got != 0 {
			t.Errorf("%s: Update and Average: got %v allocations, want 0", rule.name, got)
		}
		saved, err = e.AppendBinary(saved)
		must(t, err)
		if got := testing.AllocsPerRun(2, func() {
			saved, _ = e.AppendBinary(saved[:0])
			_ = e.UnmarshalBinary(saved)
		}); got != 0 {
			t.Errorf("%s: AppendBinary and UnmarshalBinary: got %v allocations, want 0", rule.name, got)
		}
	}
}
