package checkpoint_test

import (
	"archive/zip"
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

// Chunks that meet at whole pages of the file are written fastest, whatever is before the tensor.
func ExampleWriter_Offset() {
	dir, err := os.MkdirTemp("", "modelavg")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	tensor := checkpoint.Tensor{Name: "weight", DType: checkpoint.U8, Shape: []int64{10_000}}
	w, err := checkpoint.Create(filepath.Join(dir, "model.safetensors"), []checkpoint.Tensor{tensor}, nil,
		checkpoint.WithoutSync())
	if err != nil {
		log.Fatal(err)
	}
	defer w.Close()
	offset, err := w.Offset(tensor.Name)
	if err != nil {
		log.Fatal(err)
	}
	const page = 4096
	data := make([]byte, tensor.Bytes())
	for begin := int64(0); begin < tensor.Bytes(); {
		end := min(begin+page-(offset+begin)%page, tensor.Bytes())
		if _, err := w.WriteAt(tensor.Name, data[begin:end], begin); err != nil {
			log.Fatal(err)
		}
		fmt.Println("bytes", offset+begin, "to", offset+end, "of the file")
		begin = end
	}
	if err := w.Commit(); err != nil {
		log.Fatal(err)
	}
	m, err := checkpoint.Open(filepath.Join(dir, "model.safetensors"))
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	fmt.Println(m.Offset(tensor.Name))
	// Output:
	// bytes 112 to 4096 of the file
	// bytes 4096 to 8192 of the file
	// bytes 8192 to 10112 of the file
	// 112 <nil>
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

// A model of one file is written in shards of at most 300 bytes of data, and read from the directory.
func ExampleWithMaxShardSize() {
	from, err := checkpoint.Open("testdata/reference.safetensors")
	if err != nil {
		log.Fatal(err)
	}
	defer from.Close()
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "model")

	tensors := from.Tensors()
	w, err := checkpoint.Create(path, tensors, from.Metadata(), checkpoint.WithMaxShardSize(300))
	if err != nil {
		log.Fatal(err)
	}
	defer w.Close()
	for _, t := range tensors {
		p := make([]byte, t.Bytes())
		if _, err := from.ReadAt(t.Name, p, 0); err != nil && len(p) > 0 {
			log.Fatal(err)
		}
		if _, err := w.WriteAt(t.Name, p, 0); err != nil {
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
	defer m.Close()
	fmt.Println(filepath.Base(m.Dir()), filepath.Base(m.Index()))
	for _, s := range m.Shards() {
		fmt.Println(s.File, len(s.Tensors))
	}
	// Output:
	// model model.safetensors.index.json
	// model-00001-of-00004.safetensors 18
	// model-00002-of-00004.safetensors 24
	// model-00003-of-00004.safetensors 15
	// model-00004-of-00004.safetensors 6
}

// A model directory is made like another: the same shards, and the same files beside them.
func ExampleWithShards() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	tensors := []checkpoint.Tensor{{Name: "a", DType: checkpoint.F32}, {Name: "b", DType: checkpoint.F32}}
	layout := []checkpoint.Shard{
		{File: "first.safetensors", Tensors: []string{"b"}},
		{File: "second.safetensors", Tensors: []string{"a"}},
	}
	create := func(path string, layout []checkpoint.Shard) {
		w, err := checkpoint.Create(path, tensors, nil, checkpoint.WithShards(layout))
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
	}
	one, two := filepath.Join(dir, "one"), filepath.Join(dir, "two")
	create(one, layout)
	if err := os.WriteFile(filepath.Join(one, "config.json"), []byte("{}\n"), 0o666); err != nil {
		log.Fatal(err)
	}

	m, err := checkpoint.Open(one)
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	create(two, m.Shards())
	copied, skipped, err := checkpoint.CopySideFiles(m, two)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("copied", copied, "skipped", skipped)
	index, err := os.ReadFile(filepath.Join(two, "model.safetensors.index.json"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Print(string(index))
	// Output:
	// copied [config.json] skipped []
	// {
	//   "metadata": {
	//     "total_size": 8
	//   },
	//   "weight_map": {
	//     "a": "second.safetensors",
	//     "b": "first.safetensors"
	//   }
	// }
}

// Arrays of NumPy are read as other tensors are, whatever their order of bytes.
func ExampleOpen_numpy() {
	m, err := checkpoint.Open("testdata/numpy/stored.npz")
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	for _, t := range m.Tensors() {
		fmt.Println(t)
	}
	p := make([]byte, 2)
	if _, err := m.ReadAt("layer/b", p, 4); err != nil { // big-endian in the file
		log.Fatal(err)
	}
	fmt.Printf("%#04x\n", binary.LittleEndian.Uint16(p))
	// Output:
	// "" U8 [2]
	// "f" F64 [2 3]
	// "größe" I64 []
	// "layer/b" F16 [3]
	// "none" F32 [0]
	// "w" F32 [2 3]
	// 0x4b00
}

// An archive is written for NumPy, which calls the arrays as the tensors are called.
func ExampleCreate_numpy() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "model.npz")
	w, err := checkpoint.Create(path, []checkpoint.Tensor{{Name: "w", DType: checkpoint.U8, Shape: []int64{2, 2}}}, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer w.Close()
	if _, err := w.WriteAt("w", []byte{1, 2, 3, 4}, 0); err != nil {
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
	fmt.Println(m.Tensors())
	// Output: ["w" U8 [2 2]]
}

// A service that opens archives of strangers says how much of its disk they may take: a megabyte of zeros is a thousand
// bytes in the archive.
func ExampleWithInflateLimit() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "zeros.npz")
	f, err := os.Create(path)
	if err != nil {
		log.Fatal(err)
	}
	archive := zip.NewWriter(f)
	w, err := archive.Create("w.npy")
	if err != nil {
		log.Fatal(err)
	}
	header := "{'descr': '|u1', 'fortran_order': False, 'shape': (1000000,)}\n"
	fmt.Fprintf(w, "\x93NUMPY\x01\x00%c\x00%s%s", len(header), header, make([]byte, 1_000_000))
	if err := errors.Join(archive.Close(), f.Close()); err != nil {
		log.Fatal(err)
	}

	_, err = checkpoint.Open(path, checkpoint.WithInflateLimit(100_000))
	fmt.Println(errors.Is(err, checkpoint.ErrInflateLimit))
	// Output: true
}
