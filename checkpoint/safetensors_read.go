package checkpoint

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"
	"math"
	"strings"
	"unicode/utf8"
)

// A safetensors file is the length of the header in 8 bytes, little-endian; the header, a JSON object; and the data.
const lengthBytes = 8

// metadataKey is the one key of the header that is no tensor.
const metadataKey = "__metadata__"

// readSafetensors reads the header of a safetensors file and makes the model of it.
func readSafetensors(s *source, o openOptions) (*Model, error) {
	n, err := headerBytes(s, o.headerLimit)
	if err != nil {
		return nil, err
	}
	dataBytes := s.size - lengthBytes - n
	t, err := findHeader(s, n, dataBytes)
	if err != nil {
		return nil, err
	}
	if t == nil || o.ctx.Err() != nil {
		if t, err = readTensors(o.ctx, s, n, dataBytes); err != nil {
			return nil, err
		}
	}
	return &Model{tensors: t, path: s.path, sources: []*source{s}}, nil
}

// findHeader returns what was read from a header of the same n bytes, if it is in use, or nil.
func findHeader(s *source, n, dataBytes int64) (*tensors, error) {
	if noTensors() {
		return nil, nil // one that is not read twice
	}
	key, err := headerKey(io.NewSectionReader(s.file, lengthBytes, n), dataBytes)
	if err != nil {
		return nil, fmt.Errorf("%s: header: %w", s.path, err)
	}
	return findTensors(key), nil
}

// readTensors reads the header of n bytes.
func readTensors(ctx context.Context, s *source, n, dataBytes int64) (*tensors, error) {
	text, err := readHeader(s, n)
	if err != nil {
		return nil, err
	}
	// Not the key that was looked for: the file may have been changed since. One of 100 MB takes a good part of the time.
	keys := make(chan tensorsKey, 1)
	go func() {
		key, _ := headerKey(bytes.NewReader(text), dataBytes)
		keys <- key
	}()
	h, err := parseHeader(ctx, text)
	if err == nil && ctx.Err() == nil {
		err = h.check(dataBytes)
	}
	if ctx.Err() != nil {
		return nil, fmt.Errorf("%s: header: %w", s.path, context.Cause(ctx))
	}
	if err != nil {
		return nil, formatError(s.path, err)
	}
	for i := range h.entries {
		h.entries[i].offset += lengthBytes + n
	}
	return shareTensors(&tensors{entries: h.entries, metadata: h.metadata, key: <-keys}), nil
}

// headerBytes returns the length of the header.
func headerBytes(s *source, limit int64) (int64, error) {
	if s.size < lengthBytes {
		return 0, &FormatError{Path: s.path, Err: fmt.Errorf("%d bytes, want at least %d for the header's length",
			s.size, lengthBytes)}
	}
	var length [lengthBytes]byte
	if _, err := s.readFull(length[:], 0); err != nil {
		return 0, fmt.Errorf("%s: header length: %w", s.path, err)
	}
	n := binary.LittleEndian.Uint64(length[:])
	if n > uint64(limit) || n > math.MaxInt {
		// What is no safetensors file at all mostly ends here.
		var hint string
		if n > uint64(s.size-lengthBytes) {
			hint = "; this is probably no safetensors file"
			if isText(length[:]) {
				hint += fmt.Sprintf(", it begins with the text %q", length[:])
			}
		}
		return 0, &FormatError{Path: s.path, Err: fmt.Errorf("%w: %d bytes in a file of %d, limit %d%s",
			ErrHeaderLimit, n, s.size, limit, hint)}
	}
	if n > uint64(s.size-lengthBytes) {
		return 0, &FormatError{Path: s.path, Err: fmt.Errorf("header length %d, but only %d bytes follow it",
			n, s.size-lengthBytes)}
	}
	return int64(n), nil
}

// readHeader returns the text of the header, which has n bytes.
func readHeader(s *source, n int64) ([]byte, error) {
	text := make([]byte, n)
	if _, err := s.readFull(text, lengthBytes); err != nil {
		return nil, fmt.Errorf("%s: header: %w", s.path, err)
	}
	return text, nil
}

// isText reports whether all bytes are printable ASCII or white space.
func isText(p []byte) bool {
	for _, c := range p {
		if (c < ' ' || c > '~') && c != '\t' && c != '\n' && c != '\r' {
			return false
		}
	}
	return true
}

// A header is the parsed header of a safetensors file. Sizes and offsets of the entries are within the data.
type header struct {
	entries  []entry
	metadata packedMetadata

	dims  []int64         // a block of dimensions, from which the shapes are cut
	names strings.Builder // a block of names, from which they are cut
}

// inTensor says that err is about the named tensor.
func inTensor(name string, err error) error {
	return &FormatError{Tensor: name, Err: err, aboutTensor: true}
}

