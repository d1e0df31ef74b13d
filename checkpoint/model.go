package checkpoint

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// A Model is a model file, or the files of a model directory, opened for reading. Its methods may be called from several
// goroutines at once, Close excepted.
type Model struct {
	*tensors

	path          string
	sources       []*source
	scratch       *scratch // of an archive with deflated members, or nil
	inflatedBytes int64    // of all of them
	dir           string   // of a model directory, or empty
	index         string   // path of the index file, or empty
}

// An entry is a tensor and where its data is.
type entry struct {
	Tensor
	file   int32 // the source of the model that it is in
	offset int64 // in the file
	size   int64
	array  *array // for data that is not in the file as it is read, or nil

	stored *storedMember // for data that has to be checked before it is read, or nil
}

// readFull fills p from byte off of the data of e, which has to have as many.
func (m *Model) readFull(e *entry, p []byte, off int64) (int, error) {
	if e.stored != nil {
		if err := e.stored.check(); err != nil {
			return 0, err
		}
	}
	if e.array != nil {
		return e.array.readAt(p, off)
	}
	return m.sources[e.file].readFull(p, e.offset+off)
}

// An OpenOption changes what [Open] accepts.
type OpenOption func(*openOptions)

type openOptions struct {
	headerLimit int64
	void2       DType // of elements of two bytes without a type, or zero
	ctx         context.Context

	inflateLimit int64 // zero or less: see inflateLimitOf
}

// DefaultHeaderLimit is the longest header, in bytes, that [Open] reads unless told otherwise, and the longest that
// [Create] writes. It is the limit of the reference implementation.
const DefaultHeaderLimit = 100_000_000

// WithHeaderLimit sets the longest header or index, in bytes, that is read; a longer one is an error that wraps
// [ErrHeaderLimit]. Zero or less means [DefaultHeaderLimit]. A header takes up to ten times its length in memory while
// it is read. Those of large language models have about 100 bytes for each tensor, 100 kB in all: a service that opens
// files of strangers does well with 1 to 16 MB.
func WithHeaderLimit(bytes int64) OpenOption {
	return func(o *openOptions) { o.headerLimit = bytes }
}

// WithVoid2As sets the dtype of those arrays in .npy and .npz files whose elements are two bytes without a type, "V2",
// which without it are an error that wraps [ErrUntyped]. That is how NumPy stores bfloat16, of package ml_dtypes, which
// it does not know: the dtype is BF16 then. It must be a dtype of 16 bits. Elements whose order of bytes is not given
// are little-endian.
func WithVoid2As(d DType) OpenOption {
	return func(o *openOptions) { o.void2 = d }
}

// WithInflateLimit sets how many bytes the deflated arrays of a .npz file may have together, inflated; more is an error of
// Open that wraps [ErrInflateLimit]. They go to temporary files, and a thousand bytes of each may be one in the archive.
// Zero or less, the default, means 16 GiB, or 100 times the size of the archive if that is more.
func WithInflateLimit(bytes int64) OpenOption {
	return func(o *openOptions) { o.inflateLimit = bytes }
}

// WithContext makes [Open], and all that is read from the model, stop when ctx is done; the error wraps its cause. What may
// take long looks at it: reading a header of many tensors, comparing a checksum, inflating an array, and putting one in
// order. A read of what is in the file as it is asked for does not, since it takes as long as the caller's buffer makes it.
func WithContext(ctx context.Context) OpenOption {
	return func(o *openOptions) { o.ctx = ctx }
}

// gatherOpenOptions puts the options together.
func gatherOpenOptions(opts []OpenOption) (openOptions, error) {
	var o openOptions
	for _, opt := range opts {
		opt(&o)
	}
	if o.ctx == nil {
		o.ctx = context.Background()
	}
	if o.headerLimit <= 0 {
		o.headerLimit = DefaultHeaderLimit
	}
	if o.void2 != 0 && o.void2.Bits() != 16 {
		return o, fmt.Errorf("elements of two bytes as %v: want a dtype of 16 bits", o.void2)
	}
	return o, nil
}

