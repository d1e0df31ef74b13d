package main

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A baseline is that of the same processor, and the times are compared by those of the yardstick: a machine that is half
// as fast in both is no difference.
func TestBaseline(t *testing.T) {
	r := readMade(t)
	dir := t.TempDir()
	large := point{weightedSum, float32s, 4, 64_000_000}
	write := func(name, cpu, ours, copied string) {
		t.Helper()
		text := "cpu: " + cpu + "\ndate: 2026-01-02\n"
		for range 3 {
			text += large.benchmark(ourName) + "\t1\t" + ours + " ns/op\t1 MB/s\n" +
				large.benchmark(yardstick) + "\t1\t" + copied + " ns/op\t1 MB/s\n"
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	var out strings.Builder
	if err := r.writeComparison(&out, dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty directory: %v, want it to wrap %v", err, fs.ErrNotExist)
	}
	write("a.txt", "Another processor", "1", "1")
	if err := r.writeComparison(&out, dir); err != nil || !strings.Contains(out.String(), "no baseline in "+dir) {
		t.Errorf("no baseline of the processor: %q, %v", out.String(), err)
	}
	// made has rounds of 1, 2 and 1 times 64·10⁶·5·4/20 ns, and 64/60 ns for the copy: 60·10⁶ in the median.
	write("b.txt", "A processor", "6e7", "2")
	out.Reset()
	if err := r.writeComparison(&out, dir); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"of 2026-01-02", "| WeightedSum, float32, 4 models | 64M | modelavg | 60000000 | 30000000 | 2.00 |",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("got\n%s\nwant a line with %q", out.String(), want)
		}
	}
	if _, err := parseFlags([]string{"-baseline", filepath.Join(dir, "none")}, io.Discard); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing directory: %v, want it to wrap %v", err, fs.ErrNotExist)
	}
	if _, err := parseFlags([]string{"-baseline", filepath.Join(dir, "a.txt")}, io.Discard); err == nil {
		t.Error("a file for a directory: no error")
	}
}
