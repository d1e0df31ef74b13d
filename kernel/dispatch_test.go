package kernel

import (
	"testing"
	"unsafe"

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

// Models are crowded if they begin at one line of a page, wherever in it and in whatever page.
func TestCrowded(t *testing.T) {
	for _, test := range []struct {
		others []uintptr
		want   bool
	}{
		{[]uintptr{0x7f001040, 0x2040, 0x207f}, true},
		{[]uintptr{0x7f001040, 0x2040, 0x203f}, false},
		{[]uintptr{0x7f001040, 0x2040, 0x2080}, false},
		{[]uintptr{0x7f001840, 0x2040}, false},
	} {
		x := [][3]uintptr{{0x5048}} // slice headers
		for _, address := range test.others {
			x = append(x, [3]uintptr{address})
		}
		if got := crowded(unsafe.Pointer(&x[0]), len(x)); got != test.want {
			t.Errorf("%#x: %t, want %t", test.others, got, test.want)
		}
	}
}
