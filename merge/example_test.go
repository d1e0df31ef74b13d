package merge_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"

	"github.com/modelavg/modelavg/checkpoint"
	"github.com/modelavg/modelavg/merge"
)

// create writes a model file with one F32 tensor and one integer tensor, and opens it.
func create(path string, steps int64, weights ...float32) *checkpoint.Model {
	w, err := checkpoint.Create(path, []checkpoint.Tensor{
		{Name: "weight", DType: checkpoint.F32, Shape: []int64{int64(len(weights))}},
		{Name: "steps", DType: checkpoint.I64},
	}, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer w.Close()
	for name, value := range map[string]any{"weight": weights, "steps": steps} {
		data, err := binary.Append(nil, binary.LittleEndian, value)
		if err != nil {
			log.Fatal(err)
		}
		if _, err := w.WriteAt(name, data, 0); err != nil {
			log.Fatal(err)
		}
	}
	if err := w.Commit(); err != nil {
		log.Fatal(err)
	}
	m, err := checkpoint.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	return m
}

func ExampleMean() {
	dir, err := os.MkdirTemp("", "merge")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	a := create(filepath.Join(dir, "a.safetensors"), 100, 1, 2, 3)
	defer a.Close()
	b := create(filepath.Join(dir, "b.safetensors"), 200, 2, 4, 6)
	defer b.Close()

	plan, err := merge.Mean([]*checkpoint.Model{a, b})
	if err != nil {
		log.Fatal(err)
	}
	for _, s := range plan.Steps {
		fmt.Println(s.Tensor.Name, s.Tensor.DType, s.Tensor.Shape, s.Action)
	}
	out := filepath.Join(dir, "out.safetensors")
	report, err := plan.Run(context.Background(), out, nil)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(report.Averaged, report.Integers, report.BytesRead, report.BytesWritten)

	m, err := checkpoint.Open(out)
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	data := make([]byte, 12)
	if _, err := m.ReadAt("weight", data, 0); err != nil {
		log.Fatal(err)
	}
	var weights [3]float32
	if _, err := binary.Decode(data, binary.LittleEndian, &weights); err != nil {
		log.Fatal(err)
	}
	fmt.Println(weights)
	// Output:
	// steps I64 [] copy-last
	// weight F32 [3] average
	// [weight] [steps] 32 20
	// [1.5 3 4.5]
}

func ExampleWeightedMean() {
	dir, err := os.MkdirTemp("", "merge")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	var models []*checkpoint.Model
	for i, name := range []string{"a", "b", "c"} {
		m := create(filepath.Join(dir, name), int64(i), 1, 2, 3, 4)
		defer m.Close()
		models = append(models, m)
	}
	plan, err := merge.WeightedMean(models, []float64{0.25, 0.75, 0}, merge.WithWorkers(1))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(strings.ReplaceAll(plan.Summary(), dir+string(filepath.Separator), ""))

	_, err = merge.WeightedMean(models, []float64{0.5, 0.5})
	fmt.Println(err)
	// Output:
	// weighted mean of 3 models
	// weight 0.25        a
	// weight 0.75        b
	// weight 0           c (not read)
	// integers last, keys strict, non-finite propagate, overflow inf, dtype as in the first model
	// 1 tensor averaged, 1 copied from b: steps
	// reads 40 B, writes 24 B, with 24.8 kB of buffers (1 worker, chunks of 64 B)
	// weighting: wrong number of weights: got 2 weights for 3 models, want one per model
}

// Models that differ, and rules for it: which tensors there are, what becomes of the counter, weights of their own for some
// tensors, the dtype of the result, and what to do about numbers that are too large or none.
func ExampleOption() {
	dir, err := os.MkdirTemp("", "merge")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	a := create(filepath.Join(dir, "a"), 100, 1, 2, 3, 4)
	defer a.Close()
	b := create(filepath.Join(dir, "b"), 200, 3, 2, 1, 70000)
	defer b.Close()

	plan, err := merge.WeightedMean([]*checkpoint.Model{a, b}, []float64{0.5, 0.5},
		merge.WithIntegers(merge.IntegersSum),
		merge.WithKeys(merge.KeysUnion),
		merge.WithTensorWeights(regexp.MustCompile(`^weight$`), -1, 2),
		merge.WithDType(checkpoint.F16),
		merge.WithOverflow(merge.OverflowSaturate),
		merge.WithNonFinite(merge.NonFiniteError),
		merge.WithInclude(regexp.MustCompile("s$|^w")),
		merge.WithMetadata(map[string]string{"made.by": "an example"}),
		merge.WithCreateOptions(checkpoint.WithMaxShardSize(8), checkpoint.WithoutSync()),
		merge.WithWorkers(1), merge.WithChunkBytes(64))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(plan.Policies)
	for _, s := range plan.Steps {
		fmt.Println(s.Tensor.Name, s.Tensor.DType, s.Action, s.Weights, s.DTypes)
	}
	report, err := plan.Run(context.Background(), filepath.Join(dir, "out"), nil)
	if err != nil {
		log.Fatal(err)
	}
	for _, o := range report.Overflows {
		fmt.Println("too large:", o.Count, "of", o.Tensor)
	}

	_, err = merge.Mean([]*checkpoint.Model{a, b}, merge.WithExclude(regexp.MustCompile("wieght")))
	fmt.Println(err)
	// Output:
	// integers sum, keys union, non-finite error, overflow saturate, dtype F16
	// steps I64 sum [] []
	// weight F16 average [-1 2] [F32 F32]
	// too large: 1 of weight
	// exclude: pattern "wieght" matches no tensor
}

// Two processes, which need not be on one machine, do a part each.
func ExamplePlan_RunPart() {
	dir, err := os.MkdirTemp("", "merge")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	a := create(filepath.Join(dir, "a.safetensors"), 100, 1, 2, 3)
	defer a.Close()
	b := create(filepath.Join(dir, "b.safetensors"), 200, 2, 4, 6)
	defer b.Close()
	out := filepath.Join(dir, "out.safetensors")

	for number := 1; number <= 2; number++ { // in each process, of one number
		plan, err := merge.Mean([]*checkpoint.Model{a, b})
		if err != nil {
			log.Fatal(err)
		}
		if _, err := plan.RunPart(context.Background(), out, merge.Part{Number: number, Of: 2}, nil); err != nil {
			log.Fatal(err)
		}
	}

	// In a process that runs after all of them.
	finished, err := merge.Finish(context.Background(), out)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(finished.Parts, finished.Report.Averaged, finished.Report.BytesWritten)
	_, err = merge.Finish(context.Background(), out)
	fmt.Println(errors.Is(err, checkpoint.ErrNoParts))
	// Output:
	// 2 [weight] 20
	// true
}

// Only ranges go from the program that divides the work to those that do it.
func ExamplePlan_RunRange() {
	dir, err := os.MkdirTemp("", "merge")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	a := create(filepath.Join(dir, "a"), 100, make([]float32, 100)...)
	defer a.Close()
	b := create(filepath.Join(dir, "b"), 200, make([]float32, 100)...)
	defer b.Close()
	plan, err := merge.Mean([]*checkpoint.Model{a, b})
	if err != nil {
		log.Fatal(err)
	}
	out := filepath.Join(dir, "out")
	ranges := plan.Ranges(256)
	for i, r := range ranges {
		fmt.Println(r.Tensor, r.Offset, r.Length)
		// A part for every range.
		part := merge.Part{Number: i + 1, Of: len(ranges), Ranges: []merge.Range{r}}
		if _, err := plan.RunPart(context.Background(), out, part, nil); err != nil {
			log.Fatal(err)
		}
	}
	if _, err := merge.Finish(context.Background(), out, merge.WithoutDataCheck(), merge.WithFinishSync(false),
		merge.WithFinishProgress(nil)); err != nil {
		log.Fatal(err)
	}

	// Or to any other output.
	var size counter
	report, err := plan.RunRange(context.Background(), ranges[1], &size)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(report.BytesRead, size.bytes.Load())
	// Output:
	// steps 0 8
	// weight 0 256
	// weight 256 144
	// 512 256
}

// A counter is an output that only counts.
type counter struct{ bytes atomic.Int64 }

func (c *counter) WriteAt(_ string, p []byte, _ int64) (int, error) {
	c.bytes.Add(int64(len(p)))
	return len(p), nil
}
