package checkpoint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
)

// A Writer writes a model file. It is made by [Create] and has to be closed.
type Writer struct {
	path  string
	parts []*part // sorted by name
	out   output
	sync  bool

	finish func(context.Context) error // once all data is written; may be nil

	mu       sync.Mutex
	done     bool
	finished bool // finish was called, for the parts that have not changed since
}

// An output is an atomicFile or an outputDirectory. After commit or discard it is done with.
type output interface {
	flushSlices(ctx context.Context) error // any number of times before
	commit(sync bool) error
	discard() error
}

// A part is a tensor of the model and what is written of it.
type part struct {
	*entry
	file    *atomicFile
	mu      sync.Mutex
	written spans
	changed bool // after the last finish
}

// A CreateOption changes how [Create] writes a model: to the disk or not, in one file or in shards. No option changes a
// byte of any tensor.
type CreateOption func(*createOptions)

type createOptions struct {
	sync         bool
	hasLayout    bool
	layout       []Shard
	hasShardSize bool
	maxShardSize int64
	sideFrom     *Model
}

// sharded reports whether the path is that of a model directory.
func (o *createOptions) sharded() bool { return o.hasLayout || o.hasShardSize }

// plan divides the tensors into files.
func (o *createOptions) plan(tensors []Tensor) ([]shardPlan, error) {
	if err := checkNames(tensors); err != nil {
		return nil, err
	}
	switch {
	case o.hasLayout && o.hasShardSize:
		return nil, errors.New("both a layout of shards and a maximum size of them are given, want one of them")
	case o.hasLayout:
		return planShards(tensors, o.layout)
	case o.maxShardSize <= 0:
		return nil, fmt.Errorf("maximum size of shards is %d bytes, want more than zero", o.maxShardSize)
	}
	return splitShards(tensors, o.maxShardSize), nil
}

// WithShards makes a model directory of the path, with the shards of the layout, which may be [Model.Shards] of another
// model, and model.safetensors.index.json. A tensor that the layout does not have goes into the last shard; what the
// layout has and the model does not is left out, and so is a shard without tensors. One shard called model.safetensors
// has no index. The names of the files have to be plain and to end with ".safetensors".
func WithShards(layout []Shard) CreateOption {
	return func(o *createOptions) { o.hasLayout, o.layout = true, layout }
}

// WithMaxShardSize makes a model directory of the path, with shards of at most so many bytes of data, called
// model-00001-of-00002.safetensors and so on, and model.safetensors.index.json. Tensors are put into them in the order
// of their names; a tensor that is larger has a shard of its own. If one shard is enough it is called model.safetensors
// and has no index.
func WithMaxShardSize(bytes int64) CreateOption {
	return func(o *createOptions) { o.hasShardSize, o.maxShardSize = true, bytes }
}

// WithSideFiles makes a model directory that does not exist yet appear with the files that [CopySideFiles] copies from the
// directory of the model, as a whole. [Writer.Copied] returns them. A directory that exists has a model whose files they
// may be already: it gets none before Commit, and CopySideFiles may be called then. For a model that was opened as one
// file, and for an output of one file, the option has no meaning.
func WithSideFiles(from *Model) CreateOption {
	return func(o *createOptions) { o.sideFrom = from }
}

