package checkpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/modelavg/modelavg/internal/filelock"
)

// partTensors are tensors of several MiB in all, among them some without data.
func partTensors() []Tensor {
	return []Tensor{
		{"a", F32, []int64{700_001}},
		{"b", BF16, []int64{2, 1_000_003}},
		{"empty", F64, []int64{0, 3}},
		{"scalar", I64, nil},
		{"c", U8, []int64{3_000_001}},
	}
}

// fillTensor returns the data of a tensor, which its name and the seed determine.
func fillTensor(t Tensor, seed uint64) []byte {
	random := rand.NewChaCha8([32]byte{byte(seed), t.Name[0], byte(len(t.Name))})
	p := make([]byte, t.Bytes())
	_, _ = random.Read(p) // never returns an error
	return p
}

// writeWhole writes the model as Create does.
func writeWhole(t testing.TB, path string, tensors []Tensor, seed uint64, opts ...CreateOption) {
	t.Helper()
	w, err := Create(path, tensors, nil, append(opts, WithoutSync())...)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for _, x := range tensors {
		if _, err := w.WriteAt(x.Name, fillTensor(x, seed), 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
}

// writePart writes a part of the model, in pieces, and commits it.
func writePart(t testing.TB, path string, part Part, tensors []Tensor, seed uint64, opts ...CreateOption) {
	t.Helper()
	w, err := CreatePart(path, part, tensors, nil, nil, append(opts, WithoutSync())...)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if w.Path() != path || w.Part() != part {
		t.Errorf("path %s, part %v", w.Path(), w.Part())
	}
	for _, r := range w.Ranges() {
		i := slices.IndexFunc(tensors, func(x Tensor) bool { return x.Name == r.Tensor })
		p := fillTensor(tensors[i], seed)[r.Offset:][:r.Length]
		for off := int64(0); off < r.Length; off += 300_000 {
			piece := p[off:min(off+300_000, r.Length)]
			if n, err := w.WriteAt(r.Tensor, piece, r.Offset+off); n != len(piece) || err != nil {
				t.Fatal(n, err)
			}
		}
	}
	if err := w.Commit(t.Context(), fmt.Appendf(nil, `{"of":%d}`, part.Number)); err != nil {
		t.Fatal(err)
	}
	if err := w.Commit(t.Context(), nil); !errors.Is(err, os.ErrClosed) {
		t.Errorf("second commit: %v", err)
	}
}

// writeParts writes all parts in random order.
func writeParts(t testing.TB, path string, of int, tensors []Tensor, seed uint64, opts ...CreateOption) {
	t.Helper()
	for _, i := range rand.Perm(of) {
		writePart(t, path, Part{i + 1, of}, tensors, seed, opts...)
	}
}

// finishParts does all steps of finishing.
func finishParts(path string) error {
	u, err := OpenUnfinished(path)
	if err != nil {
		return err
	}
	defer u.Close()
	if err := u.Check(context.Background(), true, nil); err != nil {
		return err
	}
	if err := u.Commit(WithoutSync()); err != nil {
		return err
	}
	return u.Remove()
}

// filesUnder returns the files of a directory and all below it.
func filesUnder(t testing.TB, root string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		name, _ := filepath.Rel(root, path)
		files[name] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// checkFiles fails unless two trees of files are equal.
func checkFiles(t testing.TB, got, want map[string]string) {
	t.Helper()
	for name, text := range want {
		if is, ok := got[name]; !ok || is != text {
			t.Errorf("file %s is not as it should be (there: %t, %d bytes, want %d)", name, ok, len(is), len(text))
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("file %s is too many", name)
		}
	}
}

// Any number of parts, in one file and in shards: the bytes are those of Create.
func TestParts(t *testing.T) {
	for _, opts := range [][]CreateOption{nil, {WithMaxShardSize(3 << 20)}, {WithMaxShardSize(1 << 30)}} {
		for _, of := range []int{1, 2, 3, 7, 40} {
			dir := t.TempDir()
			whole, parts := filepath.Join(dir, "whole"), filepath.Join(dir, "parts")
			for _, d := range []string{whole, parts} {
				if err := os.Mkdir(d, 0o777); err != nil {
					t.Fatal(err)
				}
			}
			writeWhole(t, filepath.Join(whole, "m"), partTensors(), 1, opts...)
			writeParts(t, filepath.Join(parts, "m"), of, partTensors(), 1, opts...)
			if err := finishParts(filepath.Join(parts, "m")); err != nil {
				t.Fatal(err)
			}
			checkFiles(t, filesUnder(t, parts), filesUnder(t, whole))
		}
	}
}

// The shares of the parts cover every byte of every tensor once, meet at multiples of a MiB in the files, and differ by
// at most that, as far as headers and ends of files allow it.
func TestPartRanges(t *testing.T) {
	large := []Tensor{
		{"huge", BF16, []int64{1 << 36}},
		{"x", F32, []int64{300_000_001}},
		{"y", F32, []int64{5}},
		{"z", I64, []int64{1 << 30}},
	}
	var many []Tensor // with a header of more than a MiB
	for i := range 20_000 {
		many = append(many, Tensor{fmt.Sprintf("a tensor with a long name, number %d", i), F32, []int64{100}})
	}
	for _, tensors := range [][]Tensor{partTensors(), large, {{"only", U8, []int64{1}}}, nil, many} {
		for _, shard := range []int64{0, 3 << 20, 1 << 32} {
			for _, of := range []int{1, 2, 3, 8, 500} {
				if len(tensors) > 1000 && of > 8 {
					continue // which takes long
				}
				o := createOptions{hasShardSize: shard > 0, maxShardSize: shard}
				written := make(map[string]int64) // up to where, in order
				var previous int64
				var total int64
				for i := range of {
					w := &PartWriter{path: "m", target: "m", part: Part{i + 1, of}, plan: &sharedPlan{Parts: of}}
					layouts, err := w.layOut(tensors, nil, o)
					if err != nil {
						t.Fatal(err)
					}
					total = 0
					for j, l := range layouts {
						w.files = append(w.files, &sharedFile{layout: l})
						total += w.plan.Files[j].Size
					}
					var n int64
					for _, r := range w.Ranges() {
						if r.Length <= 0 || r.Offset != written[r.Tensor] {
							t.Fatalf("part %d of %d: range %v, want one from %d on", i+1, of, r, written[r.Tensor])
						}
						written[r.Tensor] += r.Length
						n += r.Length
					}
					// The beginning of the part, in a file.
					c := w.cut(i)
					if c.offset%partAlignment != 0 || c.offset > 0 && c.offset <= w.plan.Files[c.file].Data {
						t.Errorf("part %d of %d begins at byte %d", i+1, of, c.offset)
					}
					if slack := int64(2*partAlignment + len(layouts)*partAlignment); n > total/int64(of)+slack {
						t.Errorf("part %d of %d has %d bytes of %d", i+1, of, n, total)
					}
					previous += n
				}
				for _, x := range tensors {
					if written[x.Name] != x.Bytes() {
						t.Errorf("%d parts: %d bytes of tensor %s, want %d", of, written[x.Name], x.Name, x.Bytes())
					}
				}
				if previous > total || total > math.MaxInt64/2 {
					t.Errorf("%d bytes in all, want fewer than %d", previous, total)
				}
			}
		}
	}
}

// Many processes begin at once: of one plan, all may; of two, only those of one.
func TestCreatePartAtOnce(t *testing.T) {
	for round := range 20 {
		path := filepath.Join(t.TempDir(), "m")
		var group sync.WaitGroup
		errs := make([]error, 8)
		for i := range errs {
			group.Go(func() {
				facts := []Fact{{Name: "color", Value: []string{"red", "blue"}[i%2*(round%2)]}}
				w, err := CreatePart(path, Part{i + 1, 8}, partTensors(), nil, facts, WithoutSync())
				if err == nil {
					err = w.Close()
				}
				errs[i] = err
			})
		}
		group.Wait()
		var kinds [2]int
		for i, err := range errs {
			switch {
			case err == nil:
				kinds[i%2*(round%2)]++
			case !errors.Is(err, ErrOtherPlan) || !strings.Contains(err.Error(), "its color is"):
				t.Error(err)
			}
		}
		if want := 8 >> (round % 2); max(kinds[0], kinds[1]) != want || min(kinds[0], kinds[1]) != 0 {
			t.Errorf("round %d: %v processes could begin, want %d of one plan", round, kinds, want)
		}
	}
}

// What a part refuses.
func TestCreatePartErrors(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "m")
	for _, test := range []struct {
		path string
		part Part
		opts []CreateOption
		want string
	}{
		{"", Part{1, 1}, nil, "empty"},
		{path, Part{0, 1}, nil, "part 0/1: want a number from 1 to 1"},
		{path, Part{2, 1}, nil, "part 2/1: want a number from 1 to 1"},
		{path, Part{1, 0}, nil, "part 1/0: want 1 to 1000000 parts"},
		{path + ".npz", Part{1, 1}, nil, "a .npz file cannot be written in parts, want safetensors"},
		{path + ".NPY", Part{1, 1}, nil, "a .npy file cannot be written in parts, want safetensors"},
		{dir, Part{1, 1}, nil, "is a directory"},
		{filepath.Join(dir, "none", "m"), Part{1, 1}, nil, "there is no directory"},
		{path, Part{1, 1}, []CreateOption{WithMaxShardSize(-1)}, "want more than zero"},
	} {
		_, err := CreatePart(test.path, test.part, partTensors(), nil, nil, test.opts...)
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s, part %v: error %v, want %q", test.path, test.part, err, test.want)
		}
	}
	if got := filesUnder(t, dir); len(got) != 0 {
		t.Errorf("files %v", got)
	}

	w, err := CreatePart(path, Part{1, 2}, partTensors(), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.WriteAt("none", nil, 0); !errors.Is(err, ErrNoTensor) {
		t.Error(err)
	}
	if _, err := w.WriteAt("scalar", make([]byte, 4), 5); err == nil || !strings.Contains(err.Error(), "does not fit") {
		t.Error(err)
	}
	if _, err := w.WriteAt("a", make([]byte, 8), 0); err != nil {
		t.Error(err)
	}
	if _, err := w.WriteAt("a", make([]byte, 8), 4); err == nil || !strings.Contains(err.Error(), "written before") {
		t.Error(err)
	}
	done, cancel := context.WithCancelCause(t.Context())
	cause := errors.New("enough")
	cancel(cause)
	if err := w.Commit(done, nil); !errors.Is(err, cause) {
		t.Error(err)
	}
}

// What a finish refuses: missing parts, bytes that no part has written, records and plans that are damaged or of
// others.
func TestUnfinishedErrors(t *testing.T) {
	path := filepath.Join(t.TempDir(), "m")
	if err := finishParts(path); !errors.Is(err, ErrNoParts) {
		t.Error(err)
	}
	writePart(t, path, Part{2, 30}, partTensors(), 1)
	err := finishParts(path)
	if !errors.Is(err, ErrMissingParts) || !strings.Contains(err.Error(), "parts 1/30, 3/30, 4/30") ||
		!strings.Contains(err.Error(), "21/30 and 9 more are missing") {
		t.Error(err)
	}
	if _, err := DiscardParts(path); err != nil {
		t.Fatal(err)
	}

	// Ranges of the caller, which leave something out.
	w, err := CreatePart(path, Part{1, 1}, partTensors(), nil, nil, WithoutSync())
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range partTensors() {
		if p := fillTensor(x, 1); x.Name != "a" {
			if _, err := w.WriteAt(x.Name, p, 0); err != nil {
				t.Fatal(err)
			}
		} else if _, err := w.WriteAt(x.Name, p[:100], 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Commit(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	if err := finishParts(path); !errors.Is(err, ErrIncomplete) {
		t.Error(err)
	}

	writePart(t, path, Part{1, 1}, partTensors(), 1)
	dir := filepath.Join(filepath.Dir(path), ".m.parts")
	u, err := OpenUnfinished(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := u.Commit(); err == nil || !strings.Contains(err.Error(), "want a Check before") {
		t.Error(err)
	}
	if got := u.Details(); len(got) != 1 || !strings.Contains(string(got[0]), `"of": 1`) {
		t.Errorf("details %q", got)
	}
	u.Close()

	// No byte of plan and record can be changed without an error; none is a panic.
	for _, name := range []string{partsPlan, recordName(Part{1, 1})} {
		file := filepath.Join(dir, name)
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for i := range text {
			damaged := slices.Clone(text)
			damaged[i] ^= 1 << (i % 8)
			if err := os.WriteFile(file, damaged, 0o666); err != nil {
				t.Fatal(err)
			}
			u, err := OpenUnfinished(path)
			if err != nil {
				continue
			}
			err = u.Check(t.Context(), true, nil)
			u.Close()
			// White space, the letters that JSON takes for the same, and what only the caller knows.
			if err == nil && name == partsPlan && !bytes.EqualFold(bytes.TrimSpace(text), bytes.TrimSpace(damaged)) &&
				text[i] != '\n' && text[i] != ' ' {
				t.Errorf("%s: byte %d, %q, can be changed to %q", name, i, text[i], damaged[i])
			}
		}
		if err := os.WriteFile(file, text, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	// A record of another plan.
	other := filepath.Join(filepath.Dir(path), "other")
	writePart(t, other, Part{1, 1}, partTensors()[1:], 1)
	text, err := os.ReadFile(filepath.Join(filepath.Dir(path), ".other.parts", recordName(Part{1, 1})))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, recordName(Part{1, 1})), text, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := finishParts(path); !errors.Is(err, ErrOtherPlan) || !strings.Contains(err.Error(), "part 1/1 of ") {
		t.Error(err)
	}
}

// What is in the way is not removed: by RemoveStale or Create nothing of an output that is being written, and by
// DiscardParts nothing that no part has written.
func TestDiscardParts(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "m")
	writePart(t, path, Part{1, 2}, partTensors(), 1)
	before := filesUnder(t, dir)
	if removed, err := RemoveStale(path); err != nil || len(removed) > 0 {
		t.Errorf("removed %q, %v", removed, err)
	}
	checkFiles(t, filesUnder(t, dir), before)
	writeWhole(t, path, partTensors(), 2)
	after := filesUnder(t, dir)
	delete(after, "m")
	checkFiles(t, after, before)

	foreign := filepath.Join(dir, ".m.parts", "thesis.tex")
	if err := os.WriteFile(foreign, nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := DiscardParts(path); err == nil || !strings.Contains(err.Error(), "thesis.tex") {
		t.Error(err)
	}
	if err := os.Remove(foreign); err != nil {
		t.Fatal(err)
	}
	removed, err := DiscardParts(path)
	if err != nil || removed != filepath.Join(dir, ".m.parts") {
		t.Errorf("%s, %v", removed, err)
	}
	if got := filesUnder(t, dir); len(got) != 1 {
		t.Errorf("%d files, want m alone", len(got))
	}
	if _, err := DiscardParts(path); !errors.Is(err, ErrNoParts) {
		t.Error(err)
	}
	if _, err := CreatePart(path, Part{1, 1}, partTensors(), nil, nil); err != nil {
		t.Error(err)
	}
	// The remains of a removal that was stopped.
	if err := os.Remove(filepath.Join(dir, ".m.parts", partsPlan)); err != nil {
		t.Fatal(err)
	}
	if _, err := CreatePart(path, Part{1, 1}, partTensors(), nil, nil); err == nil || !strings.Contains(err.Error(),
		"has no plan and is not empty") {
		t.Error(err)
	}
	if _, err := OpenUnfinished(path); !errors.Is(err, ErrNoParts) {
		t.Error(err)
	}
}

// A finish was stopped at any moment of what it does, which is made here by hand: the next one completes it, with or
// without reading the data where there is no doubt, and also if old and new files are in part the same.
func TestFinishStopped(t *testing.T) {
	shards := WithMaxShardSize(3 << 20)
	move := func(t *testing.T, from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		name string
		old  uint64 // seed of what was there; 0 if there was nothing
		opts []CreateOption
		stop func(t *testing.T, data string) // in the directory of m and .m.parts
	}{
		{"file, about to be renamed", 2, nil, func(*testing.T, string) {}},
		{"file, renamed", 2, nil, func(t *testing.T, data string) { move(t, filepath.Join(data, "m"), "m") }},
		{"new directory, renamed", 0, []CreateOption{shards}, func(t *testing.T, data string) { move(t, data, "m") }},
		{"old directory, to be exchanged", 2, []CreateOption{shards}, func(*testing.T, string) {}},
		{"old directory, exchanged", 2, []CreateOption{shards}, func(t *testing.T, data string) {
			move(t, "m", "t")
			move(t, data, "m")
			move(t, "t", data)
		}},
		{"old directory, exchanged, in part removed", 2, []CreateOption{shards}, func(t *testing.T, data string) {
			move(t, "m", "t")
			move(t, data, "m")
			move(t, "t", data)
			if err := os.Remove(filepath.Join(data, "model-00001-of-00003.safetensors")); err != nil {
				t.Fatal(err)
			}
		}},
		{"same directory, exchanged", 1, []CreateOption{shards}, func(t *testing.T, data string) {
			move(t, "m", "t")
			move(t, data, "m")
			move(t, "t", data)
		}},
		{"old directory, one shard in its place", 2, []CreateOption{shards}, func(t *testing.T, data string) {
			name := "model-00002-of-00003.safetensors"
			move(t, filepath.Join(data, name), filepath.Join("m", name))
			if err := os.Remove(filepath.Join("m", indexName)); err != nil {
				t.Fatal(err)
			}
		}},
		{"old directory and index, one shard in its place", 2, []CreateOption{shards}, func(t *testing.T, data string) {
			name := "model-00002-of-00003.safetensors"
			move(t, filepath.Join(data, name), filepath.Join("m", name))
		}},
		{"old directory, all in place but the index", 2, []CreateOption{shards}, func(t *testing.T, data string) {
			for i := range 3 {
				name := fmt.Sprintf("model-%05d-of-00003.safetensors", i+1)
				move(t, filepath.Join(data, name), filepath.Join("m", name))
			}
			if err := os.Remove(filepath.Join("m", indexName)); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			writeWhole(t, "want", partTensors(), 1, test.opts...)
			if test.old > 0 {
				writeWhole(t, "m", partTensors(), test.old, test.opts...)
			}
			writeParts(t, "m", 3, partTensors(), 1, test.opts...)
			if err := os.WriteFile(filepath.Join(".m.parts", partsPlacing), []byte("{}\n"), 0o666); err != nil {
				t.Fatal(err)
			}
			test.stop(t, filepath.Join(".m.parts", partsData))
			// A part that begins now would write into what is perhaps not the unfinished output any more.
			if _, err := CreatePart("m", Part{1, 3}, partTensors(), nil, nil, test.opts...); err == nil {
				t.Error("a part could begin")
			}
			// Nor may it be discarded, with which the old model or files of the new one might be lost.
			before := filesUnder(t, ".")
			if _, err := DiscardParts("m"); err == nil || !strings.Contains(err.Error(), "or that was stopped: finish it") {
				t.Errorf("discard: %v", err)
			}
			checkFiles(t, filesUnder(t, "."), before)
			u, err := OpenUnfinished("m")
			if err != nil {
				t.Fatal(err)
			}
			defer u.Close()
			if err := u.Check(t.Context(), false, nil); err != nil {
				t.Fatal(err)
			}
			if err := u.Commit(WithoutSync()); err != nil {
				t.Fatal(err)
			}
			if err := u.Remove(); err != nil {
				t.Fatal(err)
			}
			got := filesUnder(t, ".")
			is, want := make(map[string]string), make(map[string]string)
			for name, text := range got {
				if rest, ok := strings.CutPrefix(name, "want"); ok {
					want[rest] = text
					continue
				}
				is[strings.TrimPrefix(name, "m")] = text
			}
			checkFiles(t, is, want)
		})
	}
}

// Two processes of one machine cannot finish at once, and shards of the old model that the new one has not are removed.
func TestFinishRemovesReplaced(t *testing.T) {
	t.Chdir(t.TempDir())
	writeWhole(t, "m", partTensors(), 1, WithMaxShardSize(2<<20))
	old := filesUnder(t, "m")
	writeParts(t, "m", 2, partTensors(), 1, WithMaxShardSize(3<<20))
	u, err := OpenUnfinished("m")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if u.lock != nil && filelock.Lock(u.lock) != filelock.Unsupported {
		if _, err := OpenUnfinished("m"); err == nil || !strings.Contains(err.Error(), "another process") {
			t.Error(err)
		}
	}
	if err := u.Check(t.Context(), true, nil); err != nil {
		t.Fatal(err)
	}
	if err := u.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := u.Remove(); err != nil {
		t.Fatal(err)
	}
	if got := u.Removed(); len(got) != len(old)-1 {
		t.Errorf("removed %q of %d files", got, len(old))
	}
	writeWhole(t, "want", partTensors(), 1, WithMaxShardSize(3<<20))
	checkFiles(t, filesUnder(t, "m"), filesUnder(t, "want"))
}

// A commit that fails leaves what the parts have written, so that it can be tried again.
func TestFinishFails(t *testing.T) {
	for _, existing := range []bool{false, true} {
		t.Chdir(t.TempDir())
		opts := WithMaxShardSize(3 << 20)
		name := filepath.Join("m", "model-00002-of-00003.safetensors")
		writeParts(t, "m", 2, partTensors(), 1, opts)
		before := filesUnder(t, ".m.parts")
		if existing {
			writeWhole(t, "m", partTensors(), 2, opts)
			if err := os.Remove(name); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.MkdirAll(name, 0o777); err != nil { // which no file can replace
			t.Fatal(err)
		}
		if err := finishParts("m"); err == nil || !strings.Contains(err.Error(), "is a directory") {
			t.Error(err)
		}
		// Nothing was moved, so that parts may be run again.
		checkFiles(t, filesUnder(t, ".m.parts"), before)
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
		writePart(t, "m", Part{1, 2}, partTensors(), 1, opts)
		if err := finishParts("m"); err != nil {
			t.Fatal(err)
		}
		writeWhole(t, "want", partTensors(), 1, opts)
		checkFiles(t, filesUnder(t, "m"), filesUnder(t, "want"))
	}
}
