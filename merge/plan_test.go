package merge_test

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/modelavg/modelavg/merge"
	"github.com/modelavg/modelavg/weighting"
)

// besides returns what a worker needs besides its chunks: to put each where it is in its page of the file.
func besides(models int) int64 { return int64(models+1) * (4096 + 4095) }

func TestPlan(t *testing.T) {
	dir := t.TempDir()
	var paths []string
	for _, name := range []string{"a", "b", "c"} {
		paths = append(paths, writeModel(t, filepath.Join(dir, name), nil,
			tensor{"half", "BF16", []int64{4, 250}, nil},
			tensor{"bias", "F32", []int64{10}, nil},
			tensor{"wide", "F64", []int64{2}, nil},
			tensor{"also", "F32", []int64{1}, nil},
			tensor{"steps", "I64", nil, nil}))
	}
	models := open(t, paths...)

	p := plan(t, nil, models, merge.WithWorkers(2), merge.WithChunkBytes(200))
	var steps []string
	for _, s := range p.Steps {
		steps = append(steps, fmt.Sprintf("%s %v %d", s.Tensor.Name, s.Action, s.Bytes))
	}
	want := []string{"steps copy-last 8", "wide average 16", "also average 4", "bias average 40", "half average 2000"}
	if !slices.Equal(steps, want) {
		t.Errorf("steps %q, want %q", steps, want)
	}
	if p.BytesRead != 3*2060+8 || p.BytesWritten != 2068 {
		t.Errorf("reads %d, writes %d; want %d, %d", p.BytesRead, p.BytesWritten, 3*2060+8, 2068)
	}
	if p.ChunkBytes != 256 || p.Workers != 2 || p.Memory != 2*(4*256+besides(3)) {
		t.Errorf("chunks of %d, %d workers, memory %d; want 256, 2, %d", p.ChunkBytes, p.Workers, p.Memory,
			2*(4*256+besides(3)))
	}
	// One chunk for each of four tensors and eight for the fifth.
	if q := plan(t, nil, models, merge.WithWorkers(100), merge.WithChunkBytes(200)); q.Workers != 12 {
		t.Errorf("%d workers of 100, want no more than the 12 chunks", q.Workers)
	}
	for i, s := range p.Sources {
		bytes := []int64{2060, 2060, 2068}[i]
		if s.Path != paths[i] || s.Weight != 1.0/3 || s.Bytes != bytes {
			t.Errorf("source %d is %+v, want %s with weight 1/3 and %d bytes", i, s, paths[i], bytes)
		}
	}
	text := strings.ReplaceAll(plan(t, []float64{0.25, 0.75, 0}, models, merge.WithWorkers(2)).String(), dir+"/", "")
	if want := `copy-last  I64   []       8 B   steps
average    F64   [2]      16 B  wide
average    F32   [1]      4 B   also
average    F32   [10]     40 B  bias
average    BF16  [4 250]  2 kB  half
weighted mean of 3 models
weight 0.25        a
weight 0.75        b
weight 0           c (not read)
integers last, keys strict, non-finite propagate, overflow inf, dtype as in the first model
4 tensors averaged, 1 copied from b: steps
reads 4.13 kB, writes 2.07 kB, with 61.4 kB of buffers (2 workers, chunks of 2.05 kB)
`; text != want {
		t.Errorf("plan\n%s\nwant\n%s", text, want)
	}
}

// The memory of a plan depends on models and workers, not on the size of the tensors.
func TestPlanMemory(t *testing.T) {
	dir := t.TempDir()
	small := writeModel(t, filepath.Join(dir, "small"), nil, tensor{"x", "BF16", []int64{1 << 20}, nil})
	large := writeModel(t, filepath.Join(dir, "large"), nil, tensor{"x", "BF16", []int64{1 << 30}, nil})
	for _, test := range []struct {
		models, workers int
		want            int64
	}{
		{1, 1, 2 << 19},
		{8, 2, 2 * 9 << 19},
		{16, 2, 2 * 17 << 19},
		{100, 1, 101 * 80 << 10},
		{1000, 1, 1001 * 64 << 10},
	} {
		for _, path := range []string{small, large} {
			model := open(t, path)[0]
			p := plan(t, nil, slices.Repeat(open(t, path), test.models), merge.WithWorkers(test.workers))
			if want := test.want + int64(test.workers)*besides(test.models); p.Memory != want {
				t.Errorf("%d models of %d bytes, %d workers: memory %d, want %d",
					test.models, model.Tensors()[0].Bytes(), test.workers, p.Memory, want)
			}
		}
	}
}

