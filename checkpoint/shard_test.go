package checkpoint

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// smallFile returns a safetensors file of U8 tensors of two bytes, which count up from zero.
func smallFile(names ...string) []byte {
	header := "{"
	for i, name := range names {
		if i > 0 {
			header += ","
		}
		header += fmt.Sprintf(`"%s":{"dtype":"U8","shape":[2],"data_offsets":[%d,%d]}`, name, 2*i, 2*i+2)
	}
	return fileBytes(header+"}", 2*len(names))
}

// modelDir makes a directory of the files.
func modelDir(t testing.TB, files map[string]string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "d")
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// readDir returns the files of a directory.
func readDir(t testing.TB, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string]string)
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		files[e.Name()] = string(b)
	}
	return files
}

const goodIndex = `{"weight_map":{"a":"s1.safetensors","b":"s1.safetensors","c":"s2.safetensors"},
"metadata":{"total_size":"nonsense"},"other":[1,{"weight_map":2}]}`

// goodFiles returns the files of a sharded model.
func goodFiles() map[string]string {
	return map[string]string{
		indexName:        goodIndex,
		"s1.safetensors": string(smallFile("b", "a")),
		"s2.safetensors": string(fileBytes(`{"__metadata__":{"of":"two"},"c":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}`, 3)),
	}
}

func TestOpenSharded(t *testing.T) {
	dir := modelDir(t, goodFiles())
	for _, path := range []string{dir, dir + string(filepath.Separator), filepath.Join(dir, indexName)} {
		m := open(t, path)
		if got, want := fmt.Sprint(m.Tensors()), `["a" U8 [2] "b" U8 [2] "c" U8 [3]]`; got != want {
			t.Errorf("%s: tensors %s, want %s", path, got, want)
		}
		for name, want := range map[string][]byte{"a": {2, 3}, "b": {0, 1}, "c": {0, 1, 2}} {
			got := make([]byte, len(want))
			if _, err := m.ReadAt(name, got, 0); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: tensor %s is %v, %v, want %v", path, name, got, err, want)
			}
		}
		want := []Shard{{"s1.safetensors", []string{"a", "b"}}, {"s2.safetensors", []string{"c"}}}
		if got := m.Shards(); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("shards %v, want %v", got, want)
		}
		if m.Path() != path || filepath.Clean(m.Dir()) != dir || m.Index() != filepath.Join(dir, indexName) {
			t.Errorf("path %s, directory %s, index %s", m.Path(), m.Dir(), m.Index())
		}
		if m.Metadata() != nil {
			t.Errorf("metadata %v, want that of the first shard: none", m.Metadata())
		}
		if err := m.Unchanged(); err != nil {
			t.Error(err)
		}
	}
	m := open(t, dir)
	if err := os.Truncate(filepath.Join(dir, "s2.safetensors"), 90); err != nil {
		t.Fatal(err)
	}
	if err := m.Unchanged(); !errors.Is(err, ErrChanged) || !strings.Contains(err.Error(), "s2.safetensors") {
		t.Errorf("one shard changed: %v", err)
	}
}

func TestOpenDirectoryOfOne(t *testing.T) {
	dir := modelDir(t, map[string]string{singleName: string(smallFile("a", "b")), "other.safetensors": "no model"})
	m := open(t, dir)
	want := fmt.Sprint([]Shard{{singleName, []string{"a", "b"}}})
	if got := fmt.Sprint(m.Shards()); got != want || m.Path() != dir || m.Dir() != dir || m.Index() != "" {
		t.Errorf("shards %s, path %s, directory %s, index %s", got, m.Path(), m.Dir(), m.Index())
	}
	m = open(t, filepath.Join(dir, singleName))
	if got := fmt.Sprint(m.Shards()); got != want || m.Dir() != "" || m.Index() != "" {
		t.Errorf("shards %s, directory %s, index %s", got, m.Dir(), m.Index())
	}
}

