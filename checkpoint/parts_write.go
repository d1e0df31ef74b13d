package checkpoint

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/bits"
	"os"
	"path/filepath"
	"strings"
	"sync"
)

// Parts meet at multiples of this in a file, or where a file begins or ends. A page of the file is so never written by
// two machines, of which one could bring an old copy of the bytes of the other to the server.
const partAlignment = 1 << 20

// A PartWriter writes one part of an output that several processes write, on one machine or on many. It is made by
// [CreatePart] and has to be closed.
type PartWriter struct {
	path   string // as given
	target string
	dir    string   // of the unfinished output
	lock   *os.File // of that, shared with other parts; nil without locks
	part   Part
	plan   *sharedPlan
	sync   bool
	files  []*sharedFile

	tensors map[string]*sharedTensor

	mu   sync.Mutex
	done bool
}

// A sharedFile is a file of the unfinished output.
type sharedFile struct {
	file    *atomicFile // under its final name, in the directory of the unfinished output
	layout  *fileLayout
	begin   *entry // the tensor with which the header is written; nil if there is no data
	mu      sync.Mutex
	written summedSpans
}

// A sharedTensor is a tensor and its file.
type sharedTensor struct {
	*entry
	file *sharedFile
}

// CreatePart begins to write one part of the model file or directory of the given tensors. Path, tensors, metadata and
// options are those of [Create], and the finished output has the same bytes; .npy and .npz files cannot be written in
// parts, which is an error.
//
// Each of the processes that write the output writes its part into one unfinished output, the directory .OUT.parts
// beside the output OUT, whose files have their whole length from the beginning. Which process comes first and how many
// run at a time does not matter: a part may be killed and begun again, or run twice at once, if it writes the same
// bytes. Nothing at path is touched before [Unfinished.Commit], for which no part may be running any more. On one
// machine a lock sees to that, on systems that have such locks: a part that begins while another process finishes or
// discards the output is an error, and so is the finishing or discarding while a part has not been closed.
//
// The first process leaves its plan there: what it was called with, and the facts. The error wraps [ErrOtherPlan] and
// names what differs if there is another plan.
//
// Processes on several machines need a file system on which a file that one has closed is what another one finds when
// it opens it, as NFS promises. Then no two parts may write to the same page of a file, unless they write the same: the
// parts that [PartWriter.Ranges] returns do not.
func CreatePart(path string, part Part, tensors []Tensor, metadata map[string]string, facts []Fact,
	opts ...CreateOption,
) (*PartWriter, error) {
	o := createOptions{sync: true}
	for _, opt := range opts {
		opt(&o)
	}
	if path == "" {
		return nil, errEmptyPath
	}
	if err := part.check(); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	extension := strings.ToLower(filepath.Ext(path))
	if !o.sharded() && (extension == npyExtension || extension == npzExtension) {
		return nil, fmt.Errorf("%s: a %s file cannot be written in parts, want safetensors", path, extension)
	}
	w := &PartWriter{path: path, part: part, sync: o.sync, tensors: make(map[string]*sharedTensor)}
	w.plan = &sharedPlan{Format: partsFormat, Parts: part.Of, Facts: facts}
	w.target, w.dir = partsDirectory(path)
	if err := CheckCreate(w.target, tensors, metadata, opts...); err != nil {
		return nil, err
	}
	layouts, err := w.layOut(tensors, metadata, o)
	if err != nil {
		return nil, err
	}
	w.plan.Digest = w.plan.digest()
	removeStaleParts(w.dir)
	if err := w.join(); err != nil {
		return nil, w.wrap(err)
	}
	if err := w.open(layouts); err != nil {
		w.Close()
		return nil, err
	}
	return w, nil
}

// wrap names the part in an error.
func (w *PartWriter) wrap(err error) error {
	return fmt.Errorf("part %v of %s: %w", w.part, w.path, err)
}

