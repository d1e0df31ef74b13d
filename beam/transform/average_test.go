package transform

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"

	"github.com/modelavg/modelavg/checkpoint"
	"github.com/modelavg/modelavg/internal/convert"
	"github.com/modelavg/modelavg/merge"
	"github.com/modelavg/modelavg/weighting"
)

// By reference, and by sums of all models, the output has the bytes that one machine writes.
func TestSameBytesAsOneMachine(t *testing.T) {
	models := writeAll(t, 5)
	weights := []float64{0.3, 0.1, 0, 0.35, 0.25}
	for name, job := range map[string]Job{
		"mean":             {Parts: 7},
		"one part":         {},
		"more parts":       {Parts: 40}, // than there are MiB
		"weighted mean":    {Weights: weights, Parts: 3},
		"shards":           {Parts: 5, MaxShardSize: 2 << 20, Output: "out"},
		"policies":         {Parts: 2, DType: "BF16", Integers: merge.IntegersMax, Workers: 1},
		"sums":             {Parts: 7, SumModels: 5},
		"sums with more":   {Parts: 1, SumModels: 100},
		"weighted sums":    {Weights: weights, Parts: 3, SumModels: 4},
		"shards from sums": {Parts: 5, SumModels: 5, MaxShardSize: 2 << 20, Output: "out", Integers: merge.IntegersSum},
		"sums of policies": {Parts: 2, SumModels: 5, DType: "F16", Integers: merge.IntegersMax},
	} {
		t.Run(name, func(t *testing.T) {
			job.Models = models
			if job.Output == "" {
				job.Output = "out.safetensors"
			}
			job.Output = filepath.Join(t.TempDir(), job.Output)
			r, err := Average(t.Context(), job, inProcess)
			must(t, err)
			sameFiles(t, job.Output, oneMachine(t, job))
			if want := max(job.Parts, 1); r.Parts != want || r.Path != job.Output {
				t.Errorf("got %d parts of %s, want %d of %s", r.Parts, r.Path, want, job.Output)
			}
			if (r.Report == nil) != (job.SumModels > 0) {
				t.Errorf("got the report %v with %d models in a sum", r.Report, job.SumModels)
			}
			must(t, os.RemoveAll(job.Output))
			leavesNothing(t, job.Output)
		})
	}
}

// A directory of shards is averaged into the same shards, and the output replaces a file that is there.
func TestShardsOfTheFirstModel(t *testing.T) {
	dir := t.TempDir()
	a := write(t, filepath.Join(dir, "a"), 1, tensors, nil, checkpoint.WithMaxShardSize(1<<20))
	b := write(t, filepath.Join(dir, "b.safetensors"), 2, tensors, nil)
	job := Job{Models: []string{a, b}, Output: filepath.Join(t.TempDir(), "out"), Parts: 4}
	_, err := Average(t.Context(), job, inProcess)
	must(t, err)
	sameFiles(t, job.Output, oneMachine(t, job))

	job.Output = b
	want := oneMachine(t, job)
	_, err = Average(t.Context(), job, inProcess)
	must(t, err)
	sameFiles(t, b, want)
}

// What is merged from several sums lies within the bound of package partial of the exact average, and so does what one
// machine writes.
func TestSumsStayWithinTheBound(t *testing.T) {
	models := writeAll(t, 5)
	for _, weights := range [][]float64{nil, {0.3, 0.1, 0, 0.35, 0.25}} {
		job := Job{Models: models, Weights: weights, Parts: 3, SumModels: 2}
		job.Output = filepath.Join(t.TempDir(), "out.safetensors")
		_, err := Average(t.Context(), job, inProcess)
		must(t, err)
		within(t, job, job.Output)
		within(t, job, oneMachine(t, job))
	}
}