// formatError makes a FormatError of what is wrong with the file at path.
func formatError(path string, err error) error {
	var format *FormatError
	if !errors.As(err, &format) {
		format = &FormatError{Err: err}
	}
	format.Path = path
	return format
}

// parseHeader parses the text. It checks the grammar, names and types of all fields, and shapes; not what depends on
// other tensors or the size of the file.
func parseHeader(ctx context.Context, text []byte) (*header, error) {
	if !utf8.Valid(text) {
		return nil, invalidUTF8(text, false)
	}
	// Every tensor has this key. Only a hostile header has it more often, and no more than once in 14 bytes.
	h := &header{entries: make([]entry, 0, bytes.Count(text, []byte(`"data_offsets"`)))}
	s := &headerScanner{text: text}
	if err := s.enterObject(); err != nil {
		return nil, err
	}
	var hasMetadata bool
	for first := true; ; first = false {
		key, ok, err := s.nextKey(first)
		if err != nil {
			return nil, err
		}
		if !ok {
			return h, s.end()
		}
		if string(key) == metadataKey {
			if hasMetadata {
				return nil, fmt.Errorf("%s: given twice", metadataKey)
			}
			hasMetadata = true
			if err := h.parseMetadata(s); err != nil {
				return nil, fmt.Errorf("%s: %w", metadataKey, err)
			}
			continue
		}
		if len(h.entries)%1024 == 1023 && ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		name := h.newName(key)
		if err := h.parseTensor(s, name); err != nil {
			return nil, inTensor(name, err)
		}
	}
}

// invalidUTF8 says where the text is no UTF-8.
func invalidUTF8(text []byte, inIndex bool) error {
	var pos int
	for {
		r, size := utf8.DecodeRune(text[pos:])
		if r == utf8.RuneError && size <= 1 {
			return &syntaxError{pos: pos, what: "not valid UTF-8", inIndex: inIndex}
		}
		pos += size
	}
}

// The fields of a tensor.
const (
	fieldDType = 1 << iota
	fieldShape
	fieldOffsets
)

var fieldNames = map[int]string{fieldDType: "dtype", fieldShape: "shape", fieldOffsets: "data_offsets"}

// parseTensor reads the value of a tensor: an object with a dtype, a shape, data_offsets, and perhaps other fields,
// which say nothing to us.
func (h *header) parseTensor(s *headerScanner, name string) error {
	e := entry{Tensor: Tensor{Name: name}}
	var begin, end uint64
	var seen int
	if err := s.enterObject(); err != nil {
		return err
	}
	for first := true; ; first = false {
		key, ok, err := s.nextKey(first)
		if err != nil {
			return err
		}
		if !ok {
			break
		}
		var field int
		switch string(key) {
		case "dtype":
			field = fieldDType
			e.DType, err = parseDTypeField(s)
		case "shape":
			field = fieldShape
			e.Shape, err = h.parseShape(s)
		case "data_offsets":
			field = fieldOffsets
			begin, end, err = parseOffsets(s)
		default:
			if err := s.skip(); err != nil {
				return err
			}
			continue
		}
		if err == nil && seen&field != 0 {
			err = errors.New("given twice")
		}
		if err != nil {
			return fmt.Errorf("%s: %w", fieldNames[field], err)
		}
		seen |= field
	}
	for field := fieldDType; field <= fieldOffsets; field <<= 1 {
		if seen&field == 0 {
			return fmt.Errorf("no %s", fieldNames[field])
		}
	}
	if err := e.place(begin, end); err != nil {
		return err
	}
	h.entries = append(h.entries, e)
	return nil
}

// place sets offset and size to the data_offsets of the tensor, which have to be those of its dtype and shape.
func (e *entry) place(begin, end uint64) error {
	_, want, err := e.Tensor.size()
	switch {
	case err != nil:
		return err
	case end >= begin && end-begin != uint64(want):
		return fmt.Errorf("data_offsets [%d,%d]: %d bytes, want %d for %s", begin, end, end-begin, want, e.kind())
	}
	if err := checkOffsets(begin, end); err != nil {
		return err
	}
	e.offset, e.size = int64(begin), want
	return nil
}

// checkOffsets returns an error unless there are bytes from begin up to end, whoever they belong to.
func checkOffsets(begin, end uint64) error {
	switch {
	case end < begin:
		return fmt.Errorf("data_offsets [%d,%d]: the end is before the beginning", begin, end)
	case end > math.MaxInt64:
		return fmt.Errorf("data_offsets [%d,%d]: overflows the range of file offsets", begin, end)
	}
	return nil
}

// parseDTypeField reads the value of dtype.
func parseDTypeField(s *headerScanner) (DType, error) {
	name, err := s.string("a string")
	if err != nil {
		return 0, err
	}
	d, ok := dtypeByName[string(name)]
	if !ok {
		return 0, fmt.Errorf("unknown dtype %s", quote(name))
	}
	return d, nil
}

