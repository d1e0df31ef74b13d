package checkpoint

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"unicode/utf8"
)

// The header is padded with spaces to a multiple of this, so that the data, which begins with the widest elements, is
// aligned for all of them.
const headerAlignment = 8

// The metadata that tells other programs how the tensors are meant: format says whose conventions they follow, and some
// loaders refuse a file without it.
const (
	formatKey     = "format"
	defaultFormat = "pt"
)

// A safetensorsLayout is a safetensors file before its data: the bytes it begins with, and where every tensor goes.
type safetensorsLayout struct {
	head    []byte  // length and header
	entries []entry // in the order of the file; offsets are in the file
	size    int64   // of the file
}

// file returns the layout of the file.
func (l *safetensorsLayout) file() *fileLayout {
	return &fileLayout{blocks: []block{{0, l.head}}, entries: l.entries, size: l.size}
}

// layOutSafetensors checks the tensors and lays out the file as the reference implementation does: tensors by dtype,
// the last of the list first, then by name, bytewise. The bytes depend on the tensors and the metadata alone, not on
// the order in which they are given.
func layOutSafetensors(tensors []Tensor, metadata map[string]string) (*safetensorsLayout, error) {
	l := &safetensorsLayout{entries: make([]entry, len(tensors))}
	for i, t := range tensors {
		e, err := newEntry(t)
		if err != nil {
			return nil, fmt.Errorf("tensor %s: %w", quote(t.Name), err)
		}
		l.entries[i] = e
	}
	slices.SortFunc(l.entries, func(a, b entry) int {
		return cmp.Or(cmp.Compare(b.DType, a.DType), cmp.Compare(a.Name, b.Name))
	})
	if err := checkNames(tensors); err != nil {
		return nil, err
	}
	metadata, err := completeMetadata(metadata)
	if err != nil {
		return nil, err
	}

	var size int64
	for i := range l.entries {
		e := &l.entries[i]
		e.offset = size
		if size > math.MaxInt64-DefaultHeaderLimit-lengthBytes-e.size {
			return nil, fmt.Errorf("tensor %s: the file would have more than %d bytes", quote(e.Name), int64(math.MaxInt64))
		}
		size += e.size
	}
	l.head = appendHeader(make([]byte, lengthBytes), l.entries, metadata)
	n := len(l.head) - lengthBytes
	if n > DefaultHeaderLimit {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrHeaderLimit, n, DefaultHeaderLimit)
	}
	binary.LittleEndian.PutUint64(l.head, uint64(n))
	for i := range l.entries {
		l.entries[i].offset += int64(len(l.head))
	}
	l.size = int64(len(l.head)) + size
	return l, nil
}

// newEntry checks the tensor and makes an entry of it.
func newEntry(t Tensor) (entry, error) {
	switch {
	case t.Name == metadataKey:
		return entry{}, errors.New("the name is reserved")
	case !utf8.ValidString(t.Name):
		return entry{}, errors.New("the name is not valid UTF-8")
	}
	_, size, err := t.size()
	t.Shape = slices.Clone(t.Shape)
	return entry{Tensor: t, size: size}, err
}

// checkNames returns an error if two tensors have the same name.
func checkNames(tensors []Tensor) error {
	names := make([]string, len(tensors))
	for i := range tensors {
		names[i] = tensors[i].Name
	}
	slices.Sort(names)
	for i := 1; i < len(names); i++ {
		if names[i] == names[i-1] {
			return fmt.Errorf("tensor %s: given twice", quote(names[i]))
		}
	}
	return nil
}

// completeMetadata checks the metadata and returns a copy that has a format.
func completeMetadata(metadata map[string]string) (map[string]string, error) {
	for k, v := range metadata {
		if !utf8.ValidString(k) || !utf8.ValidString(v) {
			return nil, fmt.Errorf("metadata %s: key or value is not valid UTF-8", quote(k))
		}
	}
	complete := map[string]string{formatKey: defaultFormat}
	maps.Copy(complete, metadata)
	return complete, nil
}

// headerCapacity returns the length of the header, or some more: one of 100,000 tensors has 10 MB, and to grow a slice to
// that takes three times as much. It is less if characters of names have to be escaped.
func headerCapacity(entries []entry, metadata map[string]string) int {
	n := len(metadataKey) + 16 + headerAlignment
	for k, v := range metadata {
		n += len(k) + len(v) + 6
	}
	if len(entries) == 0 {
		return n
	}
	last := &entries[len(entries)-1]
	digits := len(strconv.FormatInt(last.offset+last.size, 10))
	for i := range entries {
		e := &entries[i]
		n += len(`,"":{"dtype":"","shape":[],"data_offsets":[,]}`) + len(e.Name) + len(e.DType.String()) + 2*digits
		for _, d := range e.Shape {
			for n += 2; d >= 10; d /= 10 {
				n++
			}
		}
	}
	return n
}

// appendHeader appends the header to b: metadata first, sorted by key, then the tensors in the order of their data.
func appendHeader(b []byte, entries []entry, metadata map[string]string) []byte {
	start := len(b)
	b = slices.Grow(b, headerCapacity(entries, metadata))
	b = append(b, '{')
	b = appendString(b, metadataKey)
	b = append(b, ':', '{')
	for i, k := range slices.Sorted(maps.Keys(metadata)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = appendString(b, k)
		b = append(b, ':')
		b = appendString(b, metadata[k])
	}
	b = append(b, '}')
	for i := range entries {
		e := &entries[i]
		b = append(b, ',')
		b = appendString(b, e.Name)
		b = append(b, `:{"dtype":"`...)
		b = append(b, e.DType.String()...)
		b = append(b, `","shape":[`...)
		for j, d := range e.Shape {
			if j > 0 {
				b = append(b, ',')
			}
			b = strconv.AppendInt(b, d, 10)
		}
		b = append(b, `],"data_offsets":[`...)
		b = strconv.AppendInt(b, e.offset, 10)
		b = append(b, ',')
		b = strconv.AppendInt(b, e.offset+e.size, 10)
		b = append(b, "]}"...)
	}
	b = append(b, '}')
	for (len(b)-start)%headerAlignment != 0 {
		b = append(b, ' ')
	}
	return b
}

// appendString appends s, which is valid UTF-8, as a JSON string. Only what has to be escaped is: quote, backslash and
// control characters.
func appendString(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := range len(s) {
		switch c := s[i]; c {
		case '"', '\\':
			b = append(b, '\\', c)
		case '\b':
			b = append(b, `\b`...)
		case '\f':
			b = append(b, `\f`...)
		case '\n':
			b = append(b, `\n`...)
		case '\r':
			b = append(b, `\r`...)
		case '\t':
			b = append(b, `\t`...)
		default:
			if c < ' ' {
				b = append(b, `\u00`...)
				c, b = hex[c&15], append(b, hex[c>>4])
			}
			b = append(b, c)
		}
	}
	return append(b, '"')
}
