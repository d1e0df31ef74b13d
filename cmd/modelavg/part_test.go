//go:build unix

package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// inParts runs the command line for every part, in the order given, and returns what they print.
func inParts(t *testing.T, line string, of int, order ...int) string {
	t.Helper()
	var text strings.Builder
	for _, i := range order {
		status, stdout, stderr := execute(t, fmt.Sprintf("%s --part %d/%d", line, i, of))
		if status != statusDone || stderr != "" {
			t.Fatalf("part %d: status %d, %s", i, status, stderr)
		}
		text.WriteString(stdout)
	}
	return text.String()
}

// sameBytes fails unless the two files are equal.
func sameBytes(t *testing.T, a, b string) {
	t.Helper()
	p, err := os.ReadFile(a)
	if err != nil {
		t.Fatal(err)
	}
	q, err := os.ReadFile(b)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(p, q) {
		t.Errorf("%s and %s differ", a, b)
	}
}

// All averaging commands in parts: the bytes are those of one process, and the report is the same.
func TestPart(t *testing.T) {
	for _, line := range []string{
		"mean a b c", "weighted -w 0.2,0.3,0.5 a b c", "ewa --decay 0.5 a b c --dtype bf16 --integers max",
		"mean a b c --max-shard-size 10",
	} {
		inDirectory(t)
		status, want, stderr := execute(t, line+" -o one")
		if status != statusDone {
			t.Fatal(stderr)
		}
		parts := inParts(t, line+" -o out", 3, 2, 3, 1, 3)
		if !strings.Contains(parts, "part 2/3 of out: ") || strings.Count(parts, "weight ") != 12 {
			t.Errorf("%s: the parts print\n%s", line, parts)
		}
		status, got, stderr := execute(t, "finish out")
		if status != statusDone || stderr != "" {
			t.Fatalf("%s: status %d, %s", line, status, stderr)
		}
		// The weights are printed by the parts, and the time that it took differs.
		report := func(text, path string) string {
			_, text, _ = strings.Cut(text, path+": ")
			text, _, _ = strings.Cut(text, " in ")
			return text
		}
		if g, w := report(got, "out"), report(want, "one"); g != w || !strings.HasSuffix(got, "\nwritten in 3 parts\n") {
			t.Errorf("%s: the report is\n%s\nwant\n%s", line, got, want)
		}
		info, err := os.Stat("one")
		if err != nil {
			t.Fatal(err)
		}
		if !info.IsDir() {
			sameBytes(t, "one", "out")
		} else {
			for name := range contents(t, "one") {
				sameBytes(t, filepath.Join("one", name), filepath.Join("out", name))
			}
			if got, want := len(contents(t, "out")), len(contents(t, "one")); got != want {
				t.Errorf("%s: %d files, want %d", line, got, want)
			}
		}
		if got := strings.Join(files(t), " "); got != "a b c one out" {
			t.Errorf("%s: files %s", line, got)
		}
		if status, _, stderr := execute(t, "finish -o out"); status != statusFailed ||
			!strings.Contains(stderr, "there is nothing to finish: there is no .out.parts") {
			t.Errorf("finished twice: status %d, %s", status, stderr)
		}
	}
}

// The output may be one of the inputs, which stays until the end, and keeps its permissions.
func TestPartOutputIsInput(t *testing.T) {
	inDirectory(t)
	if err := os.Chmod("a", 0o640); err != nil {
		t.Fatal(err)
	}
	if status, _, stderr := execute(t, "mean -o one a b c"); status != statusDone {
		t.Fatal(stderr)
	}
	inParts(t, "mean -o a a b c", 2, 2, 1, 2)
	if got := weightsIn(t, "a"); got[0] != 1 {
		t.Errorf("the input is %v before finish", got)
	}
	if status, _, stderr := execute(t, "finish a"); status != statusDone {
		t.Fatal(stderr)
	}
	sameBytes(t, "one", "a")
	if info, err := os.Stat("a"); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("%v, %v", info, err)
	}
}

