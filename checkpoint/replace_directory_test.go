package checkpoint

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/modelavg/modelavg/internal/filelock"
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

// Directories in the directory, also those that appear late, are the same afterwards, with all that is in them; and the
// directory may be given as a symbolic link.
func TestReplaceWithDirectories(t *testing.T) {
	for _, linked := range []bool{false, true} {
		files := goodFiles()
		files["config.json"] = "{}"
		dir := modelDir(t, files)
		path := dir
		if linked {
			path = filepath.Join(t.TempDir(), "link")
			if err := os.Symlink(dir, path); err != nil {
				t.Skip(err)
			}
		}
		if err := os.MkdirAll(filepath.Join(dir, ".cache", "empty"), 0o777); err != nil {
			t.Fatal(err)
		}
		writeText(t, filepath.Join(dir, ".cache", "x"), "x")
		was, cache := lstat(t, dir), lstat(t, filepath.Join(dir, ".cache"))
		w := sharded(t, path, sameSizes, WithShards(sameShards))
		if d := w.out.(*outputDirectory); d.exchange != (runtime.GOOS == "linux") {
			t.Errorf("exchange is %v", d.exchange)
		}
		mkdir(t, filepath.Join(dir, "late"))
		if err := w.Commit(); err != nil {
			t.Fatal(err)
		}
		checkSharded(t, path, sameSizes)
		if os.SameFile(was, lstat(t, dir)) && runtime.GOOS == "linux" {
			t.Error("the directory is the same one")
		}
		wantFiles(t, dir, ".cache", "config.json", "late", indexName, "s1.safetensors", "s2.safetensors")
		wantFiles(t, filepath.Join(dir, ".cache"), "empty", "x")
		if !os.SameFile(cache, lstat(t, filepath.Join(dir, ".cache"))) {
			t.Error(".cache is another directory")
		}
		wantFiles(t, filepath.Dir(dir), "d")
	}
}

// Of a stale old directory, the directories go to the new one. Of two with one name, what the new one lacks.
func TestRescueDirectories(t *testing.T) {
	dir := modelDir(t, map[string]string{singleName: string(smallFile("a"))})
	stale := filepath.Join(filepath.Dir(dir), tempPrefix(dir)+"0123456789abcdef"+tempSuffix)
	for _, d := range []string{filepath.Join(stale, ".git", "refs"), filepath.Join(stale, "both", "deep"), filepath.Join(dir, "both")} {
		if err := os.MkdirAll(d, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	writeText(t, filepath.Join(stale, "both", "x"), "old")
	writeText(t, filepath.Join(stale, "both", "y"), "old")
	writeText(t, filepath.Join(dir, "both", "x"), "new")
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Skip(err)
	}
	removed, err := RemoveStale(link)
	if err != nil {
		t.Fatal(err)
	}
	if len(removed) == 0 {
		t.Skip("there are no locks here")
	}
	wantFiles(t, filepath.Dir(dir), "d")
	wantFiles(t, filepath.Join(dir, ".git"), "refs")
	wantFiles(t, filepath.Join(dir, "both"), "deep", "x", "y")
	for name, want := range map[string]string{"x": "new", "y": "old"} {
		if got, err := os.ReadFile(filepath.Join(dir, "both", name)); string(got) != want {
			t.Errorf("%s is %q, %v, want %q", name, got, err, want)
		}
	}
}

// Whichever way the directory is written, a run waits while another one has its lock, and can be stopped then.
func TestCommitWaits(t *testing.T) {
	for _, inPlace := range []bool{false, true} {
		dir := modelDir(t, goodFiles())
		if inPlace {
			t.Chdir(dir)
		}
		f, err := filelock.Open(dir)
		if err != nil {
			t.Skip(err)
		}
		if filelock.Lock(f) != filelock.Held {
			f.Close()
			t.Skip("there are no locks here")
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		stopped := errors.New("stopped")
		time.AfterFunc(50*time.Millisecond, func() { cancel(stopped) })
		w := sharded(t, dir, sameSizes, WithShards(sameShards))
		if err := w.CommitContext(ctx); !errors.Is(err, stopped) {
			t.Errorf("error %v", err)
		}
		if got := readDir(t, dir); !maps.Equal(got, goodFiles()) {
			t.Errorf("files %q", slices.Collect(maps.Keys(got)))
		}
		w = sharded(t, dir, sameSizes, WithShards(sameShards))
		time.AfterFunc(50*time.Millisecond, func() { f.Close() })
		if err := w.Commit(); err != nil {
			t.Error(err)
		}
		checkSharded(t, dir, sameSizes)
	}
}

// Of runs that write one directory at the same time, one leaves its model, whole.
func TestConcurrentDirectories(t *testing.T) {
	for _, kind := range []string{"old", "old with a directory", "empty", "link", "in place"} {
		t.Run(kind, func(t *testing.T) {
			for range 20 {
				files := goodFiles()
				if kind == "empty" {
					files = nil
				}
				dir := modelDir(t, files)
				path := dir
				switch kind {
				case "old with a directory":
					mkdir(t, filepath.Join(dir, "sub"))
				case "link":
					path = filepath.Join(t.TempDir(), "link")
					if err := os.Symlink(dir, path); err != nil {
						t.Skip(err)
					}
				case "in place":
					t.Chdir(dir)
				}
				var runs sync.WaitGroup
				for i := range 8 {
					runs.Go(func() {
						tensors := []Tensor{{"a", U8, []int64{1}}, {"b", U8, []int64{1}}, {"c", U8, []int64{1}}}
						w, err := Create(path, tensors, nil, WithShards(sameShards), WithoutSync())
						if err != nil {
							t.Error(err)
							return
						}
						for _, x := range tensors {
							if _, err := w.WriteAt(x.Name, []byte{byte(i)}, 0); err != nil {
								t.Error(err)
							}
						}
						if err := w.Commit(); err != nil {
							t.Error(err)
						}
					})
				}
				runs.Wait()
				m := open(t, path)
				var p [3]byte
				for i, name := range []string{"a", "b", "c"} {
					if _, err := m.ReadAt(name, p[i:i+1], 0); err != nil {
						t.Error(err)
					}
				}
				if p[0] != p[1] || p[1] != p[2] {
					t.Fatalf("a, b and c are from runs %v", p)
				}
				want := []string{indexName, "s1.safetensors", "s2.safetensors"}
				if kind == "old with a directory" {
					want = append(want, "sub")
				}
				wantFiles(t, dir, want...)
			}
		})
	}
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
