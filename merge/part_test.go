package merge_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/modelavg/modelavg/checkpoint"
	"github.com/modelavg/modelavg/merge"
)

// partModels writes three models of all kinds of tensors, with numbers that are not finite and some that overflow, and
// opens them.
func partModels(t *testing.T) []*checkpoint.Model {
	t.Helper()
	random := rand.New(rand.NewPCG(3, 4))
	dir := t.TempDir()
	var paths []string
	for i := range 3 {
		path := filepath.Join(dir, fmt.Sprintf("model%d", i))
		var tensors []tensor
		for _, x := range []struct {
			name, dtype string
			elements    int64
		}{
			{"f64", "F64", 60_001},
			{"f32", "F32", 200_003},
			{"f16", "F16", 300_007},
			{"bf16", "BF16", 700_001},
			{"f8", "F8_E4M3", 5_003},
			{"counter", "I64", 1},
			{"mask", "BOOL", 3_000_001},
			{"empty", "F32", 0},
		} {
			data := make([]byte, bytesOf(x.dtype, []int64{x.elements}))
			for j := range data {
				data[j] = byte(random.Uint32()) // among them NaN, infinities, and numbers of any size
				if x.dtype == "BOOL" {
					data[j] &= 1
				}
			}
			tensors = append(tensors, tensor{x.name, x.dtype, []int64{x.elements}, data})
		}
		paths = append(paths, writeModel(t, path, map[string]string{"step": fmt.Sprint(i)}, tensors...))
	}
	return open(t, paths...)
}

// reportText returns a report without what differs between runs.
func reportText(r *merge.Report, path string) string {
	text, _, _ := strings.Cut(r.String(), "\nread ")
	return fmt.Sprintf("%s\n%q %q %v %v %d %d", strings.TrimPrefix(text, path), r.Averaged, r.Integers, r.NonFinite,
		r.Overflows, r.BytesRead, r.BytesWritten)
}

// Any number of parts in any order, by any number of workers, gives the bytes and the report of one run.
func TestRunPart(t *testing.T) {
	models := partModels(t)
	for _, opts := range [][]merge.Option{
		nil,
		{merge.WithIntegers(merge.IntegersMax), merge.WithOverflow(merge.OverflowSaturate)},
		{merge.WithDType(checkpoint.F16), merge.WithCreateOptions(checkpoint.WithMaxShardSize(2 << 20))},
	} {
		for _, of := range []int{1, 2, 5, 16} {
			dir := t.TempDir()
			opts := append(opts, merge.WithWorkers(1+rand.IntN(4)), merge.WithChunkBytes(64<<rand.IntN(14)))
			plan, err := merge.WeightedMean(models, []float64{-1.5, 2, 0.5}, opts...)
			if err != nil {
				t.Fatal(err)
			}
			one, out := filepath.Join(dir, "one"), filepath.Join(dir, "out")
			want, err := plan.Run(t.Context(), one, nil)
			if err != nil {
				t.Fatal(err)
			}
			var read, written int64
			for _, i := range rand.Perm(of) {
				var last, total int64
				report, err := plan.RunPart(t.Context(), out, merge.Part{Number: i + 1, Of: of}, func(done, all int64) {
					last, total = done, all
				})
				if err != nil {
					t.Fatal(err)
				}
				if last != total || report.BytesRead != total || report.Path != out {
					t.Errorf("part %d of %d: progress %d of %d, report %+v", i+1, of, last, total, report)
				}
				read += report.BytesRead
				written += report.BytesWritten
			}
			if read != plan.BytesRead || written != plan.BytesWritten {
				t.Errorf("%d parts read %d and wrote %d bytes, want %d and %d", of, read, written, plan.BytesRead,
					plan.BytesWritten)
			}
			var last, total int64
			progress := func(done, all int64) { last, total = done, all }
			got, err := merge.Finish(t.Context(), out, merge.WithFinishProgress(progress), merge.WithFinishSync(false))
			if err != nil {
				t.Fatal(err)
			}
			if last != total || total < plan.BytesWritten || got.Parts != of || got.SideFiles != "" {
				t.Errorf("checked %d of %d bytes, %+v", last, total, got)
			}
			if g, w := reportText(got.Report, out), reportText(want, one); g != w {
				t.Errorf("%d parts: report\n%s\nwant\n%s", of, g, w)
			}
			for _, name := range filesOf(t, one) {
				if !bytes.Equal(readFile(t, filepath.Join(one, name)), readFile(t, filepath.Join(out, name))) {
					t.Errorf("%d parts: %s differs", of, name)
				}
			}
			if _, err := merge.Finish(t.Context(), out); !errors.Is(err, checkpoint.ErrNoParts) {
				t.Error(err)
			}
		}
	}
}

