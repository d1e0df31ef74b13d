package kernel

import (
	"testing"

	"github.com/modelavg/modelavg/internal/implementation"
)

// Large calls, whether they store past the caches or not, run on the implementation that is chosen for them, and all
// others on the other.
func TestChosen(t *testing.T) {
	cached, large := implementation.Chosen, implementation.ChosenPast
	defer func() { implementation.Chosen, implementation.ChosenPast = cached, large }()
	for kind := range implementation.Kind(implementation.Kinds) {
		implementation.Chosen[kind], implementation.ChosenPast[kind] = implementation.AVX2, implementation.AVX512
		for _, flags := range []int{0, divide, scale, divide | stream} {
			if got := chosen(kind, flags); got != implementation.AVX2 {
				t.Errorf("%v, flags %d: %v, want %v", kind, flags, got, implementation.AVX2)
			}
			if got := chosen(kind, flags|past); got != implementation.AVX512 {
				t.Errorf("%v, flags %d: %v, want %v", kind, flags|past, got, implementation.AVX512)
			}
		}
	}
}
