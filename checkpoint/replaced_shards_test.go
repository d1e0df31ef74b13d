package checkpoint

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"
)

// threeShards are the files of a model that a, b and c are in, and others that are none of it.
func threeShards(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]string{
		indexName:           `{"weight_map":{"a":"s1.safetensors","b":"s2.safetensors","c":"s3.safetensors"}}`,
		"s3.safetensors":    string(smallFile("c")),
		"other.safetensors": "another model",
		"config.json":       "{}",
	}
	for name, file := range map[string]string{"a": "s1.safetensors", "b": "s2.safetensors"} {
		files[file] = string(smallFile(name))
	}
	return files
}

// A model in other shards takes the place of all of the old one, in one step or file after file: what the old index
// named is gone, and nothing else.
func TestReplacedShards(t *testing.T) {
	two := []Shard{{"s1.safetensors", []string{"a", "b"}}, {"s2.safetensors", []string{"c"}}}
	for _, test := range []struct {
		what    string
		prepare func(t *testing.T, dir string)
		shards  []Shard
		late    func(t *testing.T, dir string) // before Commit
		removed []string
		kept    []string // besides the new model, config.json and other.safetensors
	}{
		{"some of the same names", nil, two, nil, []string{"s3.safetensors"}, nil},
		{
			"other names", nil,
			[]Shard{{"n1.safetensors", []string{"a", "b"}}, {"n2.safetensors", []string{"c"}}},
			nil,
			[]string{"s1.safetensors", "s2.safetensors", "s3.safetensors"},
			nil,
		},
		{"the same", nil, []Shard{
			{"s1.safetensors", []string{"a"}},
			{"s2.safetensors", []string{"b"}},
			{"s3.safetensors", []string{"c"}},
		}, nil, nil, nil},
		{
			"not by an exchange",
			func(t *testing.T, dir string) { mkdir(t, filepath.Join(dir, "sub")) }, two, nil,
			[]string{"s3.safetensors"},
			[]string{"sub"},
		},
		{
			"not by an exchange after all", nil, two,
			func(t *testing.T, dir string) { mkdir(t, filepath.Join(dir, "sub")) },
			[]string{"s3.safetensors"},
			[]string{"sub"},
		},
		{
			"of a damaged index",
			func(t *testing.T, dir string) { writeText(t, filepath.Join(dir, indexName), "{") }, two, nil,
			nil,
			[]string{"s3.safetensors"},
		},
		{
			"also of another index",
			func(t *testing.T, dir string) {
				writeText(t, filepath.Join(dir, "model.fp16"+indexSuffix), `{"weight_map":{"c":"s3.safetensors"}}`)
			}, two, nil,
			nil,
			[]string{"model.fp16" + indexSuffix, "s3.safetensors"},
		},
		{
			"that is no shard by its name",
			func(t *testing.T, dir string) {
				writeText(t, filepath.Join(dir, indexName), `{"weight_map":{"a":"config.json","b":"s2.safetensors"}}`)
			},
			two, nil, nil,
			[]string{"s3.safetensors"},
		},
		{
			"that is a directory",
			func(t *testing.T, dir string) {
				mkdir(t, filepath.Join(dir, "d.safetensors"))
				writeText(t, filepath.Join(dir, indexName), `{"weight_map":{"a":"d.safetensors","b":"s3.safetensors"}}`)
			},
			two, nil,
			[]string{"s3.safetensors"},
			[]string{"d.safetensors"},
		},
	} {
		t.Run(test.what, func(t *testing.T) {
			dir := modelDir(t, threeShards(t))
			if test.prepare != nil {
				test.prepare(t, dir)
			}
			w := sharded(t, dir, sameSizes, WithShards(test.shards))
			if w.Removed() != nil {
				t.Errorf("removed %q before Commit", w.Removed())
			}
			if test.late != nil {
				test.late(t, dir)
			}
			if err := w.Commit(); err != nil {
				t.Fatal(err)
			}
			checkSharded(t, dir, sameSizes)
			if got := w.Removed(); !slices.Equal(got, test.removed) {
				t.Errorf("removed %q, want %q", got, test.removed)
			}
			want := append([]string{"config.json", indexName, "other.safetensors"}, test.kept...)
			for _, s := range test.shards {
				want = append(want, s.File)
			}
			slices.Sort(want)
			wantFiles(t, dir, want...)
			wantFiles(t, filepath.Dir(dir), "d")
		})
	}
}

