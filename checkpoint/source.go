package checkpoint

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"
)

// A source is a file that tensors are read from.
type source struct {
	path    string
	file    *os.File
	size    int64
	modTime time.Time
	band    *band // of the arrays in Fortran's order; nil if there is none
}

// useBand returns the band of the file.
func (s *source) useBand() *band {
	if s.band == nil {
		s.band = new(band)
		bandUsers.Add(1)
	}
	return s.band
}

// openSource opens the file, which has to be a regular one.
func openSource(path string) (*source, error) {
	// Opening a named pipe would wait for a writer, so the file is looked at first.
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if err := checkRegular(path, info); err != nil {
		return nil, err
	}
	f, err := openWithoutWaiting(path) // whatever has come to the path since
	if err != nil {
		return nil, err
	}
	s, err := newSource(path, f)
	if err != nil {
		f.Close()
	}
	return s, err
}

// newSource makes a source of an open file.
func newSource(path string, f *os.File) (*source, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if err := checkRegular(path, info); err != nil {
		return nil, err
	}
	return &source{path: path, file: f, size: info.Size(), modTime: info.ModTime()}, nil
}

// checkRegular returns an error unless info is that of a regular file.
func checkRegular(path string, info fs.FileInfo) error {
	switch mode := info.Mode(); {
	case mode.IsRegular():
		return nil
	case mode.IsDir():
		return fmt.Errorf("%s: is a directory, want a file", path)
	default:
		return fmt.Errorf("%s: is no regular file (%v)", path, mode.Type())
	}
}

// readFull fills p from offset off. A file that ends before is an error that wraps [io.ErrUnexpectedEOF].
func (s *source) readFull(p []byte, off int64) (int, error) {
	n, err := s.file.ReadAt(p, off)
	if n == len(p) {
		return n, nil
	}
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("file ends at byte %d, was %d bytes when opened: %w", off+int64(n), s.size, io.ErrUnexpectedEOF)
	}
	return n, err
}

// unchanged returns an error that wraps [ErrChanged] unless size and time of modification are those of the beginning.
func (s *source) unchanged() error {
	info, err := s.file.Stat()
	switch {
	case err != nil:
		return err
	case info.Size() != s.size:
		return fmt.Errorf("%s: %w: has %d bytes, had %d", s.path, ErrChanged, info.Size(), s.size)
	case !info.ModTime().Equal(s.modTime):
		return fmt.Errorf("%s: %w: modified %s, was %s", s.path, ErrChanged,
			info.ModTime().Format(time.RFC3339Nano), s.modTime.Format(time.RFC3339Nano))
	}
	return nil
}

// Close closes the file.
func (s *source) Close() error {
	err := s.file.Close()
	if s.band != nil && err == nil { // the first time
		bandUsers.Add(-1)
		s.band.release()
	}
	return err
}