// Open opens the model at path: a file; a directory with model.safetensors.index.json, or else with model.safetensors;
// or an index file, which is what the name of it says if it ends with ".index.json". It reads and checks all headers,
// and keeps the files open until [Model.Close].
//
// A file whose name ends with ".npy" or ".npz", in lower or upper case, is read as NumPy writes it, any other file as
// safetensors.
//
// The shards that an index names have to be in its directory, or symbolic links there, and to have exactly the tensors
// that it maps to them. Of several shards, the metadata is that of the first.
//
// A file that breaks a rule of the format is a [FormatError]; a header over the limit wraps [ErrHeaderLimit]; a path
// that is no regular file, and any failure to open or read it, are errors too.
func Open(path string, opts ...OpenOption) (*Model, error) {
	o, err := gatherOpenOptions(opts)
	if err != nil {
		return nil, err
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case info.IsDir():
		return openDirectory(path, o)
	case strings.HasSuffix(path, indexSuffix):
		return openIndex(path, o)
	}
	switch strings.ToLower(filepath.Ext(path)) {
	case npyExtension:
		return openFile(path, o, readNPY)
	case npzExtension:
		return openFile(path, o, readNPZ)
	}
	return openSafetensors(path, o)
}

// openSafetensors opens the model of one file in safetensors format.
func openSafetensors(path string, o openOptions) (*Model, error) {
	return openFile(path, o, readSafetensors)
}

// openFile opens a file and makes a model of it.
func openFile(path string, o openOptions, read func(*source, openOptions) (*Model, error)) (*Model, error) {
	s, err := openSource(path)
	if err != nil {
		return nil, err
	}
	m, err := read(s, o)
	if err != nil {
		s.Close()
		return nil, err
	}
	return m, nil
}

// Path returns the path that was given to [Open].
func (m *Model) Path() string { return m.path }

// Dir returns the directory of a model that was opened as a directory or as an index file, and "" for a model that was
// opened as a file of tensors.
func (m *Model) Dir() string { return m.dir }

// Index returns the path of the index file that says which tensor is in which shard, and "" if there is none.
func (m *Model) Index() string { return m.index }

// Shards returns the files of the model, sorted by name, and the tensors in each: one file if there is no index. The
// slices are the caller's.
func (m *Model) Shards() []Shard {
	if m.index == "" {
		names := make([]string, len(m.entries))
		for i := range m.entries {
			names[i] = m.entries[i].Name
		}
		return []Shard{{File: filepath.Base(m.sources[0].path), Tensors: names}}
	}
	shards := slices.Clone(m.shards)
	for i := range shards {
		shards[i].Tensors = slices.Clone(shards[i].Tensors)
	}
	return shards
}

// Tensors returns all tensors, sorted by name. The slice is the caller's; the shapes in it are shared and must not be
// changed.
func (m *Model) Tensors() []Tensor {
	tensors := make([]Tensor, len(m.entries))
	for i := range m.entries {
		tensors[i] = m.entries[i].Tensor
	}
	return tensors
}

// Tensor returns the tensor of that name, and whether there is one. Its shape is shared and must not be changed.
func (m *Model) Tensor(name string) (Tensor, bool) {
	e := m.find(name)
	if e == nil {
		return Tensor{}, false
	}
	return e.Tensor, true
}

// find returns the entry of that name, or nil.
func (m *Model) find(name string) *entry {
	i, ok := slices.BinarySearchFunc(m.entries, name, func(e entry, name string) int { return cmp.Compare(e.Name, name) })
	if !ok {
		return nil
	}
	return &m.entries[i]
}

// Metadata returns a copy of the free-form metadata of the file, or of the first shard, "format" among others. It is nil
// if there is none.
func (m *Model) Metadata() map[string]string { return m.metadata.unpack() }

