package checkpoint

import (
	"bytes"
	"fmt"
	"strconv"
	"unicode/utf16"
	"unicode/utf8"
)

// maxDepth is how deep arrays and objects may be nested, counted from the header's own braces. The reference
// implementation stops there too.
const maxDepth = 127

// A headerScanner reads the JSON text of a header, token by token, without building values that nobody asked for. It
// accepts RFC 8259 and nothing beyond; the text has to be valid UTF-8, which the caller checks.
type headerScanner struct {
	text    []byte
	pos     int
	depth   int    // of open arrays and objects
	inIndex bool   // the text is that of an index, for errors
	scratch []byte // the last string that had escapes
}

// A syntaxError says at which byte of the header, or of the index, something else was wanted.
type syntaxError struct {
	pos     int
	what    string
	inIndex bool
}

func (e *syntaxError) Error() string {
	text := "header"
	if e.inIndex {
		text = "index"
	}
	return text + " byte " + strconv.Itoa(e.pos) + ": " + e.what
}

func (s *headerScanner) errorAt(pos int, what string) error {
	return &syntaxError{pos: pos, what: what, inIndex: s.inIndex}
}

// fail returns an error about the byte at the scanner's position.
func (s *headerScanner) fail(want string) error {
	got := "the end"
	if s.pos < len(s.text) {
		r, size := utf8.DecodeRune(s.text[s.pos:])
		got = strconv.QuoteRune(r)
		if r == utf8.RuneError && size <= 1 {
			got = fmt.Sprintf("byte 0x%02x", s.text[s.pos])
		}
	}
	return s.errorAt(s.pos, "got "+got+", want "+want)
}

// next skips white space and returns the byte that follows, which stays unread; zero at the end.
func (s *headerScanner) next() byte {
	for s.pos < len(s.text) {
		switch c := s.text[s.pos]; c {
		case ' ', '\t', '\n', '\r':
			s.pos++
		default:
			return c
		}
	}
	return 0
}

// expect reads the delimiter c, and white space before it.
func (s *headerScanner) expect(c byte, want string) error {
	if s.next() != c || s.pos == len(s.text) {
		return s.fail(want)
	}
	s.pos++
	return nil
}

// end reads white space up to the end of the text.
func (s *headerScanner) end() error {
	s.next()
	if s.pos < len(s.text) {
		return s.fail("the end of the header")
	}
	return nil
}

// enter reads the opening delimiter of an array or object.
func (s *headerScanner) enter(open byte, want string) error {
	if err := s.expect(open, want); err != nil {
		return err
	}
	if s.depth == maxDepth {
		return s.errorAt(s.pos-1, "nested more than "+strconv.Itoa(maxDepth)+" deep")
	}
	s.depth++
	return nil
}

// more reads what is between two elements: a comma, or before the first of them nothing. It returns false after the
// closing delimiter, which it reads too.
func (s *headerScanner) more(first bool, closing byte, want string) (bool, error) {
	switch c := s.next(); {
	case c == closing:
		s.pos++
		s.depth--
		return false, nil
	case first:
		return true, nil
	case c == ',':
		s.pos++
		return true, nil
	}
	return false, s.fail(want)
}

// An object is read by enterObject, and then nextKey, false for first after the first time, until it returns false.
// After every key the value has to be read; the key is good until a string is read.
func (s *headerScanner) enterObject() error { return s.enter('{', "an object") }

func (s *headerScanner) nextKey(first bool) ([]byte, bool, error) {
	ok, err := s.more(first, '}', "',' or '}'")
	if !ok {
		return nil, false, err
	}
	key, err := s.string("a string as key")
	if err == nil {
		err = s.expect(':', "':'")
	}
	return key, err == nil, err
}

// countMembers reads the rest of an object that was entered and returns how many members it has, up to an error.
func (s *headerScanner) countMembers() int {
	for n := 0; ; n++ {
		if _, ok, _ := s.nextKey(n == 0); !ok || s.skip() != nil {
			return n
		}
	}
}

