package checkpoint

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// A file of NumPy's own format is a magic string and two bytes of version; the length of the header, in two bytes in
// version 1 and in four since; the header, a literal of a Python dictionary; and the data.
const (
	npyMagic     = "\x93NUMPY"
	npyExtension = ".npy"

	// maxNPYHeader is the longest header that is read. The header of an array of 64 dimensions, which is the most that
	// NumPy makes, has some 1400 bytes.
	maxNPYHeader = 64 << 10
	maxNPYDims   = 64
)

// An npyHeader says what the bytes after it are.
type npyHeader struct {
	dtype     DType
	bigEndian bool
	fortran   bool // the first index is the one that runs fastest
	shape     []int64
	size      int64 // of everything before the data
	void2     DType // of elements of two bytes without a type, or zero
}

// readNPYHeader reads magic, version and header from the beginning of r, which has size bytes. Elements of two bytes
// without a type are of dtype void2, unless it is zero.
func readNPYHeader(r io.Reader, size int64, void2 DType) (*npyHeader, error) {
	var b [12]byte
	if size < 10 {
		return nil, fmt.Errorf("%d bytes, want at least 10 for the beginning of a header", size)
	}
	if _, err := io.ReadFull(r, b[:10]); err != nil {
		return nil, fmt.Errorf("header: %w", noEOF(err))
	}
	if string(b[:6]) != npyMagic {
		return nil, fmt.Errorf("begins with %q, want %q", b[:6], npyMagic)
	}
	h := &npyHeader{void2: void2}
	var length int64
	switch major, minor := b[6], b[7]; {
	case minor != 0 || major < 1 || major > 3:
		return nil, fmt.Errorf("version %d.%d, want 1.0, 2.0 or 3.0", major, minor)
	case major == 1:
		length = int64(binary.LittleEndian.Uint16(b[8:]))
		h.size = 10 + length
	default:
		if size < 12 {
			return nil, fmt.Errorf("%d bytes, want at least 12 for the beginning of a header", size)
		}
		if _, err := io.ReadFull(r, b[10:12]); err != nil {
			return nil, fmt.Errorf("header: %w", noEOF(err))
		}
		length = int64(binary.LittleEndian.Uint32(b[8:]))
		h.size = 12 + length
	}
	if length > maxNPYHeader {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrHeaderLimit, length, maxNPYHeader)
	}
	if h.size > size {
		return nil, fmt.Errorf("header of %d bytes, but only %d bytes follow its length", length, size-(h.size-length))
	}
	text := make([]byte, length)
	if _, err := io.ReadFull(r, text); err != nil {
		return nil, fmt.Errorf("header: %w", noEOF(err))
	}
	if err := h.parse(text); err != nil {
		return nil, err
	}
	_, want, err := Tensor{DType: h.dtype, Shape: h.shape}.size()
	if err != nil {
		return nil, err
	}
	if got := size - h.size; got != want {
		return nil, fmt.Errorf("%d bytes of data, want %d for %s", got, want, Tensor{DType: h.dtype, Shape: h.shape}.kind())
	}
	return h, nil
}

