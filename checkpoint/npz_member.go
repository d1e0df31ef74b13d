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

// memberReader returns a reader of the content of a stored or deflated member.
//
// The one of [zip.File.Open] takes a checksum of zero for none.
func memberReader(f *zip.File) (io.Reader, error) {
	r, err := f.OpenRaw()
	if err == nil && f.Method == zip.Deflate {
		r = flate.NewReader(r)
	}
	return r, err
}

// copyMember writes the content of the member to w. It returns an error unless size and checksum are those that the
// directory of the archive says.
func copyMember(ctx context.Context, w io.Writer, f *zip.File) error {
	r, err := memberReader(f)
	if err != nil {
		return err
	}
	size := int64(f.UncompressedSize64)
	sum := crc32.NewIEEE()
	n, err := copyContext(ctx, io.MultiWriter(w, sum), io.LimitReader(r, size+1)) // one byte more would be noticed
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

// inflated is a deflated member, of which no part can be read without all before it. When the first part is asked for,
// the whole goes to a temporary file, so that no more than a buffer of it is in memory.
type inflated struct {
	file *zip.File
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
	if err := copyMember(d.ctx, f, d.file); err != nil {
		return nil, errors.Join(fmt.Errorf("inflate %s: %w", quote(d.file.Name), err), removeTemp(f))
	}
	return f, nil
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
