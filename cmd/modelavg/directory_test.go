package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/modelavg/modelavg/checkpoint"
)

// writeDirectory writes a model directory of two shards, each with a tensor of this value, and a config.json.
func writeDirectory(t *testing.T, dir string, value float32) {
	t.Helper()
	w, err := checkpoint.Create(dir, []checkpoint.Tensor{
		{Name: "bias", DType: checkpoint.F32, Shape: []int64{2}}, {
			Name: "weight", DType: checkpoint.F32,
			Shape: []int64{2},
		},
	}, nil, checkpoint.WithMaxShardSize(8))
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for _, name := range []string{"bias", "weight"} {
		x := values(name, checkpoint.F32, []float32{value, 10 * value}, 2)
		if _, err := w.WriteAt(name, x.data, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config.json"), []byte(dir), 0o666); err != nil {
		t.Fatal(err)
	}
}

// list returns the names of the files in a directory.
func list(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// twoShards are the files of a directory that writeDirectory writes.
var twoShards = []string{
	"config.json", "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors",
	"model.safetensors.index.json",
}

func TestDirectories(t *testing.T) {
	t.Chdir(t.TempDir())
	writeDirectory(t, "a", 1)
	writeDirectory(t, "b", 3)
	writeModel(t, "f.safetensors", 0, 1, 2)
	for _, test := range []struct {
		line   string
		out    string
		files  []string // nil: it is a file
		want   []float32
		stdout string // in it
	}{
		{"mean -o out a b", "out", twoShards, []float32{2, 20}, "copied config.json\n"},
		{"mean -o out a b", "out", twoShards, []float32{2, 20}, "skipped, since it is there already: config.json\n"},
		{
			"mean -o other a/model.safetensors.index.json b", "other", twoShards,
			[]float32{2, 20},
			"copied config.json\n",
		},
		{"mean -o one.safetensors a b", "one.safetensors", nil, []float32{2, 20}, ""},
		{"mean -o one.npz a b", "one.npz", nil, []float32{2, 20}, ""},
		{"mean -o again --max-shard-size 8B one.npz a", "again", twoShards[1:], []float32{1.5, 15}, ""},
		{"mean -o single --max-shard-size 1GB one.safetensors", "single", []string{"model.safetensors"}, []float32{
			2,
			20,
		}, ""},
		{"mean -o mixed one.safetensors b", "mixed", nil, []float32{2.5, 25}, ""},
		{
			"mean -o small --max-shard-size 8B --exclude bias a b", "small",
			[]string{"config.json", "model.safetensors"},
			[]float32{2, 20},
			"",
		},
		{"mean -o b a b", "b", twoShards, []float32{2, 20}, "skipped, since it is there already: config.json\n"}, // an input
	} {
		status, stdout, stderr := execute(t, test.line)
		if status != statusDone || stderr != "" || !strings.Contains(stdout, test.stdout) {
			t.Errorf("%s: status %d, %s\n%s", test.line, status, stderr, stdout)
			continue
		}
		if got := weightsIn(t, test.out); !slices.Equal(got, test.want) {
			t.Errorf("%s: got %v, want %v", test.line, got, test.want)
		}
		info, err := os.Stat(test.out)
		switch {
		case err != nil:
			t.Error(err)
		case info.IsDir() != (test.files != nil):
			t.Errorf("%s: it is a directory: %v", test.line, info.IsDir())
		case info.IsDir() && !slices.Equal(list(t, test.out), test.files):
			t.Errorf("%s: files %q, want %q", test.line, list(t, test.out), test.files)
		}
	}
	if text, err := os.ReadFile("out/config.json"); err != nil || string(text) != "a" {
		t.Errorf("config.json is that of %q, %v", text, err)
	}
	if text, err := os.ReadFile("b/config.json"); err != nil || string(text) != "b" {
		t.Errorf("config.json of b has become that of %q, %v", text, err)
	}

	for line, want := range map[string]string{
		"plan mean a b":                                 "writes a directory, in the shards of a, with its other files\n",
		"plan mean -o x.safetensors a b":                "writes one file\n",
		"plan mean f.safetensors f.safetensors":         "writes one file\n",
		"plan mean --max-shard-size 1.5MB a b":          "writes a directory, in shards of at most 1500000 bytes, or of one tensor that is larger, with its other files\n",
		"plan mean --max-shard-size 1KiB f.safetensors": "writes a directory, in shards of at most 1024 bytes, or of one tensor that is larger\n",
		"inspect a": "2 tensors, 4 elements, 16 bytes, 2 F32, in 2 shards\n",
	} {
		if status, stdout, stderr := execute(t, line); status != statusDone || !strings.Contains(stdout, want) {
			t.Errorf("%s: status %d, %s\n%s\nwant %q", line, status, stderr, stdout, want)
		}
	}
	_, stdout, _ := execute(t, "mean --json -o out a b")
	var got struct {
		Layout    string
		SideFiles sideFiles `json:"side_files"`
	}
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || !slices.Equal(got.SideFiles.Skipped,
		[]string{"config.json"}) ||
		got.SideFiles.Copied == nil || !strings.HasPrefix(got.Layout, "a directory") {
		t.Errorf("%v, %+v\n%s", err, got, stdout)
	}
	for _, size := range []string{"0", "-1", "x", "1XB", "1e30", "NaN", "GB"} {
		if status, _, stderr := executeArgs(t, "mean", "-o", "x", "--max-shard-size", size,
			"a"); status != statusUsage ||
			!strings.Contains(stderr, "want a number of bytes such as 5GB or 500MiB") {
			t.Errorf("--max-shard-size %s: status %d, %s", size, status, stderr)
		}
	}
}

// Every shard that is wrong is named.
func TestVerifyDirectory(t *testing.T) {
	t.Chdir(t.TempDir())
	writeDirectory(t, "a", 1)
	if status, stdout, _ := execute(t, "verify a"); status != statusDone || stdout != "a: valid, 2 tensors\n" {
		t.Errorf("status %d, %s", status, stdout)
	}
	for _, shard := range twoShards[1:3] {
		if err := os.Truncate(filepath.Join("a", shard), 100); err != nil {
			t.Fatal(err)
		}
	}
	status, stdout, stderr := execute(t, "verify a")
	if status != statusFailed || stderr != "modelavg: violations found: 2\n" {
		t.Errorf("status %d, %s", status, stderr)
	}
	for _, shard := range twoShards[1:3] {
		if !strings.Contains(stdout, shard) {
			t.Errorf("%s is not in\n%s", shard, stdout)
		}
	}
	writeDirectory(t, "b", 1)
	if err := os.Remove(filepath.Join("b", twoShards[2])); err != nil {
		t.Fatal(err)
	}
	if status, stdout, _ := execute(t, "verify b/model.safetensors.index.json"); status != statusFailed ||
		!strings.Contains(stdout, twoShards[2]) {
		t.Errorf("status %d, %s", status, stdout)
	}
}
