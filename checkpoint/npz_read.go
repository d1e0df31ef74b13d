package checkpoint

import (
	"archive/zip"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"unicode/utf8"
)

// A .npz file is a zip archive of .npy files, each named after its array.
const (
	npzExtension = ".npz"

	zipUnreadable = 1 | 1<<5 | 1<<6 // in the flags of a member: encrypted, patched data, strongly encrypted

	// zipTail is what is read at most to find the directory of an archive, which is at its end.
	zipTail = 256 << 10
)

// readNPZ makes the model of a .npz file.
func readNPZ(s *source, o openOptions) (*Model, error) {
	members, err := readMembers(s, o.headerLimit)
	if err != nil {
		return nil, err
	}
	m := &Model{tensors: &tensors{entries: make([]entry, 0, len(members))}, path: s.path, sources: []*source{s}}
	for _, f := range members {
		if err := m.addMember(s, f, o); err != nil {
			return nil, memberError(s, f, err)
		}
	}
	if err := checkLocalHeaders(s, members); err != nil {
		return nil, err
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
	if f.Flags&zipUnreadable != 0 {
		return errors.New("is encrypted, or a patch of other data")
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
		e := h.entry(name, s, s, offset, o.ctx)
		e.stored = &storedMember{file: f, ctx: o.ctx}
		m.entries = append(m.entries, e)
		return nil
	case zip.Deflate:
		r, err := openMember(f)
		if err != nil {
			return err
		}
		defer r.close()
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
		if m.scratch == nil {
			m.scratch = new(scratch)
		}
		member := &inflated{file: f, scratch: m.scratch, ctx: o.ctx}
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
