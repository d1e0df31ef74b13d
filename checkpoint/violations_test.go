package checkpoint

import (
	"archive/zip"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// violationsIn returns the texts of the violations, without the directory of path.
func violationsIn(path string, opts ...OpenOption) []string {
	var list []string
	for err := range Violations(path, opts...) {
		list = append(list, strings.ReplaceAll(err.Error(), filepath.Dir(path)+string(filepath.Separator), ""))
	}
	return list
}

func wantViolations(t *testing.T, path string, want ...string) {
	t.Helper()
	if got := violationsIn(path); !slices.Equal(got, want) {
		t.Errorf("violations of %s\n  %s\nwant\n  %s", path, strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

// A header with everything that can be wrong with it, besides tensors with which nothing is.
func TestViolations(t *testing.T) {
	for _, test := range []struct {
		header string
		data   int
		want   []string
	}{
		{`{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}`, 4, nil},
		{
			`{"__metadata__":{"k":1,"k":"v","j":[]},` +
				`"good":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},` +
				`"dtype":{"dtype":"F31","shape":[1],"data_offsets":[4,8]},` +
				`"size":{"dtype":"F32","shape":[3],"data_offsets":[8,16]},` +
				`"overlap":{"dtype":"F32","shape":[2],"data_offsets":[12,20]},` +
				`"good":{"dtype":"U8","shape":[],"data_offsets":[20,21]},` +
				`"gap":{"dtype":"U8","shape":[1],"data_offsets":[23,24]},` +
				`"none":{},"number":7,` +
				`"twice":{"dtype":"U8","dtype":"U8","shape":[2.5],"data_offsets":[24,25]},` +
				`"out":{"dtype":"F64","shape":[1],"data_offsets":[25,33]},` +
				`"far":{"dtype":"F64","shape":[1],"data_offsets":[33,41]},` +
				`"__metadata__":null}`, 30,
			[]string{
				`m.safetensors: __metadata__: key "k": header byte 21: got '1', want a string`,
				`m.safetensors: __metadata__: key "k": given twice`,
				`m.safetensors: __metadata__: key "j": header byte 35: got '[', want a string`,
				`m.safetensors: tensor "dtype": dtype: unknown dtype "F31"`,
				`m.safetensors: tensor "size": data_offsets [8,16]: 8 bytes, want 12 for F32 [3]`,
				`m.safetensors: tensor "none": no dtype`,
				`m.safetensors: tensor "none": no shape`,
				`m.safetensors: tensor "none": no data_offsets`,
				`m.safetensors: tensor "number": header byte 401: got '7', want an object`,
				`m.safetensors: tensor "twice": dtype: given twice`,
				`m.safetensors: tensor "twice": shape: header byte 448: got '.', want an unsigned integer`,
				`m.safetensors: __metadata__: given twice`,
				`m.safetensors: tensor "good": given twice`,
				`m.safetensors: tensor "overlap": data_offsets [12,20]: it overlaps another tensor, want it to begin at 16`,
				`m.safetensors: tensor "out": data_offsets [25,33]: the file is truncated, it has 30 bytes of data, want 41, which cuts 2 of 9 tensors`,
			},
		},
		{ // two fields of one tensor
			`{"a":{"dtype":"X","shape":[1],"data_offsets":[8,4]},"b":{"dtype":"U8","shape":[],"data_offsets":[0,-1]}}`, 4,
			[]string{
				`m.safetensors: tensor "a": dtype: unknown dtype "X"`,
				`m.safetensors: tensor "a": data_offsets [8,4]: the end is before the beginning`,
				`m.safetensors: tensor "b": data_offsets: header byte 99: got '-', want an unsigned integer`,
			},
		},
		{ // every tensor is known, so that holes are
			`{"c":{"dtype":"U8","shape":[1],"data_offsets":[9,10]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]},` +
				`"b":{"dtype":"U7","shape":[1],"data_offsets":[4,5]}}`, 12,
			[]string{
				`m.safetensors: tensor "b": dtype: unknown dtype "U7"`,
				`m.safetensors: tensor "a": data_offsets [1,2]: a hole before it, want it to begin at 0`,
				`m.safetensors: tensor "b": data_offsets [4,5]: a hole before it, want it to begin at 2`,
				`m.safetensors: tensor "c": data_offsets [9,10]: a hole before it, want it to begin at 5`,
				`m.safetensors: 12 bytes of data, want 10: 2 bytes after the last tensor`,
			},
		},
		{
			`{"a":{"dtype":"U7","shape":[1],"data_offsets":[0,1]},"b":x}`, 1,
			[]string{
				`m.safetensors: tensor "a": dtype: unknown dtype "U7"`,
				`m.safetensors: header byte 57: got 'x', want a value`,
			},
		},
	} {
		wantViolations(t, writeFile(t, fileBytes(test.header, test.data)), test.want...)
	}
	missing := filepath.Join(t.TempDir(), "none")
	list := slices.Collect(Violations(missing))
	if len(list) != 1 || !errors.Is(list[0], fs.ErrNotExist) {
		t.Errorf("violations of a missing file %v", list)
	}
	for range Violations(writeFile(t, fileBytes(`{"a":{},"b":{}}`, 9))) {
		break // would panic if more were yielded
	}
}

// Whatever is done to a file, there are violations exactly if it cannot be opened, and what Open says is among them,
// unless it is about an object that is no valid JSON.
func TestViolationsAgainstOpen(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	header := `{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,1],"data_offsets":[0,8]},` +
		`"b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]},"c":{"dtype":"I8","shape":[],"data_offsets":[11,12]}}`
	pieces := strings.Fields("\" { } [ ] , : 0 1 8 9 \"a\" \"dtype\" \"F16\" null {} \"shape\":[1],")
	path := filepath.Join(t.TempDir(), "m.safetensors")
	valid, same := 0, 0
	const runs = 5000
	for range runs {
		text := header
		for range r.IntN(3) {
			i, n := r.IntN(len(text)), r.IntN(3)
			text = text[:i] + pieces[r.IntN(len(pieces))] + text[min(i+n, len(text)):]
		}
		if err := os.WriteFile(path, fileBytes(text, 12+max(0, r.IntN(12)-9)), 0o666); err != nil {
			t.Fatal(err)
		}
		m, err := Open(path)
		list := slices.Collect(Violations(path))
		if (err == nil) != (list == nil) {
			t.Fatalf("header %s\nOpen: %v\nviolations: %v", text, err, list)
		}
		if err == nil {
			m.Close()
			valid++
			continue
		}
		if slices.ContainsFunc(list, func(v error) bool { return v.Error() == err.Error() }) {
			same++
			continue
		}
		// Open has read the beginning of an object of which the rest is broken.
		if last := list[len(list)-1]; !errors.As(last, new(*syntaxError)) {
			t.Errorf("header %s\nOpen: %v\nviolations: %v", text, err, list)
		}
	}
	if valid < runs/20 || same < runs/20 {
		t.Errorf("%d files are valid, and of %d the error of Open is a violation", valid, same)
	}
}

func TestViolationsOfShards(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	shard := func(name string, tensors ...string) {
		var list []string
		for i, tensor := range tensors {
			list = append(list, fmt.Sprintf(`%q:{"dtype":"U8","shape":[1],"data_offsets":[%d,%d]}`, tensor, i, i+1))
		}
		file(name, string(fileBytes("{"+strings.Join(list, ",")+"}", len(tensors))))
	}
	shard("1.safetensors", "a", "b", "extra")
	shard("2.safetensors", "c", "moved")
	shard("3.safetensors")
	index := func(size string) {
		file(indexName, `{"metadata":{"total_size":`+size+`},"weight_map":{"a":"1.safetensors","b":"1.safetensors",`+
			`"moved":"1.safetensors","lost":"1.safetensors","c":"2.safetensors","gone":"2.safetensors","d":"3.safetensors",`+
			`"e":"4.safetensors","a":"2.safetensors","f":"../f","g":7}}`)
	}
	index("4")
	path := filepath.Join(dir, indexName)
	const i = indexName + ": "
	_, missing := os.Stat(filepath.Join(dir, "4.safetensors"))
	wrong := []string{
		i + `tensor "a": given twice`,
		i + `tensor "f": shard "../f": has one of / \ : in it, want a file name in the directory of the model`,
		i + `tensor "g": index byte 248: got '7', want a string, the name of a file`,
		i + `shard "4.safetensors": ` + strings.ReplaceAll(missing.Error(), dir+string(filepath.Separator), ""),
		i + `tensor "extra": is in shard "1.safetensors", but not in the weight_map`,
		i + `tensor "moved": is in shard "2.safetensors", but the weight_map says "1.safetensors"`,
		i + `tensor "d": the weight_map says shard "3.safetensors", which has no such tensor`,
		i + `tensor "gone": the weight_map says shard "2.safetensors", which has no such tensor`,
		i + `tensor "lost": the weight_map says shard "1.safetensors", which has no such tensor`,
	}
	wantViolations(t, path, wrong...)
	shard("4.safetensors", "e")
	wrong = slices.Delete(wrong, 3, 4)
	size := i + `metadata: total_size: got 4, want 6, the bytes of all tensors`
	wantViolations(t, path, append(slices.Clone(wrong), size)...)
	if got := violationsIn(dir); len(got) != 9 {
		t.Errorf("violations of the directory %q", got)
	}
	for _, right := range []string{"6", "6.0", " 0.6e1"} {
		index(right)
		wantViolations(t, path, func() []string {
			list := slices.Clone(wrong)
			list[2] = strings.Replace(list[2], "248", fmt.Sprint(248+len(right)-1), 1)
			return list
		}()...)
	}

	// What is wrong in a shard is said with it. Of a shard that cannot be read no tensor is missed.
	file("4.safetensors", string(fileBytes(`{"e":{"dtype":"U7","shape":[1],"data_offsets":[0,1]}}`, 2)))
	file("2.safetensors", "")
	file(indexName, `{"weight_map":{"a":"1.safetensors","b":"1.safetensors","extra":"1.safetensors","c":"2.safetensors",`+
		`"e":"4.safetensors"}}`)
	wantViolations(t, path,
		i+`shard "2.safetensors": 2.safetensors: 0 bytes, want at least 8 for the header's length`,
		i+`shard "4.safetensors": 4.safetensors: tensor "e": dtype: unknown dtype "U7"`,
		i+`shard "4.safetensors": 4.safetensors: 2 bytes of data, want 1: 1 bytes after the last tensor`)
	for text, want := range map[string]string{
		`{}`:                                 i + "no weight_map",
		`{"weight_map":{}}`:                  i + "weight_map: is empty, want one tensor at least",
		`{"weight_map":[]}`:                  i + "weight_map: index byte 14: got '[', want an object",
		`{"weight_map":{"a":"1"}`:            i + "index byte 23: got the end, want ',' or '}'",
		`{"weight_map":{"a":"1.safetensors"`: i + "index byte 34: got the end, want ',' or '}'",
	} {
		file(indexName, text)
		if got := violationsIn(path); len(got) == 0 || got[0] != want {
			t.Errorf("%s: %q, want %q", text, got, want)
		}
	}
}

func TestViolationsOfNumPy(t *testing.T) {
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for name, header := range map[string]string{
		"a.npy": "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), }",
		"b.npy": "{'descr': '|O', 'fortran_order': False, 'shape': (1,), }",
		"c":     "",
		"d.npy": "{'descr': '<V2', 'fortran_order': False, 'shape': (2,), }",
	} {
		f, err := w.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		f.Write(npyFile(header, 4))
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "m.npz")
	if err := os.WriteFile(path, b.Bytes(), 0o666); err != nil {
		t.Fatal(err)
	}
	got := violationsIn(path)
	slices.Sort(got)
	for i, want := range []string{
		`m.npz: member "b.npy": descr: "|O"`, `m.npz: member "c": want a name`, `m.npz: member "d.npy": descr: "<V2"`,
	} {
		if len(got) != 3 || !strings.HasPrefix(got[i], want) {
			t.Errorf("violations %q", got)
		}
	}
	if got := violationsIn(path, WithVoid2As(BF16)); len(got) != 2 {
		t.Errorf("violations with V2 as BF16 %q", got)
	}
}

// Every file of the tests has violations exactly if it cannot be opened.
func TestViolationsOfTestdata(t *testing.T) {
	err := filepath.WalkDir("testdata", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		m, err := Open(path)
		list := slices.Collect(Violations(path))
		if err == nil {
			m.Close()
			if list != nil {
				t.Errorf("%s: violations %v", path, list)
			}
		} else if !slices.ContainsFunc(list, func(v error) bool { return v.Error() == err.Error() }) {
			t.Errorf("%s: violations %v, want %v among them", path, list, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
