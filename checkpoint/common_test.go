package checkpoint

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fileBytes returns a safetensors file of the header and so many bytes of data, which count up from zero.
func fileBytes(header string, data int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	b = append(b, header...)
	for i := range data {
		b = append(b, byte(i))
	}
	return b
}

// writeFile writes a file called m.safetensors and returns its path.
func writeFile(t testing.TB, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "m.safetensors")
	if err := os.WriteFile(path, content, 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

// open opens a model and closes it after the test.
func open(t testing.TB, path string, opts ...OpenOption) *Model {
	t.Helper()
	m, err := Open(path, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// create begins a file and closes the writer after the test.
func create(t testing.TB, path string, tensors []Tensor, metadata map[string]string, opts ...CreateOption) *Writer {
	t.Helper()
	w, err := Create(path, tensors, metadata, opts...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	return w
}

// wantError fails unless err is there and its text, with the directory of path taken out, is want.
func wantError(t testing.TB, err error, path, want string) {
	t.Helper()
	if err == nil {
		t.Fatalf("no error, want %s", want)
	}
	got := strings.ReplaceAll(err.Error(), filepath.Dir(path)+string(filepath.Separator), "")
	if got != want {
		t.Errorf("error\n  %s\nwant\n  %s", got, want)
	}
}

// wantFiles fails unless the directory has these files and no others.
func wantFiles(t testing.TB, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("files in the directory: %q, want %q", got, want)
	}
}
