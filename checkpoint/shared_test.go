package checkpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"
)

// Models of equal headers share what is kept of them, and read their own data; others do not.
func TestSharedTensors(t *testing.T) {
	const header = `{"__metadata__":{"x":"y"},"b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"a":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}`
	file := func(header string, data ...byte) string {
		return writeFile(t, append(fileBytes(header, 0), data...))
	}
	first := open(t, file(header, 1, 2, 3))
	second := open(t, file(header, 4, 5, 6))
	if first.tensors != second.tensors {
		t.Error("equal headers are kept twice")
	}
	for _, other := range []string{
		`{"__metadata__":{"x":"z"},"b":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},"a":{"dtype":"U8","shape":[1],"data_offsets":[2,3]}}`,
		header + " ",
	} {
		m := open(t, file(other, 7, 8, 9))
		if m.tensors == first.tensors {
			t.Errorf("shared with %s", other)
		}
	}
	for m, want := range map[*Model]string{first: "[1 2] [3]", second: "[4 5] [6]"} {
		var b, a [2]byte
		if _, err := m.ReadAt("b", b[:], 0); err != nil {
			t.Error(err)
		}
		if _, err := m.ReadAt("a", a[:1], 0); err != nil {
			t.Error(err)
		}
		if got := fmt.Sprint(b, a[:1]); got != want {
			t.Errorf("data %s, want %s", got, want)
		}
	}

	// The same header before too little data, or too much, is as wrong as ever, and so is a context that is done.
	for _, data := range [][]byte{{1, 2}, {1, 2, 3, 4}} {
		if _, err := Open(file(header, data...)); err == nil {
			t.Errorf("opened with %d bytes of data", len(data))
		}
	}
	stopped := errors.New("stopped")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(stopped)
	if _, err := Open(first.path, WithContext(ctx)); !errors.Is(err, stopped) {
		t.Errorf("error %v", err)
	}
	// Who changes what was returned changes nothing of the others.
	first.Metadata()["x"] = "other"
	first.Tensors()[0].Name = "other"
	if got := fmt.Sprint(second.Metadata(), second.Tensors()); got != `map[x:y] ["a" U8 [1] "b" U8 [2]]` {
		t.Errorf("now %s", got)
	}
}

// Shards are shared as one, whatever the name of the directory, if their names are the same.
func TestSharedShards(t *testing.T) {
	model := func(layout string, fill byte) *Model {
		path := filepath.Join(t.TempDir(), "m")
		w := create(t, path, twoTensors, nil, WithShards([]Shard{
			{"x.safetensors", []string{layout[:1]}}, {"y.safetensors", []string{layout[1:]}},
		}))
		for _, x := range twoTensors {
			if _, err := w.WriteAt(x.Name, bytes.Repeat([]byte{fill}, int(x.Bytes())), 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Commit(); err != nil {
			t.Fatal(err)
		}
		return open(t, path)
	}
	x, y := model("ab", 1), model("ab", 2)
	if x.tensors != y.tensors {
		t.Error("equal shards are kept twice")
	}
	if z := model("ba", 3); z.tensors == x.tensors {
		t.Error("other shards are shared")
	}
	for m, want := range map[*Model]byte{x: 1, y: 2} {
		for _, tensor := range m.Tensors() {
			var p [1]byte
			if _, err := m.ReadAt(tensor.Name, p[:], 0); err != nil || p[0] != want {
				t.Errorf("tensor %s: %v, error %v, want %d", tensor.Name, p, err, want)
			}
		}
	}
	names := x.Shards()[0].Tensors
	names[0] = "other"
	if slices.Equal(y.Shards()[0].Tensors, names) {
		t.Error("the names of shards are shared with the caller")
	}
}

// Nothing is kept of models that are not used any more.
func TestSharedTensorsAreForgotten(t *testing.T) {
	m, err := Open(writeFile(t, fileBytes(`{"forgotten":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`, 1)))
	if err != nil {
		t.Fatal(err)
	}
	key := m.key
	if findTensors(key) != m.tensors {
		t.Fatal("not found while it is open")
	}
	m.Close()
	runtime.KeepAlive(m)
	m = nil
	for range 1000 {
		runtime.GC()
		openTensors.mu.Lock()
		_, ok := openTensors.byKey[key]
		openTensors.mu.Unlock()
		if !ok {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Error("still there")
}

// A header that is exchanged while it is read, between the two times that it is, is what it is when it is parsed.
func TestSharedTensorsOfChangedFile(t *testing.T) {
	const before = `{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}`
	const after = `{"a":{"dtype":"I8","shape":[2],"data_offsets":[0,2]}}`
	path := writeFile(t, fileBytes(before, 2))
	s, err := openSource(path)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if found, err := findHeader(s, int64(len(before)), 2); found != nil || err != nil {
		t.Fatalf("found %v, error %v", found, err)
	}
	if err := os.WriteFile(path, fileBytes(after, 2), 0o666); err != nil {
		t.Fatal(err)
	}
	changed, err := readTensors(t.Context(), s, int64(len(after)), 2)
	if err != nil {
		t.Fatal(err)
	}
	m := open(t, writeFile(t, fileBytes(before, 2)))
	if m.tensors == changed || m.entries[0].DType != U8 {
		t.Errorf("tensors %v", m.Tensors())
	}
	runtime.KeepAlive(changed)
}
