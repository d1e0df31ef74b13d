package kernel

import (
	"fmt"
	"os"
	"runtime/debug"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/modelavg/modelavg/internal/implementation"
)

// A region is whole pages between two that cannot be touched.
type region struct{ pages []byte }

func newRegion(t *testing.T, size int) region {
	t.Helper()
	page := os.Getpagesize()
	size = (size + page - 1) / page * page
	all, err := unix.Mmap(-1, 0, size+2*page, unix.PROT_NONE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Munmap(all); err != nil {
			t.Error(err)
		}
	})
	r := region{all[page : page+size : page+size]}
	r.protect(t, unix.PROT_READ|unix.PROT_WRITE)
	return r
}

func (r region) protect(t *testing.T, protection int) {
	t.Helper()
	if err := unix.Mprotect(r.pages, protection); err != nil {
		t.Fatal(err)
	}
}

// flush returns size bytes at the head or the tail of the region.
func (r region) flush(size int, tail bool) []byte {
	if tail {
		return r.pages[len(r.pages)-size:]
	}
	return r.pages[:size:size]
}

// fault runs f and describes the access that the system refused, or returns "".
func fault(f func()) (refused string) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			at, ok := r.(interface{ Addr() uintptr })
			if !ok {
				panic(r)
			}
			refused = fmt.Sprintf("%v at %#x", r, at.Addr())
		}
	}()
	f()
	return ""
}

// TestFault shows that the pages do what the tests below count on.
func TestFault(t *testing.T) {
	r := newRegion(t, 1)
	if refused := fault(func() { r.pages[0], r.pages[len(r.pages)-1] = 1, 1 }); refused != "" {
		t.Errorf("inside: %s", refused)
	}
	var read byte
	for _, offset := range []int{-1, len(r.pages)} {
		outside := (*byte)(unsafe.Add(unsafe.Pointer(unsafe.SliceData(r.pages)), offset))
		if fault(func() { read = *outside }) == "" {
			t.Errorf("byte %d can be read: %d", offset, read)
		}
	}
	r.protect(t, unix.PROT_READ)
	if fault(func() { r.pages[0] = 2 }) == "" {
		t.Error("a page that was protected can be written")
	}
}

// TestPages places dst, the models and the accumulators against pages that cannot be touched, all at their heads, all
// at their tails, and in turn; the models cannot be written.
func TestPages(t *testing.T) {
	const (
		longest = beyondBlocks
		most    = group + 1
	)
	each(t, allKinds, func(t *testing.T, kind implementation.Kind) {
		f, a := elementFormat(kind), accumulatorFormat(kind)
		rng := newRand(30)
		dst, acc := newRegion(t, longest*f.size), newRegion(t, longest*a.size)
		models := make([]region, most)
		for k := range models {
			models[k] = newRegion(t, longest*f.size)
			for i := range len(models[k].pages) / f.size {
				f.put(models[k].pages, i, f.random(rng, ordinary))
			}
			models[k].protect(t, unix.PROT_READ)
		}
		w := randomWeights(rng, kind, ordinary, most)
		for n := 0; n <= longest; n += thin(1, 5) {
			for _, count := range []int{1, 2, 3, group, most} {
				for _, place := range []string{"heads", "tails", "mixed"} {
					x := make([][]byte, count)
					for k := range x {
						x[k] = models[k].flush(n*f.size, place == "tails" || place == "mixed" && k%2 == 0)
					}
					tail := place == "tails" || place == "mixed" && n%2 == 0
					d, s := dst.flush(n*f.size, tail), acc.flush(n*a.size, tail)
					at := fmt.Sprintf("n=%d models=%d %s", n, count, place)
					want := reference(kind, x, w[:count])
					clear(dst.pages)
					if r := fault(func() { callWeightedSum(kind, d, x, w[:count]) }); r != "" {
						t.Fatalf("%s: weighted sum: %s", at, r)
					}
					if r := f.differ(d, want); r != "" {
						t.Fatalf("%s: weighted sum: %s", at, r)
					}
					if r := fault(func() { callMean(kind, d, x) }); r != "" {
						t.Fatalf("%s: mean: %s", at, r)
					}
					if kind > implementation.BFloat16 {
						continue
					}
					if r := fault(func() { callAccumulate(kind, s, x[0], 0.5) }); r != "" {
						t.Fatalf("%s: accumulate: %s", at, r)
					}
					if r := fault(func() { callRound(kind, d, s, 3) }); r != "" {
						t.Fatalf("%s: round: %s", at, r)
					}
				}
			}
		}
	})
}

// TestPagesPastTheCaches does so for non-temporal stores and for more than one chunk.
func TestPagesPastTheCaches(t *testing.T) {
	former := streamThreshold
	streamThreshold = 1
	defer func() { streamThreshold = former }()
	each(t, allKinds, func(t *testing.T, kind implementation.Kind) {
		f := elementFormat(kind)
		rng := newRand(31)
		longest := chunkBytes/f.size + 100
		dst, model := newRegion(t, longest*f.size), newRegion(t, longest*f.size)
		for i := range len(model.pages) / f.size {
			f.put(model.pages, i, f.random(rng, ordinary))
		}
		model.protect(t, unix.PROT_READ)
		w := randomWeights(rng, kind, ordinary, group+1)
		for _, n := range []int{1, 31, 33, 64, 129, 513, chunkBytes/8 + 1, chunkBytes/f.size + 1, longest} {
			for _, tail := range []bool{false, true} {
				for _, count := range []int{1, group, group + 1} {
					if n > 1000 && count > 1 && testing.Short() {
						continue
					}
					x := make([][]byte, count)
					for k := range x {
						x[k] = model.flush(n*f.size, tail != (k%2 == 1))
					}
					clear(dst.pages)
					d := dst.flush(n*f.size, tail)
					if r := fault(func() { callWeightedSum(kind, d, x, w[:count]) }); r != "" {
						t.Fatalf("n=%d models=%d tail=%t: %s", n, count, tail, r)
					}
					if r := f.differ(d, reference(kind, x, w[:count])); r != "" {
						t.Fatalf("n=%d models=%d tail=%t: %s", n, count, tail, r)
					}
				}
			}
		}
	})
}