// ReadAt reads the data of the named tensor from byte off of it into p. It is [TensorReader.ReadAt] behind a search for
// the name, which takes well under a microsecond. The error wraps [ErrNoTensor] if there is no such tensor.
func (m *Model) ReadAt(name string, p []byte, off int64) (int, error) {
	e := m.find(name)
	if e == nil {
		return 0, m.noTensor(name)
	}
	return m.readAt(e, p, off)
}

// Offset returns at which byte of its file the data of the named tensor begins, and 0 if the file does not have them as
// they are read: those of a deflated member of an archive, say. The error wraps [ErrNoTensor] if there is no such tensor.
func (m *Model) Offset(name string) (int64, error) {
	e := m.find(name)
	switch {
	case e == nil:
		return 0, m.noTensor(name)
	case e.array != nil:
		return 0, nil
	}
	return e.offset, nil
}

// TensorReader returns a reader for the data of the named tensor. The error wraps [ErrNoTensor] if there is no such
// tensor.
func (m *Model) TensorReader(name string) (*TensorReader, error) {
	e := m.find(name)
	if e == nil {
		return nil, m.noTensor(name)
	}
	return &TensorReader{m, e}, nil
}

func (m *Model) noTensor(name string) error {
	return fmt.Errorf("%s: %w %s", m.path, ErrNoTensor, quote(name))
}

// Unchanged returns an error that wraps [ErrChanged] if a file is not as it was when it was opened, going by its size and
// its time of modification. Called after the last read, it says whether all that was read belongs together, as far
// as the clock of the file system can tell: two changes within its resolution, some milliseconds, look like one. A file
// that was replaced by another of the same name is unchanged: the old one remains readable until [Model.Close].
func (m *Model) Unchanged() error {
	for _, s := range m.sources {
		if err := s.unchanged(); err != nil {
			return err
		}
	}
	return nil
}

// Close closes all files. Reads fail from then on. A second Close returns an error that wraps [os.ErrClosed].
func (m *Model) Close() error {
	var errs []error
	if m.scratch != nil {
		errs = append(errs, m.scratch.Close())
	}
	for _, s := range m.sources {
		errs = append(errs, s.Close())
	}
	return errors.Join(errs...)
}

// readAt reads data of one tensor.
func (m *Model) readAt(e *entry, p []byte, off int64) (int, error) {
	if off < 0 {
		return 0, fmt.Errorf("%s: tensor %s: read at negative offset %d", m.path, quote(e.Name), off)
	}
	if off >= e.size {
		return 0, io.EOF
	}
	var end error
	if int64(len(p)) > e.size-off {
		p = p[:e.size-off]
		end = io.EOF
	}
	n, err := m.readFull(e, p, off)
	if err != nil {
		return n, fmt.Errorf("%s: tensor %s: read %d of %d bytes at byte %d: %w",
			m.sources[e.file].path, quote(e.Name), n, len(p), off, err)
	}
	return n, end
}

// A TensorReader reads the data of one tensor. It is an [io.ReaderAt], may be used from several goroutines at once, and
// is good until the model is closed.
type TensorReader struct {
	model *Model
	entry *entry
}

// Tensor returns the tensor that is read. Its shape is shared and must not be changed.
func (r *TensorReader) Tensor() Tensor { return r.entry.Tensor }

// Size returns the size of the tensor's data in bytes.
func (r *TensorReader) Size() int64 { return r.entry.size }

// ReadAt reads len(p) bytes, little-endian elements, from byte off of the tensor's data into p. As [io.ReaderAt] has
// it, it returns an error whenever it reads less: [io.EOF] at the end of the tensor. A file that has become shorter
// since it was opened gives an error that wraps [io.ErrUnexpectedEOF] and names file and tensor.
func (r *TensorReader) ReadAt(p []byte, off int64) (int, error) {
	return r.model.readAt(r.entry, p, off)
}
