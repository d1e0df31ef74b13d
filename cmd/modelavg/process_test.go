//go:build unix

package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// program is the path of the built command.
var program string

func TestMain(m *testing.M) {
	if log := os.Getenv(scoreVariable); log != "" && len(os.Args) == 2 {
		if err := printScore(log, os.Args[1]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "modelavg")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		program = filepath.Join(dir, "modelavg")
		if out, err := exec.Command("go", "build", "-o", program, ".").CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
			return 1
		}
		return m.Run()
	}())
}

// build builds the program in a directory.
func build(t *testing.T, dir, program string) {
	t.Helper()
	cmd := exec.Command("go", "build", "-o", program, ".")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
}

// start runs the program and returns exit status, stdout and stderr.
func start(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command(program, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

func TestProcess(t *testing.T) {
	inDirectory(t)
	for _, test := range []struct {
		line   string
		status int
		stdout string // begins with
		stderr string // ends with
	}{
		{
			"mean -o out a b", 0,
			"weight 0.5         a\nweight 0.5         b\nout: 1 tensor averaged, 1 copied from b: steps\n", "",
		},
		{"mean -o out", 2, "", "no model files given (see modelavg mean --help)\n"},
		{"mean -o out a none", 1, "", "none: no such file or directory\n"},
		{"mean --help", 0, "Mean writes the arithmetic mean", ""},
	} {
		os.Remove("out")
		status, stdout, stderr := start(t, strings.Fields(test.line)...)
		if status != test.status || !strings.HasPrefix(stdout, test.stdout) || !strings.HasSuffix(stderr, test.stderr) ||
			(stderr == "") != (test.stderr == "") {
			t.Errorf("%s: status %d, stdout\n%s\nstderr\n%s", test.line, status, stdout, stderr)
		}
		if test.status != 0 && !slices.Equal(files(t), []string{"a", "b", "c"}) {
			t.Errorf("%s: files %q", test.line, files(t))
		}
	}
}

// A signal in the middle of the work: one line, status 1, the old output as it was, and nothing else in the directory.
func TestSignal(t *testing.T) {
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		inDirectory(t)
		writeModel(t, "out", 0, 5)
		// A large model that takes no room: 64 times 64 MiB are read, far longer than the signal needs.
		if err := largeModel("large", 64<<20); err != nil {
			t.Fatal(err)
		}
		before := files(t)
		args := append([]string{"mean", "--workers", "1", "-o", "out"}, slices.Repeat([]string{"large"}, 64)...)
		cmd := exec.Command(program, args...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		stdout, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewReader(stdout)
		for range 64 { // the weights, after which the work begins
			if _, err := lines.ReadString('\n'); err != nil {
				t.Fatal(err, stderr.String())
			}
		}
		for len(files(t)) == len(before) { // until the unfinished output is there
			time.Sleep(time.Millisecond)
		}
		time.Sleep(20 * time.Millisecond)
		sent := time.Now()
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		err = cmd.Wait()
		if took := time.Since(sent); took > time.Second {
			t.Errorf("%v: the program took %v to end", signal, took)
		} else {
			t.Logf("%v: ended after %v", signal, took)
		}
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != statusFailed {
			t.Errorf("%v: %v, want status %d", signal, err, statusFailed)
		}
		if want := fmt.Sprintf("modelavg: %v signal received\n", signal); stderr.String() != want {
			t.Errorf("%v: stderr %q, want %q", signal, stderr.String(), want)
		}
		if got := files(t); !slices.Equal(got, before) {
			t.Errorf("%v: files %q, want %q", signal, got, before)
		}
		if got := weightsIn(t, "out"); !slices.Equal(got, []float32{5}) {
			t.Errorf("%v: the old output has become %v", signal, got)
		}
	}
}

// largeModel writes a model with one F32 tensor of so many bytes, all zero, without storing them.
func largeModel(path string, size int64) error {
	header := fmt.Sprintf(`{"weight":{"dtype":"F32","shape":[%d],"data_offsets":[0,%d]}}`, size/4, size)
	file := append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...)
	if err := os.WriteFile(path, file, 0o666); err != nil {
		return err
	}
	return os.Truncate(path, int64(len(file))+size)
}
