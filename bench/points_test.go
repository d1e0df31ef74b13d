package main

import (
	"slices"
	"strings"
	"testing"
)

func TestBenchmarkNames(t *testing.T) {
	for _, p := range (selection{jobs, dtypes, []int{2, 16}, []int{8, 64_000_000}}).points() {
		name := p.benchmark("a-library")
		got, library, ok := parseBenchmark(strings.TrimPrefix(name, "Benchmark"))
		if !ok || got != p || library != "a-library" {
			t.Errorf("%s: got %v, %q, %v", name, got, library, ok)
		}
	}
	if got, want := (point{mean, bfloat16s, 4, 65536}).benchmark("gonum"),
		"BenchmarkMean/library=gonum/dtype=bfloat16/models=4/n=65536"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	for _, name := range []string{
		"", "Mean", "Mean/library=a/dtype=float32/models=4", "Mean/library=a/dtype=float32/models=x/n=1",
		"Mean/dtype=float32/library=a/models=4/n=1", "Mean/library=a/dtype=float32/models=4/n=1/x=1",
	} {
		if _, _, ok := parseBenchmark(name); ok {
			t.Errorf("%q was parsed", name)
		}
	}
}

func TestSelection(t *testing.T) {
	points := (selection{[]job{emaStep, mean}, []dtype{float64s}, []int{4, 8}, []int{8, 64}}).points()
	want := []point{
		{emaStep, float64s, 2, 8},
		{emaStep, float64s, 2, 64},
		{mean, float64s, 4, 8},
		{mean, float64s, 4, 64},
		{mean, float64s, 8, 8},
		{mean, float64s, 8, 64},
	}
	if !slices.Equal(points, want) {
		t.Errorf("got %v, want %v", points, want)
	}
	if got := want[0].bytes(); got != 3*8*8 {
		t.Errorf("an EMA step of 8 float64 moves %d bytes, want %d", got, 3*8*8)
	}
	if got := want[4].bytes(); got != 9*8*8 {
		t.Errorf("a mean of 8 × 8 float64 moves %d bytes, want %d", got, 9*8*8)
	}
}

func TestFlags(t *testing.T) {
	f, err := parseFlags([]string{"-n", "1_000,8", "-jobs", "mean", "-libraries", "gonum,modelavg", "-impl", "generic"}, new(strings.Builder))
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(f.sizes, []int{1000, 8}) || !slices.Equal(f.jobs, []job{mean}) {
		t.Errorf("got sizes %v and jobs %v", f.sizes, f.jobs)
	}
	var names []string
	for _, l := range f.libraries {
		names = append(names, l.name)
	}
	want := []string{"gonum", "modelavg", "modelavg-generic", "modelavg-native-generic", "modelavg-wider-generic"}
	if !slices.Equal(names, want) {
		t.Errorf("got libraries %q, want %q", names, want)
	}
	for _, test := range []struct{ argument, want string }{
		{"-jobs=Median", `-jobs: got "Median", want all or some of [WeightedSum Mean EMAStep]`},
		{"-dtypes=int8", `-dtypes: got "int8"`},
		{"-models=1", "-models: got 1, want at least 2"},
		{"-n=0", `-n: got "0", want positive integers`},
		{"-n=8;9", `-n: got "8;9"`},
		{"-libraries=numpy", `-libraries: got "numpy"`},
		{"-impl=mmx", `-impl: got "mmx"`},
		{"-rounds=0", "-rounds: got 0"},
		{"-time=0s", "-time: got 0s, want more than 0"},
		{"-memory=0", "-memory: got 0, want more than 0"},
		{"-chart-models=0", "-chart-models: got 0, want at least 1"},
		{"-hugepages=maybe", `-hugepages: got "maybe"`},
		{"mean", `got argument "mean"`},
		{"-unknown", "not defined: -unknown"},
	} {
		_, err := parseFlags([]string{test.argument}, new(strings.Builder))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got error %v, want one with %q", test.argument, err, test.want)
		}
	}
}

func TestAffordable(t *testing.T) {
	var said strings.Builder
	points := []point{{mean, float32s, 2, 8}, {mean, float32s, 64, 64_000_000}}
	fit := affordable(points, 12, &said)
	if !slices.Equal(fit, points[:1]) {
		t.Errorf("got %v, want the small point alone", fit)
	}
	if want := "left out: Mean of 64 × 64000000 float32, which needs 15.7 GiB\n"; said.String() != want {
		t.Errorf("said %q, want %q", said.String(), want)
	}
}
