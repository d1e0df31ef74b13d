package checkpoint

import (
	"archive/zip"
	"compress/flate"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sync"
)

// What it takes to read a member is made once: an archive may have a hundred thousand of them.
var (
	inflaters     = sync.Pool{New: func() any { return flate.NewReader(nil) }}
	memberBuffers = sync.Pool{New: func() any { return new([64 << 10]byte) }}
)

// A memberReader reads the content of a stored or deflated member.
//
// The one of [zip.File.Open] takes a checksum of zero for none.
type memberReader struct {
	io.Reader
	inflater any // to be given back; or nil
}

func openMember(f *zip.File) (memberReader, error) {
	r, err := f.OpenRaw()
	if err != nil || f.Method != zip.Deflate {
		return memberReader{r, nil}, err
	}
	inflater := inflaters.Get()
	if err := inflater.(flate.Resetter).Reset(r, nil); err != nil {
		return memberReader{}, err
	}
	return memberReader{inflater.(io.Reader), inflater}, nil
}

// close must be called once, and nothing after it.
func (r memberReader) close() {
	if r.inflater != nil {
		inflaters.Put(r.inflater)
	}
}

// copyMember writes the content of the member to w. It returns an error unless size and checksum are those that the
// directory of the archive says.
func copyMember(ctx context.Context, w io.Writer, f *zip.File) error {
	r, err := openMember(f)
	if err != nil {
		return err
	}
	defer r.close()
	buffer := memberBuffers.Get().(*[64 << 10]byte)
	defer memberBuffers.Put(buffer)
	size := int64(f.UncompressedSize64)
	sum := crc32.NewIEEE()
	// One byte more would be noticed.
	n, err := io.CopyBuffer(io.MultiWriter(w, sum), &contextReader{ctx, io.LimitReader(r, size+1)}, buffer[:])
	switch {
	case err != nil:
		return err
	case n < size:
		return fmt.Errorf("%d bytes, want %d: %w", n, size, io.ErrUnexpectedEOF)
	case n > size:
		return fmt.Errorf("more bytes than %d", size)
	case sum.Sum32() != f.CRC32:
		return fmt.Errorf("CRC-32 of the data %#08x, but %#08x in the archive", sum.Sum32(), f.CRC32)
	}
	return nil
}

// A storedMember is one whose data is read where it is, once its checksum was compared.
type storedMember struct {
	file *zip.File
	ctx  context.Context
	once sync.Once
	err  error
}

// check returns an error unless the data is what it was when the archive was written, as far as its checksum says.
func (m *storedMember) check() error {
	m.once.Do(func() { m.err = copyMember(m.ctx, io.Discard, m.file) })
	return m.err
}

// inflated is a deflated member, of which no part can be read without all before it. When the first part is asked for,
// the whole goes to a temporary file, so that no more than a buffer of it is in memory.
type inflated struct {
	file    *zip.File
	scratch *scratch
	ctx     context.Context
	once    sync.Once
	begin   int64 // in the scratch
	err     error
}

func (d *inflated) readFull(p []byte, off int64) (int, error) {
	d.once.Do(func() {
		if d.err = d.inflate(); d.err != nil {
			d.err = fmt.Errorf("inflate %s: %w", quote(d.file.Name), d.err)
		}
	})
	if d.err != nil {
		return 0, d.err
	}
	n, err := d.scratch.file.ReadAt(p, d.begin+off)
	if n == len(p) {
		return n, nil
	}
	return n, noEOF(err)
}

// inflate writes the member to the scratch.
func (d *inflated) inflate() error {
	begin, err := d.scratch.reserve(int64(d.file.UncompressedSize64))
	if err != nil {
		return err
	}
	d.begin = begin
	return copyMember(d.ctx, io.NewOffsetWriter(d.scratch.file, begin), d.file)
}

// A scratch is the temporary file of an archive, for all its members that are inflated: there may be more of them than
// files that can be open.
type scratch struct {
	mu     sync.Mutex
	closed bool
	file   *os.File // nil before the first part of it is reserved, and then the same until the end
	size   int64
}

// reserve returns where so many bytes of the file begin that are the caller's.
func (s *scratch) reserve(size int64) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, os.ErrClosed
	}
	if s.file == nil {
		f, err := os.CreateTemp("", "modelavg-*.npy")
		if err != nil {
			return 0, err
		}
		if renamesOpenFiles {
			// Without a name it is gone when it is closed, however the process ends.
			if err := os.Remove(f.Name()); err != nil {
				return 0, errors.Join(err, f.Close())
			}
		}
		s.file = f
	}
	begin := s.size
	s.size += size
	return begin, nil
}

// Close removes the temporary file.
func (s *scratch) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.file == nil {
		s.closed = true
		return nil
	}
	s.closed = true
	err := s.file.Close()
	if !renamesOpenFiles {
		err = errors.Join(err, os.Remove(s.file.Name()))
	}
	return err
}
