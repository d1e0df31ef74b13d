package checkpoint_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/modelavg/modelavg/checkpoint"
)

// A model in two shards is written, and then again in one file of another name: the old shards go with it.
func ExampleWriter_Removed() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	tensors := []checkpoint.Tensor{
		{Name: "a", DType: checkpoint.F32, Shape: []int64{1}}, {Name: "b", DType: checkpoint.F32, Shape: []int64{1}},
	}
	for _, layout := range [][]checkpoint.Shard{
		{{File: "1.safetensors", Tensors: []string{"a"}}, {File: "2.safetensors", Tensors: []string{"b"}}},
		{{File: "all.safetensors", Tensors: []string{"a", "b"}}},
	} {
		w, err := checkpoint.Create(dir, tensors, nil, checkpoint.WithShards(layout))
		if err != nil {
			log.Fatal(err)
		}
		defer w.Close()
		for _, t := range tensors {
			if _, err := w.WriteAt(t.Name, make([]byte, 4), 0); err != nil {
				log.Fatal(err)
			}
		}
		if err := w.Commit(); err != nil {
			log.Fatal(err)
		}
		fmt.Println("removed", w.Removed())
	}
	if err := os.WriteFile(filepath.Join(dir, "pytorch_model.bin"), nil, 0o666); err != nil {
		log.Fatal(err)
	}
	m, err := checkpoint.Open(dir)
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	files, others, err := checkpoint.ListSideFiles(m)
	fmt.Println("would copy", files, "and not", others, err)
	// Output:
	// removed []
	// removed [1.safetensors 2.safetensors]
	// would copy [] and not [pytorch_model.bin] <nil>
}

func ExampleCheckCreate() {
	tensors := []checkpoint.Tensor{{Name: "a", DType: checkpoint.BF16, Shape: []int64{1}}}
	fmt.Println(checkpoint.CheckCreate("new.safetensors", tensors, nil))
	fmt.Println(checkpoint.CheckCreate("new.npz", tensors, nil) != nil)
	// Output:
	// <nil>
	// true
}
