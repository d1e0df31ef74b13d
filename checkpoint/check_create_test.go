package checkpoint

import (
	"maps"
	"os"
	"path/filepath"
	"testing"
)

// CheckCreate refuses what Create refuses, in the same words, and writes nothing.
func TestCheckCreate(t *testing.T) {
	bf16 := []Tensor{{"x", BF16, []int64{2}}}
	two := []Tensor{{"x", F32, []int64{2}}, {"y", F32, []int64{2}}}
	twice := []Tensor{{"x", F32, []int64{2}}, {"x", F32, []int64{2}}}
	shards := WithMaxShardSize(8)
	for _, test := range []struct {
		path    string
		tensors []Tensor
		opts    []CreateOption
		refused bool
	}{
		{"new", bf16, nil, false},
		{"file", two, nil, false},
		{"link", two, nil, false},
		{"new.npz", two, nil, false},
		{"new.npy", two[:1], nil, false},
		{"new", two, []CreateOption{shards}, false},
		{"new/", two, []CreateOption{shards}, false},
		{"sharded", two, []CreateOption{shards}, false},
		{"sharded/", two, []CreateOption{shards}, false},
		{"single", bf16, []CreateOption{WithMaxShardSize(1 << 20)}, false},

		{"", two, nil, true},
		{"", two, []CreateOption{shards}, true},
		{"new", twice, nil, true},
		{"new", twice, []CreateOption{shards}, true},
		{"new.npz", bf16, nil, true},
		{"new.NPY", bf16, nil, true},
		{"new.npy", two, nil, true},
		{"sharded", two, nil, true},
		{"protected", two, nil, true},
		{"none/new", two, nil, true},
		{"file/new", two, nil, true},
		{"file/new", two, []CreateOption{shards}, true},
		{"none/new", two, []CreateOption{shards}, true},
		{"new/", two, nil, true},
		{"file/", two, nil, true},
		{"file", two, []CreateOption{shards}, true},
		{"dangling", two, []CreateOption{shards}, true},
		{"new.npz", two, []CreateOption{shards}, true},
		{"new", two, []CreateOption{WithMaxShardSize(0)}, true},
		{"new", two, []CreateOption{WithShards(nil)}, true},
		{"new", two, []CreateOption{WithShards([]Shard{{"../x.safetensors", nil}})}, true},
		{"single", two, []CreateOption{shards}, true},                      // an index beside model.safetensors
		{"sharded", bf16, []CreateOption{WithMaxShardSize(1 << 20)}, true}, // and the reverse
		{"half", two, []CreateOption{WithShards([]Shard{{"a.safetensors", []string{"x", "y"}}})}, true},
	} {
		t.Chdir(t.TempDir())
		writeText(t, "file", "file")
		writeText(t, "protected", "file")
		if err := os.Chmod("protected", 0o444); err != nil {
			t.Fatal(err)
		}
		if os.Symlink("file", "link") != nil || os.Symlink("nowhere", "dangling") != nil {
			t.Skip("no links")
		}
		for dir, names := range map[string][]string{
			"single": {singleName}, "sharded": {indexName, "s1.safetensors"}, "half": {"a.safetensors"},
		} {
			mkdir(t, dir)
			for _, name := range names {
				writeText(t, filepath.Join(dir, name), "x")
			}
		}
		if err := os.Chmod(filepath.Join("half", "a.safetensors"), 0o444); err != nil {
			t.Fatal(err)
		}
		before := tree(t)
		err := CheckCreate(test.path, test.tensors, nil, test.opts...)
		if got := tree(t); !maps.Equal(got, before) {
			t.Errorf("%s: files %v, were %v", test.path, got, before)
		}
		w, want := Create(test.path, test.tensors, nil, test.opts...)
		if want == nil {
			w.Close()
		}
		switch {
		case (err != nil) != test.refused || (want != nil) != test.refused:
			t.Errorf("%s, %v: error %v, of Create %v", test.path, test.tensors, err, want)
		case err == nil || err.Error() == want.Error():
		case test.path == "none/new" || test.path == "new/" || test.path == "file/" || test.path == "file/new":
			// Create's error has the name of a temporary file.
		default:
			t.Errorf("%s, %v: error %v, want that of Create: %v", test.path, test.tensors, err, want)
		}
	}
}

// No file can be made in a directory that may not be written to.
func TestCheckCreateProtectedDirectory(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	for _, opts := range [][]CreateOption{nil, {WithMaxShardSize(8)}} {
		path := filepath.Join(dir, "new")
		w, want := Create(path, nil, nil, opts...)
		if want == nil {
			w.Close()
			t.Skip("the directory can be written to")
		}
		if err := CheckCreate(path, nil, nil, opts...); err == nil {
			t.Error("no error")
		}
	}
}

// tree returns what is below the working directory.
func tree(t *testing.T) map[string]string {
	t.Helper()
	found := make(map[string]string)
	err := filepath.WalkDir(".", func(path string, e os.DirEntry, err error) error {
		if err == nil {
			found[path] = e.Type().String()
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}
