package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/modelavg/modelavg/checkpoint"
)

// everything returns the contents of all files below the working directory, and its directories.
func everything(t *testing.T) map[string]string {
	t.Helper()
	found := make(map[string]string)
	err := filepath.WalkDir(".", func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			found[path] = "directory"
			return err
		}
		text, err := os.ReadFile(path)
		found[path] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// A file that is no model is not replaced; one that is, also cut off, and an empty one are.
func TestTarget(t *testing.T) {
	inDirectory(t)
	save(t, "m.npz", values("weight", checkpoint.F32, []float32{1}, 1))
	save(t, "m.npy", values("weight", checkpoint.F32, []float32{1}, 1))
	model, err := os.ReadFile("a")
	if err != nil {
		t.Fatal(err)
	}
	archive := "PK\x03\x04" + strings.Repeat("\x00", 22) + "\x0e\x00\x00\x00" + "word/text.html and more"
	for name, text := range map[string]string{
		"config.json": "{}\n", "notes.txt": "some notes", "short": "x", "doc.zip": archive, "eight": "12345678",
		"cut": string(model[:20]), "empty": "", "brace": "nonsense{",
	} {
		if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir("dir", 0o777); err != nil {
		t.Fatal(err)
	}
	const foreign = "exists and is no model file: remove it or choose another name"
	const isDirectory = "is a directory, want a file for a model of one file (--max-shard-size SIZE writes a directory)"
	for out, want := range map[string]string{
		"config.json": foreign, "notes.txt": foreign, "short": foreign, "doc.zip": foreign, "eight": foreign, "brace": foreign,
		"dir": isDirectory, "dir/": isDirectory, "/": isDirectory,
		"new/":                  "new/: there is no directory new (--max-shard-size SIZE writes one; without it the output is a file)",
		"a/":                    "there is no directory a",
		"x.pt":                  "x.pt: is a name for PyTorch's files, which are not written: want one that ends with .safetensors, .npy or .npz",
		"dir/pytorch_model.BIN": "is a name for PyTorch's files", "x.gguf": "is a name for GGUF files",
	} {
		before := everything(t)
		for _, command := range []string{"mean", "plan mean", "soup --eval x{}"} {
			status, stdout, stderr := execute(t, command+" -o "+out+" a b")
			if status != statusFailed || stdout != "" {
				t.Errorf("%s -o %s: status %d, %s", command, out, status, stdout)
			}
			checkErrorLine(t, out, stderr, want)
		}
		if got := everything(t); !maps.Equal(got, before) {
			t.Errorf("-o %s: files have changed", out)
		}
	}
	for _, out := range []string{"cut", "empty", "m.npz", "m.npy", "new", "b"} {
		if status, _, stderr := execute(t, "mean --exclude steps -o "+out+" a c"); status != statusDone {
			t.Errorf("-o %s: %s", out, stderr)
		}
	}
	if err := os.Symlink("notes.txt", "link"); err != nil {
		t.Skip(err)
	}
	if status, _, stderr := execute(t, "mean -o link a c"); status != statusDone { // the link is replaced
		t.Error(stderr)
	}
	if text, err := os.ReadFile("notes.txt"); err != nil || string(text) != "some notes" {
		t.Errorf("the notes are %q, %v", text, err)
	}
}

// Plan refuses the outputs that the run refuses, in the same words, and writes nothing.
func TestPlanChecksOutput(t *testing.T) {
	inDirectory(t)
	save(t, "x", values("w", checkpoint.BF16, []uint16{1, 2}, 2))
	writeDirectory(t, "d", 1)
	for _, dir := range []string{"single", "sub"} {
		if err := os.Mkdir(dir, 0o777); err != nil {
			t.Fatal(err)
		}
	}
	writeModel(t, "single/model.safetensors", 0, 1, 2)
	for _, line := range []string{
		"mean -o out.npz x x", "mean -o out.npy a b", "mean -o a/out a b", "mean -o a/b/out a b", "mean -o none/out a b",
		"mean -o out/ a b", "mean -o sub a b", "mean -o single d d", "mean -o a d d", "mean -o a --max-shard-size 8B a b",
		"mean -o out.npz --max-shard-size 8B a b", "mean -o d --max-shard-size 1GB a b",
	} {
		before := everything(t)
		status, stdout, want := execute(t, line)
		planned, said, stderr := execute(t, "plan "+line)
		if status != statusFailed || planned != statusFailed || stderr != want || said != "" {
			t.Errorf("%s: status %d, %s; plan: status %d, %s\n%s", line, status, want, planned, stderr, said)
		}
		if !maps.Equal(everything(t), before) {
			t.Errorf("%s: files have changed\n%s", line, stdout)
		}
	}
	for _, line := range []string{
		"mean -o out a b", "mean -o out.npy --include weight a b", "mean -o new d d", "mean -o new/ d d", "mean -o d d d",
		"mean -o new/ --max-shard-size 1MB a b",
	} {
		before := everything(t)
		if status, _, stderr := execute(t, "plan "+line); status != statusDone {
			t.Errorf("plan %s: %s", line, stderr)
		}
		if !maps.Equal(everything(t), before) {
			t.Errorf("plan %s: files have changed", line)
		}
	}
}

// The report ends with the end of a line, and no line begins or ends with a space.
func TestReportSpaces(t *testing.T) {
	inDirectory(t)
	writeDirectory(t, "d", 1)
	for _, line := range []string{
		"mean -o out a b", "mean -o out --exclude steps a b", "mean -o new d d", "plan mean d d", "mean -o new d d",
	} {
		_, stdout, stderr := execute(t, line)
		for text := range strings.Lines(stdout) {
			if strings.TrimSpace(text)+"\n" != text {
				t.Errorf("%s: the line %q", line, text)
			}
		}
		if stderr != "" || !strings.HasSuffix(stdout, "\n") {
			t.Errorf("%s: %s\n%q", line, stderr, stdout)
		}
	}
}

// Plan and report say what becomes of every file in the directory of the first model.
func TestSideFiles(t *testing.T) {
	t.Chdir(t.TempDir())
	writeDirectory(t, "d", 1)
	for _, name := range []string{"vocab.txt", "pytorch_model.bin", ".hidden"} {
		if err := os.WriteFile(filepath.Join("d", name), []byte("x"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir("d/onnx", 0o777); err != nil {
		t.Fatal(err)
	}
	const not = "not copied: .hidden, onnx/, pytorch_model.bin\n"
	const skipped = "skipped, since it is there already: config.json, vocab.txt\n"
	for _, step := range []struct{ line, want string }{
		{"plan mean d d", "copies config.json, vocab.txt\n" + not},
		{"plan mean -o out d d", "copies config.json, vocab.txt\n" + not},
		{"mean -o out d d", "copied config.json, vocab.txt\n" + not},
		{"plan mean -o out d d", skipped + not},
		{"mean -o out d d", skipped + not},
		{"mean -o d d d", skipped},
	} {
		status, stdout, stderr := execute(t, step.line)
		if status != statusDone || !strings.HasSuffix(stdout, step.want) ||
			strings.Count(stdout, "not copied") != strings.Count(step.want, "not copied") {
			t.Errorf("%s: %s\n%s\nwant %q at the end", step.line, stderr, stdout, step.want)
		}
	}
	for _, line := range []string{"plan mean --json -o new d d", "mean --json -o new d d"} {
		_, stdout, _ := execute(t, line)
		var got struct {
			SideFiles sideFiles `json:"side_files"`
		}
		if err := json.Unmarshal([]byte(stdout), &got); err != nil ||
			!slices.Equal(got.SideFiles.Copied, []string{"config.json", "vocab.txt"}) ||
			!slices.Equal(got.SideFiles.NotCopied, []string{".hidden", "onnx/", "pytorch_model.bin"}) ||
			len(got.SideFiles.Skipped) > 0 {
			t.Errorf("%s: %v, %+v", line, err, got)
		}
	}
}

// Plan and report say how many tensors are larger than a shard should be.
func TestLargerThanShard(t *testing.T) {
	inDirectory(t) // 8 bytes of weights, 8 of steps
	for size, want := range map[string]string{
		"8B":  "",
		"7B":  "note: 2 tensors are larger than --max-shard-size, and have a shard of their own each\n",
		"1GB": "",
	} {
		for _, command := range []string{"plan mean", "mean"} {
			_, stdout, stderr := execute(t, command+" -o "+size+" --max-shard-size "+size+" a b")
			if stderr != "" || !strings.HasSuffix(stdout, want) || strings.Contains(stdout, "note:") != (want != "") {
				t.Errorf("%s, %s: %s%s\nwant %q", command, size, stderr, stdout, want)
			}
		}
	}
	_, stdout, _ := execute(t, "plan mean --exclude steps --max-shard-size 7B a b")
	want := "note: 1 tensor is larger than --max-shard-size, and has a shard of its own\n"
	if !strings.HasSuffix(stdout, want) {
		t.Errorf("%s\nwant %q", stdout, want)
	}
}

// What config.json says about the dtype is compared with --dtype.
func TestConfigDType(t *testing.T) {
	for _, test := range []struct{ config, flag, want string }{
		{
			`{"torch_dtype":"bfloat16"}`, "f32",
			"note: config.json still says torch_dtype bfloat16, the averaged tensors are float32\n",
		},
		{
			`{"dtype":"float16","torch_dtype":"bfloat16"}`, "bf16",
			"note: config.json still says dtype float16, the averaged tensors are bfloat16\n",
		},
		{`{"torch_dtype":"float32"}`, "f32", ""},
		{`{"torch_dtype":"bfloat16"}`, "first", ""},
		{`{"torch_dtype":null,"dtype":7}`, "f16", ""},
		{`[]`, "f16", ""},
		{`nonsense`, "f16", ""},
	} {
		t.Chdir(t.TempDir())
		writeDirectory(t, "d", 1)
		if err := os.WriteFile("d/config.json", []byte(test.config), 0o666); err != nil {
			t.Fatal(err)
		}
		_, planned, _ := execute(t, "plan mean --dtype "+test.flag+" d d")
		if !strings.HasSuffix(planned, test.want) {
			t.Errorf("%s, plan --dtype %s: %s\nwant %q", test.config, test.flag, planned, test.want)
		}
		status, stdout, stderr := execute(t, "mean --dtype "+test.flag+" -o out d d")
		if status != statusDone || !strings.HasSuffix(stdout, test.want) ||
			strings.Contains(stdout, "note:") != (test.want != "") {
			t.Errorf("%s, --dtype %s: %s\n%s\nwant %q", test.config, test.flag, stderr, stdout, test.want)
		}
		_, stdout, _ = execute(t, "mean --json --dtype "+test.flag+" -o out d d")
		if strings.Contains(stdout, `"notes": [`) != (test.want != "") {
			t.Errorf("%s, --dtype %s: %s", test.config, test.flag, stdout)
		}
	}
}

// Errors name the flag that allows what they are about, and no other.
func TestHints(t *testing.T) {
	inDirectory(t)
	writeModel(t, "shape", 0, 1, 2, 3)
	save(t, "more", values("weight", checkpoint.F32, []float32{1, 2}, 2), values("steps", checkpoint.I64, []int64{1}, 1),
		values("new", checkpoint.F32, []float32{1}, 1))
	const keys, normalize = "(--keys intersection leaves", "(--normalize divides them by their sum)"
	for _, test := range []struct {
		line      string
		want, not string
	}{
		{"mean -o out a more", keys, ""},
		{"plan mean a more", keys, ""},
		{"mean -o out a shape", "has shape", "--keys"},
		{"mean -o out a more shape", "has shape", "--keys"},
		{"weighted -w 1,2 -o out a b", normalize, ""},
		{"weighted -w 0.5,0.5 --tensor-weights steps=1,2 -o out a b", normalize, ""},
		{"weighted -w 0,0 --normalize -o out a b", "sum", normalize},
		{"weighted -w 0,0 --counts -o out a b", "sum", normalize},
		{"mean --tensor-weights steps=1,2 -o out a b", "sum", normalize},
	} {
		_, _, stderr := execute(t, test.line)
		checkErrorLine(t, test.line, stderr, test.want)
		if test.not != "" && strings.Contains(stderr, test.not) {
			t.Errorf("%s: %s", test.line, stderr)
		}
	}
}

// A file that was cut off has one line, which says how many tensors are not whole.
func TestVerifyTruncated(t *testing.T) {
	t.Chdir(t.TempDir())
	var list []content
	for i := range 20 {
		list = append(list, values(fmt.Sprintf("t%02d", i), checkpoint.F32, []float32{1}, 1))
	}
	save(t, "m", list...)
	text, err := os.ReadFile("m")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("m", bytes.Clone(text[:len(text)-70]), 0o666); err != nil {
		t.Fatal(err)
	}
	status, stdout, stderr := execute(t, "verify m")
	const want = `m: tensor "t02": data_offsets [8,12]: the file is truncated, it has 10 bytes of data, want 80, ` +
		"which cuts 18 of 20 tensors\n"
	if status != statusFailed || stdout != want || !strings.Contains(stderr, "violations found: 1") {
		t.Errorf("status %d, %s\n%s\nwant\n%s", status, stderr, stdout, want)
	}
}

// Nothing is evaluated if the models cannot be averaged in the end.
func TestSoupChecksFirst(t *testing.T) {
	inDirectory(t)
	writeModel(t, "shape", 0, 1, 2, 3)
	for line, want := range map[string]string{
		"-o out a b shape": `shape: tensor "weight" has shape [3], want [2]`, "-o out.npy a b": "npy",
	} {
		args := append([]string{"soup", "--eval", "echo {} >>evaluated; echo 1"}, strings.Fields(line)...)
		status, _, stderr := executeArgs(t, args...)
		if status != statusFailed || !strings.Contains(stderr, want) {
			t.Errorf("%s: status %d, %s", line, status, stderr)
		}
		if slices.Contains(files(t), "evaluated") {
			t.Errorf("%s: a model was evaluated", line)
		}
	}
}

// The indented blocks of the help fit a terminal of 80 columns, and the pages have no empty defaults.
func TestNarrowHelp(t *testing.T) {
	_, help, _ := execute(t, "mean --help")
	from, to := strings.Index(help, "  --integers "), strings.Index(help, "\n\nWeights.")
	if from < 0 || to < from {
		t.Fatalf("no policies in\n%s", help)
	}
	for line := range strings.Lines(help[from:to]) {
		if len(line) > 81 {
			t.Errorf("%d columns: %s", len(line)-1, line)
		}
	}
	_, help, _ = execute(t, "--help")
	if !strings.Contains(help, "modelavg man --dir DIR") || !strings.Contains(help, "modelavg completion --help") {
		t.Errorf("the help has neither pages nor completion\n%s", help)
	}
	dir := t.TempDir()
	if err := writeManPages(newRoot(), dir); err != nil {
		t.Fatal(err)
	}

	pages, _ := filepath.Glob(filepath.Join(dir, "*.1"))
	for _, page := range pages {
		text, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			for _, empty := range []string{"[=false]", "=[]", `=""`, "=0", "[=]"} {
				if strings.HasPrefix(line, `\fB-`) && strings.HasSuffix(line, empty+"\n") {
					t.Errorf("%s: %s", page, line)
				}
			}
		}
		if strings.HasSuffix(page, "-mean.1") && !strings.Contains(string(text), `\fB--keys\fP=strict`) {
			t.Errorf("%s: a default is missing", page)
		}
	}
}