// Stores of model files keep them elsewhere, under the hash of their contents.
func TestOpenLinks(t *testing.T) {
	files := goodFiles()
	root := t.TempDir()
	dir := filepath.Join(root, "snapshots", "main")
	blobs := filepath.Join(root, "blobs")
	for _, d := range []string{dir, blobs} {
		if err := os.MkdirAll(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	for i, name := range slices.Sorted(maps.Keys(files)) {
		blob := fmt.Sprintf("%064x", i)
		if err := os.WriteFile(filepath.Join(blobs, blob), []byte(files[name]), 0o666); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(filepath.Join("..", "..", "blobs", blob), filepath.Join(dir, name)); err != nil {
			t.Skip(err)
		}
	}
	if m := open(t, dir); len(m.Tensors()) != 3 {
		t.Errorf("tensors %v", m.Tensors())
	}
	if m := open(t, filepath.Join(dir, indexName)); len(m.Tensors()) != 3 {
		t.Errorf("tensors %v", m.Tensors())
	}
}

func TestOpenShardedErrors(t *testing.T) {
	const at = "d/" + indexName + ": "
	index := func(s string) map[string]string { return map[string]string{indexName: s} }
	with := func(name, content string) map[string]string {
		files := goodFiles()
		if content == "" {
			delete(files, name)
		} else {
			files[name] = content
		}
		return files
	}
	for _, test := range []struct {
		what  string
		files map[string]string
		want  string
	}{
		{
			"other names",
			map[string]string{"adapter.safetensors": " ", "x.safetensors.index.json": " ", "b.safetensors": " "},
			"d: is a directory with neither model.safetensors.index.json nor model.safetensors, but " +
				`"x.safetensors.index.json", "adapter.safetensors" and 1 more: give a file itself`,
		},
		{
			"another name",
			map[string]string{"adapter.safetensors": " ", "config.json": " "},
			"d: is a directory with neither model.safetensors.index.json nor model.safetensors, but " +
				`"adapter.safetensors": give the file itself`,
		},
		{"nothing", nil, "d: is a directory with neither model.safetensors.index.json nor model.safetensors"},
		{
			"a shard alone",
			map[string]string{"model-00001-of-00002.safetensors": string(smallFile("a"))},
			"d: is a directory with neither model.safetensors.index.json nor model.safetensors, but shards, " +
				"which need their index",
		},
		{
			"both", with(singleName, string(smallFile("a"))),
			"d: has both model.safetensors.index.json and model.safetensors, which is not in that index: ambiguous, want one of them",
		},
		{"empty", index(""), at + "index byte 0: got the end, want an object"},
		{"array", index("[]"), at + "index byte 0: got '[', want an object"},
		{"UTF-8", index("{\"\xff\":1}"), at + "index byte 2: not valid UTF-8"},
		{"no map", index(`{"metadata":{"total_size":3}}`), at + "no weight_map"},
		{"empty map", index(`{"weight_map":{}}`), at + "weight_map: is empty, want one tensor at least"},
		{"map twice", index(`{"weight_map":{"a":"s"},"weight_map":{"a":"s"}}`), at + "weight_map: given twice"},
		{"map is an array", index(`{"weight_map":["s"]}`), at + "weight_map: index byte 14: got '[', want an object"},
		{
			"object", index(`{"weight_map":{"a":{"file":"s"}}}`),
			at + `tensor "a": index byte 19: got '{', want a string, the name of a file`,
		},
		{
			"null", index(`{"weight_map":{"a":null}}`),
			at + `tensor "a": index byte 19: got 'n', want a string, the name of a file`,
		},
		{"tensor twice", index(`{"weight_map":{"a":"s","\u0061":"s"}}`), at + `tensor "a": given twice`},
		{"after it", index(`{"weight_map":{"a":"s"}}x`), at + "index byte 24: got 'x', want the end of the index"},
		{
			"no shard", with("s2.safetensors", ""),
			at + `shard "s2.safetensors": stat d/s2.safetensors: no such file or directory`,
		},
		{
			"bad shard", with("s2.safetensors", "short"),
			at + `shard "s2.safetensors": d/s2.safetensors: 5 bytes, want at least 8 for the header's length`,
		},
		{
			"tensor missing", with("s1.safetensors", string(smallFile("b"))),
			at + `tensor "a": the weight_map says shard "s1.safetensors", which has no such tensor`,
		},
		{
			"tensor not mapped", with("s1.safetensors", string(smallFile("a", "b", "d"))),
			at + `tensor "d": is in shard "s1.safetensors", but not in the weight_map`,
		},
		{
			"tensor in two shards", with("s1.safetensors", string(smallFile("a", "b", "c"))),
			at + `tensor "c": is in shard "s1.safetensors", but the weight_map says "s2.safetensors"`,
		},
		{
			"tensor of another shard", with("s2.safetensors", string(smallFile("c", "a"))),
			at + `tensor "a": is in shard "s2.safetensors", but the weight_map says "s1.safetensors"`,
		},
		{
			"path", index(`{"weight_map":{"a":"../s"}}`),
			at + `tensor "a": shard "../s": has one of / \ : in it, want a file name in the directory of the model`,
		},
	} {
		t.Run(test.what, func(t *testing.T) {
			dir := modelDir(t, test.files)
			m, err := Open(dir)
			if err == nil {
				m.Close()
			}
			wantError(t, err, dir, test.want)
		})
	}

	dir := modelDir(t, goodFiles())
	_, err := Open(dir, WithHeaderLimit(int64(len(goodIndex)-1)))
	wantError(t, err, dir, fmt.Sprintf("%sheader over the limit: an index of %d bytes, limit %d", at, len(goodIndex), len(goodIndex)-1))
	if !errors.Is(err, ErrHeaderLimit) {
		t.Errorf("%v does not wrap ErrHeaderLimit", err)
	}
	if m, err := Open(dir, WithHeaderLimit(int64(len(goodIndex)))); err != nil {
		t.Error(err)
	} else {
		m.Close()
	}
	_, err = Open(filepath.Join(dir, "none"+indexSuffix))
	if !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no such index: %v", err)
	}
}

func TestCheckFileName(t *testing.T) {
	const separator = `has one of / \ : in it, want a file name in the directory of the model`
	const device = "is the name of a device on Windows, want that of a file"
	for name, want := range map[string]string{
		"model-00001-of-00002.safetensors": "", "a": "", "..a": "", "a..b": "", ".a": "", "größe": "", "COMA": "",
		"COM10.x": "", "CONSOLE": "", strings.Repeat("a", 255): "",
		"": "is empty, want a file name", ".": "is a directory, want a file name", "..": "is a directory, want a file name",
		"/a": separator, "a/b": separator, "../a": separator, `..\a`: separator, `C:a`: separator, "a:b": separator, "a/": separator,
		"a\x00": "has a control character in it, want a file name", "a\nb": "has a control character in it, want a file name",
		"con": device, "NUL.safetensors": device, "com1.x": device, "LPT9": device, "aux .x": device, "COM²": device,
		"a.":                     "ends with a dot or a space, which Windows drops, want a file name",
		"a ":                     "ends with a dot or a space, which Windows drops, want a file name",
		strings.Repeat("a", 256): "has 256 bytes, want a file name of at most 255",
	} {
		var got string
		if err := checkFileName(name); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%q: %q, want %q", name, got, want)
		}
	}
}

