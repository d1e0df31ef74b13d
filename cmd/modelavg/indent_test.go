package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"testing"
)

// randomJSON returns a value with all that JSON has.
func randomJSON(depth int) any {
	strings := []string{"", "a", "\"", "\\", "\\\"", "{[,:]}", "\n<é\u2028>", " "}
	switch n := rand.IntN(10); {
	case depth > 0 && n < 3:
		list := make([]any, rand.IntN(4))
		for i := range list {
			list[i] = randomJSON(depth - 1)
		}
		return list
	case depth > 0 && n < 6:
		object := make(map[string]any)
		for range rand.IntN(4) {
			object[strings[rand.IntN(len(strings))]] = randomJSON(depth - 1)
		}
		return object
	case n < 8:
		return strings[rand.IntN(len(strings))]
	}
	return []any{nil, true, -1.5e-9, 0}[rand.IntN(4)]
}

// The reference is encoding/json.
func TestWriteIndented(t *testing.T) {
	for range 5000 {
		x := randomJSON(5)
		text, err := json.Marshal(x)
		if err != nil {
			t.Fatal(err)
		}
		want, err := json.MarshalIndent(x, "", "  ")
		if err != nil {
			t.Fatal(err)
		}
		var got bytes.Buffer
		if err := writeIndented(&got, text); err != nil || !bytes.Equal(got.Bytes(), want) {
			t.Fatalf("got %s, error %v, want %s", got.Bytes(), err, want)
		}
	}
}

// A failedWriter returns an error.
type failedWriter struct{ err error }

func (w failedWriter) Write([]byte) (int, error) { return 0, w.err }

func TestWriteIndentedError(t *testing.T) {
	want := errors.New("full")
	if err := writeIndented(failedWriter{want}, []byte(`{"a":[1,2]}`)); !errors.Is(err, want) {
		t.Errorf("error %v", err)
	}
}
