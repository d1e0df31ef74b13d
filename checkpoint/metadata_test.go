package checkpoint

import (
	"context"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

// referenceMetadataOf reads the value of the metadata the plain way, with a map of all keys: what is read, and the
// first error.
func referenceMetadataOf(text string) (map[string]string, error) {
	s := &headerScanner{text: []byte(text)}
	if s.next() == 'n' {
		return nil, s.literal("null")
	}
	if err := s.enterObject(); err != nil {
		return nil, err
	}
	metadata := make(map[string]string)
	for first := true; ; first = false {
		k, ok, err := s.nextKey(first)
		if err != nil {
			return nil, err
		}
		if !ok {
			return metadata, nil
		}
		key := string(k)
		if _, ok := metadata[key]; ok {
			return nil, fmt.Errorf("key %s: given twice", quote(key))
		}
		value, err := s.string("a string")
		if err != nil {
			return nil, fmt.Errorf("key %s: %w", quote(key), err)
		}
		metadata[key] = string(value)
	}
}

// referenceMetadataViolations returns all errors, found the same way.
func referenceMetadataViolations(text string) (violations []error) {
	s := &headerScanner{text: []byte(text)}
	if s.next() == 'n' {
		return nil
	}
	seen := make(map[string]bool)
	err := members(s, func(key string, value *headerScanner) bool {
		if seen[key] {
			violations = append(violations, fmt.Errorf("key %s: given twice", quote(key)))
		}
		seen[key] = true
		if _, err := value.string("a string"); err != nil {
			violations = append(violations, fmt.Errorf("key %s: %w", quote(key), err))
		}
		return true
	})
	if err != nil {
		violations = append(violations, err)
	}
	return violations
}

// checkMetadata compares what is made of the value of the metadata with the references.
func checkMetadata(t *testing.T, text string) {
	t.Helper()
	want, wantErr := referenceMetadataOf(text)
	var h header
	s := &headerScanner{text: []byte(text)}
	err := h.parseMetadata(s)
	clear(s.text) // nothing that is kept may be part of it
	if fmt.Sprint(err) != fmt.Sprint(wantErr) {
		t.Fatalf("%s\nerror %v\n want %v", shorten([]byte(text)), err, wantErr)
	}
	if len(h.metadata.bytes) != cap(h.metadata.bytes) {
		t.Fatalf("%s\n%d bytes, calculated %d", shorten([]byte(text)), len(h.metadata.bytes), cap(h.metadata.bytes))
	}
	if got := h.metadata.unpack(); !reflect.DeepEqual(got, want) {
		t.Fatalf("%s\nmetadata %q\n    want %q", shorten([]byte(text)), got, want)
	}

	var got []error
	metadataViolations(&headerScanner{text: []byte(text)}, func(err error) bool {
		got = append(got, err)
		return true
	})
	all := referenceMetadataViolations(text)
	if fmt.Sprint(got) != fmt.Sprint(all) {
		t.Fatalf("%s\nviolations %v\n      want %v", shorten([]byte(text)), got, all)
	}
	for n := 1; n <= min(len(all), 3); n++ { // no more of them than are wanted
		var got []error
		more := metadataViolations(&headerScanner{text: []byte(text)}, func(err error) bool {
			got = append(got, err)
			return len(got) < n
		})
		if more || fmt.Sprint(got) != fmt.Sprint(all[:n]) {
			t.Fatalf("%s\nviolations %v, more %t\n      want %v", shorten([]byte(text)), got, more, all[:n])
		}
	}
}

// metadataValues are values of the metadata with keys that are equal, or not, however they are written.
var metadataValues = []string{
	`null`, `{}`, ` { } `, `{"":""}`, `{"a":"b"}`, `{"a":"1","b":"1"}`,
	`{"":"","":""}`, `{"a":"","a":""}`,
	`{"a":"","b":"","c":"","b":"","a":""}`, "{\"a\":\"\"\n,\t\"b\" : \"\" ,\r\"a\":\"\"}",
	`{"a":"","\u0061":""}`, `{"\u0061":"","a":""}`, `{"\u0061":"","\u0061":""}`, `{"\u006a":"","\u006A":""}`,
	`{"/":"","\/":""}`, `{"\/":"","\u002F":""}`, `{"\n":"","\u000a":""}`, `{"\"":"","\u0022":""}`, `{"\\":"","\u005c":""}`,
	`{"\b\f\r\t":"","\u0008\u000C\u000d\u0009":""}`, `{"ä":"","\u00e4":""}`, `{"𝄞":"","\ud834\udd1e":""}`,
	`{"\uD834\uDD1E":"","\ud834\udd1e":""}`, `{"�":"","\ufffd":""}`, `{"\u0000":"","\u0000":""}`,
	// Others.
	`{"a":"","a\u0000":"","a\u0000\u0000":"","\u0000":"","":""}`, `{"\\u0061":"","a":""}`,
	`{"ä":"","a\u0308":"","A":"","a":""}`,
	`{"\"a":"","a":"","a\"":"","a ":""," a":""}`, `{"n":"","\n":"","\\n":""}`,
	`{"𝄞":"","\ud834\udd1f":"","\ud835\udd1e":""}`,
	// Values are no keys.
	`{"a":"b","b":"a","c":"a"}`, `{"a":"\u0061\ud834\udd1e\n","b":"{\"a\":\"\",\"a\":\"\"}"}`,
	// Of two errors it is the first.
	`{"a":"","a":1}`, `{"a":1,"a":""}`, `{"a":"","b":1,"a":""}`, `{"a":"","a":"","b":1}`,
	`{"a":"","a":"","b":x`, `{"a":"","a":`,
	`{"a":"","a"`, `{"a":"","a" 1}`, `{"a":"","a`, `{"a":"","\u0061":"\ud834"}`,
	`{"a":"","b":"\ud834","a":""}`, `{"a":"","\ud834":""}`,
	`{"a":"","a":"" "b":""}`, `{"a":"","a":"",}`, `{"a":"",,"a":""}`, `{"a":"","a":""]`,
	`{"a":[{"a":1,"a":1}],"b":{},"b":null}`,
	`{"a":tru,"a":""}`, `{"a":"","a":tru,"a":""}`, `{"\u0061\u0062":"\u0063\x"}`, `{"\u0061":"\u0062\ud834"}`,
	"{\"\\u0061\":\"\\u0062\n\"}",
	`[]`, `1`, `"a"`, ``, `nul`, `{`, `{"a":"`, `{1:2}`,
}

func TestMetadataKeys(t *testing.T) {
	for _, value := range metadataValues {
		checkMetadata(t, value)
		checkMetadata(t, value+`,"t":{}}`)
		if value == "" || value[0] != '{' {
			continue
		}
		// The same behind many other keys, and some that are long.
		var b strings.Builder
		for i := range 500 {
			fmt.Fprintf(&b, `"key %d":"%d",`, i, i)
		}
		for _, n := range []int{126, 127, 128, 1<<14 - 1, 1 << 14} {
			fmt.Fprintf(&b, `"%s":"%s",`, strings.Repeat("k", n), strings.Repeat("v", n))
		}
		checkMetadata(t, "{"+b.String()+value[1:])
	}
}

// randomMetadata returns an object of strings, and sometimes of others, that is mostly right but for keys that may be
// given twice.
func randomMetadata(r *rand.Rand, keys, different int) string {
	spell := func(key string) string {
		var b strings.Builder
		for _, c := range key {
			switch r.IntN(4) {
			case 0:
				fmt.Fprintf(&b, `\u%04x`, c)
			case 1:
				fmt.Fprintf(&b, `\u%04X`, c)
			default:
				b.WriteRune(c)
			}
		}
		return b.String()
	}
	values := []string{`""`, `"x"`, `"\u0061"`, ` "\ud834\udd1e" `, `1`, `[]`, `{"a":1,"a":[]}`, `null`, `"\ud834"`, `x`}
	good := len(values) - r.IntN(7)
	var b strings.Builder
	for i := range keys {
		if i > 0 {
			b.WriteByte(',')
		}
		value := values[r.IntN(4)]
		if r.IntN(keys) == 0 {
			value = values[r.IntN(good)]
		}
		fmt.Fprintf(&b, `"%s":%s`, spell(fmt.Sprintf("kÿz%d", r.IntN(different))), value)
	}
	return "{" + b.String() + "}"
}

func TestRandomMetadata(t *testing.T) {
	const seed = 11
	r := rand.New(rand.NewPCG(seed, 0))
	texts := slices.Clone(metadataValues)
	for n := range 1000 {
		keys := 1 + r.IntN(12)
		if n%40 == 0 {
			keys = 1 + r.IntN(3000)
		}
		texts = append(texts, randomMetadata(r, keys, 1+r.IntN(keys*keys+1)))
	}
	for _, text := range texts {
		checkMetadata(t, text)
		for range 5 {
			b := []byte(text)
			for range r.IntN(4) {
				if len(b) == 0 {
					break
				}
				switch i, j := r.IntN(len(b)), r.IntN(len(b)); r.IntN(4) {
				case 0:
					b[i] = `"\u{}[],:0a `[r.IntN(12)]
				case 1:
					b = slices.Delete(b, min(i, j), max(i, j))
				case 2:
					b = slices.Insert(b, i, b[min(i, j):min(max(i, j), min(i, j)+100)]...)
				case 3:
					b = b[:i]
				}
			}
			if utf8.Valid(b) {
				checkMetadata(t, string(b))
			}
		}
	}
}

// Of many keys it is always the first that was there before, whichever group it is in and whatever else is.
func TestManyMetadataKeys(t *testing.T) {
	const n = largestBlock + largestBlock/4 // more than a block, and several groups
	r := rand.New(rand.NewPCG(12, 0))
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf(`"%x":""`, i)
	}
	good := slices.Clone(keys)
	checkMetadata(t, "{"+strings.Join(good, ",")+"}")
	for _, again := range []int{1, 2, 3, 1000} {
		keys := slices.Clone(good)
		for range again {
			to := 1 + r.IntN(n-1)
			keys[to] = good[r.IntN(to)]
		}
		text := "{" + strings.Join(keys, ",") + "}"
		checkMetadata(t, text)

		set := newKeySet([]byte(text))
		s := &headerScanner{text: set.text}
		if err := s.enterObject(); err != nil {
			t.Fatal(err)
		}
		set.readObject(s)
		all, first := set.repeated(true), set.repeated(false)
		if len(all) == 0 || len(all) > again || !slices.Equal(first, all[:1]) {
			t.Errorf("%d keys are repeated, want at most %d; the first of %v is %v", len(all), again, all, first)
		}
	}
	// All the same, and the same two in turn.
	checkMetadata(t, "{"+strings.Repeat(`"a":"",`, n/20)+`"a":""}`)
	checkMetadata(t, `{"b":""`+strings.Repeat(`,"a":"","\u0062":""`, n/20)+"}")
}

