package checkpoint

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var npyTensors = []Tensor{
	{Name: "w", DType: F32, Shape: []int64{2, 3}},
	{Name: "layer/b", DType: F16, Shape: []int64{3}},
	{Name: "größe", DType: I64},
	{Name: "", DType: U8, Shape: []int64{2}},
	{Name: "none", DType: F64, Shape: []int64{0, 2}},
	{Name: "c", DType: C64, Shape: []int64{1}},
	{Name: "t", DType: Bool, Shape: []int64{2}},
}

// npyData returns bytes for a tensor that differ from those of others.
func npyData(t Tensor) []byte { return counting(len(t.Name)*16, int(t.Bytes())) }

// checkArchive reads an archive with archive/zip, which checks sums, and with Open.
func checkArchive(t *testing.T, path string) {
	t.Helper()
	z, err := zip.OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer z.Close()
	var names []string
	for _, f := range z.File {
		names = append(names, f.Name)
		r, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil || f.CRC32 != crc32.ChecksumIEEE(content) || f.NonUTF8 {
			t.Errorf("member %s: sum %x, %v", f.Name, f.CRC32, err)
		}
	}
	want := []string{".npy", "c.npy", "größe.npy", "layer/b.npy", "none.npy", "t.npy", "w.npy"}
	if !slices.Equal(names, want) {
		t.Errorf("members %q, want %q", names, want)
	}
	m := open(t, path)
	if len(m.Tensors()) != len(npyTensors) {
		t.Errorf("tensors %v", m.Tensors())
	}
	for _, want := range npyTensors {
		got, _ := m.Tensor(want.Name)
		if got.String() != want.String() {
			t.Errorf("tensor %v, want %v", got, want)
		}
		p := make([]byte, want.Bytes())
		if _, err := m.ReadAt(want.Name, p, 0); err != nil && len(p) > 0 || !bytes.Equal(p, npyData(want)) {
			t.Errorf("tensor %v is %x, %v", want, p, err)
		}
	}
}

func TestWriteNPZ(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.NPZ")
	write(t, path, npyTensors, map[string]string{"format": "pt"}, npyData)
	checkArchive(t, path)
	first, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	reversed := slices.Clone(npyTensors)
	slices.Reverse(reversed)
	write(t, path, reversed, nil, npyData)
	if again, err := os.ReadFile(path); !bytes.Equal(again, first) {
		t.Errorf("from the tensors in another order, other bytes, %v", err)
	}
	empty := filepath.Join(t.TempDir(), "empty.npz")
	write(t, empty, nil, nil, nil)
	if m := open(t, empty); len(m.Tensors()) != 0 {
		t.Errorf("tensors %v", m.Tensors())
	}

	// What is written for sizes and offsets beyond 32 bits, with a lower limit.
	for _, limit := range []int64{0, 130, 400} {
		l, err := layOutNPZ(npyTensors, limit)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "wide.npz")
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, b := range l.blocks {
			if _, err := f.WriteAt(b.bytes, b.offset); err != nil {
				t.Fatal(err)
			}
		}
		for _, e := range l.entries {
			if _, err := f.WriteAt(npyData(e.Tensor), e.offset); err != nil {
				t.Fatal(err)
			}
		}
		if err := l.finish(t.Context(), &atomicFile{file: f}); err != nil {
			t.Fatal(err)
		}
		if info, err := f.Stat(); err != nil || info.Size() != l.size {
			t.Errorf("limit %d: %d bytes, want %d", limit, info.Size(), l.size)
		}
		f.Close()
		checkArchive(t, path)
	}
}

// A member beyond 4 GiB has its offset in the extra field.
func TestZip64Offset(t *testing.T) {
	m := zipMember{name: "a.npy", begin: 5 << 30, size: 10}
	got := m.appendCentral(nil, zip64Mark)
	extra := []byte{1, 0, 8, 0, 0, 0, 0, 0x40, 1, 0, 0, 0}
	if !bytes.HasSuffix(got, extra) || !bytes.Equal(got[42:46], []byte{0xff, 0xff, 0xff, 0xff}) || got[6] != zip64Version {
		t.Errorf("entry % x", got)
	}
}

