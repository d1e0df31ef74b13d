package checkpoint

import (
	"archive/zip"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// What NumPy has written is read as NumPy says; testdata/numpy_files.py made the files.
func TestNumPyFiles(t *testing.T) {
	text, err := os.ReadFile("testdata/numpy/expected.txt")
	if err != nil {
		t.Fatal(err)
	}
	tensors := make(map[string]int)
	for line := range strings.Lines(string(text)) {
		fields := strings.Split(strings.TrimSuffix(line, "\n"), "\t")
		file, name := fields[0], fields[1]
		tensors[file]++
		m := open(t, filepath.Join("testdata", "numpy", file))
		r, err := m.TensorReader(name)
		if err != nil {
			t.Error(err)
			continue
		}
		if got := r.Tensor(); got.DType.String() != fields[2] || got.ShapeString() != fields[3] {
			t.Errorf("%s: tensor %v, want %s %s", file, got, fields[2], fields[3])
		}
		want, err := hex.DecodeString(fields[4])
		if err != nil {
			t.Fatal(err)
		}
		if r.Size() != int64(len(want)) {
			t.Errorf("%s: %d bytes, want %d", file, r.Size(), len(want))
			continue
		}
		// Every part of it, wherever it begins and ends.
		for begin := range want {
			for end := begin + 1; end <= len(want); end++ {
				got := make([]byte, end-begin)
				if n, err := r.ReadAt(got, int64(begin)); n != len(got) || err != nil || !bytes.Equal(got, want[begin:end]) {
					t.Fatalf("%s: tensor %q, bytes %d to %d: %x, %v, want %x", file, name, begin, end, got, err, want[begin:end])
				}
			}
		}
		if n, err := r.ReadAt(make([]byte, len(want)+1), 0); n != len(want) || err != io.EOF {
			t.Errorf("%s: beyond the end: %d, %v", file, n, err)
		}
	}
	for file, n := range tensors {
		m := open(t, filepath.Join("testdata", "numpy", file))
		if len(m.Tensors()) != n || m.Metadata() != nil || m.Dir() != "" || m.Shards()[0].File != file {
			t.Errorf("%s: tensors %v, metadata %v, shards %v", file, m.Tensors(), m.Metadata(), m.Shards())
		}
	}
	if len(tensors) < 40 {
		t.Errorf("only %d files", len(tensors))
	}
}

// npyFile returns a file of version 1.
func npyFile(header string, data int) []byte {
	b := append([]byte(npyMagic), 1, 0)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(header)))
	b = append(b, header...)
	return append(b, counting(0, data)...)
}

// fortranFile returns a file of 16-bit numbers that count up, row-major, from zero.
func fortranFile(shape []int64) (file, want []byte) {
	n := int64(1)
	for _, d := range shape {
		n *= d
	}
	data := make([]byte, 2*n)
	for i := range n {
		want = binary.LittleEndian.AppendUint16(want, uint16(i))
		// The place of an element is calculated from its indices, which come from its number.
		rest, stride := i, n
		var index []int64
		for _, d := range shape {
			stride /= d
			index = append(index, rest/stride)
			rest %= stride
		}
		place, step := int64(0), int64(1)
		for k, d := range shape {
			place += index[k] * step
			step *= d
		}
		binary.LittleEndian.PutUint16(data[2*place:], uint16(i))
	}
	text := strings.ReplaceAll(strings.Trim(fmt.Sprint(shape), "[]"), " ", ",")
	file = npyFile(fmt.Sprintf("{'descr':'<u2','fortran_order':True,'shape':(%s)}", text), 0)
	return append(file, data...), want
}

// Runs that are far apart, gaps that are read, and more than a window of both.
func TestFortranOrder(t *testing.T) {
	for _, shape := range [][]int64{
		{2, 40000}, {40000, 2}, {300, 301}, {7, 11, 13, 17}, {2, 2, 2, 2, 2, 2, 2, 3}, {1, 5, 1, 7}, {9000, 2, 5}, {5, 2, 9000},
	} {
		file, want := fortranFile(shape)
		path := filepath.Join(t.TempDir(), "a.npy")
		if err := os.WriteFile(path, file, 0o666); err != nil {
			t.Fatal(err)
		}
		r, err := open(t, path).TensorReader("array")
		if err != nil {
			t.Fatal(err)
		}
		for _, size := range []int{len(want), 1001, 8192, 50000} {
			if size > len(want) {
				continue
			}
			for begin := 0; begin < len(want); begin += size {
				end := min(begin+size, len(want))
				got := make([]byte, end-begin)
				if _, err := r.ReadAt(got, int64(begin)); err != nil || !bytes.Equal(got, want[begin:end]) {
					t.Fatalf("shape %v, bytes %d to %d: error %v or other data", shape, begin, end, err)
				}
			}
		}
	}
}

