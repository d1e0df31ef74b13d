package checkpoint

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
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

// All members of an archive are inflated into one file, from many goroutines.
func TestInflatedTogether(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	const members, size = 50, 3000
	for i := range members {
		w, err := z.Create(strconv.Itoa(i) + ".npy")
		if err != nil {
			t.Fatal(err)
		}
		w.Write(npyFile("{'descr':'|u1','fortran_order':False,'shape':("+strconv.Itoa(size+i)+",)}", 0))
		w.Write(bytes.Repeat([]byte{byte(i)}, size+i))
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "a.npz")
	if err := os.WriteFile(path, b.Bytes(), 0o666); err != nil {
		t.Fatal(err)
	}
	m, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	var group sync.WaitGroup
	for k := range 4 * members {
		group.Go(func() {
			i := k % members
			p := make([]byte, size+i)
			if _, err := m.ReadAt(strconv.Itoa(i), p, 0); err != nil || !bytes.Equal(p, bytes.Repeat([]byte{byte(i)}, size+i)) {
				t.Errorf("member %d: error %v, or other data", i, err)
			}
		})
	}
	group.Wait()
	if runtime.GOOS == "linux" {
		open, err := filepath.Glob("/proc/self/fd/*")
		if err != nil {
			t.Fatal(err)
		}
		files := 0
		for _, fd := range open {
			if name, _ := os.Readlink(fd); strings.HasPrefix(name, temp) {
				files++
			}
		}
		if files != 1 {
			t.Errorf("%d temporary files are open, want 1", files)
		}
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	wantFiles(t, temp)
	if _, err := m.ReadAt("0", make([]byte, 1), 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("error %v after Close", err)
	}
}
