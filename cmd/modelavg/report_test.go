package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/modelavg/modelavg/checkpoint"
	"github.com/modelavg/modelavg/merge"
)

// A fullWriter takes so many bytes and no more.
type fullWriter struct{ left int }

var errFull = errors.New("no space left")

func (w *fullWriter) Write(p []byte) (int, error) {
	n := min(len(p), w.left)
	w.left -= n
	if n < len(p) {
		return n, errFull
	}
	return n, nil
}

// A report that cannot be written is a failure, which says that the model is complete if it is.
func TestReportNotWritten(t *testing.T) {
	for line, want := range map[string]string{
		"mean -o out a b":                       "out is written, but not the report: no space left",
		"mean --json -o out a b":                "out is written, but not the report: no space left",
		"weighted -w 0.5,0.5 -o out a b":        "out is written, but not the report: no space left",
		"ewa --decay 0.5 -o out a b":            "out is written, but not the report: no space left",
		"soup --eval echo1{} -o out a b":        "out is written, but not the report: no space left",
		"soup --eval echo1{} --json -o out a b": "out is written, but not the report: no space left",
		"plan mean a b":                         "no space left",
		"plan mean --json a b":                  "no space left",
		"plan mean a odd":                       "models differ",
		"inspect --stats a":                     "no space left",
		"inspect --json a":                      "no space left",
		"diff a b":                              "no space left",
		"diff --json a b":                       "no space left",
		"verify a b":                            "no space left",
		"verify --json a b":                     "no space left",
		"version":                               "no space left",
		"--version":                             "no space left",
		"--help":                                "no space left",
		"help mean":                             "no space left",
		"completion bash":                       "no space left",
	} {
		for _, room := range []int{0, 1, 10} {
			inDirectory(t)
			writeModel(t, "odd", 0, 1)
			args := strings.Fields(line)
			for i := range args {
				args[i] = strings.ReplaceAll(args[i], "echo1{}", "echo 1 # {}")
			}
			var stderr bytes.Buffer
			if status := run(t.Context(), args, &fullWriter{room}, &stderr); status != statusFailed {
				t.Errorf("%s: status %d, want %d", line, status, statusFailed)
			}
			checkErrorLine(t, line, stderr.String(), want)
			if strings.Contains(want, "out is written") && len(weightsIn(t, "out")) != 2 {
				t.Errorf("%s: the model is not complete", line)
			}
		}
	}
}

func TestHelpOfCommand(t *testing.T) {
	for line, same := range map[string]string{
		"help mean": "mean --help", "help plan ewa": "plan ewa --help", "help": "--help",
	} {
		status, got, stderr := execute(t, line)
		if _, want, _ := execute(t, same); status != statusDone || stderr != "" || got != want {
			t.Errorf("%s: status %d, %s\n%s\nwant\n%s", line, status, stderr, got, want)
		}
	}
}

