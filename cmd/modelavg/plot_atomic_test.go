//go:build linux

package main

import (
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// A disk that is full leaves the old plot as it was, and nothing beside it.
func TestPlotIsAtomic(t *testing.T) {
	inDirectory(t)
	if err := os.Mkdir("disk", 0o777); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mount("modelavg", "disk", "tmpfs", 0, "size=1m"); err != nil {
		t.Skipf("mount: %v", err)
	}
	defer syscall.Unmount("disk", syscall.MNT_DETACH)
	const old = "<svg></svg>"
	fill := func(size int) {
		if err := os.WriteFile("disk/full", make([]byte, size), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile("disk/plot.svg", []byte(old), 0o640); err != nil {
		t.Fatal(err)
	}
	fill(1000 << 10)
	status, _, stderr := execute(t, "diff --plot disk/plot.svg a b")
	if status != statusFailed || !strings.Contains(stderr, "plot.svg") || !strings.Contains(stderr, "no space left on device") {
		t.Errorf("status %d, stderr %q", status, stderr)
	}
	if got, err := os.ReadFile("disk/plot.svg"); err != nil || string(got) != old {
		t.Errorf("the old plot is %q, %v", got, err)
	}
	if got, want := list(t, "disk"), []string{"full", "plot.svg"}; !slices.Equal(got, want) {
		t.Errorf("files %q, want %q", got, want)
	}
	// With room it is replaced, and keeps its permissions; a link to it is still one.
	fill(0)
	if err := os.Symlink("disk/plot.svg", "link.svg"); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"disk/plot.svg", "link.svg", "new.svg"} {
		if status, _, stderr := execute(t, "diff --plot "+path+" a b"); status != statusDone {
			t.Errorf("%s: status %d, %s", path, status, stderr)
		}
		got, err := os.ReadFile(path)
		if err != nil || len(got) < 500 || !strings.HasSuffix(strings.TrimSpace(string(got)), "</svg>") {
			t.Errorf("%s: %d bytes, %v", path, len(got), err)
		}
		if err := os.WriteFile("disk/plot.svg", []byte(old), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if info, err := os.Stat("disk/plot.svg"); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v, want permissions 640", info.Mode(), err)
	}
	if info, err := os.Lstat("link.svg"); err != nil || info.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is no link any more: %v", err)
	}
	if got, want := files(t), []string{"a", "b", "c", "disk", "link.svg", "new.svg"}; !slices.Equal(got, want) {
		t.Errorf("files %q, want %q", got, want)
	}
}
