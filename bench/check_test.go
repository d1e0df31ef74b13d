package main

import (
	"bytes"
	"math"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/modelavg/modelavg/internal/implementation"
)

// everything returns all libraries, and ours on every implementation.
func everything(t *testing.T) []library {
	t.Helper()
	list, err := choose("all", "all")
	if err != nil {
		t.Fatal(err)
	}
	return list
}

func TestAllLibrariesComputeTheSame(t *testing.T) {
	list := everything(t)
	s := selection{jobs, dtypes, []int{2, 3, 4, 8, 9, 17}, []int{1, 7, 8, 64, 257, 2049}}
	chosen := implementation.Chosen
	checked := map[string]int{}
	points := s.points()
	a, err := newArena(points, "system")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range points {
		want := expect(a, p)
		for _, l := range list {
			done, err := checkLibrary(a, l, p, want)
			if err != nil {
				t.Error(err)
			}
			if done {
				checked[l.name]++
			}
		}
	}
	if implementation.Chosen != chosen {
		t.Errorf("an implementation is still forced: got %v, want %v", implementation.Chosen, chosen)
	}
	for _, l := range list {
		if l.kind != mover && checked[l.name] == 0 {
			t.Errorf("%s was checked at no point", l.name)
		}
	}
	// Sums and means of six numbers of models, and the step, at six lengths.
	const each = (6 + 6 + 1) * 6
	for name, want := range map[string]int{
		ourName: 4 * each, ourNativeName: each, ourWiderName: each, "modelavg-api": 4 * each,
		"go-passes": 2 * each, "go-onepass": 4 * each, "go-written-out": 2 * 2 * 2 * 6,
		"gonum": 2 * each, "vek": 2 * each, "tphakala": 3 * each, "vecf32": each,
	} {
		if checked[name] != want {
			t.Errorf("%s was checked at %d points, want %d", name, checked[name], want)
		}
	}
}

// A check that passes whatever was computed would prove nothing.
func TestCheckFindsADifferentJob(t *testing.T) {
	points := (selection{jobs, dtypes, []int{4}, []int{64}}).points()
	a, err := newArena(points, "system")
	if err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(a *arena, p point){
		"the last element is not written": func(a *arena, p point) {
			at := a.memory[(p.n-1)*p.dtype.size():][:p.dtype.size()]
			copy(at, a.memory[stride(p)+64:])
		},
		"the first element is 1": func(a *arena, p point) {
			one := map[dtype][]byte{
				float64s: {0, 0, 0, 0, 0, 0, 0xf0, 0x3f}, float32s: {0, 0, 0x80, 0x3f}, float16s: {0, 0x3c}, bfloat16s: {0x80, 0x3f},
			}
			copy(a.memory, one[p.dtype])
		},
		"an element is NaN": func(a *arena, p point) {
			copy(a.memory, bytes.Repeat([]byte{0xff}, p.dtype.size()))
		},
	} {
		for _, p := range points {
			l := library{name: "spoiled", prepare: func(a *arena, p point) func(int) {
				run := prepareOurs(a, p)
				return func(times int) {
					run(times)
					spoil(a, p)
				}
			}}
			if _, err := checkLibrary(a, l, p, expect(a, p)); err == nil || !strings.Contains(err.Error(), "spoiled, "+p.String()+", element ") {
				t.Errorf("%s, %v: got error %v", name, p, err)
			}
		}
	}
	// A mean in the place of the weighted sum.
	l := library{name: "mean", prepare: func(a *arena, p point) func(int) {
		p.job = mean
		return prepareOurs(a, p)
	}}
	p := point{weightedSum, float32s, 4, 64}
	if _, err := checkLibrary(a, l, p, expect(a, p)); err == nil {
		t.Error("a mean passes for a weighted sum")
	}
}

