package checkpoint

import (
	"archive/zip"
	"bytes"
	"math/big"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// The reference for headers of NumPy files is the grammar as regular expressions.
var (
	npyDescr   = regexp.MustCompile(`^('[^']*'|"[^"]*")$`)
	npyType    = regexp.MustCompile(`^([<>][bciuf][0-9]|\|[biu]1)$`)
	npyShape   = regexp.MustCompile(`^\(\s*(|D\s*,|D(\s*,\s*D)+(\s*,)?)\s*\)$`)
	npyInteger = regexp.MustCompile(`\b(0|[1-9][0-9]*)L?`)
	npyEntry   = regexp.MustCompile(`^[ \t\r\n]*(?:'(descr|fortran_order|shape)'|"(descr|fortran_order|shape)")[ \t\r\n]*:[ \t\r\n]*` +
		`('[ -&(-\[\]-~]*'|"[ !#-\[\]-~]*"|True|False|\([0-9L, \t\r\n]*\))[ \t\r\n]*(,|\})`)
	npyEnd = regexp.MustCompile(`^[ \t\r\n]*$`)
)

// referenceNPY reports what is in the dictionary: type without its order, order, whether it is Fortran's, and shape.
func referenceNPY(text string, dataBytes int) (dtype DType, big, fortran bool, shape []int64, ok bool) {
	text, found := strings.CutPrefix(strings.TrimLeft(text, " \t\r\n"), "{")
	if !found {
		return
	}
	values := make(map[string]string)
	for {
		m := npyEntry.FindStringSubmatch(text)
		if m == nil {
			return
		}
		key := m[1] + m[2]
		if _, twice := values[key]; twice {
			return
		}
		values[key] = m[3]
		text = text[len(m[0]):]
		if rest := strings.TrimLeft(text, " \t\r\n"); m[4] == "," && strings.HasPrefix(rest, "}") {
			m[4], text = "}", rest[1:]
		}
		if m[4] == "}" {
			break
		}
	}
	if len(values) != 3 || !npyEnd.MatchString(text) || !npyDescr.MatchString(values["descr"]) {
		return
	}
	descr := strings.Trim(values["descr"], `'"`)
	if !npyType.MatchString(descr) || npyTypes[descr[1:]] == 0 {
		return
	}
	dtype = npyTypes[descr[1:]]
	big = descr[0] == '>' && descr[2] != '1'
	if fortran = values["fortran_order"] == "True"; !fortran && values["fortran_order"] != "False" {
		return
	}
	if !npyShape.MatchString(npyInteger.ReplaceAllString(values["shape"], "D")) {
		return
	}
	shape, ok = referenceShape(npyInteger.FindAllString(values["shape"], -1), dtype, dataBytes)
	return
}

// referenceShape returns the dimensions and whether an array of them has so many bytes.
func referenceShape(dims []string, d DType, dataBytes int) (shape []int64, ok bool) {
	n := big.NewInt(int64(d.Bits()))
	overflow := false
	product := big.NewInt(1)
	for _, text := range dims {
		x, _ := new(big.Int).SetString(strings.TrimSuffix(text, "L"), 10)
		if !x.IsInt64() {
			return nil, false
		}
		shape = append(shape, x.Int64())
		overflow = overflow || !product.Mul(product, x).IsUint64()
	}
	n.Mul(n, product)
	return shape, !overflow && len(shape) <= 64 && n.IsUint64() && n.Uint64() == 8*uint64(dataBytes)
}

func FuzzNPYHeader(f *testing.F) {
	for _, text := range []string{
		"", "{}", "{'descr':'<f4','fortran_order':False,'shape':(2,)}", `{"shape": (2, 1L), "descr": ">f4", 'fortran_order': True, }   ` + "\n",
		"{'descr':'|u1','fortran_order':False,'shape':()}", "{'descr':[('a','<f4')],'fortran_order':False,'shape':()}",
		"{'descr':'<f4','descr':'<f4','fortran_order':False,'shape':(2)}", "{'shape':(99999999999999999999,0),'descr':'<f4','fortran_order':False}",
		"{'shape':(4294967296,4294967296,0),'descr':'<f4','fortran_order':False}", "{'shape':(1,,2)", "{'descr':'|O'", "{'descr':'<V2'",
	} {
		for _, n := range []uint16{0, 1, 8} {
			f.Add([]byte(text), n)
		}
	}
	f.Fuzz(func(t *testing.T, text []byte, dataBytes uint16) {
		if len(text) > 1<<16-1 {
			return
		}
		file := append(npyFile(string(text), 0), make([]byte, dataBytes)...)
		got, err := readNPYHeader(bytes.NewReader(file), int64(len(file)), 0)
		dtype, big, fortran, shape, ok := referenceNPY(string(text), int(dataBytes))
		if ok != (err == nil) {
			t.Fatalf("header %q, %d bytes of data: %v, want ok %t", text, dataBytes, err, ok)
		}
		if err != nil {
			if len(err.Error()) > 2000 {
				t.Fatalf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		if got.dtype != dtype || got.bigEndian != big || got.fortran != fortran || !slices.Equal(got.shape, shape) {
			t.Fatalf("header %q: %+v, want %v %t %t %v", text, got, dtype, big, fortran, shape)
		}
		head, err := appendNPYHeader(nil, Tensor{DType: dtype, Shape: shape})
		if err != nil || len(head)%npyAlignment != 0 {
			t.Fatalf("header %q: %d bytes, %v", text, len(head), err)
		}
		back, err := readNPYHeader(bytes.NewReader(head), int64(len(head)+int(dataBytes)), 0)
		if err != nil || back.dtype != dtype || back.bigEndian || back.fortran || !slices.Equal(back.shape, shape) {
			t.Fatalf("written %q: %+v, %v", head, back, err)
		}
	})
}

// FuzzNPZ opens archives, and reads what opens. Whatever the bytes, there is no panic, an error is not long, and every
// tensor has the bytes that it says or an error.
func FuzzNPZ(f *testing.F) {
	for _, file := range []string{"stored.npz", "deflated.npz", "bzip2.npz"} {
		b, err := os.ReadFile(filepath.Join("testdata", "numpy", file))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	array := string(npyFile("{'descr':'|u1','fortran_order':False,'shape':(2,)}", 2))
	f.Add(zipFile(f, zip.FileHeader{Name: "a.npy", Comment: array}))
	f.Add(zipFile(f))
	path := filepath.Join(f.TempDir(), "a.npz")
	f.Fuzz(func(t *testing.T, file []byte) {
		if err := os.WriteFile(path, file, 0o666); err != nil {
			t.Fatal(err)
		}
		m, err := Open(path)
		if err != nil {
			if len(err.Error()) > 4000 {
				t.Fatalf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		defer m.Close()
		for _, tensor := range m.Tensors() {
			if tensor.Bytes() < 0 || tensor.Name+npyExtension == "" || checkMemberName(tensor.Name+npyExtension) != nil {
				t.Fatalf("tensor %v", tensor)
			}
			if tensor.Bytes() == 0 || tensor.Bytes() > 1<<20 {
				continue
			}
			p := make([]byte, tensor.Bytes())
			if n, err := m.ReadAt(tensor.Name, p, 0); err == nil && n != len(p) {
				t.Fatalf("tensor %v: %d bytes", tensor, n)
			}
		}
	})
}
