package checkpoint

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzIndex compares the parser of the index with encoding/json.
func FuzzIndex(f *testing.F) {
	for _, text := range []string{
		goodIndex, "", "[]", "{}", `{"weight_map":{}}`, `{"weight_map":null}`, `{"weight_map":{"a":"s"},"weight_map":{"a":"s"}}`,
		`{"weight_map":{"a":"s","\u0061":"s"}}`, `{"weight_map":{"a":1}}`, `{"weight_map":{"a":["s"]}}`, `{"weight_map":{"a":"../s"}}`,
		`{"weight_map":{"a":"s\u0000"}}`, `{"weight_map":{"\ud834\udd1e":"s"},"x":[[1e5,-0.1,{}]]}x`,
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		want, wantErr := referenceIndex(text)
		got, err := parseIndex(bytes.Clone(text))
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("index %q: error %v, want %v", text, err, wantErr)
		}
		if err != nil {
			if len(err.Error()) > 2000 {
				t.Fatalf("an error of %d bytes", len(err.Error()))
			}
			return
		}
		if !maps.Equal(got, want) {
			t.Fatalf("index %q: %q, want %q", text, got, want)
		}
		// Whatever the name, it is in the directory.
		for _, file := range got {
			if path := filepath.Join("dir", file); filepath.Dir(path) != "dir" || filepath.Base(path) != file {
				t.Fatalf("index %q: file %q leads to %q", text, file, path)
			}
		}
		var plans []shardPlan
		for name, file := range got {
			plans = append(plans, shardPlan{file, []Tensor{{Name: name, DType: U8}}})
		}
		back, err := parseIndex(appendIndex(nil, plans))
		if err != nil || !maps.Equal(back, got) {
			t.Fatalf("written %q: %q, %v, want %q", appendIndex(nil, plans), back, err, got)
		}
	})
}

func referenceIndex(text []byte) (map[string]string, error) {
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
	object, ok := value.([]member)
	if !ok || depth > maxDepth {
		return nil, errors.New("no object, or nested too deep")
	}
	var result map[string]string
	for _, m := range object {
		if m.key != "weight_map" {
			continue
		}
		files, ok := m.value.([]member)
		if !ok || result != nil {
			return nil, errors.New("weight_map twice or no object")
		}
		result = make(map[string]string)
		for _, f := range files {
			file, ok := f.value.(string)
			if _, twice := result[f.key]; twice || !ok || !referenceFileName(file) {
				return nil, errors.New("tensor twice, no string, or no file name")
			}
			result[f.key] = file
		}
	}
	if len(result) == 0 {
		return nil, errors.New("no weight_map")
	}
	return result, nil
}

// referenceFileName says the same as checkFileName by a list of what is allowed in each place.
func referenceFileName(name string) bool {
	if name == "" || len(name) > 255 || strings.Trim(name, ".") == "" && len(name) < 3 {
		return false
	}
	for _, r := range name {
		switch {
		case r < 0x20, r == 0x7f, r == '/', r == '\\', r == ':':
			return false
		}
	}
	if last := name[len(name)-1]; last == '.' || last == ' ' {
		return false
	}
	first := strings.ToUpper(strings.TrimRight(strings.SplitN(name, ".", 2)[0], " "))
	for _, device := range strings.Fields("CON PRN AUX NUL CONIN$ CONOUT$") {
		if first == device {
			return false
		}
	}
	for _, n := range strings.Fields("0 1 2 3 4 5 6 7 8 9 ¹ ² ³") {
		if first == "COM"+n || first == "LPT"+n {
			return false
		}
	}
	return true
}
