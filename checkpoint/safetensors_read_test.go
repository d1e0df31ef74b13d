package checkpoint

import (
	"encoding/binary"
	"errors"
	"io"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"runtime"
	"strings"
	"testing"
)

// i32 is a header with one tensor, as the reference implementation's tests have it.
const i32 = `{"test":{"dtype":"I32","shape":[2,2],"data_offsets":[0,16]}}`

// readTests are files that the format's reference implementation accepts or refuses, and our verdict with the error's
// text. Where ours is not that of the reference implementation, the note says so.
var readTests = []struct {
	name string
	file []byte
	err  string
}{
	// The cases of the reference implementation's own tests.
	{"one tensor", fileBytes(i32, 16), ""},
	{"scalar", fileBytes(`{"test":{"dtype":"I32","shape":[],"data_offsets":[0,4]}}`, 4), ""},
	{"zero size", fileBytes(`{"test":{"dtype":"I32","shape":[2,0],"data_offsets":[0, 0]}}`, 0), ""},
	{"empty", fileBytes(`{}      `, 0), ""},
	{"metadata only", fileBytes(`{"__metadata__":{"framework":"pt"}}     `, 0), ""},
	{"white space after the header", fileBytes("{}\r \t\n", 0), ""},
	{"white space before the header", fileBytes("\t\n{}\r ", 0), ""},
	{
		"all the same offsets", fileBytes(`{"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},`+
			`"b":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}`, 16),
		`tensor "b": data_offsets [0,16]: it overlaps another tensor, want it to begin at 16`,
	},
	{
		"bytes after the data", append(fileBytes(i32, 16), "extra_bogus_data_for_polyglot_file"...),
		`50 bytes of data, want 16: 34 bytes after the last tensor`,
	},
	{
		"data missing", fileBytes(i32, 14),
		`tensor "test": data_offsets [0,16]: the file is truncated, it has 14 bytes of data, want 16`,
	},
	{
		"header too large", []byte("<\x00\x00\x00\x00\xff\xff\xff" + i32 + strings.Repeat("\x00", 16)),
		`header over the limit: 18446742974197923900 bytes in a file of 84, limit 100000000; this is probably no safetensors file`,
	},
	{"no byte", nil, `0 bytes, want at least 8 for the header's length`},
	{"seven bytes", []byte("<\x00\x00\x00\x00\x00\x00"), `7 bytes, want at least 8 for the header's length`},
	{"header missing", []byte("<\x00\x00\x00\x00\x00\x00\x00"), `header length 60, but only 0 bytes follow it`},
	{"no UTF-8", fileBytes("\xff", 0), `header byte 0: not valid UTF-8`},
	{"no JSON", fileBytes("{", 0), `header byte 1: got the end, want a string as key`},
	{
		"wrong size", fileBytes(`{"test":{"dtype":"I32","shape":[2,2],"data_offsets":[0, 4]}}`, 0),
		`tensor "test": data_offsets [0,4]: 4 bytes, want 16 for I32 [2 2]`,
	},
	{
		"elements overflow", fileBytes(`{"test":{"dtype":"I32","shape":[2,18446744073709551614],"data_offsets":[0,16]}}`, 16),
		`tensor "test": shape: dimension 1 is 18446744073709551614, want at most 9223372036854775807`,
	},
	{
		"bits overflow", fileBytes(`{"test":{"dtype":"I32","shape":[2,9223372036854775807],"data_offsets":[0,16]}}`, 16),
		`tensor "test": shape [2 9223372036854775807]: the number of bits overflows 64 bits in I32`,
	},
	{
		"no whole bytes", fileBytes(`{"test":{"dtype":"F4","shape":[1,3],"data_offsets":[0,1]}}`, 1),
		`tensor "test": shape [1 3]: 12 bits of F4 are no whole number of bytes`,
	},
	{"F4", fileBytes(`{"test":{"dtype":"F4","shape":[1,4],"data_offsets":[0,2]}}`, 2), ""},

	// Sizes and offsets.
	{
		"hole at the beginning", fileBytes(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2),
		`tensor "a": data_offsets [1,2]: a hole before it, want it to begin at 0`,
	},
	{
		"hole", fileBytes(`{"b":{"dtype":"U8","shape":[2],"data_offsets":[3,5]},`+
			`"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}`, 5),
		`tensor "b": data_offsets [3,5]: a hole before it, want it to begin at 2`,
	},
	{
		"overlap", fileBytes(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},`+
			`"b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}`, 3),
		`tensor "b": data_offsets [1,3]: it overlaps another tensor, want it to begin at 2`,
	},
	{
		"end before beginning", fileBytes(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[2,0]}}`, 2),
		`tensor "a": data_offsets [2,0]: the end is before the beginning`,
	},
	{
		"offsets beyond int64", fileBytes(
			`{"a":{"dtype":"U8","shape":[1],"data_offsets":[18446744073709551614,18446744073709551615]}}`, 1),
		`tensor "a": data_offsets [18446744073709551614,18446744073709551615]: overflows the range of file offsets`,
	},
	{
		"offset beyond uint64", fileBytes(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,18446744073709551616]}}`, 1),
		`tensor "a": data_offsets: header byte 49: the integer overflows 64 bits`,
	},
	{
		"offset far beyond uint64", fileBytes(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,99999999999999999999]}}`, 1),
		`tensor "a": data_offsets: header byte 49: the integer overflows 64 bits`,
	},
	{
		"huge claim",
		fileBytes(`{"a":{"dtype":"U8","shape":[1152921504606846976],"data_offsets":[0,1152921504606846976]}}`, 1),
		`tensor "a": data_offsets [0,1152921504606846976]: the file is truncated, it has 1 bytes of data, ` +
			`want 1152921504606846976`,
	},
	{
		"second tensor truncated", fileBytes(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},`+
			`"b":{"dtype":"U8","shape":[2],"data_offsets":[2,4]},"c":{"dtype":"U8","shape":[2],"data_offsets":[4,6]}}`, 3),
		`tensor "b": data_offsets [2,4]: the file is truncated, it has 3 bytes of data, want 6, which cuts 2 of 3 tensors`,
	},
	{"zero size after its neighbour", fileBytes(`{"b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},`+
		`"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},"c":{"dtype":"U8","shape":[0],"data_offsets":[2,2]}}`, 2), ""},
	{
		"zero size within another", fileBytes(`{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},`+
			`"b":{"dtype":"U8","shape":[0],"data_offsets":[1,1]}}`, 2),
		`tensor "b": data_offsets [1,1]: it overlaps another tensor, want it to begin at 2`,
	},
	{
		"zero saves no overflow", fileBytes(`{"a":{"dtype":"U8","shape":[9223372036854775807,4,0],"data_offsets":[0,0]}}`, 0),
		`tensor "a": shape [9223372036854775807 4 0]: the number of elements overflows 64 bits`,
	},
	{"product of 64 bits and zero", fileBytes(
		`{"a":{"dtype":"U8","shape":[9223372036854775807,2,0],"data_offsets":[0,0]}}`, 0), ""},
	{"data not aligned", fileBytes(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},`+
		`"b":{"dtype":"F64","shape":[1],"data_offsets":[1,9]}}`, 9), ""},

	// Fields.
	{"unknown fields", fileBytes(`{"a":{"x":{"y":[1,-2.5e+3,true,false,null,"z",{},[]]},"dtype":"U8","q":0,"q":1,`+
		`"shape":[1],"data_offsets":[0,1]}}`, 1), ""},
	{"order of fields", fileBytes(`{"a":{"data_offsets":[0,1],"shape":[1],"dtype":"U8"}}`, 1), ""},
	{"white space everywhere", fileBytes("\n{ \"a\"\t: { \"dtype\" : \"U8\" ,\r\n\"shape\" : [ 1 , 1 ] , "+
		"\"data_offsets\" : [ 0 , 1 ] } }\n", 1), ""},
	{"no dtype", fileBytes(`{"a":{"shape":[1],"data_offsets":[0,1]}}`, 1), `tensor "a": no dtype`},
	{"no shape", fileBytes(`{"a":{"dtype":"U8","data_offsets":[0,1]}}`, 1), `tensor "a": no shape`},
	{"no offsets", fileBytes(`{"a":{"dtype":"U8","shape":[1]}}`, 1), `tensor "a": no data_offsets`},
	{"nothing", fileBytes(`{"a":{}}`, 1), `tensor "a": no dtype`},
	{"other case", fileBytes(`{"a":{"DType":"U8","Shape":[1],"Data_Offsets":[0,1]}}`, 1), `tensor "a": no dtype`},
	{
		"dtype twice", fileBytes(`{"a":{"dtype":"U8","dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1),
		`tensor "a": dtype: given twice`,
	},
	{
		"shape twice", fileBytes(`{"a":{"dtype":"U8","shape":[1],"shape":[1],"data_offsets":[0,1]}}`, 1),
		`tensor "a": shape: given twice`,
	},
	{
		"offsets twice", fileBytes(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1],"data_offsets":[0,1]}}`, 1),
		`tensor "a": data_offsets: given twice`,
	},
	{
		"unknown dtype", fileBytes(`{"a":{"dtype":"F128","shape":[1],"data_offsets":[0,16]}}`, 16),
		`tensor "a": dtype: unknown dtype "F128"`,
	},
	{
		"dtype in lower case", fileBytes(`{"a":{"dtype":"u8","shape":[1],"data_offsets":[0,1]}}`, 1),
		`tensor "a": dtype: unknown dtype "u8"`,
	},
	{"escaped dtype", fileBytes(`{"a":{"dtype":"\u00558","shape":[1],"data_offsets":[0,1]}}`, 1), ""},
	{
		"dtype a number", fileBytes(`{"a":{"dtype":8,"shape":[1],"data_offsets":[0,1]}}`, 1),
		`tensor "a": dtype: header byte 14: got '8', want a string`,
	},
	{
		"dtype null", fileBytes(`{"a":{"dtype":null,"shape":[1],"data_offsets":[0,1]}}`, 1),
		`tensor "a": dtype: header byte 14: got 'n', want a string`,
	},
	{
		"shape a number", fileBytes(`{"a":{"dtype":"U8","shape":1,"data_offsets":[0,1]}}`, 1),
		`tensor "a": shape: header byte 27: got '1', want an array`,
	},
	{
		"shape null", fileBytes(`{"a":{"dtype":"U8","shape":null,"data_offsets":[0,1]}}`, 1),
		`tensor "a": shape: header byte 27: got 'n', want an array`,
	},
	{
		"negative dimension", fileBytes(`{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}`, 1),
		`tensor "a": shape: header byte 28: got '-', want an unsigned integer`,
	},
	{
		"negative zero", fileBytes(`{"a":{"dtype":"U8","shape":[-0],"data_offsets":[0,0]}}`, 0),
		`tensor "a": shape: header byte 28: got '-', want an unsigned integer`,
	},
	{
		"fraction", fileBytes(`{"a":{"dtype":"U8","shape":[1.0],"data_offsets":[0,1]}}`, 1),
		`tensor "a": shape: header byte 29: got '.', want an unsigned integer`,
	},
	{
		"exponent", fileBytes(`{"a":{"dtype":"U8","shape":[1e0],"data_offsets":[0,1]}}`, 1),
		`tensor "a": shape: header byte 29: got 'e', want an unsigned integer`,
	},
	{
		"leading zero", fileBytes(`{"a":{"dtype":"U8","shape":[01],"data_offsets":[0,1]}}`, 1),
		`tensor "a": shape: header byte 28: got a leading zero, want an unsigned integer`,
	},
	{
		"dimension a string", fileBytes(`{"a":{"dtype":"U8","shape":["1"],"data_offsets":[0,1]}}`, 1),
		`tensor "a": shape: header byte 28: got '"', want an unsigned integer`,
	},
	{
		"comma after the last", fileBytes(`{"a":{"dtype":"U8","shape":[1,],"data_offsets":[0,1]}}`, 1),
		`tensor "a": shape: header byte 30: got ']', want an unsigned integer`,
	},
	{
		"one offset", fileBytes(`{"a":{"dtype":"U8","shape":[0],"data_offsets":[0]}}`, 0),
		`tensor "a": data_offsets: got 1 numbers, want [begin, end]`,
	},
	{
		"three offsets", fileBytes(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1,1]}}`, 1),
		`tensor "a": data_offsets: got more than two numbers, want [begin, end]`,
	},

	// Tensors.
	{"tensor null", fileBytes(`{"a":null}`, 0), `tensor "a": header byte 5: got 'n', want an object`},
	{"tensor a number", fileBytes(`{"a":1}`, 0), `tensor "a": header byte 5: got '1', want an object`},
	{"tensor an array", fileBytes(`{"a":["U8",[1],[0,1]]}`, 1), // the reference implementation accepts this
		`tensor "a": header byte 5: got '[', want an object`},
	{"name of nothing", fileBytes(`{"":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1), ""},
	{
		"error about the name of nothing", fileBytes(`{"":{"dtype":"U8","shape":[1],"data_offsets":[0,2]}}`, 2),
		`tensor "": data_offsets [0,2]: 2 bytes, want 1 for U8 [1]`,
	},
	{
		"name in Unicode",
		fileBytes(`{"größe\u4e16\uD834\uDD1E\n\"\\\/":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1), "",
	},
	{"the same name, other data", fileBytes(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},`+
		`"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}}`, 2), `tensor "a": given twice`},
	{"the same name, same data", fileBytes(`{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},`+
		`"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1), // the reference implementation accepts this
		`tensor "a": given twice`},
	{"the same name, escaped", fileBytes(`{"a":{"dtype":"U8","shape":[0],"data_offsets":[0,0]},`+
		`"\u0061":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}}`, 0), // the reference implementation accepts this
		`tensor "a": given twice`},

	// Metadata.
	{"metadata null", fileBytes(`{"__metadata__":null}`, 0), ""},
	{"metadata empty", fileBytes(`{"__metadata__":{}}`, 0), ""},
	{"metadata, then null", fileBytes(`{"__metadata__":{},"__metadata__":null}`, 0), `__metadata__: given twice`},
	{"metadata null, then not", fileBytes(`{"__metadata__":null,"__metadata__":{}}`, 0), `__metadata__: given twice`},
	{"metadata twice", fileBytes(`{"__metadata__":{},"__metadata__":{}}`, 0), `__metadata__: given twice`},
	{
		"metadata an array", fileBytes(`{"__metadata__":[]}`, 0),
		`__metadata__: header byte 16: got '[', want an object`,
	},
	{
		"metadata with a number", fileBytes(`{"__metadata__":{"a":1}}`, 0),
		`__metadata__: key "a": header byte 21: got '1', want a string`,
	},
	{
		"metadata with null", fileBytes(`{"__metadata__":{"a":null}}`, 0),
		`__metadata__: key "a": header byte 21: got 'n', want a string`,
	},
	{"metadata key twice", fileBytes(`{"__metadata__":{"a":"","a":""}}`, 0), // the reference implementation accepts this
		`__metadata__: key "a": given twice`},
	{
		"metadata key twice, once escaped", fileBytes(`{"__metadata__":{"𝄞":"","\ud834\udd1e":1}}`, 0),
		`__metadata__: key "𝄞": given twice`,
	},

	// Text.
	{"header empty", fileBytes(``, 0), `header byte 0: got the end, want an object`},
	{"header of spaces", fileBytes(`   `, 0), `header byte 3: got the end, want an object`},
	{"header null", fileBytes(`null`, 0), `header byte 0: got 'n', want an object`},
	{"header an array", fileBytes(`[]`, 0), `header byte 0: got '[', want an object`},
	{"two headers", fileBytes(`{}{}`, 0), `header byte 2: got '{', want the end of the header`},
	{"zero after the header", fileBytes("{}\x00", 0), `header byte 2: got '\x00', want the end of the header`},
	{"form feed", fileBytes("\f{}", 0), `header byte 0: got '\f', want an object`},
	{"byte order mark", fileBytes("\ufeff{}", 0), `header byte 0: got '\ufeff', want an object`},
	{"comment", fileBytes(`{/**/}`, 0), `header byte 1: got '/', want a string as key`},
	{"no colon", fileBytes(`{"a" 1}`, 0), `header byte 5: got '1', want ':'`},
	{"no comma", fileBytes(`{"__metadata__":{} "a":{}}`, 0), `header byte 19: got '"', want ',' or '}'`},
	{"comma before the first", fileBytes(`{,}`, 0), `header byte 1: got ',', want a string as key`},
	{"bad UTF-8 in a name", fileBytes("{\"\xc3\x28\":{}}", 0), `header byte 2: not valid UTF-8`},
	{"surrogate in UTF-8", fileBytes("{\"\xed\xa0\x80\":{}}", 0), `header byte 2: not valid UTF-8`},
	{
		"control character", fileBytes("{\"a\x1f\":{}}", 0),
		`header byte 3: got '\x1f', want no control character in a string`,
	},
	{
		"control character after an escape", fileBytes("{\"\\n\x1f\":{}}", 0),
		`header byte 4: got '\x1f', want no control character in a string`,
	},
	{"unknown escape", fileBytes(`{"\x41":{}}`, 0), `header byte 3: got 'x', want an escape: one of "\/bfnrtu`},
	{"bad digit", fileBytes(`{"\u00g1":{}}`, 0), `header byte 6: got 'g', want a hexadecimal digit`},
	{
		"high surrogate alone", fileBytes(`{"\ud834x":{}}`, 0),
		`header byte 2: got \ud834, which is half of a surrogate pair, want both halves`,
	},
	{
		"low surrogate alone", fileBytes(`{"\udd1e":{}}`, 0),
		`header byte 2: got \udd1e, which is half of a surrogate pair, want both halves`,
	},
	{
		"two high surrogates", fileBytes(`{"\ud834\ud834":{}}`, 0),
		`header byte 2: got \ud834, which is half of a surrogate pair, want both halves`,
	},
	{"string without end", fileBytes(`{"a`, 0), `header byte 3: got the end, want '"' at the end of a string`},
	{"escape without end", fileBytes(`{"a\`, 0), `header byte 4: got the end, want an escape: one of "\/bfnrtu`},
	{"escaped string without end", fileBytes(`{"\n`, 0), `header byte 4: got the end, want '"' at the end of a string`},
	{
		"nested too deep", fileBytes(`{"a":{"x":`+strings.Repeat("[", 126)+strings.Repeat("]", 126)+`}}`, 0),
		`tensor "a": header byte 135: nested more than 127 deep`,
	},
	{"nested to the limit", fileBytes(`{"a":{"x":`+strings.Repeat("[", 125)+strings.Repeat("]", 125)+
		`,"dtype":"U8","shape":[0],"data_offsets":[0,0]}}`, 0), ""},
}

func TestOpenRules(t *testing.T) {
	for _, test := range readTests {
		t.Run(test.name, func(t *testing.T) {
			path := writeFile(t, test.file)
			m, err := Open(path)
			if test.err != "" {
				wantError(t, err, path, "m.safetensors: "+test.err)
				var format *FormatError
				if !errors.As(err, &format) || format.Path != path {
					t.Errorf("the error is %#v, want a FormatError of the file", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A value that is skipped has to be JSON all the same.
func TestOpenSkippedValues(t *testing.T) {
	good := []string{
		`0`, `-0`, `1.5`, `1e5`, `1E-5`, `0.0e+00`, `1e-999`, `123456789012345678901234567890`, `"\u00e4\b\f\r\t"`,
		`true`, `false`, `null`, `{"a":{"b":[]}}`, `[1,"2",[3]]`,
	}
	bad := []string{
		``, `-`, `01`, `1.`, `.5`, `1e`, `1e+`, `+1`, `0x1`, `1e999`, `-1e400`, `tru`, `nul`, `True`, `NaN`, `Infinity`,
		`'a'`, `[1 2]`, `[1,]`, `{"a"}`, `{"a":}`, `{"a":1,}`, `{1:2}`, `[}`, `truefalse`, `"\ud800"`,
	}
	// Numbers that a binary64 just can hold, and others.
	good = append(good, strings.Repeat("9", 199), strings.Repeat("9", 308), `1e308`, `1e0308`, `17976931348623157e292`,
		strings.Repeat("9", 197)+`e99`, `0.`+strings.Repeat("0", 400)+`1e700`, `0e999`)
	bad = append(bad, strings.Repeat("9", 309), `1e309`, `1e0309`, `17976931348623159e292`, strings.Repeat("9", 211)+`e98`,
		`1`+strings.Repeat("0", 210)+`e99`, strings.Repeat("9", 150)+`e160`)
	for i, value := range append(good, bad...) {
		path := writeFile(t, fileBytes(`{"a":{"x":`+value+`,"dtype":"U8","shape":[0],"data_offsets":[0,0]}}`, 0))
		m, err := Open(path)
		if (err == nil) != (i < len(good)) {
			t.Errorf("value %s: error %v", value, err)
		}
		if err == nil {
			m.Close()
		}
	}
}

func TestOpenValues(t *testing.T) {
	m := open(t, writeFile(t, fileBytes(`{"b":{"dtype":"U8","shape":[3],"data_offsets":[8,11]},`+
		`"__metadata__":{"format":"pt","k\u00e4\n":"\ud834\udd1e\u0000"},`+
		`"a":{"dtype":"BF16","shape":[2,1,2],"data_offsets":[0,8]},"\"c\\\/\u0041":{"dtype":"F64","shape":[],`+
		`"data_offsets":[11,19]},"0":{"dtype":"F64","shape":[0],"data_offsets":[19,19]}}`, 19)))
	want := []Tensor{
		{`"c\/A`, F64, []int64{}},
		{"0", F64, []int64{0}},
		{"a", BF16, []int64{2, 1, 2}},
		{"b", U8, []int64{3}},
	}
	if got := m.Tensors(); !reflect.DeepEqual(got, want) {
		t.Errorf("tensors %v, want %v", got, want)
	}
	// A shape that the caller extends stays off the next one.
	for _, tensor := range m.Tensors() {
		_ = append(tensor.Shape, 99)
	}
	if got := m.Tensors(); !reflect.DeepEqual(got, want) {
		t.Errorf("tensors %v after appending to their shapes, want %v", got, want)
	}
	if want := map[string]string{"format": "pt", "kä\n": "𝄞\x00"}; !maps.Equal(m.Metadata(), want) {
		t.Errorf("metadata %q, want %q", m.Metadata(), want)
	}
	for _, test := range []struct {
		name        string
		first, size byte
	}{{"a", 0, 8}, {"b", 8, 3}, {`"c\/A`, 11, 8}, {"0", 19, 0}} {
		got := make([]byte, test.size)
		if n, err := m.ReadAt(test.name, got, 0); n != len(got) || err != nil && test.size > 0 {
			t.Errorf("tensor %q: read %d bytes, %v", test.name, n, err)
		}
		for i, c := range got {
			if c != test.first+byte(i) {
				t.Errorf("tensor %q: byte %d is %d, want %d", test.name, i, c, test.first+byte(i))
			}
		}
	}
}

func TestOpenMetadata(t *testing.T) {
	for header, want := range map[string]map[string]string{
		`{}`:                        nil,
		`{"__metadata__":null}`:     nil,
		`{"__metadata__":{}}`:       {},
		`{"__metadata__":{"":"a"}}`: {"": "a"},
	} {
		m := open(t, writeFile(t, fileBytes(header, 0)))
		if got := m.Metadata(); !reflect.DeepEqual(got, want) {
			t.Errorf("%s: metadata %#v, want %#v", header, got, want)
		}
		if got := m.Metadata(); got != nil {
			got["new"] = "x"
			if _, ok := m.Metadata()["new"]; ok {
				t.Errorf("%s: the metadata is shared", header)
			}
		}
	}
}

func TestOpenHeaderLimit(t *testing.T) {
	path := writeFile(t, fileBytes(i32, 16))
	for limit, want := range map[int64]string{
		0: "", -1: "", 60: "", 1 << 62: "",
		59: "m.safetensors: header over the limit: 60 bytes in a file of 84, limit 59",
	} {
		m, err := Open(path, WithHeaderLimit(limit))
		if want == "" {
			if err != nil {
				t.Errorf("limit %d: %v", limit, err)
				continue
			}
			m.Close()
			continue
		}
		wantError(t, err, path, want)
		if !errors.Is(err, ErrHeaderLimit) {
			t.Errorf("limit %d: the error does not wrap ErrHeaderLimit", limit)
		}
	}
	// A file that claims a header within the limit but is shorter costs no memory.
	var before, after runtime.MemStats
	path = writeFile(t, binary.LittleEndian.AppendUint64(nil, 99_999_999))
	runtime.ReadMemStats(&before)
	_, err := Open(path)
	runtime.ReadMemStats(&after)
	wantError(t, err, path, "m.safetensors: header length 99999999, but only 0 bytes follow it")
	if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 {
		t.Errorf("%d bytes allocated", n)
	}
}

func TestOpenNoFile(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(filepath.Join(dir, "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no such file: %v", err)
	}
	path := filepath.Join(dir, "sub")
	if err := os.Mkdir(path, 0o777); err != nil {
		t.Fatal(err)
	}
	_, err := Open(path)
	wantError(t, err, path, "sub: is a directory with neither model.safetensors.index.json nor model.safetensors")
}

func TestReadAt(t *testing.T) {
	path := writeFile(t, fileBytes(`{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},`+
		`"b":{"dtype":"U8","shape":[6],"data_offsets":[4,10]}}`, 10))
	m := open(t, path)
	r, err := m.TensorReader("b")
	if err != nil {
		t.Fatal(err)
	}
	if r.Size() != 6 || r.Tensor().Name != "b" {
		t.Errorf("reader of %v with %d bytes", r.Tensor(), r.Size())
	}
	for _, test := range []struct {
		off  int64
		n    int
		want string
		err  error
	}{
		{0, 6, "\x04\x05\x06\x07\x08\x09", nil},
		{0, 7, "\x04\x05\x06\x07\x08\x09", io.EOF},
		{2, 3, "\x06\x07\x08", nil},
		{5, 1, "\x09", nil},
		{5, 2, "\x09", io.EOF},
		{6, 1, "", io.EOF},
		{1 << 62, 1, "", io.EOF},
		{3, 0, "", nil},
		{6, 0, "", io.EOF},
	} {
		for i, read := range []func([]byte, int64) (int, error){
			r.ReadAt, func(p []byte, off int64) (int, error) { return m.ReadAt("b", p, off) },
		} {
			p := make([]byte, test.n)
			n, err := read(p, test.off)
			if string(p[:n]) != test.want || err != test.err {
				t.Errorf("way %d: %d bytes from %d: %q, %v, want %q, %v", i, test.n, test.off, p[:n], err, test.want, test.err)
			}
		}
	}
	_, err = m.ReadAt("b", make([]byte, 1), -1)
	wantError(t, err, path, `m.safetensors: tensor "b": read at negative offset -1`)

	for _, name := range []string{"", "aa", "c"} {
		if _, ok := m.Tensor(name); ok {
			t.Errorf("there is a tensor %q", name)
		}
		_, err = m.ReadAt(name, nil, 0)
		wantError(t, err, path, `m.safetensors: no tensor "`+name+`"`)
		if _, err2 := m.TensorReader(name); !errors.Is(err2, ErrNoTensor) || !errors.Is(err, ErrNoTensor) {
			t.Errorf("the errors %v and %v do not wrap ErrNoTensor", err, err2)
		}
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if _, err := r.ReadAt(make([]byte, 1), 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("read after Close: %v", err)
	}
	if err := m.Close(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("second Close: %v", err)
	}
}

// A reader of a tensor is an io.ReaderAt and passes for one.
func TestTensorReaderSections(t *testing.T) {
	m := open(t, writeFile(t, fileBytes(i32, 16)))
	r, err := m.TensorReader("test")
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(io.NewSectionReader(r, 0, r.Size()))
	if string(got) != string(fileBytes("", 16)[8:]) || err != nil {
		t.Errorf("read %q, %v", got, err)
	}
}

func TestFileChanges(t *testing.T) {
	path := writeFile(t, fileBytes(`{"a":{"dtype":"U8","shape":[100],"data_offsets":[0,100]}}`, 100))
	m := open(t, path)
	if err := m.Unchanged(); err != nil {
		t.Error(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, info.Size()-40); err != nil {
		t.Fatal(err)
	}
	p := make([]byte, 50)
	n, err := m.ReadAt("a", p, 30)
	if n != 30 || !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("%d bytes read, error %v", n, err)
	}
	wantError(t, err, path, `m.safetensors: tensor "a": read 30 of 50 bytes at byte 30: `+
		`file ends at byte 125, was 165 bytes when opened: unexpected EOF`)
	err = m.Unchanged()
	wantError(t, err, path, `m.safetensors: file changed while it was open: has 125 bytes, had 165`)
	if !errors.Is(err, ErrChanged) {
		t.Errorf("the error does not wrap ErrChanged")
	}

	// Same size, other time.
	m = open(t, writeFile(t, fileBytes(i32, 16)))
	earlier := info.ModTime().Add(-3600e9)
	if err := os.Chtimes(m.Path(), earlier, earlier); err != nil {
		t.Fatal(err)
	}
	if err := m.Unchanged(); !errors.Is(err, ErrChanged) || !strings.Contains(err.Error(), ": modified ") {
		t.Errorf("after another time of modification: %v", err)
	}
}
