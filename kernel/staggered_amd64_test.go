//go:build linux && !purego && !noasm

package kernel

import (
	"runtime"
	"slices"
	"sync"
	"testing"
	"unsafe"

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
		for models := staggeredGroup + 1 + n/staggeredBlock%2; models <= most; models += thin(2, 11) {
			tail := rng.IntN(2) == 0
			source := sources[rng.IntN(int(modes))]
			x := make([][]byte, models)
			for k := range x {
				x[k] = regions[k].flush(n*f.size, tail)
				copy(x[k], source.cut(n))
				for i := 0; models%5 == 0 && i < n; i++ {
					f.put(x[k], i, f.sign()) // sums of −0 alone are −0
				}
			}
			w := randomWeights(rng, kind, ordinary, models)
			if rng.IntN(3) == 0 || models%5 == 0 {
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

// TestStaggeredPages runs calls that are staggered, with a rest of every length, with dst and the models against pages that
// cannot be touched, at their heads and at their tails. dst is one of the models in every third case or so.
func TestStaggeredPages(t *testing.T) {
	forceStaggered(t)
	const longest = staggeredElements + 2*staggeredBlock
	kind := implementation.Float32
	f, rng := elementFormat(kind), newRand(92)
	source := newPool(rng, f, special, longest+4096)
	regions := make([]region, staggeredModels+1)
	for k := range regions {
		regions[k] = newRegion(t, longest*f.size)
	}
	for n := staggeredElements; n < longest; n++ {
		for _, tail := range []bool{false, true} {
			models := few + 1 + rng.IntN(staggeredModels-few)
			x := make([][]byte, models)
			for k := range x {
				x[k] = regions[k].flush(n*f.size, tail)
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
			d := regions[models].flush(n*f.size, tail)
			if rng.IntN(3) == 0 {
				d = x[rng.IntN(models)]
			}
			canary := regions[models].pages[:len(regions[models].pages)-len(d)]
			if !tail {
				canary = regions[models].pages[len(d):]
			}
			for i := range canary {
				canary[i] = 0xa5
			}
			r := fault(func() { call(kind, d, x, w) })
			if r == "" {
				r = f.differ(d, want)
			}
			for i := range canary {
				if canary[i] != 0xa5 {
					r = "wrote outside dst"
				}
			}
			if r != "" {
				t.Fatalf("n=%d models=%d tail=%t weights=%v: %s", n, models, tail, w, r)
			}
		}
	}
}

// TestStaggeredConcurrently: the sums between the groups are of one call alone.
func TestStaggeredConcurrently(t *testing.T) {
	forceStaggered(t)
	const n, models, goroutines, calls = 4096, 24, 4, 300
	kind := implementation.Float32
	f := elementFormat(kind)
	var wg sync.WaitGroup
	for g := range goroutines {
		rng := newRand(uint64(93 + g))
		source := newPool(rng, f, ordinary, 2*n)
		block := make([]byte, (models+2)*n*f.size)
		begin := int(-uintptr(unsafe.Pointer(&block[0])) & 4095)
		x := make([][]byte, models)
		for k := range x {
			x[k] = block[begin+k*n*f.size:][:n*f.size]
			copy(x[k], source.cut(n))
		}
		d := block[begin+models*n*f.size:][:n*f.size]
		if !staggers(kind, headers(kind, x), n, models) {
			t.Fatal("not staggered")
		}
		want := reference(kind, x, nil)
		wg.Go(func() {
			for range calls {
				call(kind, d, x, nil)
				if r := f.differ(d, want); r != "" {
					t.Error(r)
					return
				}
			}
		})
	}
	wg.Wait()
}

// TestStaggeredAllocations: the tile of a call that is staggered goes back to the pool.
func TestStaggeredAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes sync.Pool drop what is put into it")
	}
	forceStaggered(t)
	s := make([]float32, staggeredElements+1)
	x, w := slices.Repeat([][]float32{s}, few+1), make([]float64, few+1)
	if got := testing.AllocsPerRun(20, func() { WeightedSumFloat32(s, x, w); MeanFloat32(s, x) }); got != 0 {
		t.Errorf("%v allocations a call, want 0", got)
	}
}

// TestStaggeredTakesATile: a call that is staggered takes a tile, and that shows that it is; the same call takes none where
// its models are too few, too short or too long.
func TestStaggeredTakesATile(t *testing.T) {
	forceStaggered(t)
	former := tiles.New
	defer func() { tiles.New = former }()
	taken := false
	tiles.New = func() any { taken = true; return new(tile) }
	for _, c := range []struct {
		n, models int
		want      bool
	}{
		{staggeredElements, few + 1, true},
		{staggeredElements - 1, few + 1, false},
		{staggeredElements, few, false},
		{tileSize/(4*(group+1)) + 1, group, false},
		{tileSize / (4 * (group + 1)), group, true},
	} {
		for range 2 {
			runtime.GC() // a pool keeps what it has for two of them
		}
		s := make([]float32, c.n)
		taken = false
		if MeanFloat32(s, slices.Repeat([][]float32{s}, c.models)); taken != c.want {
			t.Errorf("%d elements of %d models: takes a tile: %t, want %t", c.n, c.models, taken, c.want)
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