// An array is read by enterArray, and then nextElement, false for first after the first time, until it returns false.
// After every call the element has to be read.
func (s *headerScanner) enterArray() error { return s.enter('[', "an array") }

func (s *headerScanner) nextElement(first bool) (bool, error) {
	return s.more(first, ']', "',' or ']'")
}

// rest returns what is not read up to the next c, or all of it.
func (s *headerScanner) rest(c byte) []byte {
	rest := s.text[s.pos:]
	if i := bytes.IndexByte(rest, c); i >= 0 {
		return rest[:i]
	}
	return rest
}

// string reads a string and returns its value, which is good until the next string is read.
func (s *headerScanner) string(want string) ([]byte, error) {
	if err := s.expect('"', want); err != nil {
		return nil, err
	}
	start := s.pos
	for i := start; i < len(s.text); i++ {
		switch c := s.text[i]; {
		case c == '"':
			s.pos = i + 1
			return s.text[start:i], nil
		case c == '\\':
			s.pos = i
			return s.escaped(start)
		case c < ' ':
			s.pos = i
			return nil, s.fail("no control character in a string")
		}
	}
	s.pos = len(s.text)
	return nil, s.fail("'\"' at the end of a string")
}

// escaped reads the rest of a string that began at start, from the first backslash on.
func (s *headerScanner) escaped(start int) ([]byte, error) {
	b := append(s.scratch[:0], s.text[start:s.pos]...)
	for s.pos < len(s.text) {
		c := s.text[s.pos]
		switch {
		case c == '"':
			s.pos++
			s.scratch = b
			return b, nil
		case c < ' ':
			return nil, s.fail("no control character in a string")
		case c != '\\':
			b = append(b, c)
			s.pos++
			continue
		}
		s.pos++
		r, err := s.escape()
		if err != nil {
			return nil, err
		}
		b = utf8.AppendRune(b, r)
	}
	return nil, s.fail("'\"' at the end of a string")
}

// escape reads what follows a backslash.
func (s *headerScanner) escape() (rune, error) {
	var r rune
	var c byte
	if s.pos < len(s.text) {
		c = s.text[s.pos]
	}
	switch c {
	case '"', '\\', '/':
		r = rune(c)
	case 'b':
		r = '\b'
	case 'f':
		r = '\f'
	case 'n':
		r = '\n'
	case 'r':
		r = '\r'
	case 't':
		r = '\t'
	case 'u':
		s.pos++
		return s.unicodeEscape()
	default:
		return 0, s.fail("an escape: one of \"\\/bfnrtu")
	}
	s.pos++
	return r, nil
}

// unicodeEscape reads what follows \u: four digits, or a pair of surrogates.
func (s *headerScanner) unicodeEscape() (rune, error) {
	start := s.pos - len(`\u`)
	r, err := s.hex4()
	if err != nil || !utf16.IsSurrogate(r) {
		return r, err
	}
	if s.pos+1 < len(s.text) && s.text[s.pos] == '\\' && s.text[s.pos+1] == 'u' {
		s.pos += 2
		low, err := s.hex4()
		if err != nil {
			return 0, err
		}
		if pair := utf16.DecodeRune(r, low); pair != utf8.RuneError {
			return pair, nil
		}
	}
	return 0, s.errorAt(start, fmt.Sprintf("got \\u%04x, which is half of a surrogate pair, want both halves", r))
}

// hex4 reads four hexadecimal digits.
func (s *headerScanner) hex4() (rune, error) {
	var r rune
	for range 4 {
		var c byte
		if s.pos < len(s.text) {
			c = s.text[s.pos]
		}
		switch {
		case '0' <= c && c <= '9':
			r = r<<4 | rune(c-'0')
		case 'a' <= c && c <= 'f':
			r = r<<4 | rune(c-'a'+10)
		case 'A' <= c && c <= 'F':
			r = r<<4 | rune(c-'A'+10)
		default:
			return 0, s.fail("a hexadecimal digit")
		}
		s.pos++
	}
	return r, nil
}