// within compares the output of a job with the exact average of its models.
func within(t *testing.T, job Job, path string) {
	t.Helper()
	plan, models, err := job.open()
	must(t, err)
	defer closeAll(models)
	out, err := checkpoint.Open(path)
	must(t, err)
	defer out.Close()
	differ := 0
	for _, s := range plan.Steps {
		if s.Action != merge.Average || s.Bytes == 0 {
			continue
		}
		got := numbers(t, out, s.Tensor.Name)
		u, fraction, smallest := 0x1p-24, 0, 0.0
		switch s.Tensor.DType {
		case checkpoint.F64:
			u, fraction, smallest = 0x1p-53, 52, 0x1p-1074
		case checkpoint.F32:
			u, fraction, smallest = 0x1p-53, 23, 0x1p-149
		case checkpoint.BF16:
			fraction, smallest = 7, 0x1p-133
		case checkpoint.F16:
			fraction, smallest = 10, 0x1p-24
		case checkpoint.F8E4M3:
			fraction, smallest = 3, 0x1p-9
		case checkpoint.F8E5M2:
			fraction, smallest = 2, 0x1p-16
		}
		var x [][]float64
		for _, k := range s.Sources {
			x = append(x, numbers(t, models[k], s.Tensor.Name))
		}
		roundings := float64(len(s.Sources) + 1) // one for the division of a mean
		gamma := roundings * u / (1 - roundings*u)
		for i := 0; i < len(got); i += 1 + i%7 {
			exact, size := new(big.Float).SetPrec(1000), 0.0
			for k := range x {
				w := 1 / float64(len(x))
				if job.Weights != nil {
					w = s.Weights[k]
					if u == 0x1p-24 && !mixed(s.DTypes) {
						w = float64(float32(w)) // as a float32 accumulator takes it
					}
					exact.Add(exact, new(big.Float).SetPrec(1000).Mul(big.NewFloat(w), big.NewFloat(x[k][i])))
				} else {
					exact.Add(exact, big.NewFloat(x[k][i]))
				}
				size += math.Abs(w * x[k][i])
			}
			if job.Weights == nil {
				exact.Quo(exact, big.NewFloat(float64(len(x))))
			}
			diff, _ := new(big.Float).Sub(big.NewFloat(got[i]), exact).Float64()
			limit := gamma*size*(1+1e-9) + math.Abs(got[i])*math.Ldexp(1, -fraction-1) + smallest/2
			if math.Abs(diff) > limit {
				t.Fatalf("%s: tensor %q: element %d: got %v, off by %v, want at most %v", path, s.Tensor.Name, i, got[i],
					diff, limit)
			}
			if diff != 0 {
				differ++
			}
		}
	}
	if differ == 0 {
		t.Errorf("%s: every element is the exact average: nothing was tested", path)
	}
}

// mixed reports whether a dtype wider than 16 bits makes the accumulator float64.
func mixed(dtypes []checkpoint.DType) bool {
	for _, d := range dtypes {
		if d == checkpoint.F32 || d == checkpoint.F64 {
			return true
		}
	}
	return false
}

// numbers returns the elements of a tensor.
func numbers(t *testing.T, m *checkpoint.Model, name string) []float64 {
	t.Helper()
	x, _ := m.Tensor(name)
	data := make([]byte, x.Bytes())
	_, err := m.ReadAt(name, data, 0)
	must(t, err)
	numbers := make([]float64, x.Elements())
	convert.Float64s(numbers, data, x.DType)
	return numbers
}