func TestDifferences(t *testing.T) {
	dir := t.TempDir()
	a := writeModel(t, filepath.Join(dir, "a"), nil, float32s("x", 1), float32s("y", 1, 2), float32s("z", 1))
	same := writeModel(t, filepath.Join(dir, "same"), nil, float32s("z", 1), float32s("y", 1, 2), float32s("x", 1))
	shaped := float32s("y", 1, 2)
	shaped.shape = []int64{2, 1}
	for _, test := range []struct {
		tensors []tensor
		want    string
	}{
		{
			[]tensor{float32s("x", 1), float32s("y", 1, 2)},
			`models differ from a; b: missing tensor "z"`,
		},
		{
			[]tensor{float32s("x", 1), float32s("y", 1, 2), float32s("z", 1), float32s("zz", 1)},
			`models differ from a; b: extra tensor "zz"`,
		},
		{
			[]tensor{float32s("x", 1), shaped, float32s("z", 1)},
			`models differ from a; b: tensor "y" has shape [2 1], want [2]`,
		},
		{
			[]tensor{float32s("x", 1), {"y", "I32", []int64{2}, make([]byte, 8)}, float32s("z", 1)},
			`models differ from a; b: tensor "y" has dtype I32, want F32`,
		},
		{
			[]tensor{float32s("x", 1), {"y", "C64", []int64{2}, make([]byte, 16)}, float32s("z", 1)},
			`models differ from a; b: tensor "y" has dtype C64, want F32`,
		},
		{
			[]tensor{float32s("w", 1), int64s("y", 1, 2, 3), float32s("v", 1)},
			`models differ from a; b: missing tensor "x", tensor "y" has dtype I64, want F32, ` +
				`tensor "y" has shape [3], want [2], missing tensor "z", extra tensor "v", extra tensor "w"`,
		},
	} {
		b := writeModel(t, filepath.Join(dir, "b"), nil, test.tensors...)
		_, err := merge.Mean(open(t, a, same, b))
		var diff *merge.DifferenceError
		if !errors.As(err, &diff) {
			t.Errorf("error %v, want %s", err, test.want)
			continue
		}
		if got := strings.ReplaceAll(err.Error(), dir+"/", ""); got != test.want {
			t.Errorf("error\n%s\nwant\n%s", got, test.want)
		}
		// A model of weight zero is compared as well.
		if _, err := merge.WeightedMean(open(t, a, b), []float64{1, 0}); !errors.As(err, &diff) {
			t.Errorf("weight zero: error %v, want a DifferenceError", err)
		}
	}

	b := writeModel(t, filepath.Join(dir, "b"), nil, float32s("x", 1), float32s("y", 1, 2))
	c := writeModel(t, filepath.Join(dir, "c"), nil,
		float32s("x", 1), float32s("y", 1, 2), float32s("z", 1), float32s("q", 1))
	_, err := merge.Mean(open(t, a, b, c))
	var diff *merge.DifferenceError
	if !errors.As(err, &diff) {
		t.Fatalf("error %v, want a DifferenceError", err)
	}
	want := []merge.Difference{
		{Path: b, Tensor: "z", Field: "missing", Want: "F32 [1]"},
		{Path: c, Tensor: "q", Field: "extra", Got: "F32 [1]"},
	}
	if diff.First != a || !slices.Equal(diff.Differences, want) {
		t.Errorf("differences %+v from %s, want %+v from %s", diff.Differences, diff.First, want, a)
	}
	if got, want := strings.ReplaceAll(err.Error(), dir+"/", ""),
		`models differ from a; b: missing tensor "z"; c: extra tensor "q"`; got != want {
		t.Errorf("error\n%s\nwant\n%s", got, want)
	}
}

func TestUnsupported(t *testing.T) {
	dir := t.TempDir()
	for _, dtype := range []string{
		"F4", "F6_E2M3", "F6_E3M2", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ", "C64",
	} {
		a := writeModel(t, filepath.Join(dir, "a"), nil, float32s("x", 1), tensor{"y", dtype, []int64{4}, nil},
			tensor{"z", dtype, []int64{0}, []byte{}})
		_, err := merge.Mean(open(t, a))
		var unsupported *merge.UnsupportedError
		if !errors.As(err, &unsupported) || len(unsupported.Tensors) != 2 || unsupported.Path != a {
			t.Errorf("%s: error %v, want an UnsupportedError for two tensors", dtype, err)
			continue
		}
		want := fmt.Sprintf(`%s: cannot average tensor "y" of dtype %s, "z" of dtype %[2]s`+
			` (F64, F32, F16, BF16, F8_E4M3 and F8_E5M2 are averaged, integers and BOOL follow the integer policy)`, a,
			dtype)
		if err.Error() != want {
			t.Errorf("error\n%s\nwant\n%s", err, want)
		}
	}
}

func TestWeightErrors(t *testing.T) {
	a := writeModel(t, filepath.Join(t.TempDir(), "a"), nil, float32s("x", 1))
	models := open(t, a, a)
	for _, test := range []struct {
		weights []float64
		want    error
	}{
		{[]float64{1}, weighting.ErrWeightCount},
		{[]float64{0.5, 0.25, 0.25}, weighting.ErrWeightCount},
		{nil, weighting.ErrWeightCount},
		{[]float64{0.5, 0.4}, weighting.ErrWeightSum},
		{[]float64{0, 0}, weighting.ErrWeightSum},
		{[]float64{math.NaN(), 1}, weighting.ErrWeight},
		{[]float64{math.Inf(1), 1}, weighting.ErrWeight},
	} {
		if p, err := merge.WeightedMean(models, test.weights); !errors.Is(err, test.want) || p != nil {
			t.Errorf("weights %v: error %v, want %v", test.weights, err, test.want)
		}
	}
	if _, err := merge.Mean(nil); !errors.Is(err, weighting.ErrNoModels) {
		t.Errorf("no models: error %v, want %v", err, weighting.ErrNoModels)
	}
	if _, err := merge.WeightedMean(nil, nil); !errors.Is(err, weighting.ErrNoModels) {
		t.Errorf("no models, weighted: error %v, want %v", err, weighting.ErrNoModels)
	}
}

// The plan keeps the weights that it was made with.
func TestPlanKeepsWeights(t *testing.T) {
	dir := t.TempDir()
	a := writeModel(t, filepath.Join(dir, "a"), nil, float32s("x", 1))
	b := writeModel(t, filepath.Join(dir, "b"), nil, float32s("x", 3))
	weights := []float64{0.5, 0.5}
	p := plan(t, weights, open(t, a, b))
	weights[0] = 100
	out := filepath.Join(dir, "out")
	if _, err := p.Run(t.Context(), out, nil); err != nil {
		t.Fatal(err)
	}
	if _, got := readModel(t, out); !slices.Equal(valuesOf(t, got["x"]), []float32{2}) {
		t.Errorf("got %v, want 2", valuesOf(t, got["x"]))
	}
}