func TestStreams(t *testing.T) {
	for _, p := range (selection{jobs, dtypes, []int{2, 16}, []int{1, 8, 100, 65536, 64_000_000, 1 << 26}}).points() {
		s := stride(p)
		if s-p.n*p.dtype.size() < gapBytes || s%64 != 0 {
			t.Errorf("%v: the streams are %d bytes apart, want %d and %d more, a multiple of 64", p, s, p.n*p.dtype.size(), gapBytes)
		}
		if s%badStride == 0 {
			t.Errorf("%v: the streams are %d bytes apart, a multiple of %d", p, s, badStride)
		}
	}
	if got := stride(point{mean, float32s, 2, 1<<26 - gapBytes/4}); got != badStride+gapBytes {
		t.Errorf("streams that would be %d bytes apart are %d bytes apart, want %d", badStride, got, badStride+gapBytes)
	}
	p := point{emaStep, float32s, 2, 10}
	a, err := newArena([]point{p}, "system")
	if err != nil {
		t.Fatal(err)
	}
	o := carve[float32](a, p)
	if &o.dst[0] != &o.models[0][0] || len(o.models) != 2 || len(o.models[1]) != 10 {
		t.Error("the average of an EMA step is not its first model")
	}
	p.job = mean
	o = carve[float32](a, p)
	if &o.dst[0] == &o.models[0][0] {
		t.Error("the result of a mean is its first model")
	}
	for _, stream := range append(o.models, o.scratch) {
		if distance := uintptr(unsafe.Pointer(&stream[0])) - uintptr(unsafe.Pointer(&o.dst[0])); distance%uintptr(stride(p)) != 0 {
			t.Errorf("a stream begins %d bytes after dst, want a multiple of %d", distance, stride(p))
		}
	}
}

func TestFill(t *testing.T) {
	for _, d := range dtypes {
		p := point{weightedSum, d, 3, 1000}
		a, err := newArena([]point{p}, "system")
		if err != nil {
			t.Fatal(err)
		}
		a.fill(d)
		negative := 0
		for i := range p.n {
			var values []float64
			for stream := range 5 {
				v := element(a, p, stream, i)
				if !(math.Abs(v) <= 1) {
					t.Fatalf("%s: element %d of stream %d is %v, want a number from -1 to 1", d, i, stream, v)
				}
				values = append(values, v)
				if v < 0 {
					negative++
				}
			}
			if slices.Min(values) == slices.Max(values) {
				t.Fatalf("%s: all streams have the same element %d", d, i)
			}
		}
		if negative < 2000 || negative > 3000 {
			t.Errorf("%s: %d of 5000 elements are negative, want about half", d, negative)
		}
	}
}

// The movers are to stay inside the arena and to leave numbers in it.
func TestMovers(t *testing.T) {
	const margin = 8192
	for _, p := range (selection{jobs, dtypes, []int{2, 5}, []int{8, 100, 4096, 5000}}).points() {
		size := arenaBytes(p)
		memory, err := allocate(size+margin, "system")
		if err != nil {
			t.Fatal(err)
		}
		for i := range memory[size:] {
			memory[size+i] = 0xab
		}
		a := &arena{memory: memory[:size]}
		count := 0
		for _, l := range movers() {
			a.refill(p.dtype, 1)
			run := l.prepare(a, p)
			if run == nil {
				continue
			}
			count++
			run(p.models + 1) // a copy ends with the first model
			length := max(p.n*p.dtype.size(), 4096) / 512 * 512
			var want int
			switch {
			case strings.Contains(l.name, "copy"):
				want = 2 * length
				if !bytes.Equal(a.memory[:length], a.memory[stride(p):][:length]) {
					t.Errorf("%s, %v: dst is not the first model", l.name, p)
				}
			case strings.Contains(l.name, "read"):
				want = max(p.bytes(), 4096) / 512 * 512
			case strings.Contains(l.name, "update"):
				want = 3 * length
			}
			if got := l.movedBytes(p); got != want {
				t.Errorf("%s, %v: moves %d bytes, want %d", l.name, p, got, want)
			}
			for stream := range p.models + 2 {
				for i := range p.n {
					if v := element(a, p, stream, i); !(math.Abs(v) <= 1) {
						t.Fatalf("%s, %v: element %d of stream %d is %v, want a number from -1 to 1", l.name, p, i, stream, v)
					}
				}
			}
		}
		if count == 0 {
			t.Errorf("%v: no mover ran", p)
		}
		if !bytes.Equal(memory[size:], bytes.Repeat([]byte{0xab}, margin)) {
			t.Errorf("%v: bytes after the arena were written", p)
		}
	}
}