// A model directory: shards, index and the other files.
func TestPartDirectory(t *testing.T) {
	for _, existing := range []bool{false, true} {
		inDirectory(t)
		for _, name := range []string{"d1", "d2"} {
			if status, _, stderr := execute(t, "mean a b c --max-shard-size 8 -o "+name); status != statusDone {
				t.Fatal(stderr)
			}
		}
		if err := os.WriteFile(filepath.Join("d1", "config.json"), []byte("{}"), 0o666); err != nil {
			t.Fatal(err)
		}
		if status, _, stderr := execute(t, "mean d1 d2 -o one"); status != statusDone {
			t.Fatal(stderr)
		}
		if existing { // with shards of the same names, and a file that is kept
			if status, _, stderr := execute(t, "mean c --max-shard-size 8 -o out"); status != statusDone {
				t.Fatal(stderr)
			}
			if err := os.WriteFile(filepath.Join("out", "own.txt"), []byte("own"), 0o666); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join("one", "own.txt"), []byte("own"), 0o666); err != nil {
				t.Fatal(err)
			}
		}
		inParts(t, "mean d1 d2 -o out/", 2, 1, 2)
		status, stdout, stderr := execute(t, "finish --json out")
		if status != statusDone {
			t.Fatal(stderr)
		}
		var got struct {
			Parts  int
			Report struct {
				Path     string
				Averaged []string
			}
			SideFiles struct{ Copied []string } `json:"side_files"`
		}
		if err := json.Unmarshal([]byte(stdout), &got); err != nil || got.Parts != 2 || got.Report.Path != "out" ||
			len(got.Report.Averaged) != 1 || len(got.SideFiles.Copied) != 1 {
			t.Errorf("%v: %s", err, stdout)
		}
		want, is := contents(t, "one"), contents(t, "out")
		if len(want) != len(is) {
			t.Errorf("%d files, want %d", len(is), len(want))
		}
		for name, text := range want {
			if is[name] != text {
				t.Errorf("%s differs", name)
			}
		}
		if list, err := filepath.Glob(".*"); err != nil || len(list) > 0 {
			t.Errorf("%q are left, %v", list, err)
		}
	}
}

// The model with the other files is gone, or on another machine: the weights are put in their place all the same, and
// that the others are not there is said.
func TestPartSideFilesGone(t *testing.T) {
	for _, flag := range []string{"", " --json"} {
		inDirectory(t)
		if status, _, stderr := execute(t, "mean a b --max-shard-size 8 -o d"); status != statusDone {
			t.Fatal(stderr)
		}
		if err := os.WriteFile(filepath.Join("d", "config.json"), []byte("{}"), 0o666); err != nil {
			t.Fatal(err)
		}
		inParts(t, "mean d c -o out/", 2, 1, 2)
		if err := os.Rename("d", "e"); err != nil {
			t.Fatal(err)
		}
		status, stdout, stderr := execute(t, "finish out"+flag)
		if want := "modelavg: the weights are written, but no other files are copied from "; status != statusDone ||
			!strings.HasPrefix(stderr, want) || !strings.Contains(stderr, "no such file or directory\n") ||
			strings.Contains(stdout, "side_files_error") != (flag != "") {
			t.Errorf("status %d, %s, %s", status, stdout, stderr)
		}
		if got := weightsIn(t, "out"); len(got) == 0 {
			t.Error("no weights")
		}
		if list, err := filepath.Glob(".*"); err != nil || len(list) > 0 {
			t.Errorf("%q are left, %v", list, err)
		}
	}
}

// What is wrong with parts is said, and nothing is written.
func TestPartRefused(t *testing.T) {
	for _, test := range []struct {
		line, want string
		status     int
	}{
		{"mean a b -o out --part 0/3", "--part 0/3: want a number from 1 to 3 before the slash", statusUsage},
		{"mean a b -o out --part 4/3", "--part 4/3: want a number from 1 to 3", statusUsage},
		{"mean a b -o out --part 1", "--part 1: want I/N, two whole numbers such as 1/8", statusUsage},
		{"mean a b -o out --part=", "--part: the value is empty, want I/N, two whole numbers such as 1/8", statusUsage},
		{"mean a b -o out --part-from-zero=", "--part-from-zero: the value is empty, want I/N", statusUsage},
		{"mean a b -o out --part= --part-from-zero 0/1", "exclude each other", statusUsage},
		{"mean a b -o out --part 1/0", "--part 1/0: want 1 to 1000000 parts", statusUsage},
		{"mean a b -o out --part-from-zero 3/3", "--part-from-zero 3/3: want a number from 0 to 2", statusUsage},
		{"mean a b -o out --part-from-zero 0/3 --part 1/3", "exclude each other", statusUsage},
		{"plan mean a b --part 1/3", "unknown flag: --part", statusUsage},
		{"soup a b -o out --eval x --part 1/3", "unknown flag: --part", statusUsage},
		{"mean a b -o out.npz --part 1/3", "out.npz: a .npz file cannot be written in parts, want safetensors", statusFailed},
		{"mean a b -o out.npy --part 1/3", "out.npy: a .npy file cannot be written in parts", statusFailed},
		{"mean a b -o none/out --part 1/3", "there is no directory none", statusFailed},
		{"finish", "no output given", statusUsage},
		{"finish a b", "2 outputs given: want one", statusUsage},
		{"finish a -o b", "given twice", statusUsage},
		{"finish --discard --no-check a", "--discard excludes", statusUsage},
		{"finish a", "a: there is nothing to finish: there is no .a.parts", statusFailed},
		{"finish --discard a", "a: there is nothing to discard: there is no .a.parts", statusFailed},
	} {
		inDirectory(t)
		status, _, stderr := execute(t, test.line)
		if status != test.status || !strings.Contains(stderr, test.want) {
			t.Errorf("%s: status %d, %q, want %q", test.line, status, stderr, test.want)
		}
		if got := strings.Join(files(t), " "); got != "a b c" {
			t.Errorf("%s: files %s", test.line, got)
		}
	}
}