// Copied returns the names of the files that [WithSideFiles] has put into the directory, sorted; nil before Commit, and if
// the directory was there.
func (w *Writer) Copied() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if d, ok := w.out.(*outputDirectory); ok && w.done {
		return slices.Clone(d.copied)
	}
	return nil
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
// A path that ends with ".npy" or ".npz", in lower or upper case, is written for NumPy: as version 1, little-endian,
// row-major; a .npz stored, not deflated, with the checksums that Commit makes by reading everything back. Such files
// keep no metadata, and there is none of the name of the one tensor of a .npy. Dtypes that NumPy does not have, BF16
// among them, are an error.
//
// The data goes to a temporary file in the directory of path; [Writer.Commit] puts it in the place of path in one step.
// Until then, what stands at path is untouched, so it may also be the file of an open [Model]. (On Windows such a model
// has to be closed before Commit: open files cannot be replaced there.) The whole space is reserved at once where
// the system can do that, so that a disk which is too full is an error of Create and not of a later write.
//
// The new file has the permissions of the one it replaces, or those of any new file. A file that nobody may write,
// going by its permissions, is not replaced. A symbolic link at path is replaced by the file; what it points to remains
// as it is, since stores of model files keep them under the hash of their contents and link to them.
//
// Temporary files that killed runs have left for the same path are removed first, as [RemoveStale] does it.
//
// With [WithShards] or [WithMaxShardSize], path is a directory, and everything above holds for its files. A directory
// that does not exist appears with all of them in one step. In one that exists, shards that the old index names and the
// new model does not have are removed, since they are a part of the model that is replaced, unless another index in the
// directory names them too; [Writer.Removed] returns them. Other files that are not written are left alone. If none of
// the shards has the name of one that is there, Commit renames the shards and then the index, which takes the place of
// the old one in one step.
//
// A directory with shards of the same names is replaced as a whole, on Linux: the new one is written beside it, gets
// links to all its other files and its permissions, and the two are exchanged in one step, after which directories that
// were in the old one are moved to the new one, and the old one is removed. If path is a symbolic link to a directory,
// that one is replaced, and the link stays. Whenever the run is killed, there is the whole old model or the whole new
// one; if it is killed in the instant between the exchange and the moving, the directories come back with the next run
// or [RemoveStale]. What another program puts into the directory meanwhile is kept; but a program that has the old
// directory open, or as its working directory, is left with a removed one. This is not possible on other systems; on a
// file system that cannot exchange directories, or has no hard links or locks; if path is a mount point, has one in it
// or is the working directory; if the directory has another owner or group than a new one would have, or extended
// attributes of its own, or is write-protected, or a directory in it is; or if its parent is. Then Commit renames file
// after file, once all of them are complete and flushed, and the index last; since shards are replaced, the old index
// is removed before: a run that is killed between two renames leaves a directory without an index, which [Open]
// refuses, and never one whose index speaks of shards of two models.
//
// A directory with a model that would make it ambiguous which one is meant, model.safetensors beside an index, is an
// error of Create; so is a path that does not exist and ends with ".safetensors", ".npy" or ".npz", as those of files do.
// One file is an error where it would break a model directory: under the name of a shard that an index beside it names,
// as model.safetensors beside model.safetensors.index.json, or under a name that ends with ".index.json".
//
// Tensors have to pass [Tensor.Validate]; names have to be unique and valid UTF-8, and "__metadata__" is reserved. A
// header over [DefaultHeaderLimit] is an error that wraps [ErrHeaderLimit]. After any error, nothing is left behind.
func Create(path string, tensors []Tensor, metadata map[string]string, opts ...CreateOption) (*Writer, error) {
	o := createOptions{sync: true}
	for _, opt := range opts {
		opt(&o)
	}
	if path == "" {
		return nil, errEmptyPath
	}
	if o.sharded() {
		return createShards(path, tensors, metadata, o)
	}
	if err := checkFileTarget(path); err != nil {
		return nil, err
	}
	l, err := layOut(path, tensors, metadata)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	f, err := createAtomic(path, path, l.size)
	if err != nil {
		return nil, err
	}
	w := &Writer{path: path, out: f, sync: o.sync}
	if l.finish != nil {
		w.finish = func(ctx context.Context) error { return l.finish(ctx, f) }
	}
	f.startWriteback(o.sync)
	if err := w.begin(f, l); err != nil {
		return nil, errors.Join(err, f.discard())
	}
	w.sortParts()
	return w, nil
}

var errEmptyPath = errors.New("checkpoint: the path of the file to create is empty")

// A fileLayout is a file before its data: the bytes around that, and where every tensor goes.
type fileLayout struct {
	blocks  []block
	entries []entry // offsets are in the file
	size    int64
	finish  func(context.Context, *atomicFile) error // writes what depends on the data; nil if nothing does
}

// A block is bytes and where they go.
type block struct {
	offset int64
	bytes  []byte
}

// layOut lays out a file in the format that its name says.
func layOut(path string, tensors []Tensor, metadata map[string]string) (*fileLayout, error) {
	switch strings.ToLower(filepath.Ext(path)) {
	case npyExtension:
		return layOutNPY(tensors)
	case npzExtension:
		return layOutNPZ(tensors, zip64Mark)
	}
	l, err := layOutSafetensors(tensors, metadata)
	if err != nil {
		return nil, err
	}
	return l.file(), nil
}

