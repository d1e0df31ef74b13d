//go:build linux && !purego && !noasm

package kernel

import (
	"slices"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/modelavg/modelavg/internal/implementation"
)

// forceStaggered makes float32 run in groups that follow one another, where AVX2 has a choice.
func forceStaggered(t *testing.T) {
	t.Helper()
	if !slices.Contains(available, implementation.AVX2) {
		t.Skip("no AVX2")
	}
	force(t, implementation.AVX2.String())
	former := implementation.Staggered
	implementation.Staggered[implementation.Float32] = implementation.AVX2
	t.Cleanup(func() { implementation.Staggered = former })
}

// TestStaggered runs all numbers of blocks up to the distance of three groups and all numbers of models, with and without a
// divisor, over memory that ends where it may, and compares the bits with the reference. dst is one of the models in every
// third case.
func TestStaggered(t *testing.T) {
	forceStaggered(t)
	const (
		longest = 3*staggeredLag + 3*staggeredBlock
		most    = 40
	)
	kind := implementation.Float32
	f, rng := elementFormat(kind), newRand(90)
	sources := pools(rng, kind, longest+4096)
	regions := make([]region, most)
	for k := range regions {
		regions[k] = newRegion(t, longest*f.size)
	}
	dst := newRegion(t, longest*f.size)
	ring := newRegion(t, (most-1)/staggeredGroup*staggeredLag*8)
	for n := staggeredBlock; n <= longest; n += staggeredBlock {
		for models := staggeredGroup + 1 + n/staggeredBlock%2; models <= most; models += thin(2, 9) {
			tail := rng.IntN(2) == 0
			source := sources[rng.IntN(int(modes))]
			x := make([][]byte, models)
			for k := range x {
				x[k] = regions[k].flush(n*f.size, tail)
				copy(x[k], source.cut(n))
			}
			w := randomWeights(rng, kind, ordinary, models)
			if rng.IntN(3) == 0 {
				w = nil
			}
			want := reference(kind, x, w)
			d := dst.flush(n*f.size, tail)
			if models%3 == 0 {
				d = x[rng.IntN(models)]
			}
			divisor, flags := 1.0, 0
			if w == nil {
				divisor, flags = division(kind, float64(models))
			}
			sums := ring.flush((models-1)/staggeredGroup*staggeredLag*8, tail)
			for i := range sums {
				sums[i] = byte(rng.Uint32())
			}
			r := fault(func() {
				weightedSumStaggered(unsafe.Pointer(&d[0]), headers(kind, x), accumulatorWeights(w, models),
					unsafe.Pointer(&sums[0]), n, models, divisor, flags)
			})
			if r == "" {
				r = f.differ(d, want)
			}
			if r != "" {
				t.Fatalf("n=%d models=%d tail=%t weights=%v: %s", n, models, tail, w, r)
			}
		}
	}
}

// TestStaggeredCalls runs calls that are staggered, with a rest of every length, in place or not.
func TestStaggeredCalls(t *testing.T) {
	forceStaggered(t)
	const longest = staggeredElements + 2*staggeredBlock
	kind := implementation.Float32
	f, rng := elementFormat(kind), newRand(91)
	sources := pools(rng, kind, longest+4096)
	stride := (longest*f.size + 4095) / 4096 * 4096
	memory, err := unix.Mmap(-1, 0, (staggeredModels+2)*stride, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(memory)
	for n := staggeredElements; n < longest; n++ {
		models := few + 1 + rng.IntN(staggeredModels-few)
		x := make([][]byte, models)
		source := sources[rng.IntN(int(modes))]
		for k := range x {
			x[k] = memory[k*stride:][:n*f.size]
			copy(x[k], source.cut(n))
		}
		if !staggers(kind, headers(kind, x), n, models) {
			t.Fatalf("n=%d models=%d: not staggered", n, models)
		}
		w := randomWeights(rng, kind, ordinary, models)
		if rng.IntN(3) == 0 {
			w = nil
		}
		want := reference(kind, x, w)
		d := memory[models*stride:][:n*f.size]
		if rng.IntN(2) == 0 {
			d = x[rng.IntN(models)]
		}
		call(kind, d, x, w)
		if r := f.differ(d, want); r != "" {
			t.Fatalf("n=%d models=%d weights=%v: %s", n, models, w, r)
		}
	}
}

// TestStaggers: crowded models of float32 alone, not too few elements, neither too few models nor too many, and only where
// the kind runs on the same implementation otherwise.
func TestStaggers(t *testing.T) {
	forceStaggered(t)
	x := make([][3]uintptr, staggeredModels+1)
	for k := range x {
		x[k][0] = uintptr(k) << 13
	}
	staggered := func(kind implementation.Kind, n, models int) bool {
		return staggers(kind, unsafe.Pointer(&x[0]), n, models)
	}
	for kind := range implementation.Kind(implementation.Kinds) {
		for _, models := range []int{few + 1, staggeredModels} {
			if got, want := staggered(kind, staggeredElements, models), kind == implementation.Float32; got != want {
				t.Errorf("%v, %d models: %t, want %t", kind, models, got, want)
			}
		}
	}
	for _, c := range [][2]int{
		{staggeredElements - 1, few + 1}, {staggeredElements, few}, {staggeredElements, staggeredModels + 1},
	} {
		if staggered(implementation.Float32, c[0], c[1]) {
			t.Errorf("%d elements of %d models are staggered", c[0], c[1])
		}
	}
	implementation.Chosen[implementation.Float32] = implementation.Generic
	if staggered(implementation.Float32, staggeredElements, few+1) {
		t.Error("float32 is staggered on another implementation than it runs on")
	}
	implementation.Chosen[implementation.Float32] = implementation.AVX2
	x[few][0] += 64
	if staggered(implementation.Float32, staggeredElements, few+1) {
		t.Error("models at two lines are staggered")
	}
}
