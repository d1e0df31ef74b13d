package checkpoint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
)

// counting returns n bytes that count up from first.
func counting(first, n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(first + i)
	}
	return p
}

// write writes a file; data returns the bytes of a tensor.
func write(t testing.TB, path string, tensors []Tensor, metadata map[string]string, data func(Tensor) []byte) {
	t.Helper()
	w := create(t, path, tensors, metadata)
	for _, tensor := range tensors {
		p := data(tensor)
		if n, err := w.WriteAt(tensor.Name, p, 0); n != len(p) || err != nil {
			t.Fatalf("%d bytes written, %v", n, err)
		}
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
}

// The writer writes the bytes that the reference implementation writes; testdata/reference.py made the file.
func TestWriterReference(t *testing.T) {
	want, err := os.ReadFile("testdata/reference.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	var tensors []Tensor
	first := make(map[string]int)
	add := func(name string, dtype DType, value int, shape ...int64) {
		tensors = append(tensors, Tensor{name, dtype, shape})
		first[name] = value
	}
	i := 0
	for _, d := range dtypeTable {
		if d.bits == 6 {
			continue
		}
		add(d.name, d.dtype, i, 3, 4)
		add(d.name+" empty", d.dtype, i, 0, 2)
		if d.bits >= 8 {
			add(d.name+" scalar", d.dtype, i)
		}
		i++
	}
	for _, name := range []string{
		`quote" back\slash / slash`, "control \x00\x01\b\t\n\x0b\f\r\x1f\x7f", "größe 世界 \U0001d11e \u2028 <&>", "",
	} {
		add(name, U8, 255, 1)
	}
	rand.Shuffle(len(tensors), func(i, j int) { tensors[i], tensors[j] = tensors[j], tensors[i] })

	path := filepath.Join(t.TempDir(), "out")
	write(t, path, tensors, nil, func(tensor Tensor) []byte { return counting(first[tensor.Name], int(tensor.Bytes())) })
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("got\n%q\nwant\n%q", got, want)
	}
	m := open(t, "testdata/reference.safetensors")
	if n := len(m.Tensors()); n != len(tensors) {
		t.Errorf("%d tensors read, want %d", n, len(tensors))
	}
}

// All dtypes are read as they were written.
func TestWriterRoundTrip(t *testing.T) {
	var tensors []Tensor
	for _, d := range dtypeTable {
		tensors = append(
			tensors,
			Tensor{d.name, d.dtype, []int64{2, 3, 4}},
			Tensor{d.name + ".empty", d.dtype, []int64{3, 0}},
			Tensor{d.name + ".one", d.dtype, []int64{4, 1, 1}},
		)
		if d.bits >= 8 {
			tensors = append(tensors, Tensor{d.name + ".scalar", d.dtype, []int64{}})
		}
	}
	metadata := map[string]string{"format": "np", "": "empty", "a\"\\\n\x01": "ä\u2028𝄞\x7f"}
	path := filepath.Join(t.TempDir(), "out.safetensors")
	data := func(tensor Tensor) []byte { return counting(len(tensor.Name)*7+int(tensor.DType), int(tensor.Bytes())) }
	write(t, path, tensors, metadata, data)

	m := open(t, path)
	slices.SortFunc(tensors, func(a, b Tensor) int { return strings.Compare(a.Name, b.Name) })
	got := m.Tensors()
	if len(got) != len(tensors) {
		t.Fatalf("%d tensors, want %d", len(got), len(tensors))
	}
	for i, want := range tensors {
		if got[i].Name != want.Name || got[i].DType != want.DType || !slices.Equal(got[i].Shape, want.Shape) {
			t.Errorf("tensor %v, want %v", got[i], want)
		}
		p := make([]byte, want.Bytes())
		if _, err := m.ReadAt(want.Name, p, 0); err != nil && len(p) > 0 {
			t.Error(err)
		}
		if !bytes.Equal(p, data(want)) {
			t.Errorf("%v: data %v, want %v", want, p, data(want))
		}
	}
	if got := m.Metadata(); len(got) != 3 || got["format"] != "np" || got[""] != "empty" ||
		got["a\"\\\n\x01"] != "ä\u2028𝄞\x7f" {
		t.Errorf("metadata %q, want %q", got, metadata)
	}
	// Every tensor begins at a multiple of its element, as far as that is a matter of whole bytes.
	for _, e := range m.entries {
		if size := int64(e.DType.Bits() / 8); size > 0 && e.offset%size != 0 {
			t.Errorf("%v begins at %d", e.Tensor, e.offset)
		}
	}
}

func TestWriterBytes(t *testing.T) {
	for _, test := range []struct {
		tensors  []Tensor
		metadata map[string]string
		header   string
	}{
		{nil, nil, `{"__metadata__":{"format":"pt"}}`},
		{nil, map[string]string{}, `{"__metadata__":{"format":"pt"}}`},
		{nil, map[string]string{"format": ""}, `{"__metadata__":{"format":""}}  `},
		{
			nil,
			map[string]string{"z": "1", "a": "2", "g": "3"},
			`{"__metadata__":{"a":"2","format":"pt","g":"3","z":"1"}}`,
		},
		{
			[]Tensor{{"b", F32, []int64{1}}, {"a", F32, nil}, {"c", F64, []int64{2, 0}}, {"B", Bool, []int64{3}}},
			nil,
			`{"__metadata__":{"format":"pt"},"c":{"dtype":"F64","shape":[2,0],"data_offsets":[0,0]},` +
				`"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]},` +
				`"B":{"dtype":"BOOL","shape":[3],"data_offsets":[8,11]}} `,
		},
	} {
		path := filepath.Join(t.TempDir(), "out")
		write(t, path, test.tensors, test.metadata, func(tensor Tensor) []byte { return make([]byte, tensor.Bytes()) })
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		n := binary.LittleEndian.Uint64(got)
		if n%8 != 0 || string(got[8:8+n]) != test.header {
			t.Errorf("%d bytes of header\n  %q\nwant\n  %q", n, got[8:8+n], test.header)
		}
	}
}

func TestCreateErrors(t *testing.T) {
	for _, test := range []struct {
		tensors  []Tensor
		metadata map[string]string
		err      string
	}{
		{[]Tensor{{"w", 0, nil}}, nil, `tensor "w": dtype: DType(0) is no dtype`},
		{[]Tensor{{"w", F32, []int64{2, -3}}}, nil, `tensor "w": shape [2 -3]: dimension 1 is negative`},
		{
			[]Tensor{{"w", F32, []int64{math.MaxInt64, 4}}},
			nil,
			`tensor "w": shape [9223372036854775807 4]: the number of elements overflows 64 bits`,
		},
		{[]Tensor{{"w", F4, []int64{1}}}, nil, `tensor "w": shape [1]: 4 bits of F4 are no whole number of bytes`},
		{[]Tensor{{"w", F4, []int64{2}}, {"w", F8E4M3, []int64{2}}}, nil, `tensor "w": given twice`},
		{[]Tensor{{"__metadata__", F32, nil}}, nil, `tensor "__metadata__": the name is reserved`},
		{[]Tensor{{"a\xff", F32, nil}}, nil, `tensor "a\xff": the name is not valid UTF-8`},
		{nil, map[string]string{"a\xff": ""}, `metadata "a\xff": key or value is not valid UTF-8`},
		{nil, map[string]string{"a": "\xff"}, `metadata "a": key or value is not valid UTF-8`},
		{
			[]Tensor{
				{"a", U8, []int64{1 << 60}},
				{"b", U8, []int64{1 << 60}},
				{"c", F4, []int64{1 << 61}},
				{"d", U8, []int64{1 << 60}},
				{"e", U8, []int64{1 << 60}},
				{"f", U8, []int64{1 << 60}},
				{"g", U8, []int64{1 << 60}},
				{"h", U8, []int64{1 << 60}},
			},
			nil, `tensor "c": the file would have more than 9223372036854775807 bytes`,
		},
		{
			nil,
			map[string]string{"a": strings.Repeat("x", 99_999_962)},
			`header over the limit: 100000008 bytes, limit 100000000`,
		},
	} {
		path := filepath.Join(t.TempDir(), "out")
		w, err := Create(path, test.tensors, test.metadata)
		wantError(t, err, path, "out: "+test.err)
		if w != nil {
			t.Errorf("%s: there is a writer", test.err)
		}
		wantFiles(t, filepath.Dir(path))
	}
}

func TestCreateHeaderAtLimit(t *testing.T) {
	if testing.Short() {
		t.Skip("writes and reads 100 MB")
	}
	path := filepath.Join(t.TempDir(), "out")
	// {"__metadata__":{"a":"…","format":"pt"}} has 39 bytes around the value.
	write(t, path, nil, map[string]string{"a": strings.Repeat("x", DefaultHeaderLimit-39)}, nil)
	m := open(t, path)
	if n := len(m.Metadata()["a"]); n != DefaultHeaderLimit-39 {
		t.Errorf("%d bytes of metadata, want %d", n, DefaultHeaderLimit-39)
	}
}

var twoTensors = []Tensor{{"a", U8, []int64{8}}, {"b", U16, []int64{4}}}

func TestWriterWriteAt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	w := create(t, path, twoTensors, nil)
	if w.Path() != path {
		t.Errorf("path %s, want %s", w.Path(), path)
	}
	tw, err := w.TensorWriter("b")
	if err != nil {
		t.Fatal(err)
	}
	if tw.Size() != 8 || tw.Tensor().Name != "b" {
		t.Errorf("writer of %v with %d bytes", tw.Tensor(), tw.Size())
	}
	for _, test := range []struct {
		n   int
		off int64
		err string
	}{
		{9, 0, `out: tensor "b": write of 9 bytes at byte 0 does not fit, the tensor has 8`},
		{1, 8, `out: tensor "b": write of 1 bytes at byte 8 does not fit, the tensor has 8`},
		{0, 9, `out: tensor "b": write of 0 bytes at byte 9 does not fit, the tensor has 8`},
		{1, -1, `out: tensor "b": write of 1 bytes at byte -1 does not fit, the tensor has 8`},
		{2, math.MaxInt64, `out: tensor "b": write of 2 bytes at byte 9223372036854775807 does not fit, the tensor has 8`},
	} {
		n, err := tw.WriteAt(make([]byte, test.n), test.off)
		wantError(t, err, path, test.err)
		if n != 0 {
			t.Errorf("%s: %d bytes written", test.err, n)
		}
	}
	_, err = w.WriteAt("c", nil, 0)
	wantError(t, err, path, `out: no tensor "c"`)
	if !errors.Is(err, ErrNoTensor) {
		t.Errorf("the error does not wrap ErrNoTensor")
	}
	if n, err := tw.WriteAt(nil, 8); n != 0 || err != nil {
		t.Errorf("write of nothing at the end: %d, %v", n, err)
	}
	// Back to front, overlapping, twice.
	for _, off := range []int64{6, 3, 0, 3} {
		if n, err := tw.WriteAt(counting(int(off), min(4, 8-int(off))), off); n == 0 || err != nil {
			t.Error(n, err)
		}
	}
	if _, err := w.WriteAt("a", counting(10, 8), 0); err != nil {
		t.Error(err)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	if _, err := tw.WriteAt([]byte{1}, 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("write after Commit: %v", err)
	}
	err = w.Commit()
	wantError(t, err, path, "out: commit: file already closed")
	if err := w.Close(); err != nil {
		t.Errorf("Close after Commit: %v", err)
	}
	m := open(t, path)
	for name, want := range map[string][]byte{"a": counting(10, 8), "b": counting(0, 8)} {
		p := make([]byte, 8)
		if _, err := m.ReadAt(name, p, 0); err != nil || !bytes.Equal(p, want) {
			t.Errorf("%s: %v, %v, want %v", name, p, err, want)
		}
	}
	wantFiles(t, filepath.Dir(path), "out")
}

func TestWriterIncomplete(t *testing.T) {
	for _, test := range []struct {
		spans [][2]int64 // written of b
		err   string
	}{
		{nil, `out: tensor "b": not all bytes are written: 0 of 8`},
		{[][2]int64{{0, 7}}, `out: tensor "b": not all bytes are written: 7 of 8`},
		{[][2]int64{{1, 8}}, `out: tensor "b": not all bytes are written: 7 of 8`},
		{[][2]int64{{0, 3}, {4, 8}}, `out: tensor "b": not all bytes are written: 7 of 8`},
		// Eight bytes, but not all of them.
		{[][2]int64{{0, 4}, {0, 4}}, `out: tensor "b": not all bytes are written: 4 of 8`},
		{[][2]int64{{0, 5}, {3, 6}, {2, 4}}, `out: tensor "b": not all bytes are written: 6 of 8`},
	} {
		path := writeFile(t, []byte("old"))
		w := create(t, path, twoTensors, nil)
		if _, err := w.WriteAt("a", make([]byte, 8), 0); err != nil {
			t.Error(err)
		}
		for _, s := range test.spans {
			if _, err := w.WriteAt("b", make([]byte, s[1]-s[0]), s[0]); err != nil {
				t.Error(err)
			}
		}
		err := w.Commit()
		wantError(t, err, path, strings.Replace(test.err, "out", "m.safetensors", 1))
		if !errors.Is(err, ErrIncomplete) {
			t.Errorf("the error does not wrap ErrIncomplete")
		}
		if b, err := os.ReadFile(path); string(b) != "old" {
			t.Errorf("the old file has %q, %v", b, err)
		}
		wantFiles(t, filepath.Dir(path), "m.safetensors")
	}
}

// Spans against a plain set of bytes.
func TestSpans(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var s spans
		var set [32]bool
		for range r.IntN(12) {
			begin := r.Int64N(33)
			end := begin + r.Int64N(33-begin)
			s.add(begin, end)
			for i := begin; i < end; i++ {
				set[i] = true
			}
			var want spans
			for i := range int64(len(set)) {
				switch {
				case set[i] && len(want) > 0 && want[len(want)-1].end == i:
					want[len(want)-1].end++
				case set[i]:
					want = append(want, span{i, i + 1})
				}
			}
			if !slices.Equal(s, want) {
				t.Fatalf("spans %v, want %v", s, want)
			}
		}
	}
}

