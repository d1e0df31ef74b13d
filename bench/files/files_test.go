//go:build linux

package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/modelavg/modelavg/checkpoint"
)

// Everything runs on small models, and both states are in the table.
func TestRun(t *testing.T) {
	t.Chdir(filepath.Join("..", "..")) // the root, where the script is found
	var out strings.Builder
	err := run([]string{"-dir", t.TempDir(), "-bytes", "300000", "-rounds", "1", "-python", "no-python"}, &out, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"2 models of 0 MB of F32", "milliseconds", "| modelavg, 1 worker | ", "| modelavg, 2 workers | ", movesName(1),
		"cat of all into one", string(cold),
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("got\n%s\nwant %q", out.String(), want)
		}
	}
}

// The moves leave a file of the same size, which but for its first bytes is the first model.
func TestMove(t *testing.T) {
	dir := t.TempDir()
	s := settings{models: 2, bytes: 5 << 20, dtype: checkpoint.BF16}
	var inputs []string
	for k := range 2 {
		path := filepath.Join(dir, string(rune('a'+k)))
		if err := writeModel(path, uint64(k), s); err != nil {
			t.Fatal(err)
		}
		inputs = append(inputs, path)
	}
	out := filepath.Join(dir, "out")
	if err := move(inputs, out, 3); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(inputs[0])
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != len(want) || !bytes.Equal(got[1000:], want[1000:]) {
		t.Errorf("%d bytes that differ from the %d of the first model", len(got), len(want))
	}
}

func TestParse(t *testing.T) {
	for _, arguments := range [][]string{
		nil,
		{"-dir", "."[:0]},
		{"-dir", ".", "extra"},
		{"-dir", ".", "-rounds", "0"},
		{"-dir", ".", "-dtype", "I8"},
		{"-none"},
	} {
		if _, err := parse(arguments, io.Discard); !errors.As(err, new(usageError)) {
			t.Errorf("%q: got error %v, want one of the command line", arguments, err)
		}
	}
}
