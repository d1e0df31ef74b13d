package merge_test

// What the tests need of the file format, written apart from package checkpoint.

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/modelavg/modelavg/checkpoint"
)

// A tensor is what a test puts into a file, and what it finds there.
type tensor struct {
	name  string
	dtype string
	shape []int64
	data  []byte
}

type entry struct {
	DType   string   `json:"dtype"`
	Shape   []int64  `json:"shape"`
	Offsets [2]int64 `json:"data_offsets"`
}

// writeModel writes a safetensors file with the tensors in the order given. A tensor with nil data only takes its place:
// the file is as long as its shape says, without blocks on the disk.
func writeModel(t testing.TB, path string, metadata map[string]string, tensors ...tensor) string {
	t.Helper()
	header := make(map[string]any)
	if metadata != nil {
		header["__metadata__"] = metadata
	}
	var end int64
	for _, x := range tensors {
		size := int64(len(x.data))
		if x.data == nil {
			size = bytesOf(x.dtype, x.shape)
		}
		if x.shape == nil {
			x.shape = []int64{}
		}
		header[x.name] = entry{x.dtype, x.shape, [2]int64{end, end + size}}
		end += size
	}
	text, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	for len(text)%8 != 0 {
		text = append(text, ' ')
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	head := append(binary.LittleEndian.AppendUint64(nil, uint64(len(text))), text...)
	if _, err := f.Write(head); err != nil {
		t.Fatal(err)
	}
	off := int64(len(head))
	if err := f.Truncate(off + end); err != nil {
		t.Fatal(err)
	}
	for _, x := range tensors {
		if x.data == nil {
			off += bytesOf(x.dtype, x.shape)
			continue
		}
		if _, err := f.WriteAt(x.data, off); err != nil {
			t.Fatal(err)
		}
		off += int64(len(x.data))
	}
	return path
}

// bytesOf returns the size of a tensor, from the number of bits that ends the first word of the dtype's name.
func bytesOf(dtype string, shape []int64) int64 {
	bits := int64(8)
	if dtype != "BOOL" {
		name, _, _ := strings.Cut(dtype, "_")
		fmt.Sscan(strings.TrimLeft(name, "BFIUC"), &bits)
	}
	n := int64(1)
	for _, d := range shape {
		n *= d
	}
	return n * bits / 8
}

// readModel returns metadata and tensors of a file.
func readModel(t testing.TB, path string) (map[string]string, map[string]tensor) {
	t.Helper()
	file, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	n := binary.LittleEndian.Uint64(file)
	var header map[string]json.RawMessage
	if err := json.Unmarshal(file[8:8+n], &header); err != nil {
		t.Fatal(err)
	}
	var metadata map[string]string
	tensors := make(map[string]tensor)
	for name, raw := range header {
		if name == "__metadata__" {
			if err := json.Unmarshal(raw, &metadata); err != nil {
				t.Fatal(err)
			}
			continue
		}
		var e entry
		if err := json.Unmarshal(raw, &e); err != nil {
			t.Fatal(err)
		}
		data := file[8+n:][e.Offsets[0]:e.Offsets[1]]
		tensors[name] = tensor{name, e.DType, e.Shape, data}
	}
	return metadata, tensors
}

// open opens the files until the test ends.
func open(t testing.TB, paths ...string) []*checkpoint.Model {
	t.Helper()
	models := make([]*checkpoint.Model, len(paths))
	for i, path := range paths {
		m, err := checkpoint.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { m.Close() })
		models[i] = m
	}
	return models
}

// snapshot returns the names and the contents of a directory, to show that nothing has changed in it.
func snapshot(t testing.TB, dir string) map[string]string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string]string)
	for _, e := range list {
		data, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = string(data)
	}
	return files
}

// float32s returns a tensor of these values.
func float32s(name string, values ...float32) tensor {
	var data []byte
	data, err := binary.Append(data, binary.LittleEndian, values)
	if err != nil {
		panic(err)
	}
	return tensor{name, "F32", []int64{int64(len(values))}, data}
}

// int64s returns a tensor of these values.
func int64s(name string, values ...int64) tensor {
	data, err := binary.Append(nil, binary.LittleEndian, values)
	if err != nil {
		panic(err)
	}
	return tensor{name, "I64", []int64{int64(len(values))}, data}
}

// valuesOf returns the values of a F32 tensor.
func valuesOf(t testing.TB, x tensor) []float32 {
	t.Helper()
	if x.dtype != "F32" {
		t.Fatalf("tensor %q has dtype %s, want F32", x.name, x.dtype)
	}
	values := make([]float32, len(x.data)/4)
	if _, err := binary.Decode(x.data, binary.LittleEndian, values); err != nil {
		t.Fatal(err)
	}
	return values
}

func sameFiles(a, b map[string]string) bool {
	names := func(m map[string]string) (list []string) {
		for name := range m {
			list = append(list, name)
		}
		slices.Sort(list)
		return list
	}
	if !slices.Equal(names(a), names(b)) {
		return false
	}
	for name := range a {
		if a[name] != b[name] {
			return false
		}
	}
	return true
}
