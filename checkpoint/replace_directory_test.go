package checkpoint

import (
	"bytes"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
)

// sameShards are the sizes and the layout of a model whose shards have the names of those of goodFiles.
var (
	sameSizes  = map[string]int{"a": 2, "b": 2, "c": 2}
	sameShards = []Shard{{"s1.safetensors", []string{"a", "b"}}, {"s2.safetensors", []string{"c"}}}
)

// A model directory takes the place of another in one step: its other files are those of the old one, the very same,
// and it has its permissions; nothing of the old one is left beside it.
func TestReplaceDirectory(t *testing.T) {
	files := goodFiles()
	files["config.json"] = "{}"
	files["other.safetensors"] = "not of the model"
	dir := modelDir(t, files)
	if err := os.Symlink("config.json", filepath.Join(dir, "link.json")); err != nil {
		t.Skip(err)
	}
	if err := os.Chmod(filepath.Join(dir, "s1.safetensors"), 0o640); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, 0o750|fs.ModeSticky); err != nil {
		t.Fatal(err)
	}
	was := lstat(t, dir)
	config := lstat(t, filepath.Join(dir, "config.json"))
	old := open(t, dir)
	w := sharded(t, dir, sameSizes, WithShards(sameShards))
	d := w.out.(*outputDirectory)
	if d.exchange != (runtime.GOOS == "linux") {
		t.Fatalf("exchange is %v", d.exchange)
	}
	// What comes or goes while the model is written.
	if err := os.WriteFile(filepath.Join(dir, "late"), []byte("late"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, "other.safetensors")); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	checkSharded(t, dir, sameSizes)
	wantFiles(t, dir, "config.json", "late", "link.json", indexName, "s1.safetensors", "s2.safetensors")
	wantFiles(t, filepath.Dir(dir), "d")
	if got := lstat(t, dir).Mode(); got != was.Mode() {
		t.Errorf("the directory has mode %v, had %v", got, was.Mode())
	}
	if !os.SameFile(config, lstat(t, filepath.Join(dir, "config.json"))) {
		t.Error("config.json is another file")
	}
	if points, err := os.Readlink(filepath.Join(dir, "link.json")); err != nil || points != "config.json" {
		t.Errorf("the link is to %q, %v", points, err)
	}
	if got := lstat(t, filepath.Join(dir, "s1.safetensors")).Mode().Perm(); got != 0o640 {
		t.Errorf("the shard has mode %v", got)
	}
	var c [3]byte
	if _, err := old.ReadAt("c", c[:], 0); err != nil || c != [3]byte{0, 1, 2} {
		t.Errorf("the old model reads %v, %v", c, err)
	}
	if err := old.Unchanged(); err != nil {
		t.Error(err)
	}
}

func lstat(t *testing.T, path string) fs.FileInfo {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info
}

// Directories that cannot be replaced in one step are written in place, with the same outcome.
func TestReplaceInPlace(t *testing.T) {
	for what, prepare := range map[string]func(t *testing.T, dir string) string{
		"a directory in it": func(t *testing.T, dir string) string {
			if err := os.MkdirAll(filepath.Join(dir, "sub", "sub"), 0o777); err != nil {
				t.Fatal(err)
			}
			return dir
		},
		"a link to it": func(t *testing.T, dir string) string {
			link := filepath.Join(t.TempDir(), "link")
			if err := os.Symlink(dir, link); err != nil {
				t.Skip(err)
			}
			return link
		},
		"the working directory": func(t *testing.T, dir string) string {
			t.Chdir(dir)
			return "."
		},
		"the working directory by its path": func(t *testing.T, dir string) string {
			t.Chdir(dir)
			return dir
		},
	} {
		t.Run(what, func(t *testing.T) {
			files := goodFiles()
			files["config.json"] = "{}"
			dir := modelDir(t, files)
			was := lstat(t, dir)
			path := prepare(t, dir)
			w := sharded(t, path, sameSizes, WithShards(sameShards))
			if w.out.(*outputDirectory).exchange {
				t.Error("the directory is to be exchanged")
			}
			if err := w.Commit(); err != nil {
				t.Fatal(err)
			}
			checkSharded(t, path, sameSizes)
			wantFiles(t, filepath.Dir(dir), "d")
			if !os.SameFile(was, lstat(t, dir)) {
				t.Error("the directory is another one")
			}
		})
	}
}

