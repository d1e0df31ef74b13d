package main

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// A disk of 1 MB is too small for the output: that is an error before anything is averaged, and nothing is left on it.
func TestDiskFull(t *testing.T) {
	inDirectory(t)
	if err := os.Mkdir("disk", 0o777); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("modelavg", "disk", "tmpfs", 0, "size=1m"); err != nil {
		if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.EACCES) {
			t.Skipf("mount: %v", err)
		}
		t.Fatal(err)
	}
	defer syscall.Unmount("disk", syscall.MNT_DETACH)
	out := filepath.Join("disk", "out")
	writeModel(t, out, 7, 5)
	if err := largeModel("large", 2<<20); err != nil {
		t.Fatal(err)
	}
	status, _, stderr := start(t, "mean", "-o", out, "large", "large")
	if status != statusFailed || !strings.Contains(stderr, out) || !strings.Contains(stderr, "no space left on device") {
		t.Errorf("status %d, stderr %q", status, stderr)
	}
	list, err := os.ReadDir("disk")
	if err != nil || len(list) != 1 {
		t.Errorf("%d files on the disk, want 1: %v", len(list), err)
	}
	if got := weightsIn(t, out); !slices.Equal(got, []float32{5}) {
		t.Errorf("the old output has become %v", got)
	}
	// What fits is written.
	if status, _, stderr := start(t, "mean", "-o", out, "a", "b"); status != statusDone {
		t.Error(stderr)
	}
}

// A file system that is mounted read-only.
func TestReadOnlyFileSystem(t *testing.T) {
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
	if err := syscall.Mount("", "disk", "", syscall.MS_REMOUNT|syscall.MS_RDONLY, ""); err != nil {
		t.Skipf("remount: %v", err)
	}
	checkOutputRefused(t, out, "read-only file system")
}