// Keys whose hashes are equal, as far as records have them, are not taken for equal.
func TestEqualHashes(t *testing.T) {
	var b strings.Builder
	b.WriteString(`{"0":""`)
	const n = 1000
	for i := 1; i < n; i++ {
		fmt.Fprintf(&b, `,"%d":""`, i)
	}
	text := []byte(b.String() + `,"\u0031":"","20":"","30":"","1":""}`)
	for _, positionBits := range []int{16, 50, 56, 60, 63, 64} {
		keys := newKeySet(text)
		keys.positionBits = positionBits
		s := &headerScanner{text: text}
		if err := s.enterObject(); err != nil {
			t.Fatal(err)
		}
		if _, err := keys.readStrings(s); err != nil {
			t.Fatal(err)
		}
		if keys.n != n+4 {
			t.Errorf("%d keys, want %d", keys.n, n+4)
		}
		var got []string
		for _, pos := range keys.repeated(true) {
			got = append(got, string(keys.at(pos)))
		}
		if want := []string{"1", "20", "30", "1"}; !slices.Equal(got, want) {
			t.Errorf("with %d bits of position %q are repeated, want %q", positionBits, got, want)
		}
		if first := keys.repeated(false); len(first) != 1 || string(keys.at(first[0])) != "1" {
			t.Errorf("with %d bits of position %d are the first", positionBits, first)
		}
	}
}