// parseShape reads the value of shape.
func (h *header) parseShape(s *headerScanner) ([]int64, error) {
	if err := s.enterArray(); err != nil {
		return nil, err
	}
	// A dimension takes two bytes at least, whatever the number of commas.
	rest := s.rest(']')
	shape := h.newShape(min(bytes.Count(rest, []byte{','}), len(rest)/2) + 1)
	for first := true; ; first = false {
		ok, err := s.nextElement(first)
		if !ok {
			return shape, err
		}
		d, err := s.uint()
		if err != nil {
			return nil, err
		}
		if d > math.MaxInt64 {
			return nil, fmt.Errorf("dimension %d is %d, want at most %d", len(shape), d, int64(math.MaxInt64))
		}
		shape = append(shape, int64(d))
	}
}

// namesBlock is how many bytes of names are allocated at a time.
const namesBlock = 64 << 10

// newName returns a copy of the name.
func (h *header) newName(name []byte) string {
	if len(name) > namesBlock/4 {
		return string(name)
	}
	if h.names.Cap()-h.names.Len() < len(name) {
		h.names = strings.Builder{}
		// What is left of the last block is lost, and a small header has no more names than bytes.
		h.names.Grow(min(namesBlock, max(cap(h.entries)-len(h.entries), 1)*len(name)))
	}
	begin := h.names.Len()
	h.names.Write(name)
	return h.names.String()[begin:]
}

// dimsBlock is how many dimensions are allocated at a time: one allocation for some hundred tensors.
const dimsBlock = 1024

// newShape returns an empty shape with room for n dimensions.
func (h *header) newShape(n int) []int64 {
	if n > dimsBlock/4 {
		return make([]int64, 0, n)
	}
	if len(h.dims) < n {
		h.dims = make([]int64, dimsBlock)
	}
	shape := h.dims[:0:n]
	h.dims = h.dims[n:]
	return shape
}

// parseOffsets reads the value of data_offsets.
func parseOffsets(s *headerScanner) (begin, end uint64, err error) {
	if err := s.enterArray(); err != nil {
		return 0, 0, err
	}
	for n := 0; ; n++ {
		ok, err := s.nextElement(n == 0)
		switch {
		case err != nil:
			return 0, 0, err
		case !ok && n < 2:
			return 0, 0, fmt.Errorf("got %d numbers, want [begin, end]", n)
		case !ok:
			return begin, end, nil
		case n == 2:
			return 0, 0, errors.New("got more than two numbers, want [begin, end]")
		}
		begin = end
		if end, err = s.uint(); err != nil {
			return 0, 0, err
		}
	}
}

// check checks that no name comes twice and that the tensors cover dataBytes, the size of the data, without holes or
// overlaps. It leaves the entries sorted by name.
func (h *header) check(dataBytes int64) error {
	// An error about data has to wait: of two tensors with one name it is the name that should be reported.
	coverage := h.checkCoverage(dataBytes)
	h.entries = sortByName(h.entries)
	for i := 1; i < len(h.entries); i++ {
		if name := h.entries[i].Name; name == h.entries[i-1].Name {
			return inTensor(name, errors.New("given twice"))
		}
	}
	return coverage
}

// checkCoverage returns the first violation of coverage.
func (h *header) checkCoverage(dataBytes int64) error {
	for err := range coverage(h.entries, dataBytes, true) {
		return err
	}
	return nil
}

// coverage yields an error for every tensor that does not begin where the one before it ends, for every one that is not
// in the file as a whole, and for data that belongs to none. If the entries are not complete, holes are no violations.
func coverage(entries []entry, dataBytes int64, complete bool) iter.Seq[error] {
	return func(yield func(error) bool) {
		misplaced := func(e *entry, format string, args ...any) bool {
			return yield(inTensor(e.Name, fmt.Errorf("data_offsets [%d,%d]: "+format,
				append([]any{e.offset, e.offset + e.size}, args...)...)))
		}
		var end int64
		for e := range byOffset(entries) {
			if e.offset < end && !misplaced(e, "it overlaps another tensor, want it to begin at %d", end) ||
				e.offset > end && complete && !misplaced(e, "a hole before it, want it to begin at %d", end) {
				return
			}
			end = max(end, e.offset+e.size)
		}
		if end > dataBytes {
			// One cause, one error: of the first tensor that is not there as a whole.
			var first *entry
			cut := 0
			for e := range byOffset(entries) {
				if e.offset+e.size > dataBytes {
					if cut++; first == nil {
						first = e
					}
				}
			}
			others := ""
			if cut > 1 {
				others = fmt.Sprintf(", which cuts %d of %d tensors", cut, len(entries))
			}
			if !misplaced(first, "the file is truncated, it has %d bytes of data, want %d%s", dataBytes, end, others) {
				return
			}
		}
		if end < dataBytes && complete {
			yield(fmt.Errorf("%d bytes of data, want %d: %d bytes after the last tensor", dataBytes, end, dataBytes-end))
		}
	}
}