// sharded begins a model directory of U8 tensors, one for each name, with so many bytes.
func sharded(t testing.TB, path string, sizes map[string]int, opts ...CreateOption) *Writer {
	t.Helper()
	var tensors []Tensor
	for name, n := range sizes {
		tensors = append(tensors, Tensor{Name: name, DType: U8, Shape: []int64{int64(n)}})
	}
	w := create(t, path, tensors, map[string]string{"k": "v"}, opts...)
	for name, n := range sizes {
		if _, err := w.WriteAt(name, counting(int(name[0]), n), 0); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// checkSharded reads back what sharded has written.
func checkSharded(t testing.TB, path string, sizes map[string]int) *Model {
	t.Helper()
	m := open(t, path)
	if got := m.Metadata(); got["k"] != "v" || got["format"] != "pt" {
		t.Errorf("metadata %v", got)
	}
	if len(m.Tensors()) != len(sizes) {
		t.Errorf("tensors %v", m.Tensors())
	}
	for name, n := range sizes {
		got := make([]byte, n)
		if _, err := m.ReadAt(name, got, 0); n > 0 && err != nil || !bytes.Equal(got, counting(int(name[0]), n)) {
			t.Errorf("tensor %s is %v, %v", name, got, err)
		}
	}
	return m
}

func shardsText(shards []Shard) string {
	var b strings.Builder
	for _, s := range shards {
		fmt.Fprintf(&b, "%s %v;", s.File, s.Tensors)
	}
	return b.String()
}

func TestMaxShardSize(t *testing.T) {
	sizes := map[string]int{"a": 4, "b": 4, "c": 9, "d": 3, "e": 2, "f": 0, "g": 7}
	for _, test := range []struct {
		limit int64
		want  string
	}{
		{1 << 40, "model.safetensors [a b c d e f g];"},
		{29, "model.safetensors [a b c d e f g];"},
		{28, "model-00001-of-00002.safetensors [a b c d e f];model-00002-of-00002.safetensors [g];"},
		{8, "model-00001-of-00004.safetensors [c];model-00002-of-00004.safetensors [a b];" +
			"model-00003-of-00004.safetensors [d e f];model-00004-of-00004.safetensors [g];"},
		{4, "model-00001-of-00006.safetensors [a];model-00002-of-00006.safetensors [c];model-00003-of-00006.safetensors [b];" +
			"model-00004-of-00006.safetensors [d];model-00005-of-00006.safetensors [g];model-00006-of-00006.safetensors [e f];"},
		{1, "model-00001-of-00007.safetensors [a];model-00002-of-00007.safetensors [b];model-00003-of-00007.safetensors [c];" +
			"model-00004-of-00007.safetensors [d];model-00005-of-00007.safetensors [e];model-00006-of-00007.safetensors [g];" +
			"model-00007-of-00007.safetensors [f];"},
	} {
		path := filepath.Join(t.TempDir(), "out")
		w := sharded(t, path, sizes, WithMaxShardSize(test.limit))
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("there before it is committed: %v", err)
		}
		if err := w.Commit(); err != nil {
			t.Fatal(err)
		}
		wantFiles(t, filepath.Dir(path), "out")
		m := checkSharded(t, path, sizes)
		if got := shardsText(m.Shards()); got != test.want {
			t.Errorf("limit %d:\n%s, want\n%s", test.limit, got, test.want)
		}
		if n := len(readDir(t, path)); n != strings.Count(test.want, ";")+min(strings.Count(test.want, ";")-1, 1) {
			t.Errorf("limit %d: %d files", test.limit, n)
		}
	}
}

func TestIndexText(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	sizes := map[string]int{"b": 3, "a\"": 2, "c": 4}
	layout := []Shard{{"y.safetensors", []string{"c", "a\""}}, {"x.safetensors", []string{"b", "gone"}}, {"z.safetensors", []string{"gone too"}}}
	if err := sharded(t, path, sizes, WithShards(layout)).Commit(); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, path, indexName, "x.safetensors", "y.safetensors")
	want := `{
  "metadata": {
    "total_size": 9
  },
  "weight_map": {
    "a\"": "y.safetensors",
    "b": "x.safetensors",
    "c": "y.safetensors"
  }
}
`
	if got := readDir(t, path)[indexName]; got != want {
		t.Errorf("index %s, want %s", got, want)
	}
	first := checkSharded(t, path, sizes)

	// The same again, through the layout of the model, into the same directory: nothing changes.
	before := readDir(t, path)
	if err := sharded(t, path, sizes, WithShards(first.Shards())).Commit(); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(readDir(t, path), before) {
		t.Error("written again, the files differ")
	}
	// From shards to one file and from there to a directory of one.
	single := filepath.Join(t.TempDir(), "single.safetensors")
	if err := sharded(t, single, sizes).Commit(); err != nil {
		t.Fatal(err)
	}
	m := checkSharded(t, single, sizes)
	mirror := filepath.Join(t.TempDir(), "mirror")
	if err := sharded(t, mirror, sizes, WithShards(m.Shards())).Commit(); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, mirror, indexName, "single.safetensors")
	checkSharded(t, mirror, sizes)
}