// Whatever fails, the error says why and nothing is left behind.
func TestFailures(t *testing.T) {
	models := writeAll(t, 3)
	notFinite := write(t, filepath.Join(t.TempDir(), "n.safetensors"), 9, tensors, func(name string, data []byte) {
		if name == "bf16" {
			data[2*500_001], data[2*500_001+1] = 0xc0, 0x7f // NaN
		}
	})
	other := write(t, filepath.Join(t.TempDir(), "o.safetensors"), 9, tensors[:4], nil)
	cut := filepath.Join(t.TempDir(), "c.safetensors")
	for name, test := range map[string]struct {
		job    Job
		before func(t *testing.T) // when the plan is made and the workers have not begun
		want   []string
	}{
		"no models":       {job: Job{}, want: []string{weighting.ErrNoModels.Error()}},
		"no such model":   {job: Job{Models: []string{"absent.safetensors"}}, want: []string{"absent.safetensors"}},
		"weights":         {job: Job{Models: models, Weights: []float64{1, 1, 1}}, want: []string{"weight"}},
		"dtype":           {job: Job{Models: models, DType: "F128"}, want: []string{`"F128"`}},
		"other tensors":   {job: Job{Models: []string{models[0], other}}, want: []string{other, "e4m3"}},
		"parts":           {job: Job{Models: models, Parts: -1}, want: []string{"-1 parts"}},
		"sums below zero": {job: Job{Models: models, SumModels: -1}, want: []string{"-1 models"}},
		"workers":         {job: Job{Models: models, Workers: -1}, want: []string{"-1 goroutines"}},
		"shards":          {job: Job{Models: models, MaxShardSize: -1}, want: []string{"shards of -1 bytes"}},
		"many parts":      {job: Job{Models: models, Parts: math.MaxInt}, want: []string{"want 1 to"}},
		"many parts, sums": {
			job:  Job{Models: models, Parts: math.MaxInt, SumModels: 1},
			want: []string{"want 1 to"},
		},
		"no UTF-8": {job: Job{Models: []string{"a\xff"}}, want: []string{`"a\xff" is no UTF-8`}},
		"sums and policy": {
			job:  Job{Models: models, SumModels: 1, NonFinite: merge.NonFiniteError},
			want: []string{"propagate"},
		},
		"not finite": {
			job:  Job{Models: []string{models[0], notFinite}, Parts: 4, NonFinite: merge.NonFiniteError},
			want: []string{notFinite, `"bf16"`, "500001"},
		},
		"gone": {
			job: Job{Models: []string{models[0], cut}, Parts: 4}, want: []string{cut},
			before: func(t *testing.T) { must(t, os.Remove(cut)) },
		},
		"cut": {
			job: Job{Models: []string{models[0], cut}, Parts: 4, SumModels: 1}, want: []string{cut},
			before: func(t *testing.T) { must(t, os.Truncate(cut, 3<<20)) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			write(t, cut, 9, tensors, nil)
			test.job.Output = filepath.Join(t.TempDir(), "out.safetensors")
			execute := func(ctx context.Context, p *beam.Pipeline) (beam.PipelineResult, error) {
				if test.before != nil {
					test.before(t)
				}
				return inProcess(ctx, p)
			}
			_, err := Average(t.Context(), test.job, execute)
			for _, want := range test.want {
				if err == nil || !strings.Contains(err.Error(), want) {
					t.Errorf("got error %v, want one with %s", err, want)
				}
			}
			leavesNothing(t, test.job.Output)

			// Once the fault is mended, the same is done without a trace of it.
			if test.before == nil {
				return
			}
			write(t, cut, 9, tensors, nil)
			test.job.SumModels = 0
			_, err = Average(t.Context(), test.job, inProcess)
			must(t, err)
			sameFiles(t, test.job.Output, oneMachine(t, test.job))
		})
	}
}

// A run that is stopped leaves nothing behind.
func TestCanceled(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	job := Job{Models: writeAll(t, 3), Output: filepath.Join(t.TempDir(), "out.safetensors"), Parts: 4}
	stopped := errors.New("stopped")
	_, err := Average(ctx, job, func(ctx context.Context, p *beam.Pipeline) (beam.PipelineResult, error) {
		r, err := inProcess(ctx, p)
		must(t, err)
		cancel(stopped) // between the pipeline and the end
		return r, err
	})
	if !errors.Is(err, stopped) {
		t.Errorf("got error %v, want %v", err, stopped)
	}
	leavesNothing(t, job.Output)
}