// join agrees with the others about the plan, and takes the lock that all parts share.
func (w *PartWriter) join() error {
	for range 2 {
		if err := w.plan.agree(w.dir, w.target, w.sync); err != nil {
			return err
		}
		f, err := lockParts(w.dir, true, partsLockWait)
		if errors.Is(err, errNotThere) {
			continue // it was discarded between the two
		}
		if err != nil || f == nil {
			return err
		}
		if there, err := readPlan(w.dir, w.target); err == nil && there.Digest == w.plan.Digest {
			w.lock = f
			return nil
		}
		f.Close()
	}
	return errNotThere
}

// layOut lays out all files and puts them into the plan.
func (w *PartWriter) layOut(tensors []Tensor, metadata map[string]string, o createOptions) ([]*fileLayout, error) {
	add := func(name string, l *fileLayout) {
		f := partFile{Name: name, Size: l.size, Data: l.size, Header: hexSHA256(l.blocks[0].bytes)}
		if len(l.entries) > 0 {
			f.Data = int64(len(l.blocks[0].bytes))
		}
		w.plan.Files = append(w.plan.Files, f)
	}
	if !o.sharded() {
		l, err := layOut(w.path, tensors, metadata)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", w.path, err)
		}
		add(filepath.Base(w.target), l)
		return []*fileLayout{l}, nil
	}
	s, err := layOutShards(w.target, tensors, metadata, o)
	if err != nil {
		return nil, err
	}
	w.plan.Directory = true
	for i, p := range s.plans {
		add(p.file, s.layouts[i])
	}
	if s.index != nil {
		w.plan.Index = true
		l := &fileLayout{blocks: []block{{0, s.index}}, size: int64(len(s.index))}
		add(indexName, l)
		s.layouts = append(s.layouts, l)
	}
	return s.layouts, nil
}

// open opens all files, and makes those that are not there as long as they will be.
func (w *PartWriter) open(layouts []*fileLayout) error {
	data := filepath.Join(w.dir, partsData)
	if err := os.Mkdir(data, 0o777); err != nil && !errors.Is(err, fs.ErrExist) {
		return w.gone(err)
	}
	for i, f := range w.plan.Files {
		path := filepath.Join(data, f.Name)
		file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o666)
		if err != nil {
			return w.gone(err)
		}
		s := &sharedFile{
			file:   &atomicFile{name: path, temp: path, file: file, size: f.Size, keep: true},
			layout: layouts[i],
		}
		w.files = append(w.files, s)
		for j := range s.layout.entries {
			e := &s.layout.entries[j]
			w.tensors[e.Name] = &sharedTensor{e, s}
			if s.begin == nil && e.size > 0 {
				s.begin = e
			}
		}
	}
	// What was opened before is not what a process that finishes the output has put there in exchange.
	if err := w.notPlacing(); err != nil {
		return err
	}
	for _, s := range w.files {
		if err := s.reserve(); err != nil {
			return w.wrap(err)
		}
		s.file.startWriteback(w.sync)
		if s.begin != nil || w.part.Number != 1 {
			continue
		}
		if err := s.writeHeader(); err != nil { // which is the whole file
			return w.wrap(err)
		}
	}
	return nil
}

// notPlacing returns an error if a process has begun to put the files in their places.
func (w *PartWriter) notPlacing() error {
	if there, err := exists(filepath.Join(w.dir, partsPlacing)); err != nil || there {
		return cmp.Or(err, w.wrap(fmt.Errorf("%s: the output is being finished, or that was stopped: finish it", w.dir)))
	}
	return nil
}

// gone explains an error that comes from the unfinished output not being there any more.
func (w *PartWriter) gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return w.wrap(fmt.Errorf("%w: %w", errNotThere, err))
	}
	return w.wrap(err)
}