// A tensor that the layout does not know goes into the last shard.
func TestShardsOfUnknownTensor(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	sizes := map[string]int{"a": 1, "b": 1, "new": 1}
	layout := []Shard{{"1.safetensors", []string{"a"}}, {"2.safetensors", []string{"b"}}}
	if err := sharded(t, path, sizes, WithShards(layout)).Commit(); err != nil {
		t.Fatal(err)
	}
	want := "1.safetensors [a];2.safetensors [b new];"
	if got := shardsText(checkSharded(t, path, sizes).Shards()); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	empty := filepath.Join(t.TempDir(), "empty")
	if err := sharded(t, empty, nil, WithMaxShardSize(1)).Commit(); err != nil {
		t.Fatal(err)
	}
	checkSharded(t, empty, nil)
}

func TestCreateShardsErrors(t *testing.T) {
	a := []Tensor{{Name: "a", DType: U8, Shape: []int64{1}}}
	dir := modelDir(t, nil)
	path := filepath.Join(dir, "out")
	for _, test := range []struct {
		path    string
		tensors []Tensor
		opts    []CreateOption
		want    string
	}{
		{path, a, []CreateOption{WithShards(nil)}, "d/out: the layout has no shard"},
		{path, a, []CreateOption{WithMaxShardSize(0)}, "d/out: maximum size of shards is 0 bytes, want more than zero"},
		{
			path, a,
			[]CreateOption{WithMaxShardSize(1), WithShards(nil)},
			"d/out: both a layout of shards and a maximum size of them are given, want one of them",
		},
		{
			path, a,
			[]CreateOption{WithShards([]Shard{{File: "../x.safetensors"}})},
			`d/out: shard "../x.safetensors": has one of / \ : in it, want a file name in the directory of the model`,
		},
		{
			path, a,
			[]CreateOption{WithShards([]Shard{{File: "config.json"}})},
			`d/out: shard "config.json": want a name that ends with .safetensors`,
		},
		{
			path, a,
			[]CreateOption{WithShards([]Shard{{File: "x.safetensors"}, {File: "X.safetensors"}})},
			`d/out: shard "X.safetensors": differs from "x.safetensors" in case alone, and both are one file on some systems`,
		},
		{
			path, a,
			[]CreateOption{WithShards([]Shard{{File: "x.safetensors"}, {File: "x.safetensors"}})},
			`d/out: shard "x.safetensors": given twice`,
		},
		{
			path, a,
			[]CreateOption{WithShards([]Shard{{"x.safetensors", []string{"a"}}, {"y.safetensors", []string{"a"}}})},
			`d/out: tensor "a": in shard "x.safetensors" and in shard "y.safetensors"`,
		},
		{path, append(a, a...), []CreateOption{WithMaxShardSize(1)}, `d/out: tensor "a": given twice`},
		{
			path,
			[]Tensor{{Name: "n", DType: U8, Shape: []int64{-1}}},
			[]CreateOption{WithMaxShardSize(1)},
			`d/out: shard "model.safetensors": tensor "n": shape [-1]: dimension 0 is negative`,
		},
		{filepath.Join(dir, "no", "out"), a, []CreateOption{WithMaxShardSize(1)}, "no such file or directory"},
	} {
		_, err := Create(test.path, test.tensors, nil, test.opts...)
		if test.want == "no such file or directory" {
			if !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("error %v", err)
			}
			continue
		}
		wantError(t, err, dir, test.want)
		wantFiles(t, dir)
	}
	file := writeFile(t, []byte("old"))
	_, err := Create(file, a, nil, WithMaxShardSize(1))
	wantError(t, err, file, "m.safetensors: is a file, want a directory for the shards")
	wantFiles(t, filepath.Dir(file), "m.safetensors")
}

