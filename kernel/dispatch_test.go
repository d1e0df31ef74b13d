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

// Only many elements of many models of float32 pay for another implementation, and only where they are crowded.
func TestCrowdedFlag(t *testing.T) {
	x := make([][3]uintptr, crowdedModels+1)
	for k := range x {
		x[k][0] = uintptr(k) << 13
	}
	flag := func(kind implementation.Kind, n, models int) int {
		return crowdedFlag(kind, unsafe.Pointer(&x[0]), n, models)
	}
	for kind := range implementation.Kind(implementation.Kinds) {
		want := 0
		if kind == implementation.Float32 {
			want = past
		}
		if got := flag(kind, crowdedElements, crowdedModels); got != want {
			t.Errorf("%v: flag %d, want %d", kind, got, want)
		}
	}
	if flag(implementation.Float32, crowdedElements-1, crowdedModels) != 0 ||
		flag(implementation.Float32, crowdedElements, crowdedModels-1) != 0 {
		t.Error("few elements, or few models, run elsewhere")
	}
	x[crowdedModels][0] += 64
	if flag(implementation.Float32, crowdedElements, len(x)) != 0 {
		t.Error("models at two lines run elsewhere")
	}
}