// The error of models that differ in many ways names some of them; plan prints all.
func TestManyDifferences(t *testing.T) {
	t.Chdir(t.TempDir())
	var many, odd []content
	for i := range 100 {
		many = append(many, values(fmt.Sprintf("t%02d", i), checkpoint.F32, []float32{1}, 1))
		odd = append(odd, values(fmt.Sprintf("t%02d", i), checkpoint.F8E8M0, []byte{1}, 1))
	}
	save(t, "a", many...)
	save(t, "b", many[:10]...)
	save(t, "odd", odd...)
	status, stdout, stderr := execute(t, "mean -o out a b")
	if status != statusFailed || stdout != "" || strings.Count(stderr, "missing tensor") != 20 ||
		!strings.Contains(stderr, ` "t29" and 70 more`) {
		t.Errorf("status %d, %s\n%s", status, stderr, stdout)
	}
	checkErrorLine(t, "mean", stderr, "(modelavg plan lists all)")
	status, stdout, _ = execute(t, "plan mean a b")
	lines := strings.Split(strings.TrimSuffix(stdout, "\n"), "\n")
	if status != statusFailed || len(lines) != 90 || lines[0] != `difference: b: missing tensor "t10"` ||
		lines[89] != `difference: b: missing tensor "t99"` {
		t.Errorf("status %d, %d lines\n%s", status, len(lines), stdout)
	}
	status, stdout, _ = execute(t, "plan mean --json a b")
	var got obstacles
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || status != statusFailed || len(got.Differences) != 90 ||
		got.Differences[89] != (difference{"b", "t99", "missing", "F32 [1]", ""}) ||
		!strings.HasPrefix(got.Error, "models differ from a") {
		t.Errorf("status %d, %v\n%s", status, err, stdout)
	}
	for line, want := range map[string]string{
		"plan mean odd": `unsupported: odd: tensor "t99" of dtype F8_E8M0`, "plan mean --json odd": `"tensor": "t99",`,
	} {
		status, stdout, stderr = execute(t, line)
		if status != statusFailed || !strings.Contains(stdout, want) || !strings.Contains(stderr, "and 80 more") {
			t.Errorf("%s: status %d, %s\n%s", line, status, stderr, stdout)
		}
	}
	// Other errors are on stderr alone, and in JSON.
	if status, stdout, _ := execute(t, "plan mean a none"); status != statusFailed || stdout != "" {
		t.Errorf("status %d, %s", status, stdout)
	}
}

// saveV2 writes a .npy file of two elements of two bytes without a type.
func saveV2(t *testing.T, path string, elements ...uint16) {
	t.Helper()
	header := fmt.Sprintf("{'descr': '|V2', 'fortran_order': False, 'shape': (%d,), }", len(elements))
	header += strings.Repeat(" ", 127-10-len(header)) + "\n"
	b := binary.LittleEndian.AppendUint16([]byte("\x93NUMPY\x01\x00"), uint16(len(header)))
	b = append(b, header...)
	for _, x := range elements {
		b = binary.LittleEndian.AppendUint16(b, x)
	}
	if err := os.WriteFile(path, b, 0o666); err != nil {
		t.Fatal(err)
	}
}

// Every command that reads models takes V2 for bfloat16 when told so, and says how when it is not.
func TestVoid2(t *testing.T) {
	t.Chdir(t.TempDir())
	saveV2(t, "a.npy", 0x3f80, 0x4000) // 1, 2
	saveV2(t, "b.npy", 0x4040, 0x4080) // 3, 4
	for line, want := range map[string]string{
		"mean -o out.safetensors a.npy b.npy":                         "out.safetensors: 1 tensor averaged",
		"mean --dtype f32 -o out.npy a.npy b.npy":                     "out.npy: 1 tensor averaged",
		"weighted -w 0.5,0.5 -o out.safetensors a.npy b.npy":          "1 tensor averaged",
		"ewa --decay 0.5 -o out.safetensors a.npy b.npy":              "1 tensor averaged",
		"plan mean a.npy b.npy":                                       "average  BF16  [2]",
		"inspect a.npy":                                               "BF16   [2]    4      array",
		"diff a.npy b.npy":                                            "2    2    ",
		"verify a.npy b.npy":                                          "a.npy: valid, 1 tensor\n",
		"soup --eval echo_1 --log log -o out.safetensors a.npy b.npy": "1 tensor averaged",
		"plan weighted -w 0.5,0.5 --json a.npy b.npy":                 `"dtype": "BF16"`,
	} {
		args := strings.Fields(line)
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "echo_1", "echo 1 # {}")
		}
		status, stdout, stderr := executeArgs(t, append(slices.Clone(args), "--npy-v2-as", "bf16")...)
		if status != statusDone || stderr != "" || !strings.Contains(stdout, want) {
			t.Errorf("%s: status %d, %s\n%s\nwant %q", line, status, stderr, stdout, want)
		}
		status, stdout, stderr = executeArgs(t, args...)
		if hint := "(--npy-v2-as bf16 reads them as bfloat16)"; status != statusFailed || !strings.Contains(stdout+stderr, hint) {
			t.Errorf("%s: status %d, %s\n%s\nwant %q", line, status, stderr, stdout, hint)
		}
	}
	if status, _, stderr := execute(t, "mean --npy-v2-as bf16 -o out.safetensors a.npy b.npy"); status != statusDone {
		t.Fatal(stderr)
	}
	m, err := checkpoint.Open("out.safetensors")
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	got := make([]byte, 4)
	if _, err := m.ReadAt("array", got, 0); err != nil || !bytes.Equal(got, []byte{0x00, 0x40, 0x40, 0x40}) { // 2, 3
		t.Errorf("got % x, %v", got, err)
	}
	if status, _, stderr := execute(t, "mean --npy-v2-as f16 -o out a.npy"); status != statusUsage ||
		!strings.Contains(stderr, `invalid argument "f16" for "--npy-v2-as" flag: want one of bf16`) {
		t.Errorf("status %d, %s", status, stderr)
	}
	// NumPy files have no bfloat16 to write.
	status, _, stderr := execute(t, "mean --npy-v2-as bf16 -o out.npy a.npy b.npy")
	if status != statusFailed {
		t.Errorf("status %d, want %d", status, statusFailed)
	}
	checkErrorLine(t, "mean", stderr, `no such dtype in NumPy files: BF16, want one that they have, such as F32 (--dtype f32`)
}