func TestNPYErrors(t *testing.T) {
	v := func(major, minor byte, length uint32, text string) []byte {
		b := append([]byte(npyMagic), major, minor)
		return append(binary.LittleEndian.AppendUint32(b, length), text...)
	}
	const good = "{'descr':'<f4','fortran_order':False,'shape':(2,)}"
	for _, test := range []struct {
		file []byte
		want string
	}{
		{nil, "0 bytes, want at least 10 for the beginning of a header"},
		{[]byte("\x93NUMPX\x01\x00\x00\x00"), `begins with "\x93NUMPX", want "\x93NUMPY"`},
		{v(0, 0, 0, ""), "version 0.0, want 1.0, 2.0 or 3.0"},
		{v(4, 0, 0, ""), "version 4.0, want 1.0, 2.0 or 3.0"},
		{v(1, 1, 0, ""), "version 1.1, want 1.0, 2.0 or 3.0"},
		{v(2, 0, 0, "")[:11], "11 bytes, want at least 12 for the beginning of a header"},
		{v(2, 0, 1<<32-1, ""), "header over the limit: 4294967295 bytes, limit 65536"},
		{v(3, 0, 65537, ""), "header over the limit: 65537 bytes, limit 65536"},
		{v(2, 0, 9, "{}"), "header of 9 bytes, but only 2 bytes follow its length"},
		{npyFile("", 0), "header byte 0: got the end, want '{'"},
		{npyFile("{}", 0), "no descr"},
		{npyFile("{'descr':'<f4','shape':()}", 4), "no fortran_order"},
		{npyFile("{'descr':'<f4','fortran_order':False}", 4), "no shape"},
		{npyFile("{'descr':'<f4','descr':'<f4','fortran_order':False,'shape':()}", 4), "descr: given twice"},
		{npyFile("{'descr':'<f4','fortran_order':False,'shape':(),'x':1}", 4), `key "x", want descr, fortran_order and shape only`},
		{npyFile(good+"x", 8), "header byte 50: got \"x\", want the end of the header"},
		{npyFile(good[:len(good)-1], 8), "header byte 49: got the end, want ',' or '}'"},
		{npyFile(good, 7), "7 bytes of data, want 8 for F32 [2]"},
		{npyFile(good, 9), "9 bytes of data, want 8 for F32 [2]"},
		{
			npyFile("{'shape':(1099511627776,),'fortran_order':False,'descr':'<f4'}", 9),
			"9 bytes of data, want 4398046511104 for F32 [1099511627776]",
		},
		{
			npyFile("{'shape':(4294967296,4294967296),'fortran_order':False,'descr':'<f4'}", 9),
			"shape [4294967296 4294967296]: the number of elements overflows 64 bits",
		},
		{npyFile("{'shape':(-2,),", 0), `shape: header byte 10: got "-", want a dimension, an integer of zero or more`},
		{npyFile("{'shape':(2.0,),", 0), `shape: header byte 11: got ".", want ',' or ')'`},
		{npyFile("{'shape':(2),", 0), `shape: header byte 11: got ")", want ',' in a tuple of one`},
		{npyFile("{'shape':(,),", 0), `shape: header byte 10: got ",", want a dimension, an integer of zero or more`},
		{npyFile("{'shape':(02,),", 0), `shape: header byte 10: got "0", want an integer without a leading zero`},
		{npyFile("{'shape':(9223372036854775808,),", 0), `shape: dimension "9223372036854775808" is over 9223372036854775807`},
		{npyFile("{'shape':("+strings.Repeat("1,", 65)+"),", 0), "shape: more than 64 dimensions"},
		{npyFile("{'shape':[2],", 0), `shape: header byte 9: got "[", want a tuple`},
		{npyFile("{'fortran_order':1,", 0), `fortran_order: header byte 17: got "1", want True or False`},
		{npyFile("{descr:'<f4',", 0), `header byte 1: got "d", want a key in quotes, or '}'`},
		{npyFile("{'descr'", 0), "header byte 8: got the end, want ':'"},
		{npyFile(`{'descr':'\x3cf4'`, 0), `descr: header byte 10: got "\\", want printable characters without escapes in a string`},
		{npyFile("{'descr':'<f4", 0), "descr: header byte 13: got the end, want a quote at the end of a string"},
		{npyFile("{'descr':''", 0), `descr: "" is no type`},
		{npyFile("{'descr':'f4'", 0), `descr: "f4": not a type that is read, want one of < > | and b1, i1 to i8, u1 to u8, f2, f4, f8 or c8`},
		{npyFile("{'descr':'xf4'", 0), `descr: "xf4": begins with 'x', want one of < > |`},
		{npyFile("{'descr':'|f4'", 0), `descr: "|f4": does not say the order of bytes, want < or >`},
		{npyFile("{'descr':'=f4'", 0), `descr: "=f4": does not say the order of bytes, want < or >`},
	} {
		path := filepath.Join(t.TempDir(), "a.npy")
		if err := os.WriteFile(path, test.file, 0o666); err != nil {
			t.Fatal(err)
		}
		m, err := Open(path)
		if err == nil {
			m.Close()
		}
		wantError(t, err, path, "a.npy: "+test.want)
		var format *FormatError
		if !errors.As(err, &format) {
			t.Errorf("%v is no FormatError", err)
		}
	}
	for file, want := range map[string]string{
		"object.npy": `object.npy: descr: "|O": objects of Python, which are not read: it would mean to run what a stranger wrote`,
		"void2.npy": `void2.npy: descr: "|V2": elements of two bytes without a type, which is also how bfloat16 is stored: ` +
			"not read without being told their dtype",
		"structured.npy": "structured.npy: descr: a structured type, want a plain one",
		"complex128.npy": `complex128.npy: descr: "<c16": not a type that is read, want one of < > | and b1, i1 to i8, u1 to u8, f2, f4, f8 or c8`,
		"string.npy":     `string.npy: descr: "<U4": not a type that is read, want one of < > | and b1, i1 to i8, u1 to u8, f2, f4, f8 or c8`,
		"bzip2.npz":      `bzip2.npz: member "a.npy": compression method 12, want 0 (stored) or 8 (deflated)`,
	} {
		path := filepath.Join("testdata", "numpy", file)
		m, err := Open(path)
		if err == nil {
			m.Close()
		}
		wantError(t, err, path, want)
	}
	for _, good := range []string{
		good, "{'shape':(2,),'descr':\"<f4\",'fortran_order':False,}", " { 'shape' : ( 2L , ) , 'fortran_order' : True , 'descr' : '<f4' } \n",
	} {
		path := filepath.Join(t.TempDir(), "a.NPY")
		if err := os.WriteFile(path, npyFile(good, 8), 0o666); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(open(t, path).Tensors()); got != `["array" F32 [2]]` {
			t.Errorf("header %s: %s", good, got)
		}
	}
}