func TestWriterConcurrent(t *testing.T) {
	const chunk, chunks = 1000, 200
	tensors := []Tensor{{"a", U8, []int64{chunk * chunks}}, {"b", F32, []int64{chunk * chunks / 4}}}
	path := filepath.Join(t.TempDir(), "out")
	w := create(t, path, tensors, nil, WithoutSync())
	var group sync.WaitGroup
	for worker := range 8 {
		group.Go(func() {
			for i := worker; i < chunks; i += 8 {
				for _, tensor := range tensors {
					if _, err := w.WriteAt(tensor.Name, bytes.Repeat([]byte{byte(i)}, chunk), int64(i)*chunk); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	group.Wait()
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	m := open(t, path)
	for worker := range 8 {
		group.Go(func() {
			for i := worker; i < chunks; i += 8 {
				p := make([]byte, chunk)
				if _, err := m.ReadAt("b", p, int64(i)*chunk); err != nil || !bytes.Equal(p, bytes.Repeat([]byte{byte(i)}, chunk)) {
					t.Errorf("chunk %d: %v, %v", i, p[:4], err)
				}
			}
		})
	}
	group.Wait()
}

func TestWriterClose(t *testing.T) {
	path := writeFile(t, []byte("old"))
	w := create(t, path, twoTensors, nil)
	if entries, err := os.ReadDir(filepath.Dir(path)); len(entries) != 2 || err != nil {
		t.Errorf("files %v, %v, want the old and the temporary one", entries, err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	if err := w.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
	if err := w.Commit(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Commit after Close: %v", err)
	}
	if _, err := w.WriteAt("a", []byte{1}, 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("write after Close: %v", err)
	}
	if b, err := os.ReadFile(path); string(b) != "old" {
		t.Errorf("the old file has %q, %v", b, err)
	}
	wantFiles(t, filepath.Dir(path), "m.safetensors")
}

// The file that is replaced may be one that is being read.
func TestWriterReplacesInput(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("open files cannot be replaced on Windows")
	}
	path := writeFile(t, fileBytes(i32, 16))
	m := open(t, path)
	write(t, path, m.Tensors(), m.Metadata(), func(tensor Tensor) []byte { return make([]byte, 16) })
	p := make([]byte, 16)
	if _, err := m.ReadAt("test", p, 0); err != nil || !bytes.Equal(p, counting(0, 16)) {
		t.Errorf("the old file has %v, %v", p, err)
	}
	if err := m.Unchanged(); err != nil {
		t.Error(err)
	}
	if _, err := open(t, path).ReadAt("test", p, 0); err != nil || !bytes.Equal(p, make([]byte, 16)) {
		t.Errorf("the new file has %v, %v", p, err)
	}
}

func TestCreateTarget(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "none", "out")
	if _, err := Create(path, nil, nil); !errors.Is(err, fs.ErrNotExist) || !strings.HasPrefix(err.Error(), path+": ") {
		t.Errorf("no such directory: %v", err)
	}
	path = filepath.Join(dir, "sub")
	if err := os.Mkdir(path, 0o777); err != nil {
		t.Fatal(err)
	}
	_, err := Create(path, nil, nil)
	wantError(t, err, path, "sub: is a directory, want a file")

	path = filepath.Join(dir, "protected")
	if err := os.WriteFile(path, []byte("old"), 0o444); err != nil {
		t.Fatal(err)
	}
	_, err = Create(path, nil, nil)
	wantError(t, err, path, "protected: the file is write-protected (-r--r--r--): permission denied")
	if !errors.Is(err, fs.ErrPermission) {
		t.Errorf("the error does not wrap fs.ErrPermission")
	}
	wantFiles(t, dir, "protected", "sub")
}

// More than any disk has is an error at once, and nothing is left behind.
func TestCreateTooLarge(t *testing.T) {
	path := writeFile(t, []byte("old"))
	shape := []int64{1 << 60}
	w, err := Create(path, []Tensor{{"a", U8, shape}, {"b", U8, shape}, {"c", U8, shape}}, nil)
	if err == nil {
		defer w.Close()
		if info, err := w.out.(*atomicFile).file.Stat(); err != nil || info.Size() < 3<<60 {
			t.Fatalf("no error, but a file of %d bytes, %v", info.Size(), err)
		}
		t.Skip("this file system has files of 3 EiB")
	}
	if !strings.HasPrefix(err.Error(), path+": reserve 3458764513820541") {
		t.Errorf("error %v", err)
	}
	wantFiles(t, filepath.Dir(path), "m.safetensors")
}

func TestCreateLongName(t *testing.T) {
	for _, name := range []string{strings.Repeat("x", 255), strings.Repeat("ä", 127) + "b"} {
		path := filepath.Join(t.TempDir(), name)
		write(t, path, twoTensors, nil, func(tensor Tensor) []byte { return make([]byte, tensor.Bytes()) })
		open(t, path)
		wantFiles(t, filepath.Dir(path), name)
	}
}

func TestTempName(t *testing.T) {
	prefix := tempPrefix(filepath.Join("dir", "m.safetensors"))
	host, _ := os.Hostname()
	h := fnv.New32a()
	h.Write([]byte(host))
	if want := fmt.Sprintf(".m.safetensors.%08x.", h.Sum32()); prefix != want {
		t.Errorf("prefix %s, want %s", prefix, want)
	}
	for name, want := range map[string]bool{
		prefix + "0123456789abcdef.tmp":       true,
		prefix + "0123456789abcdeF.tmp":       false,
		prefix + "0123456789abcde.tmp":        false,
		prefix + "0123456789abcdef0.tmp":      false,
		prefix + "0123456789abcdef.tmp2":      false,
		prefix + "0123456789abcdef":           false,
		"a" + prefix + "0123456789abcdef.tmp": false,
		"m.safetensors":                       false,
		"":                                    false,
	} {
		if got := isTemp(name, prefix); got != want {
			t.Errorf("isTemp(%s) = %v", name, got)
		}
	}
}
