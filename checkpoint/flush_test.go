package checkpoint

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
)

// A flush can be stopped, tried again, followed by writes, or left out: what is committed is what was written last.
func TestFlush(t *testing.T) {
	for _, name := range []string{"out.safetensors", "out.npz"} {
		path := filepath.Join(t.TempDir(), name)
		w := create(t, path, twoTensors, nil)
		if err := w.Flush(t.Context()); !errors.Is(err, ErrIncomplete) {
			t.Errorf("%s: nothing is written: %v", name, err)
		}
		for _, tensor := range twoTensors {
			if _, err := w.WriteAt(tensor.Name, make([]byte, tensor.Bytes()), 0); err != nil {
				t.Fatal(err)
			}
		}
		reason := errors.New("enough")
		ctx, stop := context.WithCancelCause(t.Context())
		stop(reason)
		if err := w.Flush(ctx); !errors.Is(err, reason) {
			t.Errorf("%s: stopped: %v", name, err)
		}
		if err := w.Flush(t.Context()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := w.WriteAt("a", counting(1, 8), 0); err != nil {
			t.Fatal(err)
		}
		if err := w.Commit(); err != nil {
			t.Fatal(err)
		}
		if err := w.Flush(t.Context()); !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s: after Commit: %v", name, err)
		}
		var p [8]byte
		if _, err := open(t, path).ReadAt("a", p[:], 0); err != nil || !bytes.Equal(p[:], counting(1, 8)) {
			t.Errorf("%s: %v, %v", name, p, err)
		}
		if name == "out.npz" {
			checkSums(t, path)
		}
		wantFiles(t, filepath.Dir(path), name)
	}
}

// checkSums reads all members of an archive, whose checksums have to be right.
func checkSums(t *testing.T, path string) {
	t.Helper()
	r, err := zip.OpenReader(path)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for _, f := range r.File {
		m, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, m); err != nil {
			t.Errorf("%s: %v", f.Name, err)
		}
		m.Close()
	}
}

// A file larger than a block, written in any order by several goroutines, with a header that is not a multiple of
// anything: every block goes to the disk when it is full and not before, and the bytes are those that were written.
func TestWriteback(t *testing.T) {
	const size = 2*writebackBlock + 12345
	tensors := []Tensor{{"a", U8, []int64{writebackBlock + 7}}, {"b", U8, []int64{writebackBlock + 12338}}}
	for _, opts := range [][]CreateOption{nil, {WithoutSync()}, {WithMaxShardSize(size / 2)}} {
		path := filepath.Join(t.TempDir(), "out")
		w := create(t, path, tensors, nil, opts...)
		data := bytes.Repeat(counting(0, 251), size/251+1)[:size]
		type chunk struct {
			tensor Tensor
			off    int64
		}
		var chunks []chunk
		const step = 1<<20 - 3
		for _, tensor := range tensors {
			for off := int64(0); off < tensor.Bytes(); off += step {
				chunks = append(chunks, chunk{tensor, off})
			}
		}
		rand.Shuffle(len(chunks), func(i, j int) { chunks[i], chunks[j] = chunks[j], chunks[i] })
		var group sync.WaitGroup
		for worker := range 4 {
			group.Go(func() {
				for i := worker; i < len(chunks); i += 4 {
					c := chunks[i]
					p := data[c.off:min(c.off+step, c.tensor.Bytes())]
					if _, err := w.WriteAt(c.tensor.Name, p, c.off); err != nil {
						t.Error(err)
					}
				}
			})
		}
		group.Wait()
		if f, ok := w.out.(*atomicFile); ok && f.writeback != nil {
			for i := range f.writeback.written {
				if got, want := f.writeback.written[i].Load(), min(writebackBlock, f.size-int64(i)*writebackBlock); got != want {
					t.Errorf("block %d: %d bytes counted, want %d", i, got, want)
				}
			}
		} else if ok && hasWriteback && len(opts) == 0 {
			t.Error("no writeback")
		} else if ok && len(opts) == 1 && f.writeback != nil {
			t.Error("a writeback of what is not to be flushed")
		}
		if err := w.Flush(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := w.Commit(); err != nil {
			t.Fatal(err)
		}
		m := open(t, path)
		for _, tensor := range tensors {
			p := make([]byte, tensor.Bytes())
			if _, err := m.ReadAt(tensor.Name, p, 0); err != nil || !bytes.Equal(p, data[:len(p)]) {
				t.Errorf("%s differs, %v", tensor.Name, err)
			}
		}
	}
}

// Blocks are taken when they are full, once.
func TestWritebackBlocks(t *testing.T) {
	b := newWriteback(nil, 2*writebackBlock+5)
	if b == nil {
		t.Skip("nothing is brought to the disk in parts")
	}
	b.once.Do(func() {}) // no goroutine takes them
	var full []int
	take := func() []int {
		for len(b.full) > 0 {
			full = append(full, <-b.full)
		}
		return full
	}
	for _, test := range []struct {
		off, n int64
		full   []int
	}{
		{0, writebackBlock - 1, nil},
		{writebackBlock, 1, nil},
		{2 * writebackBlock, 4, nil},
		{writebackBlock - 1, 1, []int{0}},
		{0, 10, []int{0}},
		{writebackBlock + 1, writebackBlock + 4, []int{0, 1, 2}},
		{0, 2*writebackBlock + 5, []int{0, 1, 2}},
	} {
		b.wrote(test.off, test.n)
		if got := take(); !slices.Equal(got, test.full) {
			t.Errorf("after %d bytes at %d: full %v, want %v", test.n, test.off, got, test.full)
		}
	}
	var none *writeback
	none.wrote(0, 1)
	none.stop()
}

// A large file that is thrown away is gone at once.
func TestDiscardLarge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	w := create(t, path, []Tensor{{"a", U8, []int64{3 * writebackBlock}}}, nil)
	if _, err := w.WriteAt("a", make([]byte, 2*writebackBlock), 0); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Error(err)
	}
	wantFiles(t, filepath.Dir(path))
	if _, err := w.WriteAt("a", []byte{1}, 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("write after Close: %v", err)
	}
}
