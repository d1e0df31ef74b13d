package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// A disk that is too small for the unfinished output: the part says so, the old output is as it was, and what there is
// of the unfinished one can be discarded.
func TestPartDiskFull(t *testing.T) {
	inDirectory(t)
	if err := os.Mkdir("disk", 0o777); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("modelavg", "disk", "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("mount: %v", err)
	}
	defer syscall.Unmount("disk", syscall.MNT_DETACH)
	out := filepath.Join("disk", "out")
	writeModel(t, out, 7, 5)
	if err := largeModel("large", 2<<20); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		status, _, stderr := start(t, "mean", "-o", out, "large", "large", "--part", "2/2")
		if status != statusFailed || !strings.Contains(stderr, out) || !strings.Contains(stderr, "no space left on device") {
			t.Errorf("status %d, stderr %q", status, stderr)
		}
		if got := weightsIn(t, out); !slices.Equal(got, []float32{5}) {
			t.Errorf("the old output has become %v", got)
		}
		if status, _, stderr := start(t, "finish", out); status != statusFailed || !strings.Contains(stderr,
			"parts 1/2 and 2/2 are missing") {
			t.Errorf("status %d, stderr %q", status, stderr)
		}
	}
	if status, _, stderr := start(t, "finish", "--discard", out); status != statusDone {
		t.Error(stderr)
	}
	if list, err := os.ReadDir("disk"); err != nil || len(list) != 1 {
		t.Errorf("%d files on the disk, want 1: %v", len(list), err)
	}
	// What fits is written.
	for _, part := range []string{"1/2", "2/2"} {
		if status, _, stderr := start(t, "mean", "-o", out, "a", "b", "--part", part); status != statusDone {
			t.Error(stderr)
		}
	}
	if status, _, stderr := start(t, "finish", out); status != statusDone {
		t.Error(stderr)
	}
	if got := weightsIn(t, out); !slices.Equal(got, []float32{1.5, 15}) {
		t.Errorf("the output is %v", got)
	}
}