// More members than 16 bits count.
func TestWriteNPZOfMany(t *testing.T) {
	if testing.Short() {
		t.Skip("writes 70000 members")
	}
	var tensors []Tensor
	for i := range 70000 {
		tensors = append(tensors, Tensor{Name: fmt.Sprint(i), DType: U8, Shape: []int64{0}})
	}
	path := filepath.Join(t.TempDir(), "a.npz")
	write(t, path, tensors, nil, func(Tensor) []byte { return nil })
	if m := open(t, path); len(m.Tensors()) != len(tensors) {
		t.Errorf("%d tensors", len(m.Tensors()))
	}
	// Readers that believe the count need it in the wide record.
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if end := b[len(b)-98:]; !bytes.HasPrefix(end, []byte("PK\x06\x06")) || binary.LittleEndian.Uint64(end[32:]) != 70000 {
		t.Errorf("end of the archive: % x", end)
	}
}

// Arrays of NumPy that are in C's order are written as NumPy writes them, byte by byte.
func TestWriteNPY(t *testing.T) {
	n := 0
	for _, name := range []string{
		"b1", "i1", "u1", "i2_little", "i4_little", "i8_little", "u2_little", "u4_little", "u8_little", "f2_little", "f4_little",
		"f8_little", "c8_little", "f4_scalar", "f4_vector", "f4_empty",
	} {
		from := filepath.Join("testdata", "numpy", name+".npy")
		want, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		m := open(t, from)
		path := filepath.Join(t.TempDir(), "a.npy")
		tensor := m.Tensors()[0]
		tensor.Name = "any"
		write(t, path, []Tensor{tensor}, nil, func(tensor Tensor) []byte {
			p := make([]byte, tensor.Bytes())
			m.ReadAt(arrayName, p, 0)
			return p
		})
		if got, err := os.ReadFile(path); !bytes.Equal(got, want) {
			t.Errorf("%s: %q, %v, want %q", name, got, err, want)
		}
		n++
	}
	if n != 16 {
		t.Errorf("%d files", n)
	}
}

func TestWriteNumPyErrors(t *testing.T) {
	dir := t.TempDir()
	a := Tensor{Name: "a", DType: F32, Shape: []int64{1}}
	for _, test := range []struct {
		file    string
		tensors []Tensor
		want    string
	}{
		{"a.npy", nil, "0 tensors, want 1 in a file of NumPy's: more fit into one that ends with .npz"},
		{"a.npy", []Tensor{a, a}, "2 tensors, want 1 in a file of NumPy's: more fit into one that ends with .npz"},
		{"a.npy", []Tensor{{Name: "a", DType: BF16}}, `tensor "a": dtype: no such dtype in NumPy files: BF16, want one that they have, such as F32`},
		{"a.npy", []Tensor{{Name: "a", DType: U8, Shape: []int64{-1}}}, `tensor "a": shape [-1]: dimension 0 is negative`},
		{"a.npz", []Tensor{a, a}, `tensor "a": given twice`},
		{"a.npz", []Tensor{{Name: "a", DType: F8E4M3}}, `tensor "a": dtype: no such dtype in NumPy files: F8_E4M3, want one that they have, such as F32`},
		{"a.npz", []Tensor{{Name: "../a", DType: U8}}, `tensor "../a": the name leads out of the archive`},
		{"a.npz", []Tensor{{Name: "/a", DType: U8}}, `tensor "/a": the name is an absolute path`},
		{"a.npz", []Tensor{{Name: "\xff", DType: U8}}, `tensor "\xff": the name is not valid UTF-8`},
		{
			"a.npz",
			[]Tensor{{Name: "a", DType: U8, Shape: make([]int64, 65)}},
			`tensor "a": shape [0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 …]: 65 dimensions, NumPy has at most 64`,
		},
		{
			"a.npz",
			[]Tensor{{Name: strings.Repeat("a", 65532), DType: U8}},
			`tensor "` + strings.Repeat("a", 200) + `"…: a name of 65536 bytes, an archive has at most 65535`,
		},
		{
			"a.npz",
			[]Tensor{{Name: "a", DType: U8, Shape: []int64{1<<61 - 1}}, {Name: "b", DType: U8, Shape: []int64{1<<61 - 1}}},
			`tensor "b": the file would have more than 4611686018427387904 bytes`,
		},
	} {
		path := filepath.Join(dir, test.file)
		_, err := Create(path, test.tensors, nil)
		wantError(t, err, path, test.file+": "+test.want)
		wantFiles(t, dir)
	}

	// A checksum that cannot be made is an error of Commit.
	path := filepath.Join(dir, "a.npz")
	w := create(t, path, []Tensor{a}, nil)
	if _, err := w.WriteAt("a", make([]byte, 4), 0); err != nil {
		t.Fatal(err)
	}
	if err := w.out.(*atomicFile).file.Truncate(10); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("error %v", err)
	}
	wantFiles(t, dir)
}
