package checkpoint

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
)

// A Writer writes a model file. It is made by [Create] and has to be closed.
type Writer struct {
	path  string
	parts []part // sorted by name
	file  *atomicFile
	sync  bool

	mu   sync.Mutex
	done bool
}

// A part is a tensor of the file and what is written of it.
type part struct {
	entry
	mu      sync.Mutex
	written spans
}

// A CreateOption changes how [Create] writes a file. No option changes a byte of it.
type CreateOption func(*createOptions)

type createOptions struct {
	sync bool
}

// WithoutSync leaves out the flushing of the file to the disk in [Writer.Commit]. The old file or the whole new one is
// then still what any program finds, also when this one is killed; but after a loss of power, or a crash of the system,
// the file may be there and empty or damaged.
func WithoutSync() CreateOption {
	return func(o *createOptions) { o.sync = false }
}

// Create begins to write a model file of the given tensors, in safetensors format, and of the metadata, to which
// "format": "pt" is added unless it has a format. The order of the tensors does not matter: bytes of equal content are
// equal.
//
// The data goes to a temporary file in the directory of path; [Writer.Commit] puts it in the place of path in one step.
// Until then, what stands at path is untouched, so it may also be the file of an open [Model]. (On Windows such a model
// has to be closed before Commit: open files cannot be replaced there.) The whole space is reserved at once where
// the system can do that, so that a disk which is too full is an error of Create and not of a later write.
//
// The new file has the permissions of the one it replaces, or those of any new file. A file that nobody may write,
// going by its permissions, is not replaced. A symbolic link at path is replaced by the file; what it points to remains
// as it is, since stores of model files keep them under the hash of their contents and link to them. A link to a device,
// a pipe or a directory is refused.
//
// Temporary files that killed runs have left for the same path are removed first, as [RemoveStale] does it.
//
// Tensors have to pass [Tensor.Validate]; names have to be unique and valid UTF-8, and "__metadata__" is reserved. A
// header over [DefaultHeaderLimit] is an error that wraps [ErrHeaderLimit]. After any error, nothing is left behind.
func Create(path string, tensors []Tensor, metadata map[string]string, opts ...CreateOption) (*Writer, error) {
	o := createOptions{sync: true}
	for _, opt := range opts {
		opt(&o)
	}
	l, err := layOutSafetensors(tensors, metadata)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	f, err := createAtomic(path, l.size)
	if err != nil {
		return nil, err
	}
	if _, err := f.file.WriteAt(l.head, 0); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: header: %w", path, err), f.discard())
	}
	w := &Writer{path: path, parts: make([]part, len(l.entries)), file: f, sync: o.sync}
	slices.SortFunc(l.entries, func(a, b entry) int { return cmp.Compare(a.Name, b.Name) })
	for i := range l.entries {
		w.parts[i].entry = l.entries[i]
	}
	return w, nil
}

// Path returns the path that was given to [Create].
func (w *Writer) Path() string { return w.path }

// WriteAt writes p, little-endian elements, to the data of the named tensor from byte off of it. It may be called from
// any number of goroutines at once, in any order; what is written twice is what was written last. A p that does not fit
// into the tensor is an error and nothing is written. An unknown name is an error that wraps [ErrNoTensor]; after
// Commit or Close the error wraps [os.ErrClosed].
func (w *Writer) WriteAt(name string, p []byte, off int64) (int, error) {
	t, err := w.TensorWriter(name)
	if err != nil {
		return 0, err
	}
	return t.WriteAt(p, off)
}

// TensorWriter returns a writer for the data of the named tensor. The error wraps [ErrNoTensor] if there is no such
// tensor.
func (w *Writer) TensorWriter(name string) (*TensorWriter, error) {
	// The parts are compared in place: they hold locks, which must not be copied.
	lo, hi := 0, len(w.parts)
	for lo < hi {
		mid := int(uint(lo+hi) / 2)
		if w.parts[mid].Name < name {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == len(w.parts) || w.parts[lo].Name != name {
		return nil, fmt.Errorf("%s: %w %s", w.path, ErrNoTensor, quote(name))
	}
	return &TensorWriter{w, &w.parts[lo]}, nil
}

// A TensorWriter writes the data of one tensor. It is an [io.WriterAt] and may be used from several goroutines at once.
type TensorWriter struct {
	writer *Writer
	part   *part
}

// Tensor returns the tensor that is written. Its shape must not be changed.
func (t *TensorWriter) Tensor() Tensor { return t.part.Tensor }

// Size returns the size of the tensor's data in bytes.
func (t *TensorWriter) Size() int64 { return t.part.size }

// WriteAt writes as [Writer.WriteAt] does.
func (t *TensorWriter) WriteAt(p []byte, off int64) (int, error) {
	e := t.part
	if off < 0 || off > e.size || int64(len(p)) > e.size-off {
		return 0, fmt.Errorf("%s: tensor %s: write of %d bytes at byte %d does not fit, the tensor has %d",
			t.writer.path, quote(e.Name), len(p), off, e.size)
	}
	n, err := t.writer.file.file.WriteAt(p, e.offset+off)
	e.mu.Lock()
	e.written.add(off, off+int64(n))
	e.mu.Unlock()
	if err != nil {
		return n, fmt.Errorf("%s: tensor %s: wrote %d of %d bytes at byte %d: %w",
			t.writer.path, quote(e.Name), n, len(p), off, err)
	}
	return n, nil
}

// Commit completes the file and puts it in its place: flushed to the disk, renamed to the path, and the directory
// flushed too. No write may be under way. If a byte of a tensor was never written, the error wraps [ErrIncomplete] and
// names a tensor. After any error the path is as it was and the temporary file is removed, with one exception: if only
// the flushing of the directory fails, the new file is in its place, but may not survive a loss of power.
//
// A second Commit, or one after Close, returns an error that wraps [os.ErrClosed].
func (w *Writer) Commit() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done {
		return fmt.Errorf("%s: commit: %w", w.path, os.ErrClosed)
	}
	w.done = true
	if err := w.complete(); err != nil {
		return errors.Join(err, w.file.discard())
	}
	return w.file.commit(w.sync)
}

// complete returns an error unless every byte was written.
func (w *Writer) complete() error {
	for i := range w.parts {
		p := &w.parts[i]
		p.mu.Lock()
		n := p.written.size()
		p.mu.Unlock()
		if n != p.size {
			return fmt.Errorf("%s: tensor %s: %w: %d of %d", w.path, quote(p.Name), ErrIncomplete, n, p.size)
		}
	}
	return nil
}

// Close removes the temporary file unless the file was committed. After Commit it does nothing and returns nil, so it
// can be deferred; so does a second Close.
func (w *Writer) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done {
		return nil
	}
	w.done = true
	return w.file.discard()
}

// spans is a set of bytes: disjoint ranges that do not touch, in order. Writers go through a tensor from front to back,
// more or less, so there are few.
type spans []span

type span struct{ begin, end int64 }

// add adds the bytes from begin up to end.
func (s *spans) add(begin, end int64) {
	if begin == end {
		return
	}
	// The ranges from i up to j touch the new one and become part of it.
	old := *s
	i, _ := slices.BinarySearchFunc(old, begin, func(x span, begin int64) int { return cmp.Compare(x.end, begin) })
	j := i
	for j < len(old) && old[j].begin <= end {
		begin = min(begin, old[j].begin)
		end = max(end, old[j].end)
		j++
	}
	*s = slices.Replace(old, i, j, span{begin, end})
}

// size returns how many bytes are in the set.
func (s spans) size() int64 {
	var n int64
	for _, x := range s {
		n += x.end - x.begin
	}
	return n
}