// Until Commit, and after a failed one, a directory is as it was.
func TestShardsIntoDirectory(t *testing.T) {
	sizes := map[string]int{"a": 2, "b": 2, "c": 2}
	layout := []Shard{{"s1.safetensors", []string{"a", "b"}}, {"s2.safetensors", []string{"c"}}}
	files := goodFiles()
	files["config.json"] = "{}"
	dir := modelDir(t, files)
	old := open(t, dir)

	w := sharded(t, dir, sizes, WithShards(layout))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if !maps.Equal(readDir(t, dir), files) {
		t.Error("after Close, the files differ")
	}
	w = create(t, dir, []Tensor{{Name: "a", DType: U8, Shape: []int64{1}}}, nil, WithShards(layout))
	if err := w.Commit(); !errors.Is(err, ErrIncomplete) {
		t.Errorf("incomplete: %v", err)
	}
	if !maps.Equal(readDir(t, dir), files) {
		t.Error("after a Commit that failed, the files differ")
	}
	if err := sharded(t, dir, sizes, WithShards(layout)).Commit(); err != nil {
		t.Fatal(err)
	}
	checkSharded(t, dir, sizes)
	wantFiles(t, dir, "config.json", indexName, "s1.safetensors", "s2.safetensors")
	var c [3]byte
	if _, err := old.ReadAt("c", c[:], 0); err != nil || c != [3]byte{0, 1, 2} {
		t.Errorf("the old model reads %v, %v", c, err)
	}

	// Neither a file beside an index nor an index beside a file.
	_, err := Create(dir, nil, nil, WithMaxShardSize(1))
	wantError(t, err, dir, "d: has model.safetensors.index.json already, which would be ambiguous beside the files to be written: "+
		`remove it and the shards of its model ("s1.safetensors", "s2.safetensors"), or choose another directory`)
	one := modelDir(t, map[string]string{singleName: string(smallFile("a"))})
	_, err = Create(one, nil, nil, WithShards(layout))
	wantError(t, err, one, "d: has model.safetensors already, which would be ambiguous beside the files to be written: "+
		"remove it, or choose another directory")
	if err := sharded(t, one, sizes, WithMaxShardSize(100)).Commit(); err != nil {
		t.Fatal(err)
	}
	checkSharded(t, one, sizes)
}

