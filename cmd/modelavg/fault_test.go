//go:build unix

package main

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// killsVariable is how many times TestKill kills a run, 20 without it.
const killsVariable = "MODELAVG_TEST_KILLS"

// Runs are killed at random moments: the target is the old file or the new one, whole, and the next run leaves nothing
// of those that were killed.
func TestKill(t *testing.T) {
	kills := 20
	if text := os.Getenv(killsVariable); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		kills = n
	} else if testing.Short() {
		kills = 5
	}
	inDirectory(t)
	if err := largeModel("large", 32<<20); err != nil {
		t.Fatal(err)
	}
	writeModel(t, "out", 7, 5)
	older, err := os.ReadFile("out")
	if err != nil {
		t.Fatal(err)
	}
	args := []string{"mean", "-o", "out", "large", "large", "large"}

	// What a whole run writes, and how long it takes.
	start := time.Now()
	if out, err := exec.Command(program, "mean", "-o", "whole", "large", "large",
		"large").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	took := time.Since(start)
	newer, err := os.ReadFile("whole")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove("whole"); err != nil {
		t.Fatal(err)
	}
	before := files(t)
	outcomes := make(map[string]int)
	for range kills {
		if err := os.WriteFile("out", older, 0o666); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(program, args...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(rand.Float64() * 1.2 * float64(took)))
		cmd.Process.Kill()
		cmd.Wait()
		got, err := os.ReadFile("out")
		switch {
		case err != nil:
			t.Fatal(err)
		case bytes.Equal(got, older):
			outcomes["old"]++
		case bytes.Equal(got, newer):
			outcomes["new"]++
		default:
			t.Errorf("the target is damaged: %d bytes", len(got))
		}
		if n := len(files(t)) - len(before); n > 0 {
			outcomes["left"] += n
		}
	}
	if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if got := files(t); !slices.Equal(got, before) {
		t.Errorf("files after the next run %q, want %q", got, before)
	}
	t.Logf("%d kills within %v: the target is old %d times and new %d times; %d unfinished files were seen", kills,
		took*6/5, outcomes["old"], outcomes["new"], outcomes["left"])
}

// A file may be no longer than 64 KiB: reserving the space of the output fails, before anything is averaged.
func TestFileTooLarge(t *testing.T) {
	inDirectory(t)
	if err := largeModel("large", 1<<20); err != nil {
		t.Fatal(err)
	}
	writeModel(t, "out", 7, 5)
	before := files(t)
	cmd := exec.Command("sh", "-c", "ulimit -f 128; exec "+shellQuote(program)+" mean -o out large large")
	out, err := cmd.CombinedOutput()
	if err == nil || cmd.ProcessState.ExitCode() != statusFailed || !strings.Contains(string(out), "out: ") {
		t.Errorf("%v, %s", err, out)
	}
	if got := files(t); !slices.Equal(got, before) {
		t.Errorf("files %q, want %q", got, before)
	}
	if got := weightsIn(t, "out"); !slices.Equal(got, []float32{5}) {
		t.Errorf("the old output has become %v", got)
	}
}

func TestReadOnlyDirectory(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("nothing is read-only to root")
	}
	inDirectory(t)
	if err := os.Mkdir("dir", 0o777); err != nil {
		t.Fatal(err)
	}
	writeModel(t, filepath.Join("dir", "out"), 7, 5)
	if err := os.Chmod("dir", 0o555); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod("dir", 0o777)
	checkOutputRefused(t, filepath.Join("dir", "out"), "permission denied")
}

// checkOutputRefused checks that an average cannot be written to a path, and leaves the model of weight 5 there.
func checkOutputRefused(t *testing.T, path, want string) {
	t.Helper()
	list, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	status, _, stderr := start(t, "mean", "-o", path, "a", "b")
	if status != statusFailed || !strings.Contains(stderr, path) || !strings.Contains(stderr, want) {
		t.Errorf("status %d, stderr %q, want %q", status, stderr, want)
	}
	if after, err := os.ReadDir(filepath.Dir(path)); err != nil || len(after) != len(list) {
		t.Errorf("%d files beside the output, were %d: %v", len(after), len(list), err)
	}
	if got := weightsIn(t, path); !slices.Equal(got, []float32{5}) {
		t.Errorf("the old output has become %v", got)
	}
}

