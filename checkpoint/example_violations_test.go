package checkpoint_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"

	"github.com/modelavg/modelavg/checkpoint"
)

// All that is wrong with a file, of which Open names the first thing.
func ExampleViolations() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	header := `{"a":{"dtype":"F31","shape":[1],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[3],"data_offsets":[4,12]}}`
	file := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	file = append(append(file, header...), make([]byte, 10)...)
	path := filepath.Join(dir, "m.safetensors")
	if err := os.WriteFile(path, file, 0o666); err != nil {
		log.Fatal(err)
	}

	for err := range checkpoint.Violations(path) {
		fmt.Println(strings.TrimPrefix(err.Error(), dir+string(filepath.Separator)))
	}
	// Output:
	// m.safetensors: tensor "a": dtype: unknown dtype "F31"
	// m.safetensors: tensor "b": data_offsets [4,12]: 8 bytes, want 12 for F32 [3]
	// m.safetensors: tensor "b": data_offsets [4,12]: the file is truncated, it has 10 bytes of data, want 12
}

// NumPy stores an array of bfloat16 without the name of its type.
func ExampleWithVoid2As() {
	const path = "testdata/numpy/void2.npy"
	_, err := checkpoint.Open(path)
	fmt.Println(errors.Is(err, checkpoint.ErrUntyped))

	m, err := checkpoint.Open(path, checkpoint.WithVoid2As(checkpoint.BF16))
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	fmt.Println(m.Tensors())
	// Output:
	// true
	// ["array" BF16 [2]]
}
