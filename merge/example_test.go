package merge_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

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
	// reads 40 B, writes 24 B, with 192 B of buffers (1 worker, chunks of 64 B)
	// weighting: wrong number of weights: got 2 weights for 3 models, want one per model
}