// uint reads an unsigned integer of at most 64 bits, written without fraction and exponent.
func (s *headerScanner) uint() (uint64, error) {
	const want = "an unsigned integer"
	c := s.next()
	if c < '0' || c > '9' {
		return 0, s.fail(want)
	}
	start := s.pos
	var n uint64
	for ; s.pos < len(s.text); s.pos++ {
		c := s.text[s.pos]
		if c < '0' || c > '9' {
			break
		}
		d := uint64(c - '0')
		if n > (1<<64-1)/10 || n*10 > 1<<64-1-d {
			return 0, s.errorAt(start, "the integer overflows 64 bits")
		}
		n = n*10 + d
	}
	if s.text[start] == '0' && s.pos > start+1 {
		return 0, s.errorAt(start, "got a leading zero, want "+want)
	}
	if s.pos < len(s.text) {
		switch s.text[s.pos] {
		case '.', 'e', 'E':
			return 0, s.fail(want)
		}
	}
	return n, nil
}

// skip reads a value of any type and forgets it.
func (s *headerScanner) skip() error {
	switch c := s.next(); {
	case c == '{':
		return s.skipObject()
	case c == '[':
		return s.skipArray()
	case c == '"':
		_, err := s.string("a string")
		return err
	case c == 't':
		return s.literal("true")
	case c == 'f':
		return s.literal("false")
	case c == 'n':
		return s.literal("null")
	case c == '-' || '0' <= c && c <= '9':
		return s.skipNumber()
	}
	return s.fail("a value")
}

func (s *headerScanner) skipObject() error {
	if err := s.enterObject(); err != nil {
		return err
	}
	for first := true; ; first = false {
		if _, ok, err := s.nextKey(first); !ok {
			return err
		}
		if err := s.skip(); err != nil {
			return err
		}
	}
}

func (s *headerScanner) skipArray() error {
	if err := s.enterArray(); err != nil {
		return err
	}
	for first := true; ; first = false {
		if ok, err := s.nextElement(first); !ok {
			return err
		}
		if err := s.skip(); err != nil {
			return err
		}
	}
}

// literal reads the word.
func (s *headerScanner) literal(word string) error {
	for i := range len(word) {
		if s.pos == len(s.text) || s.text[s.pos] != word[i] {
			return s.fail(word)
		}
		s.pos++
	}
	return nil
}

// skipNumber reads a number. One that no binary64 can hold is an error, as it is for the reference implementation.
func (s *headerScanner) skipNumber() error {
	start := s.pos
	exponent, err := s.number()
	if err != nil {
		return err
	}
	// Fewer than 200 digits and a factor of at most 1e99 are in range: there may be 50 million such numbers.
	if exponent <= 2 && s.pos-start < 200 {
		return nil
	}
	if _, err := strconv.ParseFloat(string(s.text[start:s.pos]), 64); err != nil {
		return s.errorAt(start, "the number is out of range")
	}
	return nil
}

// number reads the text of a number and returns how many digits its exponent has.
func (s *headerScanner) number() (exponent int, err error) {
	if s.text[s.pos] == '-' {
		s.pos++
	}
	if s.pos < len(s.text) && s.text[s.pos] == '0' {
		s.pos++
	} else if err := s.digits(); err != nil {
		return 0, err
	}
	if s.pos < len(s.text) && s.text[s.pos] == '.' {
		s.pos++
		if err := s.digits(); err != nil {
			return 0, err
		}
	}
	if s.pos < len(s.text) && (s.text[s.pos] == 'e' || s.text[s.pos] == 'E') {
		s.pos++
		if s.pos < len(s.text) && (s.text[s.pos] == '+' || s.text[s.pos] == '-') {
			s.pos++
		}
		start := s.pos
		err = s.digits()
		return s.pos - start, err
	}
	return 0, nil
}

// digits reads one digit or more.
func (s *headerScanner) digits() error {
	start := s.pos
	for s.pos < len(s.text) && '0' <= s.text[s.pos] && s.text[s.pos] <= '9' {
		s.pos++
	}
	if s.pos == start {
		return s.fail("a digit")
	}
	return nil
}
