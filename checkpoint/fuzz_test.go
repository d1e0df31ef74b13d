package checkpoint

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"regexp"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzSafetensorsHeader compares the scanner and the rules with a slow reference: what is JSON is asked of
// encoding/json, sizes are calculated with math/big, overlaps and holes are found byte by byte of an array.
func FuzzSafetensorsHeader(f *testing.F) {
	for _, test := range readTests {
		if len(test.file) >= 8 {
			// The files of the table have the header that their length says, or nothing that matters here.
			n := min(len(test.file)-8, int(test.file[0])|int(test.file[1])<<8)
			f.Add(test.file[8:8+n], uint16(len(test.file)-8-n))
		}
	}
	f.Fuzz(func(t *testing.T, text []byte, dataBytes uint16) {
		want, wantErr := referenceHeader(text, int(dataBytes))
		got, err := parseHeader(context.Background(), bytes.Clone(text))
		if err == nil {
			err = got.check(int64(dataBytes))
		}
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("header %q, %d bytes of data: error %v, want %v", text, dataBytes, err, wantErr)
		}
		if err != nil {
			if len(err.Error()) > 2000 {
				t.Fatalf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		if got, want := fmt.Sprintf("%q", got.metadata.unpack()), fmt.Sprintf("%q", want.metadata); got != want {
			t.Fatalf("header %q: metadata %s, want %s", text, got, want)
		}
		if len(got.entries) != len(want.tensors) {
			t.Fatalf("header %q: %d tensors, want %d", text, len(got.entries), len(want.tensors))
		}
		for i, w := range want.tensors {
			g := got.entries[i]
			if g.Name != w.Name || g.DType != w.DType || !slices.Equal(g.Shape, w.Shape) ||
				g.offset != w.offset || g.size != w.size {
				t.Fatalf("header %q: tensor %v at %d, want %v at %d", text, g.Tensor, g.offset, w.Tensor, w.offset)
			}
		}
		roundTrip(t, got)
	})
}

// roundTrip checks that what the writer makes of a header is read as the same tensors and metadata.
func roundTrip(t *testing.T, h *header) {
	var tensors []Tensor
	for _, e := range h.entries {
		tensors = append(tensors, e.Tensor)
	}
	metadata := h.metadata.unpack()
	l, err := layOutSafetensors(tensors, metadata)
	if err != nil {
		t.Fatalf("tensors %v: %v", tensors, err)
	}
	back, err := parseHeader(context.Background(), l.head[lengthBytes:])
	if err == nil {
		err = back.check(l.size - int64(len(l.head)))
	}
	if err != nil {
		t.Fatalf("written %q: %v", l.head, err)
	}
	if len(back.entries) != len(tensors) {
		t.Fatalf("written %q: %d tensors, want %d", l.head, len(back.entries), len(tensors))
	}
	for i, w := range tensors {
		if g := back.entries[i].Tensor; g.Name != w.Name || g.DType != w.DType || !slices.Equal(g.Shape, w.Shape) {
			t.Fatalf("written %q: tensor %v, want %v", l.head, g, w)
		}
	}
	written := back.metadata.unpack()
	for k, v := range metadata {
		if written[k] != v {
			t.Fatalf("written %q: metadata %q is %q, want %q", l.head, k, written[k], v)
		}
	}
}

// A referenceResult is what the reference makes of a header.
type referenceResult struct {
	tensors  []entry
	metadata map[string]string
}

// A member is a key and a value of an object; an object is a []member, an array is an []any.
type member struct {
	key   string
	value any
}

func referenceHeader(text []byte, dataBytes int) (*referenceResult, error) {
	if !utf8.Valid(text) || !json.Valid(text) {
		return nil, errors.New("no JSON")
	}
	if err := checkSurrogates(text); err != nil {
		return nil, err
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	value, depth, err := decode(d)
	if err != nil {
		return nil, err
	}
	if depth > maxDepth {
		return nil, errors.New("nested too deep")
	}
	object, ok := value.([]member)
	if !ok {
		return nil, errors.New("no object")
	}
	r := new(referenceResult)
	covered := make([]bool, dataBytes)
	names := make(map[string]bool)
	var hasMetadata bool
	for _, m := range object {
		if m.key == "__metadata__" {
			if hasMetadata {
				return nil, errors.New("metadata twice")
			}
			hasMetadata = true
			if m.value == nil {
				continue // as if it were not there
			}
			if r.metadata, err = referenceMetadata(m.value); err != nil {
				return nil, err
			}
			continue
		}
		e, err := referenceTensor(m)
		if err != nil {
			return nil, err
		}
		if names[e.Name] {
			return nil, errors.New("name twice")
		}
		names[e.Name] = true
		if e.offset+e.size > int64(dataBytes) {
			return nil, errors.New("beyond the data")
		}
		for i := e.offset; i < e.offset+e.size; i++ {
			if covered[i] {
				return nil, errors.New("overlap")
			}
			covered[i] = true
		}
		r.tensors = append(r.tensors, e)
	}
	if slices.Contains(covered, false) {
		return nil, errors.New("hole")
	}
	// A tensor without bytes lies between two others, not within one.
	for _, e := range r.tensors {
		for _, other := range r.tensors {
			if e.size == 0 && other.offset < e.offset && e.offset < other.offset+other.size {
				return nil, errors.New("nothing within something")
			}
		}
	}
	slices.SortFunc(r.tensors, func(a, b entry) int { return strings.Compare(a.Name, b.Name) })
	return r, nil
}

// escapes finds the escapes of a text that is JSON, where a backslash begins one everywhere.
var escapes = regexp.MustCompile(`\\(u[0-9A-Fa-f]{4}|.)`)

// checkSurrogates returns an error for half of a surrogate pair, which encoding/json replaces.
func checkSurrogates(text []byte) error {
	high := -1 // where the last high surrogate ended
	for _, at := range escapes.FindAllIndex(text, -1) {
		e := strings.ToLower(string(text[at[0]:at[1]]))
		isHigh := strings.HasPrefix(e, `\ud`) && strings.Contains("89ab", e[3:4])
		isLow := strings.HasPrefix(e, `\ud`) && strings.Contains("cdef", e[3:4])
		if isLow != (high == at[0]) || high >= 0 && !isLow {
			return errors.New("half of a surrogate pair")
		}
		high = -1
		if isHigh {
			high = at[1]
		}
	}
	if high >= 0 {
		return errors.New("half of a surrogate pair at the end")
	}
	return nil
}

// decode returns the next value, and how deep it is nested.
func decode(d *json.Decoder) (value any, depth int, err error) {
	token, err := d.Token()
	if err != nil {
		return nil, 0, err
	}
	switch token {
	case json.Delim('{'):
		members := []member{}
		for d.More() {
			key, err := d.Token()
			if err != nil {
				return nil, 0, err
			}
			v, n, err := decode(d)
			if err != nil {
				return nil, 0, err
			}
			members = append(members, member{key.(string), v})
			depth = max(depth, n)
		}
		_, err = d.Token()
		return members, depth + 1, err
	case json.Delim('['):
		elements := []any{}
		for d.More() {
			v, n, err := decode(d)
			if err != nil {
				return nil, 0, err
			}
			elements = append(elements, v)
			depth = max(depth, n)
		}
		_, err = d.Token()
		return elements, depth + 1, err
	}
	if n, ok := token.(json.Number); ok {
		_, err = n.Float64()
	}
	return token, 0, err
}

func referenceMetadata(value any) (map[string]string, error) {
	object, ok := value.([]member)
	if !ok {
		return nil, errors.New("metadata no object")
	}
	metadata := make(map[string]string)
	for _, m := range object {
		v, ok := m.value.(string)
		if _, twice := metadata[m.key]; twice || !ok {
			return nil, errors.New("metadata key twice or no string")
		}
		metadata[m.key] = v
	}
	return metadata, nil
}

func referenceTensor(m member) (entry, error) {
	none := entry{}
	fields, ok := m.value.([]member)
	if !ok {
		return none, errors.New("tensor no object")
	}
	known := make(map[string]any)
	for _, field := range fields {
		if !slices.Contains([]string{"dtype", "shape", "data_offsets"}, field.key) {
			continue
		}
		if _, twice := known[field.key]; twice {
			return none, errors.New("field twice")
		}
		known[field.key] = field.value
	}
	name, ok := known["dtype"].(string)
	i := slices.IndexFunc(dtypeTable, func(d struct {
		name  string
		dtype DType
		bits  int
		kind  string
	},
	) bool {
		return d.name == name
	})
	if !ok || i < 0 {
		return none, errors.New("no dtype")
	}
	e := entry{Tensor: Tensor{Name: m.key, DType: dtypeTable[i].dtype}}
	shape, err := referenceIntegers(known["shape"])
	if err != nil {
		return none, err
	}
	n := big.NewInt(1)
	for _, d := range shape {
		if !d.IsInt64() {
			return none, errors.New("dimension beyond int64")
		}
		e.Shape = append(e.Shape, d.Int64())
		if n.Mul(n, d); !n.IsUint64() {
			return none, errors.New("elements overflow")
		}
	}
	n.Mul(n, big.NewInt(int64(dtypeTable[i].bits)))
	if !n.IsUint64() || n.Uint64()%8 != 0 {
		return none, errors.New("bits overflow or are no bytes")
	}
	offsets, err := referenceIntegers(known["data_offsets"])
	if err != nil || len(offsets) != 2 || !offsets[1].IsInt64() {
		return none, errors.New("no offsets")
	}
	size := new(big.Int).Sub(offsets[1], offsets[0])
	if size.Sign() < 0 || size.Cmp(n.Rsh(n, 3)) != 0 {
		return none, errors.New("wrong size")
	}
	e.offset, e.size = offsets[0].Int64(), size.Int64()
	return e, nil
}

var unsigned = regexp.MustCompile(`^(0|[1-9][0-9]*)$`)

// referenceIntegers returns the elements of an array of unsigned integers of 64 bits.
func referenceIntegers(value any) ([]*big.Int, error) {
	elements, ok := value.([]any)
	if !ok {
		return nil, errors.New("no array")
	}
	var integers []*big.Int
	for _, e := range elements {
		number, ok := e.(json.Number)
		if !ok || !unsigned.MatchString(number.String()) {
			return nil, errors.New("no unsigned integer")
		}
		n, _ := new(big.Int).SetString(number.String(), 10)
		if !n.IsUint64() {
			return nil, errors.New("integer beyond 64 bits")
		}
		integers = append(integers, n)
	}
	return integers, nil
}
