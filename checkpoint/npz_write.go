package checkpoint

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"slices"
)

// layOutNPY lays out a .npy file, which has one array and does not keep its name.
func layOutNPY(tensors []Tensor) (*fileLayout, error) {
	if len(tensors) != 1 {
		return nil, fmt.Errorf("%d tensors, want 1 in a file of NumPy's: more fit into one that ends with %s", len(tensors), npzExtension)
	}
	t := tensors[0]
	e, err := newArrayEntry(t)
	if err != nil {
		return nil, err
	}
	head, err := appendNPYHeader(nil, t)
	if err != nil {
		return nil, fmt.Errorf("tensor %s: %w", quote(t.Name), err)
	}
	e.offset = int64(len(head))
	if e.size > math.MaxInt64-e.offset {
		return nil, fmt.Errorf("tensor %s: the file would have more than %d bytes", quote(t.Name), int64(math.MaxInt64))
	}
	return &fileLayout{blocks: []block{{0, head}}, entries: []entry{e}, size: e.offset + e.size}, nil
}

// newArrayEntry checks the tensor and makes an entry of it.
func newArrayEntry(t Tensor) (entry, error) {
	_, size, err := t.size()
	if err != nil {
		return entry{}, fmt.Errorf("tensor %s: %w", quote(t.Name), err)
	}
	t.Shape = slices.Clone(t.Shape)
	return entry{Tensor: t, size: size}, nil
}

// Parts of a zip archive, as its specification (APPNOTE) calls them. Sizes and offsets that do not fit into 32 bits are
// written as zip64Mark, and in full in an extra field.
const (
	zipLocalHeader      = 0x04034b50
	zipCentralHeader    = 0x02014b50
	zipEnd64            = 0x06064b50
	zipEnd64Locator     = 0x07064b50
	zipEnd              = 0x06054b50
	zip64Extra          = 1
	zipVersion          = 20
	zip64Version        = 45
	zipUTF8             = 1 << 11
	zipFirstDay         = 1<<5 | 1 // of 1980: equal content makes equal bytes
	zip64Mark           = math.MaxUint32
	zipLocalSumOffset   = 14
	zipCentralSumOffset = 16
)

// A zipMember is a member of an archive that is written.
type zipMember struct {
	name    string
	begin   int64 // of its local header
	content int64 // of the .npy file
	size    int64 // of the .npy file
	central int64 // where its entry of the directory begins
}

// layOutNPZ lays out a .npz file: stored members, sorted by name, so that every byte of the arrays has its place. Sizes
// and offsets from limit on are written with 64 bits.
func layOutNPZ(tensors []Tensor, limit int64) (*fileLayout, error) {
	if err := checkNames(tensors); err != nil {
		return nil, err
	}
	sorted := slices.Clone(tensors)
	slices.SortFunc(sorted, func(a, b Tensor) int { return cmp.Compare(a.Name, b.Name) })
	l := new(fileLayout)
	members := make([]zipMember, len(sorted))
	for i, t := range sorted {
		e, err := newArrayEntry(t)
		if err != nil {
			return nil, err
		}
		m := &members[i]
		m.name = t.Name + npyExtension
		if err := checkMemberName(m.name); err != nil {
			return nil, fmt.Errorf("tensor %s: %w", quote(t.Name), err)
		}
		if len(m.name) > math.MaxUint16 {
			return nil, fmt.Errorf("tensor %s: a name of %d bytes, an archive has at most %d", quote(t.Name), len(m.name), math.MaxUint16)
		}
		head, err := appendNPYHeader(nil, t)
		if err != nil {
			return nil, fmt.Errorf("tensor %s: %w", quote(t.Name), err)
		}
		// The rest of the archive is far smaller than the room that is left here.
		if e.size > 1<<62-l.size {
			return nil, fmt.Errorf("tensor %s: the file would have more than %d bytes", quote(t.Name), int64(1<<62))
		}
		m.begin = l.size
		m.size = int64(len(head)) + e.size
		b := m.appendLocal(nil, limit)
		m.content = m.begin + int64(len(b))
		b = append(b, head...)
		l.blocks = append(l.blocks, block{m.begin, b})
		e.offset = m.begin + int64(len(b))
		l.entries = append(l.entries, e)
		l.size = e.offset + e.size
	}
	begin := l.size
	var b []byte
	for i := range members {
		members[i].central = begin + int64(len(b))
		b = members[i].appendCentral(b, limit)
	}
	b = appendZipEnd(b, int64(len(members)), begin, limit)
	l.blocks = append(l.blocks, block{begin, b})
	l.size += int64(len(b))
	l.finish = func(ctx context.Context, f *atomicFile) error { return writeSums(ctx, f, members) }
	return l, nil
}

// flags returns the flags and the version that a reader needs.
func (m *zipMember) flags(wide bool) (flags, version uint16) {
	for i := range len(m.name) {
		if m.name[i] >= 0x80 {
			flags = zipUTF8
		}
	}
	if wide {
		return flags, zip64Version
	}
	return flags, zipVersion
}