// What cannot be kept appears after the beginning: the files are put in their places one by one.
func TestReplaceInPlaceLate(t *testing.T) {
	files := goodFiles()
	files["config.json"] = "{}"
	dir := modelDir(t, files)
	w := sharded(t, dir, sameSizes, WithShards(sameShards))
	if err := os.Mkdir(filepath.Join(dir, "sub"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	checkSharded(t, dir, sameSizes)
	wantFiles(t, dir, "config.json", indexName, "s1.safetensors", "s2.safetensors", "sub")
	wantFiles(t, filepath.Dir(dir), "d")
}

// So they are when the exchange itself is refused, after all files have their names in the temporary directory.
func TestExchangeRefused(t *testing.T) {
	dir := modelDir(t, goodFiles())
	w := sharded(t, dir, sameSizes, WithShards(sameShards))
	d := w.out.(*outputDirectory)
	if !d.exchange {
		t.Skip("directories cannot be exchanged here")
	}
	if err := d.place(true); err != nil {
		t.Fatal(err)
	}
	temp := d.temp
	d.inPlace()
	if err := d.replace(true); err != nil {
		t.Fatal(err)
	}
	checkSharded(t, dir, sameSizes)
	wantFiles(t, temp)
	if err := os.Remove(temp); err != nil {
		t.Fatal(err)
	}
	w.done = true
}

// What came into the old directory in the last moment before the exchange is moved to the new one, what was replaced is
// not.
func TestMoveOthers(t *testing.T) {
	old := modelDir(t, map[string]string{"both": "old", "late": "late", "s": "old shard", "edited": "edited"})
	dir := modelDir(t, map[string]string{"s": "new shard", "edited": "as it was"})
	if err := os.Link(filepath.Join(old, "both"), filepath.Join(dir, "both")); err != nil {
		t.Skip(err)
	}
	if err := os.Mkdir(filepath.Join(old, "sub"), 0o777); err != nil {
		t.Fatal(err)
	}
	if err := moveOthers(old, dir, map[string]bool{"s": true}); err != nil {
		t.Fatal(err)
	}
	wantFiles(t, old, "both", "s")
	if err := os.Remove(filepath.Join(dir, "sub")); err != nil {
		t.Error(err)
	}
	want := map[string]string{"both": "old", "late": "late", "s": "new shard", "edited": "edited"}
	if got := readDir(t, dir); !maps.Equal(got, want) {
		t.Errorf("files %q, want %q", got, want)
	}
}

// A run that was killed after the exchange leaves the old directory, which the next one removes; what only that has is
// kept, unless it is weights.
func TestRescue(t *testing.T) {
	dir := modelDir(t, map[string]string{"config.json": "new", singleName: string(smallFile("a"))})
	temp := tempPrefix(dir) + "0123456789abcdef" + tempSuffix
	stale := filepath.Join(filepath.Dir(dir), temp)
	if err := os.Mkdir(stale, 0o777); err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"config.json": "old", "late.json": "late", "old.safetensors": "weights"} {
		if err := os.WriteFile(filepath.Join(stale, name), []byte(content), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	removed, err := RemoveStale(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(removed) == 0 {
		t.Skip("there are no locks here")
	}
	if !slices.Equal(removed, []string{stale}) {
		t.Errorf("removed %q", removed)
	}
	wantFiles(t, filepath.Dir(dir), "d")
	got := readDir(t, dir)
	if got["config.json"] != "new" || got["late.json"] != "late" || len(got) != 3 {
		t.Errorf("files %q", slices.Collect(maps.Keys(got)))
	}
}

// A write-protected shard is no more replaced in a new directory than it is in place.
func TestReplaceProtectedShard(t *testing.T) {
	dir := modelDir(t, goodFiles())
	if err := os.Chmod(filepath.Join(dir, "s2.safetensors"), 0o444); err != nil {
		t.Fatal(err)
	}
	_, err := Create(dir, []Tensor{{"c", U8, []int64{1}}, {"a", U8, []int64{1}}}, nil, WithShards(sameShards))
	if err == nil || !bytes.Contains([]byte(err.Error()), []byte("s2.safetensors: the file is write-protected")) {
		t.Errorf("error %v", err)
	}
	wantFiles(t, dir, indexName, "s1.safetensors", "s2.safetensors")
	wantFiles(t, filepath.Dir(dir), "d")
}