// A part of another plan is refused and told what differs; so is finish as long as parts are missing.
func TestPartOfAnotherPlan(t *testing.T) {
	inDirectory(t)
	writeModel(t, "d", 2, 4, 41) // differs from c in one value
	inParts(t, "weighted -w 0.5,0.5 b c -o out", 8, 2, 3)
	for line, want := range map[string]string{
		"weighted -w 0.25,0.75 b c --part 1/8":                  "its weight of model 1 is 0.5, want 0.25",
		"weighted -w 0.5,0.5 b c --part 1/4":                    "its number of parts is 8, want 4",
		"weighted -w 0.5,0.5 b d --part 1/8":                    "plan: model 2 (d) has changed since the first part began, or is another one",
		"weighted -w 0.5,0.5 b c --part 1/8 --dtype f16":        "its dtype of averages is first, want F16",
		"weighted -w 0.5,0.5 b c --part 1/8 --integers max":     "its policy for integers is last, want max",
		"mean b c --part 1/8":                                   "its rule is weighted mean, want mean",
		"weighted -w 0.5,0.5 b c --max-shard-size 8 --part 1/8": "its output is one file, want a directory",
		"weighted -w 0.5,0.5 b c --exclude steps --part 1/8":    "its number of tensors is 2, want 1",
		"weighted -w 0.5,0.25,0.25 b c c --part 1/8":            "its number of models is 2, want 3",
	} {
		status, _, stderr := execute(t, line+" -o out")
		if status != statusFailed || !strings.Contains(stderr, want) ||
			!strings.Contains(stderr, "of out: .out.parts: the unfinished output is of another plan: ") ||
			!strings.HasSuffix(stderr, " (modelavg finish --discard out gives the unfinished output up, to begin anew)\n") {
			t.Errorf("%s: status %d, %q, want %q", line, status, stderr, want)
		}
		if strings.Contains(stderr, "sources and weights") { // which says less than what differs besides
			t.Errorf("%s: %q", line, stderr)
		}
	}
	status, _, stderr := execute(t, "finish out")
	if want := "modelavg: out: parts 1/8, 4/8, 5/8, 6/8, 7/8 and 8/8 are missing\n"; status != statusFailed || stderr != want {
		t.Errorf("status %d, %q, want %q", status, stderr, want)
	}
	inParts(t, "weighted -w 0.5,0.5 b c -o out", 8, 8, 7, 6, 4, 1)
	status, _, stderr = execute(t, "finish out")
	if want := "modelavg: out: part 5/8 is missing\n"; status != statusFailed || stderr != want {
		t.Errorf("status %d, %q, want %q", status, stderr, want)
	}
	if status, stdout, stderr := execute(t, "finish --discard out"); status != statusDone || stdout != "removed .out.parts\n" {
		t.Errorf("status %d, %q, %s", status, stdout, stderr)
	}
	if got := strings.Join(files(t), " "); got != "a b c d" {
		t.Errorf("files %s", got)
	}
}

