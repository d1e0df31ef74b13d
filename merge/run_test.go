package merge_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/modelavg/modelavg/checkpoint"
	"github.com/modelavg/modelavg/merge"
)

// randomData returns n elements of which no average overflows: normal numbers of both signs, subnormals and zeros.
func randomData(r *rand.Rand, dtype string, n int) []byte {
	f := formats[dtype]
	var data []byte
	for range n {
		x := r.NormFloat64()
		switch r.IntN(16) {
		case 0:
			x *= f.decode(9) // a few times the least subnormal
		case 1:
			x *= 0
		case 2:
			x *= 1000
		}
		if math.IsInf(f.decode(f.encode(x)), 0) || math.IsNaN(f.decode(f.encode(x))) {
			x = 1
		}
		var p [8]byte
		for i, b := 0, f.encode(x); i < f.size; i, b = i+1, b>>8 {
			p[i] = byte(b)
		}
		data = append(data, p[:f.size]...)
	}
	return data
}

// run writes the average of the files and returns the path of the result.
func run(t testing.TB, weights []float64, paths []string, opts ...merge.Option) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	if _, err := plan(t, weights, open(t, paths...), opts...).Run(t.Context(), out, nil); err != nil {
		t.Fatal(err)
	}
	return out
}

// plan returns the plan of a weighted mean, of a mean for nil weights.
func plan(t testing.TB, weights []float64, models []*checkpoint.Model, opts ...merge.Option) *merge.Plan {
	t.Helper()
	p, err := merge.Mean(models, opts...)
	if weights != nil {
		p, err = merge.WeightedMean(models, weights, opts...)
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestRunMatchesReference(t *testing.T) {
	weightsOf := map[int][]float64{
		1: {1},
		2: {0.3, 0.7},
		3: {1.5, -0.75, 0.25},
		9: {0.1, 0.2, 0.05, 0.05, 0.1, 0.1, 0.1, 0.2, 0.1},
	}
	lengths := []int{0, 1, 7, 8, 31, 333} // with chunks of 64 bytes, from none to 42
	for models, weights := range weightsOf {
		r := rand.New(rand.NewPCG(1, uint64(models)))
		dir := t.TempDir()
		var paths []string
		data := make(map[string][][]byte) // by tensor, model by model
		for k := range models {
			var tensors []tensor
			for dtype := range formats {
				for _, n := range lengths {
					x := tensor{fmt.Sprintf("%s.%d", dtype, n), dtype, []int64{int64(n)}, randomData(r, dtype, n)}
					if x.data == nil {
						x.data = []byte{}
					}
					tensors = append(tensors, x)
					data[x.name] = append(data[x.name], x.data)
				}
			}
			paths = append(paths, writeModel(t, filepath.Join(dir, fmt.Sprintf("%d.safetensors", k)), nil, tensors...))
		}
		for _, w := range [][]float64{nil, weights} {
			_, got := readModel(t, run(t, w, paths, merge.WithChunkBytes(64)))
			if len(got) != len(data) {
				t.Fatalf("%d models: %d tensors in the result, want %d", models, len(got), len(data))
			}
			for name, inputs := range data {
				dtype, _, _ := strings.Cut(name, ".")
				want := reference(dtype, inputs, w)
				if got[name].dtype != dtype || !bytes.Equal(got[name].data, want) {
					i := firstDifference(got[name].data, want) / formats[dtype].size
					t.Errorf("%d models, weights %v, tensor %s: element %d differs from the reference", models, w, name,
						i)
				}
			}
		}
	}
}

func firstDifference(a, b []byte) int {
	i := 0
	for i < len(a) && i < len(b) && a[i] == b[i] {
		i++
	}
	return i
}

func TestRunSameBytesForAnyWorkersAndChunks(t *testing.T) {
	r := rand.New(rand.NewPCG(2, 2))
	dir := t.TempDir()
	var paths []string
	for k := range 3 {
		paths = append(paths, writeModel(t, filepath.Join(dir, fmt.Sprint(k)), nil,
			tensor{"a", "BF16", []int64{300, 1000}, randomData(r, "BF16", 300_000)},
			tensor{"b", "F32", []int64{5001}, randomData(r, "F32", 5001)},
			tensor{"c", "F64", []int64{777}, randomData(r, "F64", 777)},
			int64s("d", 1, 2, int64(k))))
	}
	var want []byte
	for _, workers := range []int{1, 2, 7} {
		for _, chunk := range []int{0, 64, 1000, 4096, 12_288, 1 << 16} {
			got, err := os.ReadFile(run(t, []float64{0.5, 0.2, 0.3}, paths,
				merge.WithWorkers(workers), merge.WithChunkBytes(chunk)))
			if err != nil {
				t.Fatal(err)
			}
			if want == nil {
				want = got
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%d workers, chunks of %d: other bytes than with 1 worker and the default chunk", workers,
					chunk)
			}
		}
	}
}

// The files of an output in shards have the same bytes too, and the tensors those of an output in one file.
func TestRunShards(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	dir := t.TempDir()
	var paths []string
	for k := range 2 {
		paths = append(paths, writeModel(t, filepath.Join(dir, fmt.Sprint(k)), nil,
			tensor{"a", "BF16", []int64{3000}, randomData(r, "BF16", 3000)},
			tensor{"b", "F32", []int64{501}, randomData(r, "F32", 501)},
			int64s("c", 1, 2, int64(k))))
	}
	_, whole := readModel(t, run(t, nil, paths))
	var want map[string]string
	for _, workers := range []int{1, 2, 7} {
		out := run(t, nil, paths, merge.WithWorkers(workers), merge.WithChunkBytes(64*workers),
			merge.WithCreateOptions(checkpoint.WithMaxShardSize(6000)))
		got := snapshot(t, out)
		if want == nil {
			want = got
		}
		if len(got) != 3 || !sameFiles(got, want) {
			t.Errorf("%d workers: %d files, other bytes than with 1 worker", workers, len(got))
		}
		for name := range got {
			if !strings.HasSuffix(name, ".safetensors") {
				continue
			}
			_, shard := readModel(t, filepath.Join(out, name))
			for tensor, x := range shard {
				if !bytes.Equal(x.data, whole[tensor].data) {
					t.Errorf("%d workers: tensor %s differs from that in one file", workers, tensor)
				}
			}
		}
		// A model in shards is averaged with one in a file.
		if _, again := readModel(t, run(t, nil, []string{out, out, paths[0]},
			merge.WithIntegers(merge.IntegersFirst))); len(again) != 3 {
			t.Errorf("%d tensors", len(again))
		}
	}
}

// The average of a model with itself is the model, bit for bit.
func TestRunIdentity(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	dir := t.TempDir()
	a := writeModel(t, filepath.Join(dir, "a"), nil,
		tensor{"x", "F32", []int64{1000}, randomData(r, "F32", 1000)},
		tensor{"y", "F16", []int64{1000}, randomData(r, "F16", 1000)},
		tensor{"z", "BF16", []int64{1000}, randomData(r, "BF16", 1000)})
	_, want := readModel(t, a)
	for _, w := range [][]float64{nil, {0.3, 0.7, 0}, {0.1, 0.2, 0.7}} {
		_, got := readModel(t, run(t, w, []string{a, a, a}))
		for name := range want {
			if !bytes.Equal(got[name].data, want[name].data) {
				t.Errorf("weights %v: tensor %q changed", w, name)
			}
		}
	}
}

func TestRunCopiesIntegers(t *testing.T) {
	dir := t.TempDir()
	dtypes := []string{"BOOL", "U8", "I8", "U16", "I16", "U32", "I32", "U64", "I64"}
	var paths []string
	for k := range 3 {
		tensors := []tensor{float32s("weight", float32(k))}
		for _, dtype := range dtypes {
			n := bytesOf(dtype, []int64{9})
			tensors = append(tensors, tensor{dtype, dtype, []int64{9}, bytes.Repeat([]byte{byte(k)}, int(n))})
		}
		paths = append(paths, writeModel(t, filepath.Join(dir, fmt.Sprint(k)), nil, tensors...))
	}
	for _, test := range []struct {
		weights []float64
		from    int
	}{
		{nil, 2},
		{[]float64{0.25, 0.25, 0.5}, 2},
		{[]float64{0.25, 0.75, 0}, 1}, // a model of weight zero is not read
		{[]float64{1, 0, 0}, 0},
	} {
		out := filepath.Join(t.TempDir(), "out")
		report, err := plan(t, test.weights, open(t, paths...), merge.WithChunkBytes(64)).Run(t.Context(), out, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, want := readModel(t, paths[test.from])
		_, got := readModel(t, out)
		for _, dtype := range dtypes {
			if !bytes.Equal(got[dtype].data, want[dtype].data) {
				t.Errorf("weights %v: %s is not that of model %d", test.weights, dtype, test.from)
			}
		}
		if wanted := slices.Sorted(slices.Values(dtypes)); !slices.Equal(report.Integers, wanted) {
			t.Errorf("weights %v: integers %q, want %q", test.weights, report.Integers, wanted)
		}
		if want := "9 copied from " + paths[test.from] + ": BOOL, "; !strings.Contains(report.String(), want) {
			t.Errorf("weights %v: report %q, want %q in it", test.weights, report, want)
		}
		if !slices.Equal(report.Averaged, []string{"weight"}) {
			t.Errorf("weights %v: averaged %q", test.weights, report.Averaged)
		}
	}
}

func TestRunDoesNotReadZeroWeight(t *testing.T) {
	dir := t.TempDir()
	nan := []byte{0, 0, 0xc0, 0x7f}
	a := writeModel(t, filepath.Join(dir, "a"), nil, float32s("x", 1, 2, 3))
	b := writeModel(t, filepath.Join(dir, "b"), nil, tensor{"x", "F32", []int64{3}, bytes.Repeat(nan, 3)})
	c := writeModel(t, filepath.Join(dir, "c"), nil, float32s("x", 3, 4, 5))
	p := plan(t, []float64{0.5, 0, 0.5}, open(t, a, b, c))
	if err := os.Truncate(b, 20); err != nil { // what is left would be found missing, were it read
		t.Fatal(err)
	}
	out := filepath.Join(dir, "out")
	report, err := p.Run(t.Context(), out, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, got := readModel(t, out)
	if v := valuesOf(t, got["x"]); !slices.Equal(v, []float32{2, 3, 4}) {
		t.Errorf("got %v, want [2 3 4]", v)
	}
	if p.Sources[1].Bytes != 0 || report.BytesRead != 24 || p.BytesRead != 24 || report.BytesWritten != 12 {
		t.Errorf("plan reads %d bytes of b, %d in all; report %+v", p.Sources[1].Bytes, p.BytesRead, report)
	}
}

func TestRunShapesAndMetadata(t *testing.T) {
	dir := t.TempDir()
	shapes := func(v float32) []tensor {
		scalar, matrix, empty := float32s("scalar", v), float32s("matrix", v, v, v, v, v, v), float32s("empty")
		scalar.shape, matrix.shape, empty.shape, empty.data = nil, []int64{2, 3}, []int64{0, 5}, []byte{}
		return []tensor{scalar, matrix, empty}
	}
	a := writeModel(t, filepath.Join(dir, "a"), map[string]string{"step": "1"}, shapes(1)...)
	b := writeModel(t, filepath.Join(dir, "b"), map[string]string{"step": "2", "other": "x"}, shapes(2)...)
	metadata, got := readModel(t, run(t, nil, []string{a, b}))
	if len(metadata) != 2 || metadata["step"] != "1" || metadata["format"] != "pt" {
		t.Errorf("metadata %v, want that of the first model and format pt", metadata)
	}
	for name, want := range map[string]string{"scalar": "[]", "matrix": "[2 3]", "empty": "[0 5]"} {
		if s := fmt.Sprint(got[name].shape); s != want {
			t.Errorf("%s has shape %s, want %s", name, s, want)
		}
	}
	if v := valuesOf(t, got["scalar"]); !slices.Equal(v, []float32{1.5}) {
		t.Errorf("scalar is %v, want 1.5", v)
	}
}

func TestRunWithoutTensors(t *testing.T) {
	dir := t.TempDir()
	a := writeModel(t, filepath.Join(dir, "a"), nil)
	if _, got := readModel(t, run(t, nil, []string{a, a})); len(got) != 0 {
		t.Errorf("got tensors %v", got)
	}
}

func TestRunManySmallTensors(t *testing.T) {
	dir := t.TempDir()
	const n = 5000
	var paths []string
	for k := range 2 {
		tensors := make([]tensor, n)
		for i := range tensors {
			tensors[i] = float32s(fmt.Sprintf("layer.%d.bias", i), float32(i), float32(k))
		}
		paths = append(paths, writeModel(t, filepath.Join(dir, fmt.Sprint(k)), nil, tensors...))
	}
	_, got := readModel(t, run(t, nil, paths, merge.WithWorkers(3)))
	for i := range n {
		name := fmt.Sprintf("layer.%d.bias", i)
		if v := valuesOf(t, got[name]); !slices.Equal(v, []float32{float32(i), 0.5}) {
			t.Fatalf("%s is %v, want [%d 0.5]", name, v, i)
		}
	}
}

func TestRunOutputMayBeAnInput(t *testing.T) {
	for _, name := range []string{"a", "b"} {
		dir := t.TempDir()
		a := writeModel(t, filepath.Join(dir, "a"), nil, float32s("x", 1, 2))
		b := writeModel(t, filepath.Join(dir, "b"), nil, float32s("x", 3, 4))
		out := filepath.Join(dir, name)
		if _, err := plan(t, nil, open(t, a, b)).Run(t.Context(), out, nil); err != nil {
			t.Fatal(err)
		}
		if _, got := readModel(t, out); !slices.Equal(valuesOf(t, got["x"]), []float32{2, 3}) {
			t.Errorf("output %s: got %v, want [2 3]", name, valuesOf(t, got["x"]))
		}
		if files := snapshot(t, dir); len(files) != 2 {
			t.Errorf("output %s: %d files in the directory, want 2", name, len(files))
		}
	}
}

func TestRunProgress(t *testing.T) {
	dir := t.TempDir()
	a := writeModel(t, filepath.Join(dir, "a"), nil, tensor{"x", "F32", []int64{1000}, make([]byte, 4000)}, int64s("n",
		1))
	p := plan(t, nil, open(t, a, a), merge.WithWorkers(3), merge.WithChunkBytes(64))
	var calls int
	var last int64
	_, err := p.Run(t.Context(), filepath.Join(dir, "out"), func(done, total int64) {
		calls++ // a data race, if calls were not one at a time
		if done <= last || total != p.BytesRead {
			t.Errorf("progress %d of %d after %d; the plan reads %d", done, total, last, p.BytesRead)
		}
		last = done
	})
	if err != nil {
		t.Fatal(err)
	}
	if last != p.BytesRead || calls != 64 {
		t.Errorf("%d calls up to %d bytes, want 64 up to %d", calls, last, p.BytesRead)
	}
}

func TestRunCancelled(t *testing.T) {
	dir := t.TempDir()
	a := writeModel(t, filepath.Join(dir, "a"), nil, tensor{"x", "F32", []int64{100_000}, nil})
	out := writeModel(t, filepath.Join(dir, "out"), nil, float32s("old", 1))
	before := snapshot(t, dir)
	const workers = 3
	for after := range 3 { // cancelled before the start, after the first chunk, after the second
		ctx, cancel := context.WithCancel(t.Context())
		if after == 0 {
			cancel()
		}
		var calls, late atomic.Int64
		p := plan(t, nil, open(t, a, a), merge.WithWorkers(workers), merge.WithChunkBytes(64))
		_, err := p.Run(ctx, out, func(_, _ int64) {
			if calls.Add(1) == int64(after) {
				cancel()
			} else if ctx.Err() != nil {
				late.Add(1)
			}
		})
		cancel()
		if !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled after %d chunks: error %v, want %v", after, err, context.Canceled)
		}
		// A worker may have been between its last look at the context and the end of its chunk.
		if late.Load() > workers {
			t.Errorf("cancelled after %d chunks: %d more were done", after, late.Load())
		}
		if !sameFiles(snapshot(t, dir), before) {
			t.Fatalf("cancelled after %d chunks: the directory has changed", after)
		}
	}

	ctx, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("the power is going off")
	cancel(cause)
	if _, err := plan(t, nil, open(t, a, a)).Run(ctx, out, nil); !errors.Is(err, cause) {
		t.Errorf("error %v, want %v", err, cause)
	}
}

func TestRunErrorsLeaveNothing(t *testing.T) {
	for _, test := range []struct {
		name string
		do   func(t *testing.T, b string, models []*checkpoint.Model) // what happens before the run
		want []string                                                 // in the error
	}{
		{"truncated", func(t *testing.T, b string, _ []*checkpoint.Model) {
			if err := os.Truncate(b, fileSize(t, b)-4); err != nil {
				t.Fatal(err)
			}
		}, []string{"b.safetensors", `tensor "x"`, "unexpected EOF"}},
		{"modified", func(t *testing.T, b string, _ []*checkpoint.Model) {
			if err := os.Chtimes(b, time.Time{}, time.Now().Add(time.Second)); err != nil {
				t.Fatal(err)
			}
		}, []string{"b.safetensors", checkpoint.ErrChanged.Error()}},
		{"grown", func(t *testing.T, b string, _ []*checkpoint.Model) {
			if err := os.Truncate(b, fileSize(t, b)+4); err != nil {
				t.Fatal(err)
			}
		}, []string{"b.safetensors", checkpoint.ErrChanged.Error()}},
		{"closed", func(t *testing.T, _ string, models []*checkpoint.Model) {
			models[1].Close()
		}, []string{"b.safetensors", "closed"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			dir := t.TempDir()
			a := writeModel(t, filepath.Join(dir, "a.safetensors"), nil, tensor{"x", "F32", []int64{1000}, nil})
			b := writeModel(t, filepath.Join(dir, "b.safetensors"), nil, tensor{"x", "F32", []int64{1000}, nil})
			out := writeModel(t, filepath.Join(dir, "out.safetensors"), nil, float32s("old", 1))
			models := open(t, a, b)
			p := plan(t, nil, models, merge.WithWorkers(2), merge.WithChunkBytes(64))
			test.do(t, b, models)
			before := snapshot(t, dir)
			_, err := p.Run(t.Context(), out, nil)
			if err == nil {
				t.Fatal("no error")
			}
			for _, want := range test.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("error %q does not contain %q", err, want)
				}
			}
			if !sameFiles(snapshot(t, dir), before) {
				t.Error("the directory has changed")
			}
		})
	}
}

func TestRunNoSuchDirectory(t *testing.T) {
	dir := t.TempDir()
	a := writeModel(t, filepath.Join(dir, "a"), nil, float32s("x", 1))
	_, err := plan(t, nil, open(t, a)).Run(t.Context(), filepath.Join(dir, "none", "out"), nil)
	if !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), "none") {
		t.Errorf("error %v, want one that names the directory and wraps %v", err, fs.ErrNotExist)
	}
	if files := snapshot(t, dir); len(files) != 1 {
		t.Errorf("%d files in the directory, want 1", len(files))
	}
}

func fileSize(t testing.TB, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}
