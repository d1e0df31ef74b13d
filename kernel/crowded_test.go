package kernel

import (
	"testing"
	"unsafe"

	"github.com/modelavg/modelavg/internal/implementation"
)

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

// Only many elements of many models of float32 and float16 pay for another implementation, and only where they are
// crowded.
func TestCrowdedFlag(t *testing.T) {
	x := make([][3]uintptr, crowdedModels+1)
	for k := range x {
		x[k][0] = uintptr(k) << 13
	}
	flag := func(kind implementation.Kind, bytes, models int) int {
		return crowdedFlag(kind, unsafe.Pointer(&x[0]), bytes/elementSize(kind), models)
	}
	for kind := range implementation.Kind(implementation.Kinds) {
		want := 0
		if kind == implementation.Float32 || kind == implementation.Float16 {
			want = past
		}
		for _, test := range []struct{ bytes, models, want int }{
			{crowdedBytes, crowdedModels, want}, {crowdedBytes - 8, crowdedModels, 0}, {crowdedBytes, crowdedModels - 1, 0},
		} {
			if got := flag(kind, test.bytes, test.models); got != test.want {
				t.Errorf("%v, %d bytes of %d models: flag %d, want %d", kind, test.bytes, test.models, got, test.want)
			}
		}
	}
	x[crowdedModels][0] += 64
	if flag(implementation.Float32, crowdedBytes, len(x)) != 0 {
		t.Error("models at two lines run elsewhere")
	}
}

// Beyond the second-level cache many models run where large calls do, except for what is widened to twice as many
// vectors: there they have to be crowded, and no more than are read side by side.
func TestManyFlag(t *testing.T) {
	x := make([][3]uintptr, group+1)
	for _, apart := range []uintptr{1 << 13, 1<<13 + 64} {
		for k := range x {
			x[k][0] = uintptr(k) * apart
		}
		for kind := range implementation.Kind(implementation.Kinds) {
			for _, models := range []int{few + 1, group, group + 1} {
				want := past
				if kind == implementation.Float32 || kind == implementation.Float16 {
					if apart != 1<<13 || models > group {
						want = 0
					}
				}
				if got := manyFlag(kind, unsafe.Pointer(&x[0]), models); got != want {
					t.Errorf("%v, %d models %d bytes apart: flag %d, want %d", kind, models, apart, got, want)
				}
			}
		}
	}
}