// begin writes the blocks of a file and adds its tensors.
func (w *Writer) begin(f *atomicFile, l *fileLayout) error {
	for _, b := range l.blocks {
		if _, err := f.writeAt(b.bytes, b.offset); err != nil {
			return fmt.Errorf("%s: header: %w", f.name, err)
		}
	}
	l.blocks = nil // they may have many megabytes
	parts := make([]part, len(l.entries))
	w.parts = slices.Grow(w.parts, len(parts))
	for i := range parts {
		parts[i].entry, parts[i].file = &l.entries[i], f
		w.parts = append(w.parts, &parts[i])
	}
	return nil
}

func (w *Writer) sortParts() {
	slices.SortFunc(w.parts, func(a, b *part) int { return cmp.Compare(a.Name, b.Name) })
}

// checkDirectoryName returns an error if the name is that of a file of tensors, and nothing is there yet: a directory of
// that name is hardly what was meant.
func checkDirectoryName(path string) error {
	extension := strings.ToLower(filepath.Ext(path))
	if strings.HasSuffix(path, indexSuffix) {
		extension = shardExtension
	}
	if extension != shardExtension && extension != npyExtension && extension != npzExtension {
		return nil
	}
	if there, err := exists(path); err != nil || there {
		return err
	}
	return fmt.Errorf("%s: the name ends with %s as that of a file, want that of a directory for the shards",
		path, filepath.Ext(path))
}

// A shardsLayout is a model directory before its data.
type shardsLayout struct {
	plans   []shardPlan
	layouts []*fileLayout // one for each plan
	index   []byte        // the text of the index; nil if there is none
}

// layOutShards lays out the files of a model directory.
func layOutShards(path string, tensors []Tensor, metadata map[string]string, o createOptions) (*shardsLayout, error) {
	if err := checkDirectoryName(path); err != nil {
		return nil, err
	}
	plans, err := o.plan(tensors)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	s := &shardsLayout{plans: plans, layouts: make([]*fileLayout, len(plans))}
	var total int64
	for i, p := range plans {
		l, err := layOutSafetensors(p.tensors, metadata)
		if err != nil {
			return nil, fmt.Errorf("%s: shard %s: %w", path, quote(p.file), err)
		}
		if l.size > math.MaxInt64-total {
			return nil, fmt.Errorf("%s: the shards would have more than %d bytes", path, int64(math.MaxInt64))
		}
		total += l.size
		s.layouts[i] = l.file()
	}
	// A model in one file that has the usual name needs no index.
	if len(plans) == 1 && plans[0].file == singleName {
		return s, nil
	}
	s.index = appendIndex(nil, plans)
	if len(s.index) > DefaultHeaderLimit {
		return nil, fmt.Errorf("%s: %w: an index of %d bytes, limit %d", path, ErrHeaderLimit, len(s.index),
			DefaultHeaderLimit)
	}
	return s, nil
}

// createShards begins a model directory.
func createShards(path string, tensors []Tensor, metadata map[string]string, o createOptions) (*Writer, error) {
	s, err := layOutShards(path, tensors, metadata, o)
	if err != nil {
		return nil, err
	}
	if err := checkOpenFiles(path, s.plans); err != nil {
		return nil, err
	}
	d, err := createDirectory(path, s.plans, s.index != nil)
	if err != nil {
		return nil, err
	}
	if o.sideFrom != nil && o.sideFrom.dir != "" {
		d.sideFrom = o.sideFrom
	}
	w := &Writer{path: path, out: d, sync: o.sync}
	if err := w.beginShards(d, s); err != nil {
		return nil, errors.Join(tooManyShards(path, s.plans, err), d.discard())
	}
	w.sortParts()
	return w, nil
}

// beginShards creates the files of the directory.
func (w *Writer) beginShards(d *outputDirectory, s *shardsLayout) error {
	for i, l := range s.layouts {
		f, err := d.add(s.plans[i].file, l.size)
		if err != nil {
			return err
		}
		d.shards = append(d.shards, f)
		f.startWriteback(w.sync)
		if err := w.begin(f, l); err != nil {
			return err
		}
	}
	if s.index == nil {
		return nil
	}
	f, err := d.add(indexName, int64(len(s.index)))
	if err != nil {
		return err
	}
	d.index = f
	if _, err := f.file.WriteAt(s.index, 0); err != nil {
		return fmt.Errorf("%s: %w", f.name, err)
	}
	return nil
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
	i, ok := slices.BinarySearchFunc(w.parts, name, func(p *part, name string) int { return cmp.Compare(p.Name, name) })
	if !ok {
		return nil, fmt.Errorf("%s: %w %s", w.path, ErrNoTensor, quote(name))
	}
	return &TensorWriter{w, w.parts[i]}, nil
}

