package checkpoint

import (
	"maps"
	"path/filepath"
	"strings"
	"testing"
)

// One file is not written where it would break a model directory, by Create as by CheckCreate.
func TestFileBreaksModel(t *testing.T) {
	for _, test := range []struct{ file, want string }{
		{"s1.safetensors", "is a shard of the model of"},
		{"s2.safetensors", "is a shard of the model of"},
		{singleName, "would be ambiguous beside"},
		{"x.safetensors.index.json", "as that of an index"},
		{indexName, "as that of an index"},
		{"s3.safetensors", ""},
		{"s1.npy", ""},
	} {
		dir := modelDir(t, goodFiles())
		path := filepath.Join(dir, test.file)
		tensors := []Tensor{{"a", U8, []int64{1}}}
		check := CheckCreate(path, tensors, nil)
		w, err := Create(path, tensors, nil)
		if err == nil {
			w.Close()
		}
		for _, err := range []error{check, err} {
			if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want) ||
				!strings.HasPrefix(err.Error(), path)) {
				t.Errorf("%s: error %v", test.file, err)
			}
		}
		if got := readDir(t, dir); !maps.Equal(got, goodFiles()) {
			t.Errorf("%s: the directory has changed", test.file)
		}
	}
	// The one file of a model directory is a file as any other.
	dir := modelDir(t, map[string]string{singleName: string(smallFile("a"))})
	t.Chdir(dir)
	w, err := Create(singleName, []Tensor{{"a", U8, []int64{0}}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(); err != nil {
		t.Error(err)
	}
}