// Who opens a file sees the error, and Violations shows all of them.
func TestMetadataKeyTwice(t *testing.T) {
	path := writeFile(t, fileBytes(`{"__metadata__":{"a":"","\u0061":"","b":"","b":1},"x":{}}`, 0))
	_, err := Open(path)
	wantError(t, err, path, `m.safetensors: __metadata__: key "a": given twice`)
	wantViolations(t, path, `m.safetensors: __metadata__: key "a": given twice`,
		`m.safetensors: __metadata__: key "b": given twice`,
		`m.safetensors: __metadata__: key "b": header byte 47: got '1', want a string`,
		`m.safetensors: tensor "x": no dtype`, `m.safetensors: tensor "x": no shape`,
		`m.safetensors: tensor "x": no data_offsets`)
}

// A header with little metadata is not kept for them.
func TestMetadataOfLargeHeader(t *testing.T) {
	text, _ := largeHeader(100_000, false)
	metadata := strings.Repeat(" ", 1000) + `"format":"\u0070\u0074"` + strings.Repeat("\t", 1000)
	text = append([]byte(`{"__metadata__":{`+metadata+`},`), text[1:]...)
	h, err := parseHeader(context.Background(), text)
	if err != nil {
		t.Fatal(err)
	}
	if n := cap(h.metadata.bytes); n > 16 {
		t.Errorf("%d bytes are kept", n)
	}
	clear(text)
	if got := fmt.Sprint(h.metadata.unpack()); got != "map[format:pt]" {
		t.Errorf("metadata %s", got)
	}
}

func FuzzMetadata(f *testing.F) {
	for _, value := range metadataValues {
		f.Add(value)
	}
	f.Fuzz(func(t *testing.T, text string) {
		if !utf8.ValidString(text) {
			t.Skip()
		}
		checkMetadata(t, text)
	})
}