// A link among the old shards is removed, and not what it points to; and a model that is open stays readable.
func TestReplacedShardLink(t *testing.T) {
	for _, inPlace := range []bool{false, true} {
		dir := modelDir(t, threeShards(t))
		store := filepath.Join(t.TempDir(), "blob")
		link := filepath.Join(dir, "s3.safetensors")
		if err := os.Rename(link, store); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(store, link); err != nil {
			t.Skip(err)
		}
		if inPlace {
			t.Chdir(dir)
		}
		old := open(t, dir)
		w := sharded(t, dir, sameSizes, WithShards(sameShards))
		if d := w.out.(*outputDirectory); d.exchange != (!inPlace && runtime.GOOS == "linux") {
			t.Errorf("exchange is %v", d.exchange)
		}
		if err := w.Commit(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Lstat(link); err == nil {
			t.Error("the link is still there")
		}
		if text, err := os.ReadFile(store); err != nil || !bytes.Equal(text, smallFile("c")) {
			t.Errorf("what the link points to: %v", err)
		}
		var c [2]byte
		if _, err := old.ReadAt("c", c[:], 0); err != nil || c != [2]byte{0, 1} {
			t.Errorf("the old model reads %v, %v", c, err)
		}
	}
}

// A file has no old shards.
func TestRemovedOfFile(t *testing.T) {
	w := create(t, filepath.Join(t.TempDir(), "m"), nil, nil)
	if err := w.Commit(); err != nil || w.Removed() != nil {
		t.Errorf("%v, %q", err, w.Removed())
	}
}

func mkdir(t *testing.T, dir string) {
	t.Helper()
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
}

func writeText(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
}

// The shards that a run would have removed, had it not been killed, are removed by the next one, if no index has them and
// they are still the same files.
func TestListOfReplaced(t *testing.T) {
	const newIndex = `{"weight_map":{"a":"n1.safetensors"}}`
	all := []string{"s1.safetensors", "s2.safetensors", "s3.safetensors"}
	for _, test := range []struct {
		what   string
		index  string // "" if it is gone
		other  string // another index
		list   string // in the place of the list
		change string // a file that is written again
		kept   []string
	}{
		{"the new index is there", newIndex, "", "", "", nil},
		{"the old index is gone", "", "", "", "", nil},
		{"the old index is there", `{"weight_map":{"a":"s1.safetensors","b":"s2.safetensors","c":"s3.safetensors"}}`, "", "", "", all},
		{"another index has one", newIndex, `{"weight_map":{"a":"s2.safetensors"}}`, "", "", []string{"s2.safetensors"}},
		{"another index has one in capitals", newIndex, `{"weight_map":{"a":"S2.safetensors"}}`, "", "", []string{"s2.safetensors"}},
		{"the index is damaged", "{", "", "", "", all},
		{"the list is cut off", newIndex, "", `[{"name":"s1.safete`, "", all},
		{"the list has a path", newIndex, "", `[{"name":"../s1.safetensors"}]`, "", all},
		{"one is another file now", newIndex, "", "", "s2.safetensors", []string{"s2.safetensors"}},
	} {
		t.Run(test.what, func(t *testing.T) {
			dir := modelDir(t, threeShards(t))
			d := &outputDirectory{target: dir, replaced: all}
			l, err := d.listReplaced()
			if err != nil {
				t.Fatal(err)
			}
			if removed, err := RemoveStale(dir); err != nil || removed != nil {
				t.Errorf("removed %q while the list is locked, error %v", removed, err)
			}
			if test.list != "" {
				writeText(t, l.file.Name(), test.list)
			}
			want := append([]string{"config.json", "other.safetensors"}, test.kept...)
			if test.index == "" {
				if err := os.Remove(filepath.Join(dir, indexName)); err != nil {
					t.Fatal(err)
				}
			} else {
				writeText(t, filepath.Join(dir, indexName), test.index)
				want = append(want, indexName)
			}
			if test.other != "" {
				writeText(t, filepath.Join(dir, "other"+indexSuffix), test.other)
				want = append(want, "other"+indexSuffix)
			}
			if test.change != "" {
				path := filepath.Join(dir, test.change)
				text, err := os.ReadFile(path)
				if err != nil {
					t.Fatal(err)
				}
				writeText(t, path, string(text))
				later := time.Now().Add(time.Second)
				if err := os.Chtimes(path, later, later); err != nil {
					t.Fatal(err)
				}
			}
			list := l.file.Name()
			l.file.Close() // as the end of the process does
			// A run that writes a file into the directory does it as well.
			removed, err := RemoveStale(filepath.Join(dir, "file.safetensors"))
			if test.index == "{" {
				if err == nil || removed != nil {
					t.Errorf("removed %q, error %v", removed, err)
				}
				want = append(want, filepath.Base(list))
			} else if err != nil || !slices.Equal(removed, []string{list}) {
				t.Errorf("removed %q, error %v", removed, err)
			}
			slices.Sort(want)
			wantFiles(t, dir, want...)
		})
	}
}

// The new shards of a run that was killed before its index was there are removed too, but not those that parts have
// written, which a finish still needs.
func TestListOfNewShards(t *testing.T) {
	for _, keep := range []bool{false, true} {
		dir := modelDir(t, threeShards(t))
		w := sharded(t, dir, sameSizes, WithShards([]Shard{{"n1.safetensors", []string{"a", "b", "c"}}}))
		d := w.out.(*outputDirectory)
		d.keep = keep
		l, err := d.listReplaced()
		if err != nil {
			t.Fatal(err)
		}
		if err := d.shards[0].rename(); err != nil {
			t.Fatal(err)
		}
		want := []string{"config.json", indexName, "other.safetensors", "s1.safetensors", "s2.safetensors", "s3.safetensors"}
		if keep != (l == nil) {
			t.Fatalf("list %v of files that are kept: %t", l, keep)
		}
		if keep {
			want = append(want, "n1.safetensors")
		} else {
			l.file.Close()
		}
		d.keep = false
		d.discard()
		if _, err := RemoveStale(dir); err != nil {
			t.Error(err)
		}
		slices.Sort(want)
		wantFiles(t, dir, want...)
	}
}

// A temporary side file that was left in a model directory is removed as shards are.
func TestStaleSideFile(t *testing.T) {
	dir := modelDir(t, threeShards(t))
	f, err := openTemp(filepath.Join(dir, "tokenizer.json"), 0o666)
	if err != nil {
		t.Fatal(err)
	}
	if removed, err := RemoveStale(dir); err != nil || removed != nil {
		t.Errorf("removed %q while it is locked, error %v", removed, err)
	}
	f.Close()
	if removed, err := RemoveStale(dir); err != nil || !slices.Equal(removed, []string{f.Name()}) {
		t.Errorf("removed %q, error %v", removed, err)
	}
}

// What a finish that was killed has left is removed by the next one, also if there is nothing else to do for it.
func TestStaleOfFinish(t *testing.T) {
	dir := modelDir(t, threeShards(t))
	d := &outputDirectory{target: dir, replaced: []string{"s3.safetensors"}}
	l, err := d.listReplaced()
	if err != nil {
		t.Fatal(err)
	}
	writeText(t, filepath.Join(dir, indexName), `{"weight_map":{"a":"s1.safetensors","b":"s2.safetensors"}}`)
	l.file.Close()
	if _, err := OpenUnfinished(dir); !errors.Is(err, ErrNoParts) {
		t.Errorf("error %v", err)
	}
	wantFiles(t, dir, "config.json", indexName, "other.safetensors", "s1.safetensors", "s2.safetensors")
}
