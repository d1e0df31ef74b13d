package checkpoint

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"strings"
	"sync"
	"unicode/utf8"
)

// A .npz file is a zip archive of .npy files, each named after its array.
const (
	npzExtension = ".npz"

	zipEncrypted = 1 // in the flags of a member

	// zipTail is what is read at most to find the directory of an archive, which is at its end.
	zipTail = 256 << 10
)

// readNPZ makes the model of a .npz file.
func readNPZ(s *source, o openOptions) (*Model, error) {
	members, err := readMembers(s, o.headerLimit)
	if err != nil {
		return nil, err
	}
	m := &Model{path: s.path, sources: []*source{s}, entries: make([]entry, 0, len(members))}
	for _, f := range members {
		if err := m.addMember(s, f, o); err != nil {
			return nil, memberError(s, f, err)
		}
	}
	m.entries = sortByName(m.entries)
	for i := 1; i < len(m.entries); i++ {
		if name := m.entries[i].Name; name == m.entries[i-1].Name {
			return nil, formatError(s.path, inTensor(name, errors.New("given twice")))
		}
	}
	return m, nil
}

// memberError says that err is about the member.
func memberError(s *source, f *zip.File, err error) error {
	return formatError(s.path, fmt.Errorf("member %s: %w", quote(f.Name), err))
}

// readMembers returns what the directory of the archive lists.
func readMembers(s *source, headerLimit int64) ([]*zip.File, error) {
	directory := &limitedReaderAt{from: s.file, left: headerLimit + zipTail}
	archive, err := zip.NewReader(directory, s.size)
	if err != nil {
		if errors.Is(err, ErrHeaderLimit) {
			err = fmt.Errorf("%w: the directory of the archive, limit %d bytes", ErrHeaderLimit, headerLimit)
		}
		return nil, formatError(s.path, fmt.Errorf("zip archive: %w", err))
	}
	directory.unlimited = true
	return archive.File, nil
}

// checkMemberName returns an error unless name is one that an array has in an archive.
func checkMemberName(name string) error {
	switch {
	case !utf8.ValidString(name):
		return errors.New("the name is not valid UTF-8")
	case !strings.HasSuffix(name, npyExtension):
		return errors.New("want a name that ends with " + npyExtension)
	case strings.ContainsAny(name, "\\\x00"):
		return errors.New("the name has a backslash or a zero byte")
	case strings.HasPrefix(name, "/"):
		return errors.New("the name is an absolute path")
	}
	for part := range strings.SplitSeq(name, "/") {
		if part == ".." {
			return errors.New("the name leads out of the archive")
		}
	}
	return nil
}

// addMember reads the header of a member and adds the array to the model.
func (m *Model) addMember(s *source, f *zip.File, o openOptions) error {
	if err := checkMemberName(f.Name); err != nil {
		return err
	}
	if f.Flags&zipEncrypted != 0 {
		return errors.New("is encrypted")
	}
	if f.UncompressedSize64 > 1<<62 {
		return fmt.Errorf("%d bytes are more than there can be", f.UncompressedSize64)
	}
	size := int64(f.UncompressedSize64)
	name := strings.TrimSuffix(f.Name, npyExtension)
	switch f.Method {
	case zip.Store:
		offset, err := f.DataOffset()
		if err != nil {
			return err
		}
		if f.CompressedSize64 != f.UncompressedSize64 {
			return fmt.Errorf("stored, but %d bytes are %d in the archive", f.UncompressedSize64, f.CompressedSize64)
		}
		if offset > s.size || size > s.size-offset {
			return fmt.Errorf("%d bytes at byte %d, but the file has %d", size, offset, s.size)
		}
		h, err := readNPYHeader(io.NewSectionReader(s.file, offset, size), size, o.void2)
		if err != nil {
			return err
		}
		m.entries = append(m.entries, h.entry(name, s, s, offset, o.ctx))
		return nil
	case zip.Deflate:
		r, err := f.Open()
		if err != nil {
			return err
		}
		defer r.Close()
		h, err := readNPYHeader(r, size, o.void2)
		if err != nil {
			return err
		}
		if size > o.inflateLimitOf(s.size)-m.inflatedBytes {
			return fmt.Errorf("%w: %d bytes, and %d of others before it, from an archive of %d; the limit is %d (an archive of "+
				"stored arrays, as numpy.savez writes it, has none)",
				ErrInflateLimit, size, m.inflatedBytes, s.size, o.inflateLimitOf(s.size))
		}
		m.inflatedBytes += size
		member := &inflated{file: f, size: size, ctx: o.ctx}
		m.inflated = append(m.inflated, member)
		m.entries = append(m.entries, h.entry(name, s, member, 0, o.ctx))
		return nil
	}
	return fmt.Errorf("compression method %d, want 0 (stored) or 8 (deflated)", f.Method)
}