// If a run ends between two renames, no index speaks of the shards of two models.
func TestRenameOfShardFails(t *testing.T) {
	sizes := map[string]int{"a": 2, "b": 2, "c": 2}
	for _, test := range []struct {
		names  []string
		stays  bool // the old model
		reason string
	}{
		{[]string{"s1.safetensors", "s2.safetensors"}, false, "shards are replaced"},
		{[]string{"s3.safetensors", "s4.safetensors"}, true, "all shards have new names"},
	} {
		dir := modelDir(t, goodFiles())
		t.Chdir(dir) // so that it cannot be exchanged for a new one
		layout := []Shard{{test.names[0], []string{"a", "b"}}, {test.names[1], []string{"c"}}}
		w := sharded(t, dir, sizes, WithShards(layout))
		// The last shard cannot be renamed: its temporary file is gone.
		d := w.out.(*outputDirectory)
		if err := os.Remove(d.shards[1].temp); err != nil {
			t.Fatal(err)
		}
		err := w.Commit()
		if err == nil || !strings.Contains(err.Error(), "1 of 3 files are in place, and no index of them") {
			t.Errorf("error %v", err)
		}
		m, err := Open(dir)
		if err == nil {
			m.Close()
		}
		if test.stays != (err == nil) {
			t.Errorf("%s: the directory opens with error %v", test.reason, err)
		}
		for name := range readDir(t, dir) {
			if strings.HasSuffix(name, tempSuffix) {
				t.Errorf("%s is left", name)
			}
		}
	}

	// Where the whole directory is replaced, the old model stays.
	dir := modelDir(t, goodFiles())
	exchanged := sharded(t, dir, sizes, WithShards(sameShards))
	if d := exchanged.out.(*outputDirectory); d.exchange {
		if err := os.Remove(d.shards[1].temp); err != nil {
			t.Fatal(err)
		}
		if err := exchanged.Commit(); err == nil {
			t.Error("no error")
		}
		if got := readDir(t, dir); !maps.Equal(got, goodFiles()) {
			t.Errorf("files %q", slices.Collect(maps.Keys(got)))
		}
		wantFiles(t, filepath.Dir(dir), "d")
	}

	// In a directory that did not exist, everything goes.
	path := filepath.Join(t.TempDir(), "out")
	w := sharded(t, path, sizes, WithMaxShardSize(2))
	if err := os.Remove(w.out.(*outputDirectory).shards[1].temp); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err == nil {
		t.Error("no error")
	}
	wantFiles(t, filepath.Dir(path))

	// Another run was faster.
	w = sharded(t, path, sizes, WithMaxShardSize(2))
	if err := os.MkdirAll(filepath.Join(path, "sub"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); !errors.Is(err, fs.ErrExist) || !strings.Contains(err.Error(), "another run has made") {
		t.Errorf("error %v", err)
	}
	wantFiles(t, filepath.Dir(path), "out")
}

func TestCopySideFiles(t *testing.T) {
	files := goodFiles()
	side := map[string]string{
		"config.json": "{}", "tokenizer.json": "t", "tokenizer.model": "m", "merges.txt": "", "generation_config.json": "g",
		"vocab.json": "v", "README.md": "r",
	}
	maps.Copy(files, side)
	for _, name := range []string{"pytorch_model.bin", "x.PT", "x.h5", "pytorch_model.bin.index.json", ".hidden", "x.gguf", "x.safetensors"} {
		files[name] = "weights"
	}
	from := modelDir(t, files)
	if err := os.Mkdir(filepath.Join(from, "sub"), 0o777); err != nil {
		t.Fatal(err)
	}
	m := open(t, from)
	to := modelDir(t, map[string]string{"vocab.json": "other"})
	copied, skipped, err := CopySideFiles(m, to)
	if err != nil || !slices.Equal(copied, []string{"README.md", "config.json", "generation_config.json", "merges.txt", "tokenizer.json", "tokenizer.model"}) ||
		!slices.Equal(skipped, []string{"vocab.json"}) {
		t.Errorf("copied %q, skipped %q, %v", copied, skipped, err)
	}
	want := maps.Clone(side)
	want["vocab.json"] = "other"
	if got := readDir(t, to); !maps.Equal(got, want) {
		t.Errorf("files %q, want %q", got, want)
	}
	copied, skipped, err = CopySideFiles(m, from)
	if len(copied) != 0 || len(skipped) != len(side) || err != nil {
		t.Errorf("to itself: copied %q, skipped %q, %v", copied, skipped, err)
	}
	if _, _, err := CopySideFiles(m, filepath.Join(to, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	file := writeFile(t, smallFile("a"))
	_, _, err = CopySideFiles(open(t, file), to)
	wantError(t, err, file, "m.safetensors: is one file, want a model directory to copy other files from")
}

// commitNew never takes the place of a file, however late that appears.
func TestCommitNew(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	a, err := createAtomic(path, path, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("late"), 0o666); err != nil {
		t.Fatal(err)
	}
	if err := a.commitNew(); !errors.Is(err, fs.ErrExist) {
		t.Errorf("error %v", err)
	}
	if got := readDir(t, filepath.Dir(path)); !maps.Equal(got, map[string]string{"f": "late"}) {
		t.Errorf("files %q", got)
	}
}