// zipFile makes an archive; every member is written as its header says, with the data as it is.
func zipFile(t testing.TB, members ...zip.FileHeader) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for i := range members {
		m := &members[i]
		data := []byte(m.Comment)
		m.Comment = ""
		if m.CompressedSize64 == 0 {
			m.CompressedSize64 = uint64(len(data))
		}
		if m.UncompressedSize64 == 0 {
			m.UncompressedSize64 = uint64(len(data))
		}
		m.CRC32 = crc32.ChecksumIEEE(data)
		f, err := w.CreateRaw(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(data); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestNPZErrors(t *testing.T) {
	array := string(npyFile("{'descr':'|u1','fortran_order':False,'shape':(2,)}", 2))
	member := func(name string) zip.FileHeader { return zip.FileHeader{Name: name, Comment: array} }
	for _, test := range []struct {
		file []byte
		want string
	}{
		{nil, "a.npz: zip archive: zip: not a valid zip file"},
		{zipFile(t, member("a")), `a.npz: member "a": want a name that ends with .npy`},
		{zipFile(t, member("/a.npy")), `a.npz: member "/a.npy": the name is an absolute path`},
		{zipFile(t, member("../a.npy")), `a.npz: member "../a.npy": the name leads out of the archive`},
		{zipFile(t, member("a/../../a.npy")), `a.npz: member "a/../../a.npy": the name leads out of the archive`},
		{zipFile(t, member(`a\b.npy`)), `a.npz: member "a\\b.npy": the name has a backslash or a zero byte`},
		{zipFile(t, member("\xff.npy")), `a.npz: member "\xff.npy": the name is not valid UTF-8`},
		{zipFile(t, member("a.npy"), member("b.npy"), member("a.npy")), `a.npz: tensor "a": given twice`},
		{zipFile(t, zip.FileHeader{Name: "a.npy", Comment: array, Flags: 1}), `a.npz: member "a.npy": is encrypted, or a patch of other data`},
		{
			zipFile(t, zip.FileHeader{Name: "a.npy", Comment: array, UncompressedSize64: 70}),
			fmt.Sprintf(`a.npz: member "a.npy": stored, but 70 bytes are %d in the archive`, len(array)),
		},
		{
			zipFile(t, zip.FileHeader{Name: "a.npy", Comment: array, UncompressedSize64: 1000, CompressedSize64: 1000}),
			`a.npz: member "a.npy": 1000 bytes at byte 35, but the file has `,
		},
		{
			zipFile(t, zip.FileHeader{Name: "a.npy", Comment: "\x93NUMPX1234"}),
			`a.npz: member "a.npy": begins with "\x93NUMPX", want "\x93NUMPY"`,
		},
	} {
		path := filepath.Join(t.TempDir(), "a.npz")
		if err := os.WriteFile(path, test.file, 0o666); err != nil {
			t.Fatal(err)
		}
		m, err := Open(path)
		if err == nil {
			m.Close()
			t.Errorf("no error, want %s", test.want)
			continue
		}
		if got := strings.TrimPrefix(err.Error(), filepath.Dir(path)+"/"); !strings.HasPrefix(got, test.want) {
			t.Errorf("error\n  %s\nwant\n  %s", got, test.want)
		}
	}
	var names []zip.FileHeader
	for i := range 10000 {
		names = append(names, member(fmt.Sprint(i, ".npy")))
	}
	path := filepath.Join(t.TempDir(), "a.npz")
	if err := os.WriteFile(path, zipFile(t, names...), 0o666); err != nil {
		t.Fatal(err)
	}
	_, err := Open(path, WithHeaderLimit(1000))
	wantError(t, err, path, "a.npz: zip archive: header over the limit: the directory of the archive, limit 1000 bytes")
	if m := open(t, path); len(m.Tensors()) != 10000 {
		t.Errorf("%d tensors", len(m.Tensors()))
	}
}

// deflated returns an archive of one deflated member that says to have size bytes.
func deflated(t testing.TB, content []byte, size uint64) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	f, err := w.Create("a.npy")
	if err != nil {
		t.Fatal(err)
	}
	f.Write(content)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := zip.NewReader(bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := r.File[0].OpenRaw()
	if err != nil {
		t.Fatal(err)
	}
	data, err := io.ReadAll(raw)
	if err != nil {
		t.Fatal(err)
	}
	h := r.File[0].FileHeader
	h.UncompressedSize64 = size
	h.Comment = string(data)
	h.CRC32 = 0
	return zipFile(t, h)
}

// What a deflated member says of its size, what its array says, and what comes out have to be the same.
func TestDeflatedBomb(t *testing.T) {
	header := func(n int64) []byte {
		return npyFile(fmt.Sprintf("{'descr':'|u1','fortran_order':False,'shape':(%d,)}", n), 0)
	}
	bomb := append(header(10), make([]byte, 10_000_000)...)
	for _, test := range []struct {
		file []byte
		open string
		read string
	}{
		{deflated(t, bomb, uint64(len(bomb))), `a.npz: member "a.npy": 10000000 bytes of data, want 10 for U8 [10]`, ""},
		{deflated(t, bomb, uint64(len(header(10))+10)), "", "want"},
		{deflated(t, append(header(1<<40), 1), uint64(len(header(1<<40)))+1<<40), "", "EOF"},
	} {
		path := filepath.Join(t.TempDir(), "a.npz")
		if err := os.WriteFile(path, test.file, 0o666); err != nil {
			t.Fatal(err)
		}
		m, err := Open(path, WithInflateLimit(1<<50)) // what it says is no matter here
		if test.open != "" {
			wantError(t, err, path, test.open)
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			_, err = m.ReadAt("a", make([]byte, 1), 0)
			if err == nil || !strings.HasPrefix(err.Error(), path+`: tensor "a": read 0 of 1 bytes at byte 0: inflate "a.npy": `) {
				t.Errorf("error %v, want %s", err, test.read)
			}
		}
		if err := m.Close(); err != nil {
			t.Error(err)
		}
	}
}

// The limit is one for the directory of the archive, not for its data.
func TestHeaderLimitOfNPZ(t *testing.T) {
	content := npyFile("{'descr':'|u1','fortran_order':False,'shape':(1000000,)}", 0)
	x := uint32(1)
	for range 1_000_000 {
		x = x*1664525 + 1013904223
		content = append(content, byte(x>>24))
	}
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	f, err := w.Create("a.npy")
	if err != nil {
		t.Fatal(err)
	}
	f.Write(content)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "a.npz")
	if err := os.WriteFile(path, b.Bytes(), 0o666); err != nil {
		t.Fatal(err)
	}
	m := open(t, path, WithHeaderLimit(1))
	got := make([]byte, 1_000_000)
	if _, err := m.ReadAt("a", got, 0); err != nil || !bytes.Equal(got, content[len(content)-len(got):]) {
		t.Errorf("error %v or other data", err)
	}
}

// A deflated member is read from many goroutines, and not after Close; nothing is left.
func TestDeflatedMember(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	m, err := Open("testdata/numpy/deflated.npz")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if n, err := m.ReadAt("w", make([]byte, 24), 0); n != 24 || err != nil {
				t.Errorf("%d bytes, %v", n, err)
			}
		})
	}
	wg.Wait()
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if _, err := m.ReadAt("w", make([]byte, 24), 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
	wantFiles(t, temp)
}

