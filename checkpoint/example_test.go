package checkpoint_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log"
	"math"
	"os"
	"path/filepath"

	"github.com/modelavg/modelavg/checkpoint"
)

// A file is written and read again.
func Example() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "model.safetensors")

	w, err := checkpoint.Create(path, []checkpoint.Tensor{
		{Name: "layer.weight", DType: checkpoint.F32, Shape: []int64{2, 2}},
		{Name: "steps", DType: checkpoint.I64},
	}, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer w.Close() // removes the temporary file if something goes wrong

	var weight []byte
	for _, x := range []float32{1, 2, 3, 4} {
		weight = binary.LittleEndian.AppendUint32(weight, math.Float32bits(x))
	}
	if _, err := w.WriteAt("layer.weight", weight, 0); err != nil {
		log.Fatal(err)
	}
	if _, err := w.WriteAt("steps", binary.LittleEndian.AppendUint64(nil, 1000), 0); err != nil {
		log.Fatal(err)
	}
	if err := w.Commit(); err != nil {
		log.Fatal(err)
	}

	m, err := checkpoint.Open(path)
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	fmt.Println(m.Metadata())
	for _, t := range m.Tensors() {
		fmt.Println(t, t.Elements(), "elements", t.Bytes(), "bytes")
	}
	last := make([]byte, 4)
	if _, err := m.ReadAt("layer.weight", last, 12); err != nil {
		log.Fatal(err)
	}
	fmt.Println(math.Float32frombits(binary.LittleEndian.Uint32(last)))
	// Output:
	// map[format:pt]
	// "layer.weight" F32 [2 2] 4 elements 16 bytes
	// "steps" I64 [] 1 elements 8 bytes
	// 4
}

// A service that opens files of strangers bounds the header, and tells a bad file from a failure to read it.
func ExampleOpen() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "model.safetensors")
	header := `{"w":{"dtype":"F32","shape":[2,2],"data_offsets":[0,12]}}`
	file := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	file = append(file, header...)
	file = append(file, make([]byte, 12)...)
	if err := os.WriteFile(path, file, 0o666); err != nil {
		log.Fatal(err)
	}

	_, err = checkpoint.Open(path, checkpoint.WithHeaderLimit(1<<20))
	var format *checkpoint.FormatError
	if errors.As(err, &format) {
		fmt.Println(filepath.Base(format.Path), format.Tensor, format.Err)
	}
	_, err = checkpoint.Open(path, checkpoint.WithHeaderLimit(50))
	if errors.Is(err, checkpoint.ErrHeaderLimit) && errors.As(err, &format) {
		fmt.Println(format.Err)
	}
	// Output:
	// model.safetensors w data_offsets [0,12]: 12 bytes, want 16 for F32 [2 2]
	// header over the limit: 57 bytes in a file of 77, limit 50
}

func ExampleModel_TensorReader() {
	m, err := checkpoint.Open("testdata/reference.safetensors")
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	r, err := m.TensorReader("U16")
	if err != nil {
		log.Fatal(err)
	}
	p := make([]byte, r.Size())
	if _, err := r.ReadAt(p, 0); err != nil {
		log.Fatal(err)
	}
	fmt.Println(r.Tensor(), binary.LittleEndian.Uint16(p))
	if err := m.Unchanged(); err != nil {
		log.Fatal(err)
	}
	// Output: "U16" U16 [3 4] 2826
}

func ExampleWriter_TensorWriter() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "model.safetensors")

	w, err := checkpoint.Create(path, []checkpoint.Tensor{{Name: "w", DType: checkpoint.U8, Shape: []int64{6}}}, nil,
		checkpoint.WithoutSync())
	if err != nil {
		log.Fatal(err)
	}
	defer w.Close()
	tw, err := w.TensorWriter("w")
	if err != nil {
		log.Fatal(err)
	}
	if _, err := tw.WriteAt([]byte{4, 5, 6}, 3); err != nil {
		log.Fatal(err)
	}
	fmt.Println(tw.Tensor(), tw.Size(), "bytes")
	if removed, err := checkpoint.RemoveStale(path); err == nil {
		fmt.Println(len(removed), "stale files")
	}
	_, err = os.Stat(path)
	fmt.Println("exists:", err == nil)
	// Output:
	// "w" U8 [6] 6 bytes
	// 0 stale files
	// exists: false
}

func ExampleParseDType() {
	d, err := checkpoint.ParseDType("BF16")
	fmt.Println(d, d.Bits(), d.IsFloat(), d.IsInteger(), err)
	_, err = checkpoint.ParseDType("float32")
	fmt.Println(err)
	// Output:
	// BF16 16 true false <nil>
	// unknown dtype "float32"
}