// reserve makes the file as long as it will be. It changes no byte that another process may have written.
func (s *sharedFile) reserve() error {
	info, err := s.file.file.Stat()
	switch {
	case err != nil:
		return err
	case !info.Mode().IsRegular() || info.Size() > s.file.size:
		return fmt.Errorf("%s: has %d bytes (%v), want a file of %d", s.file.name, info.Size(), info.Mode().Type(),
			s.file.size)
	case info.Size() == s.file.size:
		return nil
	}
	if err := preallocate(s.file.file, s.file.size); err != nil {
		return fmt.Errorf("%s: reserve %d bytes: %w", s.file.name, s.file.size, err)
	}
	return nil
}

// writeHeader writes all that is before the data.
func (s *sharedFile) writeHeader() error {
	for _, b := range s.layout.blocks {
		if err := s.writeAt(b.bytes, b.offset); err != nil {
			return err
		}
	}
	return nil
}

// writeAt writes to the file, and adds to its checksums.
func (s *sharedFile) writeAt(p []byte, off int64) error {
	n, err := s.file.writeAt(p, off)
	if err != nil {
		return fmt.Errorf("%s: wrote %d of %d bytes at byte %d: %w", s.file.name, n, len(p), off, err)
	}
	x := summedSpan{off, off + int64(len(p)), checksum(p)}
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.written.add(x); err != nil {
		return fmt.Errorf("%s: %w", s.file.name, err)
	}
	return nil
}

// Path returns the path that was given to [CreatePart].
func (w *PartWriter) Path() string { return w.path }

// Part returns the part that was given to [CreatePart].
func (w *PartWriter) Part() Part { return w.part }

// Ranges returns which bytes of which tensors are the share of the part if all parts are to have the same number of
// bytes: in the order of the files, tensors in one piece but for the first and the last one. Parts meet at multiples of
// a MiB in the files, if not between two of them; of an output of fewer MiB than parts, some have nothing.
func (w *PartWriter) Ranges() []TensorRange {
	first, last := w.cut(w.part.Number-1), w.cut(w.part.Number)
	var ranges []TensorRange
	for i := first.file; i <= last.file && i < len(w.files); i++ {
		begin, end := int64(0), w.plan.Files[i].Size
		if i == first.file {
			begin = first.offset
		}
		if i == last.file {
			end = last.offset
		}
		for j := range w.files[i].layout.entries {
			e := &w.files[i].layout.entries[j]
			from, to := max(begin, e.offset), min(end, e.offset+e.size)
			if from < to {
				ranges = append(ranges, TensorRange{e.Name, from - e.offset, to - from})
			}
		}
	}
	return ranges
}

// A cut is a place in one of the files.
type cut struct {
	file   int
	offset int64
}

// cut returns where the first parts end, so many of them.
func (w *PartWriter) cut(parts int) cut {
	var total uint64
	for _, f := range w.plan.Files {
		total += uint64(f.Size)
	}
	hi, lo := bits.Mul64(total, uint64(parts))
	place, _ := bits.Div64(hi, lo, uint64(w.plan.Parts))
	for i, f := range w.plan.Files {
		if place >= uint64(f.Size) {
			place -= uint64(f.Size)
			continue
		}
		offset := int64(place) &^ (partAlignment - 1)
		if offset <= f.Data { // a header is in one piece, and with the first byte of the data
			offset = 0
		}
		return cut{i, offset}
	}
	return cut{len(w.plan.Files), 0}
}

// Offset returns at which byte of its file the data of the named tensor begins, as [Writer.Offset] does.
func (w *PartWriter) Offset(name string) (int64, error) {
	t, ok := w.tensors[name]
	if !ok {
		return 0, fmt.Errorf("%s: %w %s", w.path, ErrNoTensor, quote(name))
	}
	return t.offset, nil
}