// A file that nobody may write is not replaced, whoever asks.
func TestReadOnlyTarget(t *testing.T) {
	inDirectory(t)
	writeModel(t, "out", 7, 5)
	if err := os.Chmod("out", 0o444); err != nil {
		t.Fatal(err)
	}
	checkOutputRefused(t, "out", "write-protected")
}

// The output is on another file system than the models and the temporary directory.
func TestOtherFileSystem(t *testing.T) {
	dir, err := os.MkdirTemp("/dev/shm", "modelavg")
	if err != nil {
		t.Skip(err)
	}
	defer os.RemoveAll(dir)
	inDirectory(t)
	out := filepath.Join(dir, "out")
	for range 2 { // the second time it is replaced
		if status, _, stderr := start(t, "mean", "-o", out, "a", "b"); status != statusDone {
			t.Fatal(stderr)
		}
		if got := weightsIn(t, out); !slices.Equal(got, []float32{1.5, 15}) {
			t.Errorf("got %v, want [1.5 15]", got)
		}
	}
	if list, err := os.ReadDir(dir); err != nil || len(list) != 1 {
		t.Errorf("%d files, want 1: %v", len(list), err)
	}
}

// The output replaces each of the models in turn, which the others are still averaged with.
func TestOutputReplacesEveryInput(t *testing.T) {
	for i, name := range []string{"a", "b", "c"} {
		inDirectory(t)
		if status, _, stderr := start(t, "weighted", "-w", "0.25,0.5,0.25", "-o", name, "a", "b",
			"c"); status != statusDone {
			t.Fatal(stderr)
		}
		for k, other := range []string{"a", "b", "c"} {
			want := []float32{float32(int(1) << k), 10 * float32(int(1)<<k)}
			if k == i {
				want = []float32{2.25, 22.5}
			}
			if got := weightsIn(t, other); !slices.Equal(got, want) {
				t.Errorf("output %s: %s is %v, want %v", name, other, got, want)
			}
		}
		if got := files(t); fmt.Sprint(got) != "[a b c]" {
			t.Errorf("files %q", got)
		}
	}
}

// The report would go to the file that is replaced.
func TestOutputIsStandardOutput(t *testing.T) {
	for _, path := range []string{"link", "out", "./out"} { // as /dev/stdout is a link, which a failing test had better not replace
		inDirectory(t)
		stdout, err := os.Create("out")
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink("out", "link"); err != nil {
			t.Fatal(err)
		}
		defer stdout.Close()
		var stderr bytes.Buffer
		cmd := exec.Command(program, "mean", "-o", path, "a", "b")
		cmd.Stdout, cmd.Stderr = stdout, &stderr
		if err := cmd.Run(); err == nil || cmd.ProcessState.ExitCode() != statusUsage {
			t.Errorf("-o %s: %v", path, err)
		}
		checkErrorLine(t, path, stderr.String(), "-o "+path+": is standard output, to which the report goes")
		if got, err := os.ReadFile("out"); err != nil || len(got) != 0 {
			t.Errorf("-o %s: %d bytes, %v", path, len(got), err)
		}
	}
}

// A full disk below standard output.
func TestFullDevice(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	for line, want := range map[string]string{
		"mean -o out a b": "out is written, but not the report: write /dev/stdout: no space left on device",
		"version":         "write /dev/stdout: no space left on device",
		"inspect a":       "write /dev/stdout: no space left on device",
	} {
		inDirectory(t)
		var stderr bytes.Buffer
		cmd := exec.Command(program, strings.Fields(line)...)
		cmd.Stdout, cmd.Stderr = full, &stderr
		if err := cmd.Run(); err == nil || cmd.ProcessState.ExitCode() != statusFailed {
			t.Errorf("%s: %v", line, err)
		}
		checkErrorLine(t, line, stderr.String(), want)
	}
}