// A limitedReaderAt fails once more bytes were read than it allows.
type limitedReaderAt struct {
	from      io.ReaderAt
	left      int64
	unlimited bool
}

func (r *limitedReaderAt) ReadAt(p []byte, off int64) (int, error) {
	if !r.unlimited {
		if int64(len(p)) > r.left {
			return 0, ErrHeaderLimit
		}
		r.left -= int64(len(p))
	}
	return r.from.ReadAt(p, off)
}

// inflated is a deflated member, of which no part can be read without all before it. When the first part is asked for,
// the whole goes to a temporary file, so that no more than a buffer of it is in memory.
type inflated struct {
	file *zip.File
	size int64 // of the .npy file; its header has the same
	ctx  context.Context

	mu     sync.Mutex
	closed bool
	temp   *os.File // nil before the first read
	err    error
}

func (d *inflated) readFull(p []byte, off int64) (int, error) {
	f, err := d.open()
	if err != nil {
		return 0, err
	}
	n, err := f.ReadAt(p, off)
	if n == len(p) {
		return n, nil
	}
	return n, noEOF(err)
}

// open returns the temporary file.
func (d *inflated) open() (*os.File, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, os.ErrClosed
	}
	if d.temp == nil && d.err == nil {
		d.temp, d.err = d.inflate()
	}
	return d.temp, d.err
}

// inflate writes the member to a file.
func (d *inflated) inflate() (*os.File, error) {
	f, err := os.CreateTemp("", "modelavg-*.npy")
	if err != nil {
		return nil, err
	}
	if renamesOpenFiles {
		// Without a name it is gone when it is closed, however the process ends.
		if err := os.Remove(f.Name()); err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	r, err := d.file.Open()
	if err == nil {
		var n int64
		// One byte more would be noticed; the reader checks the sum at the end.
		n, err = copyContext(d.ctx, f, io.LimitReader(r, d.size+1))
		r.Close()
		if err == nil && n != d.size {
			err = fmt.Errorf("%d bytes, want %d", n, d.size)
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("inflate %s: %w", quote(d.file.Name), err), removeTemp(f))
	}
	return f, nil
}

// The default limit of what is inflated: a small archive of zeros is legal, and so is a large one of whatever.
const (
	defaultInflateLimit = 16 << 30
	defaultInflateRatio = 100
)

// inflateLimitOf returns how many bytes the deflated arrays of an archive of this size may have together.
func (o *openOptions) inflateLimitOf(archive int64) int64 {
	if o.inflateLimit > 0 {
		return o.inflateLimit
	}
	if archive > math.MaxInt64/defaultInflateRatio {
		return math.MaxInt64
	}
	return max(defaultInflateLimit, archive*defaultInflateRatio)
}

// copyContext is [io.Copy] until ctx is done: it returns the cause then.
func copyContext(ctx context.Context, to io.Writer, from io.Reader) (int64, error) {
	return io.Copy(to, &contextReader{ctx, from})
}

// A contextReader fails when its context is done.
type contextReader struct {
	ctx  context.Context
	from io.Reader
}

func (r *contextReader) Read(p []byte) (int, error) {
	if r.ctx.Err() != nil {
		return 0, context.Cause(r.ctx)
	}
	return r.from.Read(p)
}

// removeTemp closes the file, and removes it where that has to wait.
func removeTemp(f *os.File) error {
	err := f.Close()
	if !renamesOpenFiles {
		err = errors.Join(err, os.Remove(f.Name()))
	}
	return err
}

// Close removes the temporary file.
func (d *inflated) Close() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || d.temp == nil {
		d.closed = true
		return nil
	}
	d.closed = true
	return removeTemp(d.temp)
}