// noEOF makes an end where something has to follow an unexpected one.
func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// parse reads the dictionary: the keys descr, fortran_order and shape, each once.
func (h *npyHeader) parse(text []byte) error {
	s := &npyScanner{text: string(text)}
	if err := s.expect('{', "'{'"); err != nil {
		return err
	}
	seen := make(map[string]bool)
	for s.next() != '}' {
		key, err := s.string("a key in quotes, or '}'")
		if err != nil {
			return err
		}
		if seen[key] {
			return fmt.Errorf("%s: given twice", key)
		}
		seen[key] = true
		if err := s.expect(':', "':'"); err != nil {
			return err
		}
		switch key {
		case "descr":
			err = h.parseDescr(s)
		case "fortran_order":
			h.fortran, err = s.bool()
		case "shape":
			h.shape, err = s.shape()
		default:
			return fmt.Errorf("key %s, want descr, fortran_order and shape only", quote(key))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
		if s.next() != ',' {
			break
		}
		s.pos++
	}
	if err := s.expect('}', "',' or '}'"); err != nil {
		return err
	}
	if s.next(); s.pos < len(s.text) {
		return s.fail("the end of the header")
	}
	for _, key := range []string{"descr", "fortran_order", "shape"} {
		if !seen[key] {
			return errors.New("no " + key)
		}
	}
	return nil
}

// npyTypes holds the types of NumPy, without the order of bytes, that are dtypes.
var npyTypes = map[string]DType{
	"b1": Bool, "i1": I8, "i2": I16, "i4": I32, "i8": I64, "u1": U8, "u2": U16, "u4": U32, "u8": U64,
	"f2": F16, "f4": F32, "f8": F64, "c8": C64,
}

// parseDescr reads the type of the elements.
func (h *npyHeader) parseDescr(s *npyScanner) error {
	if s.next() == '[' {
		return errors.New("a structured type, want a plain one")
	}
	descr, err := s.string("a type in quotes")
	if err != nil {
		return err
	}
	if descr == "" {
		return errors.New(`"" is no type`)
	}
	order, name := descr[0], descr[1:]
	d, ok := npyTypes[name]
	if name == "V2" && h.void2 != 0 {
		if d, ok = h.void2, true; order == '|' {
			order = '<' // bytes without a type have no order; what writes bfloat16 so are little-endian machines
		}
	}
	switch {
	case strings.HasPrefix(name, "O"):
		return fmt.Errorf("%s: objects of Python, which are not read: it would mean to run what a stranger wrote", quote(descr))
	case !ok && name == "V2":
		return fmt.Errorf("%s: %w, which is also how bfloat16 is stored: not read without being told their dtype",
			quote(descr), ErrUntyped)
	case !ok:
		return fmt.Errorf("%s: not a type that is read, want one of < > | and b1, i1 to i8, u1 to u8, f2, f4, f8 or c8",
			quote(descr))
	}
	h.dtype = d
	switch {
	case order == '<':
	case order == '>':
		h.bigEndian = d.Bits() > 8
	case order == '=' || order == '|' && d.Bits() > 8:
		return fmt.Errorf("%s: does not say the order of bytes, want < or >", quote(descr))
	case order != '|':
		return fmt.Errorf("%s: begins with %q, want one of < > |", quote(descr), order)
	}
	return nil
}

// An npyScanner reads a literal of Python: of all that there is, strings without escapes, True and False, and tuples of
// integers.
type npyScanner struct {
	text string
	pos  int
}

func (s *npyScanner) fail(want string) error {
	got := "the end"
	if s.pos < len(s.text) {
		got = strconv.QuoteToASCII(s.text[s.pos : s.pos+1])
	}
	return fmt.Errorf("header byte %d: got %s, want %s", s.pos, got, want)
}

// next skips white space and returns the byte that follows, which stays unread; zero at the end.
func (s *npyScanner) next() byte {
	for s.pos < len(s.text) && strings.IndexByte(" \t\r\n", s.text[s.pos]) >= 0 {
		s.pos++
	}
	if s.pos == len(s.text) {
		return 0
	}
	return s.text[s.pos]
}

func (s *npyScanner) expect(c byte, want string) error {
	if s.next() != c || s.pos == len(s.text) {
		return s.fail(want)
	}
	s.pos++
	return nil
}

// string reads a string in single or double quotes.
func (s *npyScanner) string(want string) (string, error) {
	q := s.next()
	if q != '\'' && q != '"' {
		return "", s.fail(want)
	}
	s.pos++
	start := s.pos
	for ; s.pos < len(s.text); s.pos++ {
		switch c := s.text[s.pos]; {
		case c == q:
			s.pos++
			return s.text[start : s.pos-1], nil
		case c == '\\' || c < ' ' || c > '~':
			return "", s.fail("printable characters without escapes in a string")
		}
	}
	return "", s.fail("a quote at the end of a string")
}

func (s *npyScanner) bool() (bool, error) {
	s.next()
	for word, value := range map[string]bool{"True": true, "False": false} {
		if strings.HasPrefix(s.text[s.pos:], word) {
			s.pos += len(word)
			return value, nil
		}
	}
	return false, s.fail("True or False")
}

// shape reads a tuple of dimensions. That of one has to have a comma, or it would be a number.
func (s *npyScanner) shape() ([]int64, error) {
	if err := s.expect('(', "a tuple"); err != nil {
		return nil, err
	}
	var shape []int64
	comma := true
	for s.next() != ')' {
		if !comma {
			return nil, s.fail("',' or ')'")
		}
		d, err := s.dimension()
		if err != nil {
			return nil, err
		}
		if shape = append(shape, d); len(shape) > maxNPYDims {
			return nil, fmt.Errorf("more than %d dimensions", maxNPYDims)
		}
		if comma = s.next() == ','; comma {
			s.pos++
		}
	}
	if len(shape) == 1 && !comma {
		return nil, s.fail("',' in a tuple of one")
	}
	s.pos++
	return shape, nil
}

// dimension reads an integer. Python 2 wrote an L after those that it thought long.
func (s *npyScanner) dimension() (int64, error) {
	start := s.pos
	for s.pos < len(s.text) && '0' <= s.text[s.pos] && s.text[s.pos] <= '9' {
		s.pos++
	}
	digits := s.text[start:s.pos]
	if digits == "" {
		return 0, s.fail("a dimension, an integer of zero or more")
	}
	if digits[0] == '0' && len(digits) > 1 {
		s.pos = start
		return 0, s.fail("an integer without a leading zero")
	}
	d, err := strconv.ParseInt(digits, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("dimension %s is over %d", quote(digits), int64(math.MaxInt64))
	}
	if s.pos < len(s.text) && s.text[s.pos] == 'L' {
		s.pos++
	}
	return d, nil
}

// npyAlignment is what NumPy pads everything before the data to.
const npyAlignment = 64

// appendNPYHeader appends magic, version and header of an array, whose dtype has a type in NumPy.
func appendNPYHeader(b []byte, t Tensor) ([]byte, error) {
	var name string
	for n, d := range npyTypes {
		if d == t.DType {
			name = n
		}
	}
	if name == "" {
		return nil, fmt.Errorf("dtype: %w: %v, want one that they have, such as F32", ErrNumPyDType, t.DType)
	}
	if len(t.Shape) > maxNPYDims {
		return nil, fmt.Errorf("shape %s: %d dimensions, NumPy has at most %d", shapeText(t.Shape), len(t.Shape), maxNPYDims)
	}
	order := "<"
	if t.DType.Bits() == 8 {
		order = "|"
	}
	dims := make([]string, len(t.Shape))
	for i, d := range t.Shape {
		dims[i] = strconv.FormatInt(d, 10)
	}
	shape := strings.Join(dims, ", ")
	if len(dims) == 1 {
		shape += ","
	}
	text := fmt.Sprintf("{'descr': '%s%s', 'fortran_order': False, 'shape': (%s), }", order, name, shape)
	const begin = len(npyMagic) + 4
	n := (begin + len(text) + npyAlignment) / npyAlignment * npyAlignment
	text += strings.Repeat(" ", n-begin-len(text)-1) + "\n"
	b = append(b, npyMagic...)
	b = append(b, 1, 0)
	b = binary.LittleEndian.AppendUint16(b, uint16(len(text)))
	return append(b, text...), nil
}

// isRowMajor reports whether an array in Fortran's order has its elements in the order of C all the same: if at most one
// dimension is more than one.
func isRowMajor(shape []int64) bool {
	wide := slices.DeleteFunc(slices.Clone(shape), func(d int64) bool { return d == 1 })
	return len(wide) < 2 || slices.Contains(shape, 0)
}
