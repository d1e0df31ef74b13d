package transform_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"log"
	"math"
	"os"
	"path/filepath"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/runners/prism"

	"github.com/modelavg/modelavg/beam/transform"
	"github.com/modelavg/modelavg/checkpoint"
)

// create writes a model of one F32 tensor.
func create(path string, weights ...float32) string {
	w, err := checkpoint.Create(path, []checkpoint.Tensor{
		{Name: "weight", DType: checkpoint.F32, Shape: []int64{int64(len(weights))}},
	}, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer w.Close()
	for i, x := range weights {
		data := binary.LittleEndian.AppendUint32(nil, math.Float32bits(x))
		if _, err := w.WriteAt("weight", data, 4*int64(i)); err != nil {
			log.Fatal(err)
		}
	}
	if err := w.Commit(); err != nil {
		log.Fatal(err)
	}
	return path
}

// Two models are averaged in this process: by reference, and by sums of one model each that are merged.
func ExampleAverage() {
	beam.Init()
	dir, err := os.MkdirTemp("", "beam")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	job := transform.Job{
		Models: []string{
			create(filepath.Join(dir, "a.safetensors"), 1, 2),
			create(filepath.Join(dir, "b.safetensors"), 3, 6),
		},
		Output: filepath.Join(dir, "out.safetensors"),
	}
	for _, job.SumModels = range []int{0, 1} {
		r, err := transform.Average(context.Background(), job, prism.Execute)
		if err != nil {
			log.Fatal(err)
		}
		m, err := checkpoint.Open(r.Path)
		if err != nil {
			log.Fatal(err)
		}
		defer m.Close()
		data := make([]byte, 8)
		if _, err := m.ReadAt("weight", data, 0); err != nil {
			log.Fatal(err)
		}
		var mean [2]float32
		if _, err := binary.Decode(data, binary.LittleEndian, &mean); err != nil {
			log.Fatal(err)
		}
		fmt.Println(mean, r.Parts, r.BytesRead, r.BytesWritten)
	}
	// Output:
	// [2 4] 1 16 8
	// [2 4] 1 16 8
}