func TestVerifyJSON(t *testing.T) {
	inDirectory(t)
	if err := os.WriteFile("bad", []byte("\x10\x00\x00\x00\x00\x00\x00\x00{\"a\":{},\"b\":{}}"), 0o666); err != nil {
		t.Fatal(err)
	}
	status, stdout, stderr := execute(t, "verify --json a bad none")
	var got []verified
	if err := json.Unmarshal([]byte(stdout), &got); err != nil || status != statusFailed || len(got) != 3 {
		t.Fatalf("status %d, %v, %s\n%s", status, err, stderr, stdout)
	}
	if x := got[0]; x.Path != "a" || !x.Valid || x.Tensors != 2 || len(x.Violations) != 0 {
		t.Errorf("got %+v", x)
	}
	if x := got[1]; x.Path != "bad" || x.Valid || len(x.Violations) != 1 { // the length is one too many
		t.Errorf("got %+v", x)
	}
	if x := got[2]; x.Path != "none" || x.Valid || len(x.Violations) != 1 || strings.Contains(stdout, "null") {
		t.Errorf("got %+v", x)
	}
}

// A directory that is made may be given with a slash at its end.
func TestOutputWithSlash(t *testing.T) {
	inDirectory(t)
	for range 2 { // the second time it is there
		if status, _, stderr := execute(t, "mean --max-shard-size 1KB -o new/ a b"); status != statusDone {
			t.Fatal(stderr)
		}
	}
	if got := weightsIn(t, "new"); !slices.Equal(got, []float32{1.5, 15}) {
		t.Errorf("got %v, want [1.5 15]", got)
	}
}

// A long text ends soon after a signal, a short one, and one that is written already, is whole.
func TestReportStops(t *testing.T) {
	for _, test := range []struct{ length, want int }{{10 * reportSlice, 2 * reportSlice}, {100, 100}, {reportSlice, reportSlice}} {
		ctx, cancel := context.WithCancelCause(t.Context())
		writes := 0
		w := &reportWriter{ctx: ctx, to: writerFunc(func(p []byte) (int, error) {
			if writes++; writes == 2 || test.length <= reportSlice {
				cancel(errFull)
			}
			return len(p), nil
		})}
		n, err := w.Write(make([]byte, test.length))
		if stopped := test.want < test.length; n != test.want || errors.Is(err, errFull) != stopped || !stopped && err != nil {
			t.Errorf("%d of %d bytes, %v; want %d", n, test.length, err, test.want)
		}
		cancel(nil)
	}
}