// filesOf returns the names of the files in a directory, or an empty name for a file.
func filesOf(t *testing.T, path string) []string {
	t.Helper()
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		return []string{""}
	}
	return slices.Sorted(func(yield func(string) bool) {
		for name := range snapshot(t, path) {
			if !yield(name) {
				return
			}
		}
	})
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Clean(path))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// The ranges of a plan cover all bytes once, are no longer than they may be, and run one by one, in any order, they
// write the bytes of a run and count what it counts.
func TestRunRange(t *testing.T) {
	models := partModels(t)
	dir := t.TempDir()
	plan, err := merge.Mean(models, merge.WithWorkers(2))
	if err != nil {
		t.Fatal(err)
	}
	one := filepath.Join(dir, "one")
	want, err := plan.Run(t.Context(), one, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, maxBytes := range []int64{0, -1, 100_000, 100_031, 1 << 20, math.MaxInt64} {
		ranges := plan.Ranges(maxBytes)
		if !slices.Equal(ranges, plan.Ranges(maxBytes)) {
			t.Error("other ranges the second time")
		}
		at := 0
		for _, s := range plan.Steps {
			for off := int64(0); off < s.Bytes; at++ {
				r := ranges[at]
				if r.Tensor != s.Tensor.Name || r.Offset != off || r.Length <= 0 || maxBytes > 0 && r.Length > maxBytes {
					t.Fatalf("ranges of %d bytes: %+v, want one of %s from %d on", maxBytes, r, s.Tensor.Name, off)
				}
				off += r.Length
			}
		}
		if at != len(ranges) {
			t.Errorf("%d ranges, want %d", len(ranges), at)
		}

		out := filepath.Join(dir, "out")
		var tensors []checkpoint.Tensor
		for _, s := range plan.Steps {
			tensors = append(tensors, s.Tensor)
		}
		w, err := checkpoint.Create(out, tensors, plan.Metadata)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		var read, overflows, nan int64
		for _, i := range rand.Perm(len(ranges)) {
			report, err := plan.RunRange(t.Context(), ranges[i], w)
			if err != nil {
				t.Fatal(err)
			}
			if n := len(report.Averaged) + len(report.Integers); n != 1 || report.BytesWritten != ranges[i].Length {
				t.Errorf("range %v: report %+v", ranges[i], report)
			}
			read += report.BytesRead
			for _, o := range report.Overflows {
				overflows += o.Count
			}
			for _, x := range report.NonFinite {
				nan += x.NaN
			}
		}
		if err := w.Commit(); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(readFile(t, one), readFile(t, out)) {
			t.Errorf("ranges of %d bytes: the file differs", maxBytes)
		}
		for _, o := range want.Overflows {
			overflows -= o.Count
		}
		for _, x := range want.NonFinite {
			nan -= x.NaN
		}
		if read != plan.BytesRead || overflows != 0 || nan != 0 {
			t.Errorf("ranges of %d bytes: %d bytes read, %d overflows and %d NaN too many", maxBytes, read, overflows,
				nan)
		}
	}
}

// An engine divides the work itself: one part for every range, some done twice.
func TestRunPartRanges(t *testing.T) {
	models := partModels(t)
	dir := t.TempDir()
	plan, err := merge.Mean(models)
	if err != nil {
		t.Fatal(err)
	}
	one, out := filepath.Join(dir, "one"), filepath.Join(dir, "out")
	if _, err := plan.Run(t.Context(), one, nil); err != nil {
		t.Fatal(err)
	}
	ranges := plan.Ranges(1 << 20)
	for _, i := range append(rand.Perm(len(ranges)), 0, 3) {
		part := merge.Part{Number: i + 1, Of: len(ranges), Ranges: ranges[i : i+1]}
		if _, err := plan.RunPart(t.Context(), out, part, nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := merge.Finish(t.Context(), out); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(readFile(t, one), readFile(t, out)) {
		t.Error("the file differs")
	}

	// Something is left out.
	for i := range 2 {
		part := merge.Part{Number: i + 1, Of: 2, Ranges: ranges[i : i+1]}
		if _, err := plan.RunPart(t.Context(), out, part, nil); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := merge.Finish(t.Context(), out); !errors.Is(err, checkpoint.ErrIncomplete) {
		t.Error(err)
	}
	if !bytes.Equal(readFile(t, one), readFile(t, out)) {
		t.Error("the old file was changed")
	}
}

// Ranges that are none are refused and nothing is written.
func TestRunRangeErrors(t *testing.T) {
	dir := t.TempDir()
	a := writeModel(t, filepath.Join(dir, "a"), nil, float32s("x", 1, 2, 3))
	plan, err := merge.Mean(open(t, a))
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		r    merge.Range
		want string
	}{
		{merge.Range{"y", 0, 4}, `no tensor "y" in the result`},
		{merge.Range{"x", -4, 4}, "the tensor has 12"},
		{merge.Range{"x", 0, 16}, "the tensor has 12"},
		{merge.Range{"x", 16, 0}, "the tensor has 12"},
		{merge.Range{"x", 4, math.MaxInt64}, "the tensor has 12"},
		{merge.Range{"x", 0, -4}, "the tensor has 12"},
		{merge.Range{"x", 2, 4}, "want multiples of 4, as of a F32"},
		{merge.Range{"x", 4, 2}, "want multiples of 4"},
	} {
		if _, err := plan.RunRange(t.Context(), test.r, nil); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%v: error %v, want %q", test.r, err, test.want)
		}
	}
	if report, err := plan.RunRange(t.Context(), merge.Range{"x", 12, 0}, nil); err != nil || report.BytesRead != 0 {
		t.Errorf("an empty range: %+v, %v", report, err)
	}
	var none *merge.Plan
	if _, err := none.RunRange(t.Context(), merge.Range{}, nil); err == nil {
		t.Error("no plan, no error")
	}
	if _, err := none.RunPart(t.Context(), "out", merge.Part{Number: 1, Of: 1}, nil); err == nil {
		t.Error("no plan, no error")
	}
	done, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	cancel(cause)
	out := filepath.Join(dir, "out")
	if _, err := plan.RunPart(done, out, merge.Part{Number: 1, Of: 1}, nil); !errors.Is(err, cause) {
		t.Error(err)
	}
	if _, err := merge.Finish(t.Context(), out); !errors.Is(err, checkpoint.ErrMissingParts) {
		t.Error(err)
	}
}

// A model that was replaced between two parts by another of the same shape is found; one at another path is not
// another.
func TestRunPartSources(t *testing.T) {
	dir := t.TempDir()
	values := make([]float32, 100_000)
	a := writeModel(t, filepath.Join(dir, "a"), nil, float32s("x", values...))
	b := writeModel(t, filepath.Join(dir, "b"), nil, float32s("x", values...))
	for i := range values {
		values[i] = 1
	}
	c := writeModel(t, filepath.Join(dir, "c"), nil, float32s("x", values...))
	out := filepath.Join(dir, "out")
	run := func(number int, paths ...string) error {
		plan, err := merge.Mean(open(t, paths...))
		if err != nil {
			t.Fatal(err)
		}
		_, err = plan.RunPart(t.Context(), out, merge.Part{Number: number, Of: 2}, nil)
		return err
	}
	if err := run(1, a, c); err != nil {
		t.Fatal(err)
	}
	if err := run(2, a, a); !errors.Is(err, checkpoint.ErrOtherPlan) || !strings.Contains(err.Error(), ": model 2 ("+a+") has") {
		t.Error(err)
	}
	if err := run(2, b, c); err != nil {
		t.Error(err)
	}
}