// WriteAt writes p, little-endian elements, to the data of the named tensor from byte off of it, as [Writer.WriteAt]
// does, but for one thing: no byte may be written twice by one PartWriter. The header of a file is written with the
// first byte of its data.
func (w *PartWriter) WriteAt(name string, p []byte, off int64) (int, error) {
	t, ok := w.tensors[name]
	if !ok {
		return 0, fmt.Errorf("%s: %w %s", w.path, ErrNoTensor, quote(name))
	}
	if off < 0 || off > t.size || int64(len(p)) > t.size-off {
		return 0, fmt.Errorf("%s: tensor %s: write of %d bytes at byte %d does not fit, the tensor has %d",
			w.path, quote(name), len(p), off, t.size)
	}
	if len(p) == 0 {
		return 0, nil
	}
	if err := t.file.writeAt(p, t.offset+off); err != nil {
		return 0, fmt.Errorf("tensor %s: %w", quote(name), err)
	}
	if t.entry == t.file.begin && off == 0 {
		if err := t.file.writeHeader(); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// Commit says that the part is complete: it flushes what was written to the disk, unless [WithoutSync] is given, and
// leaves the record of the part, with the checksums of what it has written and with the details, which are JSON and may
// be nil. No write may be under way. When ctx is done before the record is there, the error is its cause; after any
// error, what was written stays, without a record. A second Commit, or one after Close, returns an error that wraps
// [os.ErrClosed].
func (w *PartWriter) Commit(ctx context.Context, details []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done {
		return fmt.Errorf("%s: commit: %w", w.path, os.ErrClosed)
	}
	record := partRecord{
		Number: w.part.Number, Of: w.part.Of, Digest: w.plan.Digest, Spans: []recordedSpan{},
		Details: json.RawMessage(details),
	}
	if w.sync {
		for _, s := range w.files {
			if len(s.written) == 0 {
				continue
			}
			if err := s.file.flushSlices(ctx); err != nil {
				return err
			}
			if err := s.file.flush(); err != nil {
				return w.wrap(err)
			}
		}
	}
	opened := make([]fs.FileInfo, len(w.files))
	for i, s := range w.files {
		info, err := s.file.file.Stat()
		if err != nil {
			return w.wrap(err)
		}
		opened[i] = info
	}
	defer w.unlock() // once the record is there
	// On some file systems it is the closing that says that what was written has not arrived.
	if err := w.closeFiles(); err != nil {
		return w.wrap(err)
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	for i, s := range w.files {
		for _, x := range s.written {
			record.Spans = append(record.Spans, recordedSpan{i, x.begin, x.end, x.sum})
		}
	}
	if w.sync {
		for _, dir := range []string{filepath.Join(w.dir, partsData), filepath.Dir(w.dir)} {
			if err := syncDir(dir); err != nil {
				return w.gone(err)
			}
		}
	}
	// Where there are no locks, or on another machine, the output may have been finished, or discarded and begun anew.
	if err := w.notPlacing(); err != nil {
		return err
	}
	for i, s := range w.files {
		named, err := os.Lstat(s.file.name)
		if err != nil {
			return w.gone(err)
		}
		if !os.SameFile(opened[i], named) {
			return w.wrap(fmt.Errorf("%s: is not the file any more that was written to: %w", s.file.name, errNotThere))
		}
	}
	if err := writeJSON(filepath.Join(w.dir, recordName(w.part)), record, false, w.sync); err != nil {
		return w.gone(err)
	}
	return nil
}

// Close ends the writing. Unless Commit was called, the part has no record and can be written again. After Commit, or a
// second time, Close does nothing and returns nil.
func (w *PartWriter) Close() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done {
		return nil
	}
	defer w.unlock()
	return w.closeFiles()
}

func (w *PartWriter) unlock() {
	if w.lock != nil {
		w.lock.Close()
		w.lock = nil
	}
}

func (w *PartWriter) closeFiles() error {
	w.done = true
	var errs []error
	for _, s := range w.files {
		s.file.writeback.stop()
		errs = append(errs, s.file.file.Close())
	}
	return errors.Join(errs...)
}