// Many short texts end after a signal as well, and so does one that nobody reads.
func TestReportStopsShort(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	writes := 0
	w := &reportWriter{ctx: ctx, to: writerFunc(func(p []byte) (int, error) {
		if writes++; writes == 2 {
			cancel(errFull)
		}
		return len(p), nil
	})}
	text := make([]byte, reportSlice/3)
	for i := range 7 {
		if _, err := w.Write(text); errors.Is(err, errFull) != (i >= 5) { // the context is done after the second
			t.Errorf("text %d: %v", i, err)
		}
	}
	if writes != 5 {
		t.Errorf("%d texts were written, want 5", writes)
	}

	reader, pipe := io.Pipe()
	defer reader.Close() // which lets the write go
	ctx, cancel = context.WithCancelCause(t.Context())
	time.AfterFunc(10*time.Millisecond, func() { cancel(errFull) })
	start := time.Now()
	if _, err := (&reportWriter{ctx: ctx, to: pipe}).Write([]byte("text")); !errors.Is(err, errFull) {
		t.Errorf("a text that nobody reads: %v, want %v", err, errFull)
	}
	if d := time.Since(start); d > 10*time.Second {
		t.Errorf("it took %v", d)
	}
}

// A writerFunc is the Write of an [io.Writer].
type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

// Every command that reads models has a limit for what is deflated, and an error says how to raise it.
func TestInflateLimit(t *testing.T) {
	archive, err := filepath.Abs(filepath.Join("..", "..", "checkpoint", "testdata", "numpy", "deflated.npz"))
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(t.TempDir())
	for _, line := range []string{
		"mean -o out.npz %", "weighted -w 1 -o out.npz %", "ewa --decay 0.5 -o out.npz %", "plan mean %", "inspect %",
		"diff % %", "verify %",
	} {
		args := strings.Fields(strings.ReplaceAll(line, "%", archive))
		status, stdout, stderr := executeArgs(t, append(slices.Clone(args), "--inflate-limit", "100B")...)
		if want := "the limit is 100 "; status != statusFailed || !strings.Contains(stdout+stderr, want) ||
			!strings.Contains(stdout+stderr, "(--inflate-limit allows more)") {
			t.Errorf("%q with a limit of 100 bytes: status %d, output %q, %q; want an error with %q and what allows more", line,
				status, stdout, stderr, want)
		}
		if status, _, stderr := executeArgs(t, append(args, "--inflate-limit", "1KB")...); status != statusDone {
			t.Errorf("%q with a limit of 1 kB: status %d, %s", line, status, stderr)
		}
	}
	if status, _, stderr := execute(t, "inspect --inflate-limit 0 x.npz"); status != statusUsage ||
		!strings.Contains(stderr, "want a number of bytes such as 5GB") {
		t.Errorf("limit 0: status %d, %s", status, stderr)
	}
}

// What is printed of differences takes memory in proportion to their number.
func TestManyObstacles(t *testing.T) {
	list := make([]merge.Difference, 20_000)
	for i := range list {
		list[i] = merge.Difference{Path: "b", Tensor: fmt.Sprintf("layer.%d", i), Field: "dtype", Want: "F32", Got: "I32"}
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	var text strings.Builder
	if err := printObstacles(&text, &merge.DifferenceError{First: "a", Differences: list}, false); err != nil {
		t.Fatal(err)
	}
	runtime.ReadMemStats(&after)
	if n := strings.Count(text.String(), "difference: b: tensor \"layer."); n != len(list) {
		t.Errorf("%d lines, want %d", n, len(list))
	}
	if n := after.TotalAlloc - before.TotalAlloc; n > 100<<20 {
		t.Errorf("%d bytes allocated", n)
	}
}
