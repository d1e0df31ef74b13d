package checkpoint

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// deflatedZeros writes an archive of two arrays of zeros.
func deflatedZeros(t *testing.T, bytesEach int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "a.npz")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z := zip.NewWriter(f)
	for _, name := range []string{"a.npy", "b.npy"} {
		w, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(npyFile("{'descr':'|u1','fortran_order':False,'shape':("+strconv.Itoa(bytesEach)+",)}", 0)); err != nil {
			t.Fatal(err)
		}
		zeros := make([]byte, 1<<16)
		for left := bytesEach; left > 0; left -= len(zeros) {
			if _, err := w.Write(zeros[:min(left, len(zeros))]); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestInflateLimit(t *testing.T) {
	path := deflatedZeros(t, 1000)
	size := int64(len(npyFile("{'descr':'|u1','fortran_order':False,'shape':(1000,)}", 1000)))
	for limit, good := range map[int64]bool{2 * size: true, 2*size - 1: false, 0: true} {
		m, err := Open(path, WithInflateLimit(limit))
		if err == nil {
			m.Close()
		}
		var violations int
		for err := range Violations(path, WithInflateLimit(limit)) {
			if !errors.Is(err, ErrInflateLimit) {
				t.Errorf("limit %d: %v", limit, err)
			}
			violations++
		}
		if good != (err == nil) || !good && (!errors.Is(err, ErrInflateLimit) || !strings.Contains(err.Error(), "b.npy")) ||
			(violations == 0) != good {
			t.Errorf("limit %d: error %v, %d violations", limit, err, violations)
		}
	}
	o := openOptions{}
	if got := o.inflateLimitOf(1000); got != defaultInflateLimit {
		t.Errorf("limit of a small archive %d", got)
	}
	if got := o.inflateLimitOf(1 << 30); got != 100<<30 {
		t.Errorf("limit of a large archive %d", got)
	}
}

// Inflating, and reading a header, end when the context is done.
func TestWithContext(t *testing.T) {
	stopped := errors.New("stopped")
	path := deflatedZeros(t, 300<<20)
	ctx, cancel := context.WithCancelCause(t.Context())
	m, err := Open(path, WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	time.AfterFunc(20*time.Millisecond, func() { cancel(stopped) })
	if _, err := m.ReadAt("a", make([]byte, 1), 0); !errors.Is(err, stopped) {
		t.Errorf("error %v", err)
	}

	var text bytes.Buffer
	tensors := make([]Tensor, 3000)
	for i := range tensors {
		tensors[i] = Tensor{strconv.Itoa(i), U8, []int64{0}}
	}
	l, err := layOutSafetensors(tensors, nil)
	if err != nil {
		t.Fatal(err)
	}
	text.Write(l.head)
	if _, err := Open(writeFile(t, text.Bytes()), WithContext(ctx)); !errors.Is(err, stopped) {
		t.Errorf("error %v", err)
	}
	file, _ := fortranFile([]int64{300, 301})
	path = filepath.Join(t.TempDir(), "a.npy")
	if err := os.WriteFile(path, file, 0o666); err != nil {
		t.Fatal(err)
	}
	f, err := Open(path, WithContext(ctx))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.ReadAt("array", make([]byte, 100_000), 0); !errors.Is(err, stopped) {
		t.Errorf("error %v", err)
	}
}