// Offset returns at which byte of its file the data of the named tensor begins. Chunks that are written from multiples
// of a page on are written fastest. The error wraps [ErrNoTensor] if there is no such tensor.
func (w *Writer) Offset(name string) (int64, error) {
	t, err := w.TensorWriter(name)
	if err != nil {
		return 0, err
	}
	return t.part.offset, nil
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
	n, err := e.file.writeAt(p, e.offset+off)
	e.mu.Lock()
	e.changed = true
	e.written.add(off, off+int64(n))
	e.mu.Unlock()
	if err != nil {
		return n, fmt.Errorf("%s: tensor %s: wrote %d of %d bytes at byte %d: %w",
			t.writer.path, quote(e.Name), n, len(p), off, err)
	}
	return n, nil
}

// Flush does the long part of Commit, so that it can be stopped: it completes the file and flushes it to the disk,
// unless [WithoutSync] is given, in slices of a few megabytes between which it looks at ctx. Commit has little left to
// do after it. When ctx is done the error is its cause, and when a byte was never written it wraps [ErrIncomplete];
// after any error the Writer is as it was, and Commit and Close can still be called. No write may be under way; one
// that follows is flushed by Commit. After Commit or Close the error wraps [os.ErrClosed].
//
// On systems other than Linux there are no slices, and ctx is looked at before the whole is flushed.
func (w *Writer) Flush(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done {
		return fmt.Errorf("%s: flush: %w", w.path, os.ErrClosed)
	}
	if err := w.complete(ctx); err != nil {
		return err
	}
	if d, ok := w.out.(*outputDirectory); ok {
		if err := d.copySideFiles(ctx); err != nil {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			return err
		}
	}
	if !w.sync {
		return nil
	}
	return w.out.flushSlices(ctx)
}

// Commit completes the file and puts it in its place: flushed to the disk, renamed to the path, and the directory
// flushed too. No write may be under way. If a byte of a tensor was never written, the error wraps [ErrIncomplete] and
// names a tensor. After any error the path is as it was and the temporary file is removed, with one exception: if only
// the flushing of the directory fails, the new file is in its place, but may not survive a loss of power.
//
// Of runs that write to one directory at the same time, one after the other puts its files there, as far as the file
// system has locks: in the end there is the model of the last one. Commit waits for the others, up to a minute.
//
// A second Commit, or one after Close, returns an error that wraps [os.ErrClosed].
func (w *Writer) Commit() error { return w.CommitContext(context.Background()) }

// CommitContext is [Writer.Commit] that is stopped when ctx is done while it waits for another run: the error is the cause
// of ctx then, and nothing is written. What is put in its place is not stopped in the middle.
func (w *Writer) CommitContext(ctx context.Context) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.done {
		return fmt.Errorf("%s: commit: %w", w.path, os.ErrClosed)
	}
	w.done = true
	if err := w.complete(ctx); err != nil {
		return errors.Join(err, w.out.discard())
	}
	if d, ok := w.out.(*outputDirectory); ok {
		return d.commitContext(ctx, w.sync)
	}
	return w.out.commit(w.sync)
}

// complete writes what depends on the data. It returns an error unless every byte was written.
func (w *Writer) complete(ctx context.Context) error {
	changed := false
	for _, p := range w.parts {
		p.mu.Lock()
		n := p.written.size()
		changed = changed || p.changed
		p.mu.Unlock()
		if n != p.size {
			return fmt.Errorf("%s: tensor %s: %w: %d of %d", w.path, quote(p.Name), ErrIncomplete, n, p.size)
		}
	}
	if w.finish == nil || w.finished && !changed {
		return nil
	}
	if err := w.finish(ctx); err != nil {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		return fmt.Errorf("%s: %w", w.path, err)
	}
	w.finished = true
	for _, p := range w.parts {
		p.mu.Lock()
		p.changed = false
		p.mu.Unlock()
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
	return w.out.discard()
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
