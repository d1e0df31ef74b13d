package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/modelavg/modelavg/checkpoint"
	"github.com/modelavg/modelavg/kernel"
)

// writeModel writes a model with the F32 tensor "weight" of these values and the I64 tensor "steps".
func writeModel(t testing.TB, path string, steps int64, values ...float32) string {
	t.Helper()
	w, err := checkpoint.Create(path, []checkpoint.Tensor{
		{Name: "weight", DType: checkpoint.F32, Shape: []int64{int64(len(values))}},
		{Name: "steps", DType: checkpoint.I64, Shape: []int64{1}},
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for name, data := range map[string]any{"weight": values, "steps": steps} {
		p, err := binary.Append(nil, binary.LittleEndian, data)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.WriteAt(name, p, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	return path
}

// weightsIn returns the values of the tensor "weight" in a file.
func weightsIn(t testing.TB, path string) []float32 {
	t.Helper()
	m, err := checkpoint.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	tensor, _ := m.Tensor("weight")
	p := make([]byte, 4*tensor.Shape[0])
	if _, err := m.ReadAt("weight", p, 0); err != nil {
		t.Fatal(err)
	}
	values := make([]float32, tensor.Shape[0])
	if _, err := binary.Decode(p, binary.LittleEndian, values); err != nil {
		t.Fatal(err)
	}
	return values
}

// inDirectory makes a directory with the models a (1, 10), b (2, 20) and c (4, 40) the working directory.
func inDirectory(t *testing.T) {
	t.Helper()
	t.Chdir(t.TempDir())
	for i, name := range []string{"a", "b", "c"} {
		x := float32(int(1) << i)
		writeModel(t, name, int64(i), x, 10*x)
	}
}

// files returns the names in the working directory.
func files(t testing.TB) []string {
	t.Helper()
	list, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

// execute runs a command line, words separated by spaces.
func execute(t testing.TB, line string) (status int, stdout, stderr string) {
	t.Helper()
	return executeArgs(t, strings.Fields(line)...)
}

// executeArgs runs a command line.
func executeArgs(t testing.TB, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	status = run(t.Context(), args, &out, &err)
	return status, out.String(), err.String()
}

func TestAverages(t *testing.T) {
	for _, test := range []struct {
		line    string
		want    []float32
		weights []string // as printed
	}{
		{"mean -o out a", []float32{1, 10}, []string{"1"}},
		{"mean -o out a b", []float32{1.5, 15}, []string{"0.5", "0.5"}},
		{"mean -o out a b c", []float32{7.0 / 3, 70.0 / 3}, []string{"0.333333", "0.333333", "0.333333"}},
		{"mean a b --output=out --workers 3", []float32{1.5, 15}, []string{"0.5", "0.5"}},
		{"weighted -w 0.25,0.5,0.25 -o out a b c", []float32{2.25, 22.5}, []string{"0.25", "0.5", "0.25"}},
		{"weighted -w 0.25 -w 0.5 -w 0.25 -o out a b c", []float32{2.25, 22.5}, []string{"0.25", "0.5", "0.25"}},
		{"weighted -w -1,2 -o out a b", []float32{3, 30}, []string{"-1", "2"}},
		{"weighted -w 1,2,1 --normalize -o out a b c", []float32{2.25, 22.5}, []string{"0.25", "0.5", "0.25"}},
		{"weighted -w 100,200,100 --counts -o out a b c", []float32{2.25, 22.5}, []string{"0.25", "0.5", "0.25"}},
		{"weighted -w 0.5,0,0.5 -o out a b c", []float32{2.5, 25}, []string{"0.5", "0", "0.5"}},
		{"ewa --decay 0.5 -o out a b c", []float32{21.0 / 7, 210.0 / 7}, []string{"0.142857", "0.285714", "0.571429"}},
		{"ewa --decay 0.5 --weighting ema -o out a b c", []float32{2.75, 27.5}, []string{"0.25", "0.25", "0.5"}},
		{"ewa --weighting linear -o out a b c", []float32{17.0 / 6, 170.0 / 6}, []string{"0.166667", "0.333333", "0.5"}},
		{"ewa --weighting power --gamma 1 -o out a b", []float32{1.75, 17.5}, []string{"0.25", "0.75"}},
		{"ewa --decay 0.5 --weighting article -o out a b c", []float32{2.5, 25}, []string{"0.25", "0.375", "0.375"}},
	} {
		inDirectory(t)
		status, stdout, stderr := execute(t, test.line)
		if status != statusDone || stderr != "" {
			t.Errorf("%s: status %d, stderr %q", test.line, status, stderr)
			continue
		}
		if got := weightsIn(t, "out"); !slices.Equal(got, test.want) {
			t.Errorf("%s: got %v, want %v", test.line, got, test.want)
		}
		lines := strings.Split(stdout, "\n")
		for i, w := range test.weights {
			fields := strings.Fields(lines[i])
			if len(fields) < 3 || fields[0] != "weight" || fields[1] != w || fields[2] != string(rune('a'+i)) {
				t.Errorf("%s: line %d of the output is %q, want weight %s", test.line, i, lines[i], w)
			}
		}
		if report := lines[len(test.weights)]; !strings.HasPrefix(report, "out: 1 tensor averaged, 1 copied from ") ||
			!strings.HasSuffix(report, ": steps") {
			t.Errorf("%s: report %q", test.line, report)
		}
		if len(lines) != len(test.weights)+3 {
			t.Errorf("%s: %d lines of output\n%s", test.line, len(lines)-1, stdout)
		}
		if got := files(t); !slices.Equal(got, []string{"a", "b", "c", "out"}) {
			t.Errorf("%s: files %q", test.line, got)
		}
	}
}

// power --sigma 0.2 has gamma 1.8348…, by Karras et al. 2024; the newest of two models has 1 - 2^-(gamma+1).
func TestPowerSigma(t *testing.T) {
	inDirectory(t)
	status, stdout, stderr := execute(t, "ewa --weighting power --sigma 0.2 -o out a b")
	if status != statusDone || !strings.Contains(stdout, "weight 0.14") {
		t.Errorf("status %d\n%s%s", status, stdout, stderr)
	}
}

func TestUsageErrors(t *testing.T) {
	for _, test := range []struct{ line, want string }{
		{"", "no command given (see modelavg --help)"},
		{"maen -o out a b", `unknown command "maen" for "modelavg"`},
		{"maen", `unknown command "maen" for "modelavg": did you mean "mean"? (see modelavg --help)`},
		{"nonsense", `unknown command "nonsense" for "modelavg" (see modelavg --help)`},
		{"plan weigthed -w 1,2 a b", `unknown command "weigthed" for "modelavg plan": did you mean "weighted"? (see modelavg plan`},
		{"plan", "no command given: want mean, weighted or ewa"},
		{"help nonsense", `unknown command "nonsense" for "modelavg" (see modelavg --help)`},
		{"help meen", `unknown command "meen" for "modelavg": did you mean "mean"? (see modelavg --help)`},
		{"help plan diff", `unknown command "diff" for "modelavg plan" (see modelavg --help)`},
		{"help mean a", `unknown command "a" for "modelavg mean"`},
		{"mean -o out a -", "-: a model is read from a file, not from standard input; ./- is a file of that name"},
		{"inspect -", "-: a model is read from a file"},
		{"diff a -", "-: a model is read from a file"},
		{"verify -", "-: a model is read from a file"},
		{"soup --eval x{} -o out a -", "-: a model is read from a file"},
		{"ewa --decay x -o out a b", `invalid argument "x" for "--decay" flag: want a number (see`},
		{"ewa --decay 1e999 -o out a b", `invalid argument "1e999" for "--decay" flag: it is out of range (see`},
		{"mean -o out --workers 1.5 a b", `invalid argument "1.5" for "-`},
		{"mean -o - a b", "-o -: want a file, not standard output; ./- is a file of that name"},
		{"plan mean -o - a b", "-o -: want a file"},
		{"soup --eval x{} -o - a b", "-o -: want a file"},
		{"soup --eval x{} --log - -o out a b", "--log -: want a file"},
		{"diff --plot - a b", "--plot -: want a file"},
		{"--bogus", "unknown flag: --bogus (see modelavg --help)"},
		{"mean a b", "no output file given: -o FILE is required (see modelavg mean --help)"},
		{"mean -o out", "no model files given (see modelavg mean --help)"},
		{"mean -o out --bogus a b", "unknown flag: --bogus (see modelavg mean --help)"},
		{"mean a b -o", "flag needs an argument: 'o' in -o (see modelavg mean --help)"},
		{"mean -o out --workers -1 a b", "--workers -1: want 0 or more (see modelavg mean --help)"},
		{"mean -o out --workers x a b", `invalid argument "x" for "--workers" flag`},
		{"mean -o out -w 0.5,0.5 a b", "unknown shorthand flag: 'w' in -w (see modelavg mean --help)"},
		{"weighted -o out a b", "no weights given: -w WEIGHT,... is required"},
		{"weighted -w 0.5,0.5 -o out a b c", "2 weights for 3 files: want one for each (see modelavg weighted --help)"},
		{"weighted -w 0.2,0.3,0.5 -o out a b", "3 weights for 2 files: want one for each (see modelavg weighted --help)"},
		{"weighted -w 0.5,0.4 -o out a b", "modelavg: weights do not sum to one: "},
		{"weighted -w 0.5,NaN -o out a b", `weight 2, of b, is "NaN": want a finite number`},
		{"weighted -w Inf,0.5 -o out a b", `weight 1, of a, is "Inf": want a finite number`},
		{"weighted -w 0.5,x -o out a b", `weight 2, of b, is "x": want a finite number`},
		{"weighted -w 0.5, -o out a b", `weight 2, of b, is "": want a finite number`},
		{"weighted -w 1,-1 --normalize -o out a b", `weight 2, of b, is "-1": want a finite number of 0 or more`},
		{"weighted -w 0,0 --normalize -o out a b", "sum"},
		{"weighted -w 1,1 --normalize --counts -o out a b", "--normalize and --counts exclude each other"},
		{"weighted -w 1.5,1 --counts -o out a b", `count 1, of a, is "1.5": want a whole number of 0 or more`},
		{"weighted -w 0,0 --counts -o out a b", "sum"},
		{"weighted -w 1,-2 --counts -o out a b", `count 2, of b, is "-2": want a whole number of 0 or more`},
		{"ewa -o out a b", "--weighting geometric needs --decay"},
		{"ewa --decay 1.5 -o out a b", "decay out of range"},
		{"ewa --decay NaN -o out a b", "decay out of range"},
		{"ewa --decay 0.9 --weighting linear -o out a b", "--weighting linear takes no --decay"},
		{"ewa --decay 0.9 --gamma 1 -o out a b", "--weighting geometric takes no --gamma"},
		{"ewa --weighting power -o out a b", "--weighting power needs --gamma or --sigma"},
		{"ewa --weighting power --gamma 1 --sigma 0.1 -o out a b", "--gamma and --sigma exclude each other"},
		{"ewa --weighting power --gamma -1 -o out a b", "gamma out of range"},
		{"ewa --weighting power --sigma 0.5 -o out a b", "sigma out of range"},
		{
			"ewa --weighting exponential --decay 0.9 -o out a b",
			"--weighting exponential is unknown: want geometric, ema, power, linear, article",
		},
		{"version now", `unknown command "now" for "modelavg version"`},
	} {
		inDirectory(t)
		status, stdout, stderr := execute(t, test.line)
		if status != statusUsage || stdout != "" {
			t.Errorf("%q: status %d, stdout %q", test.line, status, stdout)
		}
		checkErrorLine(t, test.line, stderr, test.want)
		if got := files(t); !slices.Equal(got, []string{"a", "b", "c"}) {
			t.Errorf("%q: files %q", test.line, got)
		}
	}
}

func TestEmptyName(t *testing.T) {
	status, _, stderr := executeArgs(t, "mean", "-o", "out", "a", "")
	if status != statusUsage || !strings.Contains(stderr, "file 2 of 2 has an empty name") {
		t.Errorf("status %d, %s", status, stderr)
	}
}

func TestFailures(t *testing.T) {
	inDirectory(t)
	writeModel(t, "shape", 0, 1, 2, 3)
	if err := os.WriteFile("text", []byte("this is not a model, but long enough to be one"), 0o666); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"lfs": "version https://git-lfs.github.com/spec/v1\noid sha256:" + strings.Repeat("0", 64) + "\nsize 123456789\n",
		"zip": "PK\x03\x04 and so on",
	} {
		if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir("dir", 0o777); err != nil {
		t.Fatal(err)
	}
	before := files(t)
	for _, test := range []struct{ line, want string }{
		{"mean -o out a none", "none"},
		{"mean -o out a text", "text"},
		{"mean -o out a dir", "dir"},
		{"mean -o out a b shape", `models differ from a; shape: tensor "weight" has shape [3], want [2]`},
		{"weighted -w 1,0 -o out a shape", `models differ from a; shape: tensor "weight" has shape [3], want [2]`},
		{"mean -o none/out a b", "none/out: there is no directory none"},
		{"plan mean -o none/out a b", "none/out: there is no directory none"},
		{"soup --eval x{} -o none/out a b", "none/out: there is no directory none"},
		{"mean -o a/out a b", "a/out: a is a file, want a directory"},
		{"mean -o out a lfs", "lfs: header over the limit: 2336927755350992246 bytes in a file of 134, limit 100000000; this is probably no " +
			"safetensors file, it begins with the text \"version \" (it is a pointer of Git LFS"},
		{"inspect zip", "(it is a zip archive, which torch.save writes: convert it to safetensors)"},
		{"mean -o dir a b", "dir"},
	} {
		status, _, stderr := execute(t, test.line)
		if status != statusFailed {
			t.Errorf("%q: status %d, want %d", test.line, status, statusFailed)
		}
		checkErrorLine(t, test.line, stderr, test.want)
		if strings.Contains(stderr, "--help") {
			t.Errorf("%q: points to the help: %s", test.line, stderr)
		}
		if got := files(t); !slices.Equal(got, before) {
			t.Errorf("%q: files %q, want %q", test.line, got, before)
		}
	}
}

// A file that is broken is not taken for one of another kind.
func TestForeignKinds(t *testing.T) {
	inDirectory(t)
	index := "model.safetensors.index.json"
	if err := os.Mkdir("dir", 0o777); err != nil {
		t.Fatal(err)
	}
	const hint = "it is a text in JSON"
	for _, test := range []struct {
		path, text string
		want       bool
	}{
		{"config.json", `{"hidden_size": 4096}`, true},
		{"short.json", `{}`, true},
		{"length", "{\x00\x00\x00\x00\x00\x00\x00" + `{"a": 1}` + strings.Repeat(" ", 123), false}, // 123 is {
		{filepath.Join("dir", index), `{"weight_map": {"a": 1}}`, false},
	} {
		if err := os.WriteFile(test.path, []byte(test.text), 0o666); err != nil {
			t.Fatal(err)
		}
		path := test.path
		if filepath.Base(path) == index {
			path = filepath.Dir(path)
		}
		if status, _, stderr := execute(t, "inspect "+path); status != statusFailed || strings.Contains(stderr, hint) != test.want {
			t.Errorf("%s: status %d, %s", test.path, status, stderr)
		}
	}
}

// What is wrong with a command line is said whatever else is on it, and what would help is said with it.
func TestWhatHelps(t *testing.T) {
	inDirectory(t)
	half := []byte("\x40\x00\x00\x00\x00\x00\x00\x00" + `{"w":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}` + strings.Repeat(" ", 9) + "ab")
	half[0] = byte(len(half) - 10)
	if err := os.WriteFile("half", half, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile("none.npz", nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll("dir", 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join("dir", "soup.safetensors"), half, 0o666); err != nil {
		t.Fatal(err)
	}
	execute(t, "mean -o c.npy half --dtype f32")
	for _, test := range []struct {
		line   string
		status int
		want   string
	}{
		{"men --help", statusUsage, `unknown command "men"`},
		{"plan men -h", statusUsage, `unknown command "men"`},
		{"mean -o x.npz half", statusFailed, "no such dtype in NumPy files: BF16, want one that they have, such as F32 (--dtype f32"},
		{"plan mean -o x.npz half", statusFailed, "(--dtype f32 writes averages as such)"},
		{"verify missing half", statusFailed, "files that could not be read: 1"},
		{"verify missing none.npz", statusFailed, "violations found: 1; files that could not be read: 1"},
		{"diff c.npy a", statusFailed, "no tensor of the one can be compared with one of the other"},
		{"inspect dir", statusFailed, "but \"soup.safetensors\": give the file itself\n"},
	} {
		status, _, stderr := execute(t, test.line)
		if status != test.status || !strings.Contains(stderr, test.want) {
			t.Errorf("%q: status %d, stderr %q, want %q", test.line, status, stderr, test.want)
		}
	}
	for _, line := range []string{"mean --help", "plan --help", "plan mean -h", "--help", "completion bash --help"} {
		if status, stdout, stderr := execute(t, line); status != statusDone || stdout == "" {
			t.Errorf("%q: status %d, stderr %q", line, status, stderr)
		}
	}
}

// checkErrorLine checks that stderr is one line that begins with the program's name, once, and contains want.
func checkErrorLine(t *testing.T, line, stderr, want string) {
	t.Helper()
	if !strings.HasPrefix(stderr, "modelavg: ") || strings.HasPrefix(stderr, "modelavg: modelavg: ") ||
		strings.Index(stderr, "\n") != len(stderr)-1 || !strings.Contains(stderr, want) {
		t.Errorf("%q: stderr %q, want one line with %q", line, stderr, want)
	}
}

func TestHelp(t *testing.T) {
	var walk func(c *cobra.Command)
	walk = func(c *cobra.Command) {
		line := strings.TrimPrefix(c.CommandPath(), "modelavg") + " --help"
		status, stdout, stderr := execute(t, line)
		if status != statusDone || stderr != "" {
			t.Errorf("%s: status %d, stderr %q", line, status, stderr)
		}
		if !strings.Contains(stdout, "Examples:\n  modelavg") && !strings.Contains(stdout, "Examples:\n  MODELAVG") {
			t.Errorf("%s: no example\n%s", line, stdout)
		}
		for text := range strings.Lines(stdout) {
			if len(text) > 121 {
				t.Errorf("%s: a line of %d bytes: %s", line, len(text)-1, text)
			}
		}
		for _, sub := range c.Commands() {
			walk(sub)
		}
	}
	walk(newRoot())
}

func TestVersion(t *testing.T) {
	status, stdout, stderr := execute(t, "version")
	want := fmt.Sprintf("%s %s/%s\nkernel %s (of %s)\n", runtime.Version(), runtime.GOOS, runtime.GOARCH,
		kernel.Implementation(), strings.Join(kernel.Implementations(), ", "))
	first, rest, _ := strings.Cut(stdout, "\n")
	if status != statusDone || stderr != "" || first != "modelavg "+version() || rest != want {
		t.Errorf("status %d, stderr %q, got\n%s\nwant\nmodelavg %s\n%s", status, stderr, stdout, version(), want)
	}
	if _, stdout, _ := execute(t, "--version"); stdout != first+"\n" {
		t.Errorf("--version prints %q, want %q", stdout, first)
	}
}

func TestCompletion(t *testing.T) {
	for line, want := range map[string]string{
		"__complete ewa --weighting ":       "article",
		"__complete mean ":                  "safetensors",
		"__complete mean --output ":         "safetensors",
		"__complete ":                       "weighted",
		"completion bash":                   "bash completion",
		"completion fish --no-descriptions": "fish",
	} {
		args := strings.Fields(line)
		if strings.HasSuffix(line, " ") {
			args = append(args, "")
		}
		var out, err bytes.Buffer
		if status := run(t.Context(), args, &out, &err); status != statusDone || !strings.Contains(out.String(), want) {
			t.Errorf("%s: status %d, want %q in\n%s%s", line, status, want, out.String(), err.String())
		}
	}
}

func TestOutputMayBeAnInput(t *testing.T) {
	inDirectory(t)
	if status, _, stderr := execute(t, "mean -o b a b"); status != statusDone {
		t.Fatal(stderr)
	}
	if got := weightsIn(t, filepath.Join(".", "b")); !slices.Equal(got, []float32{1.5, 15}) {
		t.Errorf("got %v, want [1.5 15]", got)
	}
	if got := files(t); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Errorf("files %q", got)
	}
}
