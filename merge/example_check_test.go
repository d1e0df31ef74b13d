package merge_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/modelavg/modelavg/checkpoint"
	"github.com/modelavg/modelavg/merge"
)

// Whether the output can be written is known before any data is read.
func ExamplePlan_Check() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "model.safetensors")
	w, err := checkpoint.Create(path, []checkpoint.Tensor{{Name: "x", DType: checkpoint.BF16, Shape: []int64{0}}}, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer w.Close()
	if err := w.Commit(); err != nil {
		log.Fatal(err)
	}
	m, err := checkpoint.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	plan, err := merge.Mean([]*checkpoint.Model{m})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(plan.Check(path))
	fmt.Println(plan.Check(filepath.Join(dir, "model.npz")) != nil) // NumPy has no bfloat16
	// Output:
	// <nil>
	// true
}
