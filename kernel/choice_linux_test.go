package kernel

import (
	"bytes"
	"runtime/debug"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/modelavg/modelavg/internal/implementation"
)

// storesInGo runs f, which stores where it cannot, and reports whether that was the generic implementation.
func storesInGo(t *testing.T, f func()) (generic bool) {
	t.Helper()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if recover() == nil {
			t.Error("nothing was stored")
		}
		generic = bytes.Contains(debug.Stack(), []byte("weightedSumGeneric"))
	}()
	f()
	return false
}

// TestChoice: which calls run on what is chosen past the caches. That changes no bit, so that no other test sees it.
func TestChoice(t *testing.T) {
	if available[0] == implementation.Generic {
		t.Skip("there is no other implementation than the generic one")
	}
	force(t, available[0].String())
	past, staggered, threshold := implementation.ChosenPast, implementation.Staggered, streamThreshold
	defer func() {
		implementation.ChosenPast, implementation.Staggered, streamThreshold = past, staggered, threshold
	}()
	implementation.ChosenPast, implementation.Staggered = implementation.Choice{}, implementation.Choice{} // generic
	streamThreshold = 4 << 20
	const longest = 2 << 20
	dst, x := newRegion(t, longest), make([]byte, longest+2*line)
	dst.protect(t, unix.PROT_READ)
	long := func(models int) int { return tileSize/(models+1) + 16 } // bytes of a model too long for the second-level cache
	for kind := range implementation.Kind(implementation.Kinds) {
		widened := kind == implementation.Float32 || kind == implementation.Float16
		for _, c := range []struct {
			what          string
			models, bytes int
			crowded, want bool
		}{
			{"few models", few, 256 << 10, true, false},
			{"a large call", 2, longest, false, true},
			{"many models, crowded", few + 1, long(few + 1), true, true},
			{"many models", group, long(group), false, !widened},
			{"many models through a tile, crowded", group + 1, long(group + 1), true, !widened},
			{"many short models, crowded", crowdedModels, crowdedBytes, true, widened},
			{"many short models", crowdedModels, crowdedBytes, false, false},
			{"fewer short models, crowded", crowdedModels - 1, crowdedBytes, true, false},
		} {
			n := c.bytes / 8 * 8
			models := slices.Repeat([][]byte{x[:n]}, c.models)
			if !c.crowded {
				models[1] = x[line:][:n]
			}
			w := make([]float64, c.models)
			if got := storesInGo(t, func() { callWeightedSum(kind, dst.pages[:n], models, w) }); got != c.want {
				t.Errorf("%v, %s: past the caches: %t, want %t", kind, c.what, got, c.want)
			}
		}
	}
}