// appendLocal appends what is before the content, with a sum of zero.
func (m *zipMember) appendLocal(b []byte, limit int64) []byte {
	le := binary.LittleEndian
	wide := m.size >= limit
	flags, version := m.flags(wide)
	b = le.AppendUint32(b, zipLocalHeader)
	b = appendUint16s(b, version, flags, 0, 0, zipFirstDay, 0, 0)
	size, extra := uint32(m.size), []byte(nil)
	if wide {
		size = zip64Mark
		extra = appendUint16s(extra, zip64Extra, 16)
		extra = le.AppendUint64(extra, uint64(m.size))
		extra = le.AppendUint64(extra, uint64(m.size))
	}
	b = le.AppendUint32(b, size)
	b = le.AppendUint32(b, size)
	b = appendUint16s(b, uint16(len(m.name)), uint16(len(extra)))
	b = append(b, m.name...)
	return append(b, extra...)
}

// appendCentral appends the entry of the directory, with a sum of zero.
func (m *zipMember) appendCentral(b []byte, limit int64) []byte {
	le := binary.LittleEndian
	size, offset, extra := uint32(m.size), uint32(m.begin), []byte(nil)
	if m.size >= limit {
		size = zip64Mark
		extra = le.AppendUint64(extra, uint64(m.size))
		extra = le.AppendUint64(extra, uint64(m.size))
	}
	if m.begin >= limit {
		offset = zip64Mark
		extra = le.AppendUint64(extra, uint64(m.begin))
	}
	if n := len(extra); n > 0 {
		extra = append(appendUint16s(nil, zip64Extra, uint16(n)), extra...)
	}
	flags, version := m.flags(len(extra) > 0)
	b = le.AppendUint32(b, zipCentralHeader)
	b = appendUint16s(b, version, version, flags, 0, 0, zipFirstDay, 0, 0)
	b = le.AppendUint32(b, size)
	b = le.AppendUint32(b, size)
	b = appendUint16s(b, uint16(len(m.name)), uint16(len(extra)), 0, 0, 0, 0, 0)
	b = le.AppendUint32(b, offset)
	b = append(b, m.name...)
	return append(b, extra...)
}

// appendZipEnd appends what is after the directory, b, which is at offset begin.
func appendZipEnd(b []byte, members, begin, limit int64) []byte {
	le := binary.LittleEndian
	size := int64(len(b))
	count, size32, begin32 := uint16(members), uint32(size), uint32(begin)
	if members >= math.MaxUint16 || size >= limit || begin >= limit {
		count, size32, begin32 = math.MaxUint16, zip64Mark, zip64Mark
		b = le.AppendUint32(b, zipEnd64)
		b = le.AppendUint64(b, 44) // bytes of this record that follow
		b = appendUint16s(b, zip64Version, zip64Version, 0, 0, 0, 0)
		b = le.AppendUint64(b, uint64(members))
		b = le.AppendUint64(b, uint64(members))
		b = le.AppendUint64(b, uint64(size))
		b = le.AppendUint64(b, uint64(begin))
		b = le.AppendUint32(b, zipEnd64Locator)
		b = le.AppendUint32(b, 0)
		b = le.AppendUint64(b, uint64(begin+size))
		b = le.AppendUint32(b, 1)
	}
	b = le.AppendUint32(b, zipEnd)
	b = appendUint16s(b, 0, 0, count, count)
	b = le.AppendUint32(b, size32)
	b = le.AppendUint32(b, begin32)
	return appendUint16s(b, 0)
}

func appendUint16s(b []byte, values ...uint16) []byte {
	for _, v := range values {
		b = binary.LittleEndian.AppendUint16(b, v)
	}
	return b
}

// writeSums reads the members back and writes their checksums, until ctx is done.
func writeSums(ctx context.Context, f *atomicFile, members []zipMember) error {
	buf := make([]byte, 1<<20)
	for i := range members {
		m := &members[i]
		sum := crc32.NewIEEE()
		for off := int64(0); off < m.size; off += int64(len(buf)) {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			p := buf[:min(int64(len(buf)), m.size-off)]
			if n, err := f.file.ReadAt(p, m.content+off); n < len(p) {
				if errors.Is(err, io.EOF) {
					err = io.ErrUnexpectedEOF
				}
				return fmt.Errorf("read %s for its checksum: %w", quote(m.name), err)
			}
			sum.Write(p)
		}
		b := binary.LittleEndian.AppendUint32(nil, sum.Sum32())
		for _, off := range []int64{m.begin + zipLocalSumOffset, m.central + zipCentralSumOffset} {
			if _, err := f.writeAt(b, off); err != nil {
				return fmt.Errorf("checksum of %s: %w", quote(m.name), err)
			}
		}
	}
	return nil
}
