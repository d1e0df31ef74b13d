package checkpoint

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/modelavg/modelavg/internal/filelock"
)

// needLocks skips the test where directories cannot be locked.
func needLocks(t *testing.T) {
	t.Helper()
	f, err := filelock.Open(t.TempDir())
	if err != nil {
		t.Skip(err)
	}
	defer f.Close()
	if filelock.Lock(f) != filelock.Held {
		t.Skip("no locks")
	}
}

// While the output is being finished it cannot be discarded, and no part of it can begin.
func TestPartsLockedByFinish(t *testing.T) {
	needLocks(t)
	t.Chdir(t.TempDir())
	writeParts(t, "m", 2, partTensors(), 1)
	before := filesUnder(t, ".")
	u, err := OpenUnfinished("m")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if err := u.Check(t.Context(), true, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := DiscardParts("m"); !errors.Is(err, errFinishing) {
		t.Errorf("discard: %v", err)
	}
	if w, err := CreatePart("m", Part{1, 2}, partTensors(), nil, nil); !errors.Is(err, errFinishing) {
		t.Errorf("part: %v", err)
		w.Close()
	}
	checkFiles(t, filesUnder(t, "."), before)
	if err := u.Commit(WithoutSync()); err != nil {
		t.Fatal(err)
	}
	if err := u.Remove(); err != nil {
		t.Fatal(err)
	}
}

// While a part is running, which may be the repetition of one that is complete, the output can neither be finished nor
// discarded. What is missing is said all the same.
func TestPartsLockedByPart(t *testing.T) {
	needLocks(t)
	t.Chdir(t.TempDir())
	writePart(t, "m", Part{1, 2}, partTensors(), 1)
	w, err := CreatePart("m", Part{1, 2}, partTensors(), nil, nil, WithoutSync())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if err := finishParts("m"); !errors.Is(err, ErrMissingParts) {
		t.Error(err)
	}
	writePart(t, "m", Part{2, 2}, partTensors(), 1) // parts do not keep each other from running
	before := filesUnder(t, ".")
	if err := finishParts("m"); !errors.Is(err, errRunning) {
		t.Errorf("finish: %v", err)
	}
	if _, err := DiscardParts("m"); !errors.Is(err, errRunning) {
		t.Errorf("discard: %v", err)
	}
	checkFiles(t, filesUnder(t, "."), before)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := finishParts("m"); err != nil {
		t.Error(err)
	}
}

// A part leaves no record where its files are not those of the unfinished output any more: after it was discarded and
// begun anew, or once it is being finished. That may come from another machine, whose locks this one does not see.
func TestPartOfAnotherTime(t *testing.T) {
	for name, change := range map[string]func(){
		"discarded": func() { os.RemoveAll(".m.parts") },
		"begun anew": func() {
			os.Rename(".m.parts", "away")
			writePart(t, "m", Part{2, 2}, partTensors(), 1)
		},
		"finished": func() { os.WriteFile(filepath.Join(".m.parts", partsPlacing), nil, 0o666) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			w, err := CreatePart("m", Part{1, 2}, partTensors(), nil, nil, WithoutSync())
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			change()
			if err := w.Commit(t.Context(), nil); err == nil || name != "finished" && !errors.Is(err, errNotThere) {
				t.Errorf("error %v", err)
			}
			if list, err := filepath.Glob(filepath.Join(".m.parts", "part-1-*")); err != nil || len(list) > 0 {
				t.Errorf("record %q, %v", list, err)
			}
		})
	}
}

// What is left of a removal that was stopped goes with whatever comes next, and is taken for nothing else.
func TestRemovalStopped(t *testing.T) {
	needLocks(t)
	for name, next := range map[string]func(t *testing.T){
		"finish": func(t *testing.T) {
			if _, err := OpenUnfinished("m"); !errors.Is(err, ErrNoParts) {
				t.Error(err)
			}
		},
		"discard": func(t *testing.T) {
			if _, err := DiscardParts("m"); !errors.Is(err, ErrNoParts) {
				t.Error(err)
			}
		},
		"part": func(t *testing.T) {
			writePart(t, "m", Part{1, 1}, partTensors(), 1)
			if err := finishParts("m"); err != nil {
				t.Error(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			writePart(t, "m", Part{1, 2}, partTensors(), 1)
			if err := os.Rename(".m.parts", tempPrefix(".m.parts")+"0123456789abcdef"+tempSuffix); err != nil {
				t.Fatal(err)
			}
			next(t)
			if list, err := filepath.Glob(".*"); err != nil || len(list) > 0 {
				t.Errorf("%q are left, %v", list, err)
			}
		})
	}

	// Files in their places, and no plan any more: what only the old directory has is not lost.
	t.Chdir(t.TempDir())
	writeWhole(t, "m", partTensors(), 1, WithMaxShardSize(3<<20))
	own := filepath.Join(".m.parts", partsData, "own")
	if err := os.MkdirAll(own, 0o777); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{filepath.Join(own, "thesis"), filepath.Join(".m.parts", partsPlacing)} {
		if err := os.WriteFile(name, []byte("x"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := DiscardParts("m"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(filepath.Join("m", "own", "thesis")); err != nil {
		t.Error(err)
	}
}

// A record that was cut off says which part has to be run again, and a plan with an empty file, whose digest is right,
// is an error as any other.
func TestUnfinishedForged(t *testing.T) {
	t.Chdir(t.TempDir())
	writePart(t, "m", Part{1, 1}, partTensors(), 1)
	record := filepath.Join(".m.parts", recordName(Part{1, 1}))
	text, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 1, len(text) / 2, len(text) - 5} {
		if err := os.WriteFile(record, text[:n], 0o666); err != nil {
			t.Fatal(err)
		}
		if err := finishParts("m"); err == nil || !strings.Contains(err.Error(), "run part 1/1 again") {
			t.Errorf("record of %d bytes: %v", n, err)
		}
	}
	if err := os.WriteFile(record, text, 0o666); err != nil {
		t.Fatal(err)
	}
	foreign := filepath.Join(".m.parts", "part-1-of-1.json.bak")
	if err := os.WriteFile(foreign, text, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := finishParts("m"); err == nil || !strings.Contains(err.Error(), "is not the record of a part: remove it") {
		t.Error(err)
	}
	if err := os.Remove(foreign); err != nil {
		t.Fatal(err)
	}

	p, err := readPlan(".m.parts", "m")
	if err != nil {
		t.Fatal(err)
	}
	var r partRecord
	if err := json.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	for _, sizes := range [][2]int64{{0, 0}, {1, 0}, {-1, -1}, {5, 6}} {
		q := *p
		q.Files = slices.Clone(p.Files)
		q.Files[0].Size, q.Files[0].Data = sizes[0], sizes[1]
		q.Digest = q.digest()
		r.Digest, r.Spans = q.Digest, nil
		if err := writeJSON(filepath.Join(".m.parts", partsPlan), q, false, false); err != nil {
			t.Fatal(err)
		}
		if err := writeJSON(record, r, false, false); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(filepath.Join(".m.parts", partsData, "m"), max(sizes[0], 0)); err != nil {
			t.Fatal(err)
		}
		if err := finishParts("m"); err == nil || !strings.Contains(err.Error(), "the file is damaged: file") {
			t.Errorf("sizes %v: %v", sizes, err)
		}
	}
}