// The part of a small model that gets no data says so.
func TestPartOfNothing(t *testing.T) {
	inDirectory(t)
	want := "part 1/3 of out: nothing to do: shares meet at multiples of 1 MiB, and other parts have all of the data\n"
	if got := inParts(t, "mean a b -o out", 3, 1); !strings.HasSuffix(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if got := inParts(t, "mean a b -o out", 3, 2, 3); !strings.Contains(got, "part 3/3 of out: 1 tensor averaged") {
		t.Error(got)
	}
	if status, _, stderr := execute(t, "finish out"); status != statusDone {
		t.Error(stderr)
	}
}

// A byte that is not what was written is found, in the data and in the header, and the part is named that has to be run
// again; after that all is well.
func TestPartDamaged(t *testing.T) {
	inDirectory(t)
	if err := manyTensors("large", 3, 4<<20, 1.5); err != nil {
		t.Fatal(err)
	}
	if status, _, stderr := execute(t, "mean large large -o one"); status != statusDone {
		t.Fatal(stderr)
	}
	writeModel(t, "out", 9, 9)
	inParts(t, "mean large large -o out", 4, 4, 3, 2, 1)
	for offset, want := range map[int64]string{
		20:          "the header has SHA-256",
		5<<20 + 123: "run part 2/4 again",
		12 << 20:    "run part 4/4 again",
	} {
		f, err := os.OpenFile(filepath.Join(".out.parts", "data", "out"), os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		var p [1]byte
		if _, err := f.ReadAt(p[:], offset); err != nil {
			t.Fatal(err)
		}
		if _, err := f.WriteAt([]byte{p[0] ^ 1}, offset); err != nil {
			t.Fatal(err)
		}
		status, _, stderr := execute(t, "finish out")
		if status != statusFailed || !strings.Contains(stderr, want) || !strings.Contains(stderr, "not what was written") {
			t.Errorf("byte %d: status %d, %q, want %q", offset, status, stderr, want)
		}
		if got := weightsIn(t, "out"); got[0] != 9 {
			t.Errorf("byte %d: the output is %v", offset, got)
		}
		if _, err := f.WriteAt(p[:], offset); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	if err := os.Truncate(filepath.Join(".out.parts", "data", "out"), 12<<20); err != nil {
		t.Fatal(err)
	}
	if status, _, stderr := execute(t, "finish --no-check out"); status != statusFailed || !strings.Contains(stderr,
		"has 12582912 bytes, want 12583") {
		t.Errorf("status %d, %q", status, stderr)
	}
	inParts(t, "mean large large -o out", 4, 4)
	if status, _, stderr := execute(t, "finish out"); status != statusDone {
		t.Fatal(stderr)
	}
	sameBytes(t, "one", "out")
}

// Parts count what is not finite and what overflows, and finish adds it up.
func TestPartCounts(t *testing.T) {
	inDirectory(t)
	if err := manyTensors("large", 2, 4<<20, 3e38); err != nil {
		t.Fatal(err)
	}
	if status, _, stderr := execute(t, "weighted -w 2,-1 large zero -o out --part 1/2"); status != statusFailed ||
		!strings.Contains(stderr, "zero") {
		t.Errorf("status %d, %s", status, stderr)
	}
	if err := manyTensors("zero", 2, 4<<20, 0); err != nil {
		t.Fatal(err)
	}
	inParts(t, "weighted -w 2,-1 large zero -o out", 5, 1, 2, 3, 4, 5)
	status, stdout, stderr := execute(t, "finish out")
	if want := "overflow: 1048576 elements of tensor \"t0\" became infinite\n" +
		"overflow: 1048576 elements of tensor \"t1\" became infinite\n"; status != statusDone || !strings.Contains(stdout, want) {
		t.Errorf("status %d, %s, %s", status, stdout, stderr)
	}
	// A dtype without infinity gets NaN. The report is that of one process but for the time.
	inParts(t, "weighted -w 2,-1 large zero --dtype f8_e4m3 -o small", 2, 1, 2)
	status, stdout, stderr = execute(t, "finish small")
	if want := "overflow: 1048576 elements of tensor \"t1\" became NaN\n"; status != statusDone ||
		!strings.Contains(stdout, want) {
		t.Errorf("status %d, %s, %s", status, stdout, stderr)
	}
	// An error of a policy ends the part that finds it.
	if status, _, stderr := execute(t, "weighted -w 2,-1 large zero -o new --overflow error --part 2/2"); status !=
		statusFailed || !strings.Contains(stderr, "too large") {
		t.Errorf("status %d, %s", status, stderr)
	}
	if status, _, stderr := execute(t, "finish new"); status != statusFailed || !strings.Contains(stderr, "missing") {
		t.Errorf("status %d, %s", status, stderr)
	}
}
