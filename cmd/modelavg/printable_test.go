//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/modelavg/modelavg/checkpoint"
)

// hostile is the end of a name that a terminal would obey, and that makes a line of its own.
const hostile = "\x1b[31m\r\u202e\u0085\x07\nFORGED: valid"

// writeHostile writes a model with one weight, and with names and metadata from a stranger.
func writeHostile(t *testing.T, path string) {
	t.Helper()
	tensors := []checkpoint.Tensor{
		{Name: "weight" + hostile, DType: checkpoint.F32, Shape: []int64{1}},
		{Name: "steps" + hostile, DType: checkpoint.I64, Shape: []int64{1}},
		{Name: "only in " + path, DType: checkpoint.F32, Shape: []int64{1}},
	}
	w, err := checkpoint.Create(path, tensors, map[string]string{"key" + hostile: "value" + hostile})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for _, tensor := range tensors {
		p := bytes.Repeat([]byte{0xff}, int(tensor.Bytes())) // NaN
		if _, err := w.WriteAt(tensor.Name, p, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
}

// What people see has no control character in it that comes from a file, its name or the command line; JSON has every
// name as it is.
func TestPrintable(t *testing.T) {
	t.Chdir(t.TempDir())
	name := func(s string) string { return s + hostile }
	a, b, out, dir, other, bad := name("a"), name("b"), name("out"), name("dir"), name("other"), name("bad")
	writeHostile(t, a)
	writeHostile(t, b)
	writeDirectory(t, dir, 4)
	writeDirectory(t, other, 5)
	for _, err := range []error{
		os.WriteFile(bad, []byte("no model"), 0o666),
		os.WriteFile(filepath.Join(dir, name("side")), nil, 0o666),
		os.Mkdir(filepath.Join(dir, name("below")), 0o777),
		os.Symlink(name("nothing"), name("link")),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{"inspect", a},
		{"inspect", "--stats", a},
		{"inspect", dir},
		{"inspect", bad},
		{"inspect", name("none")},
		{"verify", a, bad, dir},
		{"verify", name("none")},
		{"diff", a, b},
		{"diff", a, dir},
		{"diff", "--plot", name("plot"), a, b},
		{"mean", "-o", out, a, b},
		{"mean", "--keys", "union", "-o", out, a, b},
		{"mean", "--keys", "intersection", "-o", out, a, b},
		{"mean", "--keys", "union", "--integers", "sum", "-o", out, a, b},
		{"mean", "--keys", "union", "--nonfinite", "error", "-o", out, a, b},
		{"mean", "-o", out, dir, other},
		{"mean", "-o", out, dir, other},
		{"mean", "-o", filepath.Join(name("none"), "out"), a},
		{"mean", "-o", filepath.Join(bad, "out"), a},
		{"mean", "-o", bad, a},
		{"mean", "-o", dir, a},
		{"mean", "-o", name("out.npy"), a},
		{"mean", "--include", "(" + hostile, "-o", out, a},
		{"mean", "--include", "none" + hostile, "-o", out, a},
		{"mean", "--dtype", hostile, "-o", out, a},
		{"mean", "--" + hostile, "-o", out, a},
		{hostile, "-o", out, a},
		{"weighted", "-w", "1," + hostile, "-o", out, a, b},
		{"weighted", "-w", "1,0", "--keys", "union", "-o", out, a, b},
		{"plan", "mean", a, b},
		{"plan", "mean", "--keys", "union", a, b},
		{"plan", "mean", "--keys", "union", "--tensor-weights", "weight=1,0", a, b},
		{"plan", "mean", "-o", out, dir, other},
		{"plan", hostile},
		{"mean", "--keys", "union", "--part", "1/1", "-o", name("parts"), a, b},
		{"finish", name("none")},
		{"finish", name("parts")},
		{"mean", "--part", "1/2", "-o", name("parts"), a},
		{"finish", name("parts")},
		{"finish", "--discard", name("parts")},
		{"soup", "--eval", "echo 1; true {}", "--keys", "union", "--log", "log", "-o", name("soup"), a, b},
		{"soup", "--eval", "echo 1; true {}", "--keys", "union", "--log", "log", "-o", name("soup"), a, b},
		{"soup", "--eval", "echo 1; true {}", "--log", bad, "-o", name("soup"), a},
		{"soup", "--eval", "echo 1; true {}", "--log", a, "-o", name("soup"), a},
		{"soup", "--eval", "printf '\\033[31m none'; true {}", "-o", name("soup"), a},
		{"soup", "--eval", "false {} '" + hostile + "'", "-o", name("soup"), a},
		{"soup", "--eval", hostile, "-o", name("soup"), a},
	} {
		status, stdout, stderr := executeArgs(t, args...)
		if stdout == "" && stderr == "" {
			t.Errorf("%q: status %d, nothing is printed", args, status)
		}
		for _, text := range []string{stdout, stderr} {
			for i, r := range text {
				if r != '\n' && !unicode.IsPrint(r) || r == utf8.RuneError {
					t.Errorf("%q: %q", args, text[max(0, i-60):min(len(text), i+20)])
					break
				}
			}
			if strings.Contains("\n"+text, "\nFORGED") {
				t.Errorf("%q: printed\n%s", args, text)
			}
		}
	}
	for _, args := range [][]string{{"inspect", "--json", a}, {"plan", "mean", "--json", a}, {"verify", "--json", a}} {
		_, stdout, _ := executeArgs(t, args...)
		quoted, err := json.Marshal(a)
		if err != nil {
			t.Fatal(err)
		}
		if !json.Valid([]byte(stdout)) || !strings.Contains(stdout, string(quoted)) {
			t.Errorf("%q: %s\nwant %s in it", args, stdout, quoted)
		}
	}
}