// The unfinished output of another run is left alone.
func TestUnfinished(t *testing.T) {
	job := Job{Models: writeAll(t, 2), Output: filepath.Join(t.TempDir(), "out.safetensors"), Parts: 2, ID: "other"}
	must(t, (&runPart{job}).ProcessElement(t.Context(), 1, func(Done) {}))
	_, err := Average(t.Context(), job, inProcess)
	if !errors.Is(err, ErrUnfinished) || !strings.Contains(err.Error(), job.Output) {
		t.Errorf("got error %v, want ErrUnfinished with %s", err, job.Output)
	}
	u, err := checkpoint.OpenUnfinished(job.Output)
	must(t, err)
	if missing := u.Missing(); len(missing) != 1 || missing[0] != 2 {
		t.Errorf("parts %v are missing, want part 2", missing)
	}
	must(t, u.Close())
}

// A pipeline that leaves out a part, or whose engine loses one, is not taken for a success.
func TestMissingPart(t *testing.T) {
	job := Job{Models: writeAll(t, 2), Output: filepath.Join(t.TempDir(), "out.safetensors"), Parts: 3}
	for missing, parts := range [][]int{1: {2, 3}, 2: {1, 3}, 3: {1, 2}} {
		if parts == nil {
			continue
		}
		_, err := Average(t.Context(), job, func(context.Context, *beam.Pipeline) (beam.PipelineResult, error) {
			p, s := beam.NewPipelineWithRoot()
			ByReference(s, job, beam.CreateList(s, parts))
			return inProcess(t.Context(), p)
		})
		if want := fmt.Sprintf("%d/3", missing); !errors.Is(err, checkpoint.ErrMissingParts) ||
			!strings.Contains(err.Error(), want) {
			t.Errorf("got error %v, want ErrMissingParts with %s", err, want)
		}
		leavesNothing(t, job.Output)
	}

	if err := (&checkBytes{job.Output, 8}).ProcessElement(7); err == nil || !strings.Contains(err.Error(), "7 bytes") {
		t.Errorf("got error %v, want one with 7 bytes", err)
	}
}

// Of two runs that begin to write the same output at once, whatever they average, one writes it and the other one gets
// an error that leaves the output alone.
func TestTwoRunsAtOnce(t *testing.T) {
	models := writeAll(t, 3)
	for _, sums := range []int{0, 3} {
		output := filepath.Join(t.TempDir(), "out.safetensors")
		jobs := []Job{
			{Models: models, Output: output, SumModels: sums, Parts: 3},
			{Models: models[:2], Output: output, SumModels: sums, Parts: 3},
		}
		errs := make([]error, len(jobs))
		var both, ready sync.WaitGroup
		ready.Add(len(jobs))
		for i, job := range jobs {
			both.Go(func() {
				ready.Done()
				ready.Wait()
				_, errs[i] = Average(t.Context(), job, inProcess)
			})
		}
		both.Wait()
		winner := slices.Index(errs, nil)
		if winner < 0 {
			t.Errorf("sums of %d models: neither run has ended: %v", sums, errors.Join(errs...))
			continue
		}
		// The second one may also have begun when the first had ended.
		if err := errs[1-winner]; err != nil && !errors.Is(err, ErrUnfinished) {
			t.Errorf("sums of %d models: got error %v, want ErrUnfinished", sums, err)
		}
		if errs[1-winner] != nil {
			sameFiles(t, output, oneMachine(t, jobs[winner]))
		}
	}
}

// What one machine does not write is refused before there is a pipeline, and nothing is left behind.
func TestRefusedOutput(t *testing.T) {
	models := writeAll(t, 2)
	for name, want := range map[string]string{
		"out.d/":                 "there is no directory",
		"absent/out.safetensors": "there is no directory",
		"out.npz":                "out.npz: ",
		"out\xff":                "is no UTF-8",
	} {
		for _, sums := range []int{0, 1} {
			dir := t.TempDir()
			_, err := Average(t.Context(), Job{Models: models, Output: dir + "/" + name, SumModels: sums},
				func(context.Context, *beam.Pipeline) (beam.PipelineResult, error) {
					return nil, errors.New("a pipeline was run")
				})
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("output %q, sums of %d models: got error %v, want one with %q", name, sums, err, want)
			}
			leavesNothing(t, filepath.Join(dir, "x"))
		}
	}
}