// Elements of two bytes without a type are read if they are given one: as they are, from either order of bytes.
func TestVoid2(t *testing.T) {
	for descr, want := range map[string][]byte{"|V2": {0, 1, 2, 3}, "<V2": {0, 1, 2, 3}, ">V2": {1, 0, 3, 2}} {
		path := filepath.Join(t.TempDir(), "a.npy")
		file := npyFile("{'descr': '"+descr+"', 'fortran_order': False, 'shape': (2,), }", 4)
		for i := range 4 {
			file[len(file)-4+i] = byte(i)
		}
		if err := os.WriteFile(path, file, 0o666); err != nil {
			t.Fatal(err)
		}
		if m, err := Open(path); !errors.Is(err, ErrUntyped) {
			if err == nil {
				m.Close()
			}
			t.Errorf("%s: %v, want an error that wraps ErrUntyped", descr, err)
		}
		for _, d := range []DType{BF16, F16, I16, U16} {
			m := open(t, path, WithVoid2As(d))
			got := make([]byte, 4)
			if _, err := m.ReadAt(arrayName, got, 0); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: read %v, %v, want %v", descr, got, err, want)
			}
			if tensor, _ := m.Tensor(arrayName); tensor.DType != d || tensor.Elements() != 2 {
				t.Errorf("%s as %v: %v", descr, d, tensor)
			}
		}
		for _, d := range []DType{F32, F8E4M3, lastDType + 1} {
			m, err := Open(path, WithVoid2As(d))
			if err == nil {
				m.Close()
			}
			if want := fmt.Sprintf("elements of two bytes as %v: want a dtype of 16 bits", d); err == nil || err.Error() != want {
				t.Errorf("%v, want %s", err, want)
			}
		}
	}
	// All others are as they were.
	m := open(t, filepath.Join("testdata", "numpy", "stored.npz"), WithVoid2As(BF16))
	if got, want := fmt.Sprint(m.Tensors()), fmt.Sprint(open(t, filepath.Join("testdata", "numpy", "stored.npz")).Tensors()); got != want {
		t.Errorf("tensors %s, want %s", got, want)
	}
}
