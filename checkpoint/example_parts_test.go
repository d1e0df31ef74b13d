package checkpoint_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/modelavg/modelavg/checkpoint"
)

// Three processes write a part each, and a fourth puts the file in its place.
func ExampleCreatePart() {
	dir, err := os.MkdirTemp("", "checkpoint")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "out.safetensors")
	tensors := []checkpoint.Tensor{{Name: "w", DType: checkpoint.U8, Shape: []int64{3 << 20}}}

	for number := 1; number <= 3; number++ { // in each process, of one number
		part := checkpoint.Part{Number: number, Of: 3}
		facts := []checkpoint.Fact{{Name: "value", Value: "7"}} // what all have to agree about
		w, err := checkpoint.CreatePart(path, part, tensors, nil, facts)
		if err != nil {
			log.Fatal(err)
		}
		defer w.Close()
		for _, r := range w.Ranges() {
			data := make([]byte, r.Length)
			for i := range data {
				data[i] = 7
			}
			if _, err := w.WriteAt(r.Tensor, data, r.Offset); err != nil {
				log.Fatal(err)
			}
			fmt.Printf("part %v: bytes %d to %d of %s\n", w.Part(), r.Offset, r.Offset+r.Length, r.Tensor)
		}
		if err := w.Commit(context.Background(), nil); err != nil {
			log.Fatal(err)
		}
	}

	u, err := checkpoint.OpenUnfinished(path)
	if err != nil {
		log.Fatal(err)
	}
	defer u.Close()
	fmt.Println(u.Parts(), "parts, missing", u.Missing(), "with", len(u.Details()), "records of", u.Bytes(), "bytes")
	if err := u.Check(context.Background(), true, nil); err != nil {
		log.Fatal(err)
	}
	if err := u.Commit(); err != nil {
		log.Fatal(err)
	}
	fmt.Println("removed:", u.Removed())
	if err := u.Remove(); err != nil {
		log.Fatal(err)
	}
	m, err := checkpoint.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	fmt.Println(m.Tensors())
	// Output:
	// part 1/3: bytes 0 to 1048472 of w
	// part 2/3: bytes 1048472 to 2097048 of w
	// part 3/3: bytes 2097048 to 3145728 of w
	// 3 parts, missing [] with 3 records of 3145832 bytes
	// removed: []
	// ["w" U8 [3145728]]
}

// An output that nobody will finish.
func ExampleDiscardParts() {
	dir, err := os.MkdirTemp("", "checkpoint")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "out.safetensors")
	w, err := checkpoint.CreatePart(path, checkpoint.Part{Number: 1, Of: 2}, nil, nil, nil)
	if err != nil {
		log.Fatal(err)
	}
	if err := w.Close(); err != nil {
		log.Fatal(err)
	}
	removed, err := checkpoint.DiscardParts(path)
	fmt.Println(filepath.Base(removed), err)
	_, err = checkpoint.OpenUnfinished(path)
	fmt.Println(errors.Is(err, checkpoint.ErrNoParts))
	// Output:
	// .out.safetensors.parts <nil>
	// true
}
