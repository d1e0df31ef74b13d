//go:build unix

package main

import (
	"bytes"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// When nobody reads standard output any more, a soup goes on, writes its output and leaves nothing else behind; commands
// that only print end without a word.
func TestBrokenPipe(t *testing.T) {
	for _, test := range []struct {
		args   []string
		files  []string
		stderr string
	}{
		{
			[]string{"soup", "--eval", "sleep 0.1; echo 1 # {}", "-o", "out", "a", "b"},
			[]string{"a", "b", "c", "out"},
			"modelavg: out is written, but not the report: ",
		},
		{[]string{"mean", "-o", "out", "a", "b"}, []string{"a", "b", "c", "out"}, "modelavg: out is written, but not the report: "},
		{[]string{"inspect", "a"}, []string{"a", "b", "c"}, ""},
		{[]string{"plan", "mean", "a", "b"}, []string{"a", "b", "c"}, ""},
	} {
		inDirectory(t)
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		r.Close()
		var stderr bytes.Buffer
		cmd := exec.Command(program, test.args...)
		cmd.Stdout, cmd.Stderr = w, &stderr
		err = cmd.Run()
		w.Close()
		if cmd.ProcessState.ExitCode() != statusFailed {
			t.Errorf("%q: %v, want exit status 1", test.args, err)
		}
		if got := stderr.String(); !strings.HasPrefix(got, test.stderr) || (got == "") != (test.stderr == "") {
			t.Errorf("%q: stderr %q, want %q", test.args, got, test.stderr)
		}
		if got := files(t); !slices.Equal(got, test.files) {
			t.Errorf("%q: files %q, want %q", test.args, got, test.files)
		}
	}
}
