//go:build unix

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/modelavg/modelavg/checkpoint"
)

// scoreVariable makes the test's own program an evaluator, see TestMain; its value is the path of a log.
const scoreVariable = "MODELAVG_TEST_SCORE"

// printScore is what the evaluator does: it adds the model to the log, and prints minus the distance of the first weight
// from 5.
func printScore(logPath, path string) error {
	m, err := checkpoint.Open(path)
	if err != nil {
		return err
	}
	defer m.Close()
	var p [4]byte
	if _, err := m.ReadAt("weight", p[:], 0); err != nil {
		return err
	}
	bits := uint32(p[0]) | uint32(p[1])<<8 | uint32(p[2])<<16 | uint32(p[3])<<24
	f, err := os.OpenFile(logPath, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o666)
	if err != nil {
		return err
	}
	defer f.Close()
	fmt.Fprintln(f, filepath.Base(path))
	fmt.Printf("7 is not the score, which is %v\n\n", -math.Abs(float64(math.Float32frombits(bits))-5))
	return nil
}

// evaluations returns which models were scored since the last call.
func evaluations(t *testing.T) []string {
	t.Helper()
	text, err := os.ReadFile("evaluations")
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	os.Remove("evaluations")
	if len(text) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSpace(string(text)), "\n")
}

// evaluator returns the words of a command line for soup with the test's evaluator.
func evaluator(t *testing.T, args ...string) []string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(scoreVariable, "evaluations")
	return append([]string{"soup", "--eval", shellQuote(self) + " {}", "-o", "out"}, args...)
}

func TestSoup(t *testing.T) {
	t.Chdir(t.TempDir())
	for name, weight := range map[string]float32{"a": 6.2, "b": 2, "c": 4, "d": 8, "e e": 8.5} {
		writeModel(t, name, 0, weight)
	}
	// In the order of their scores they are c, a, b, d and e. c and a have the mean 5.1, which is better than 4; with b it
	// is 4.07, with d 6.07 and with e 6.23.
	args := evaluator(t, "--log", "log", "a", "b", "c", "d", "e e")
	status, stdout, stderr := executeArgs(t, args...)
	if status != statusDone || stderr != "" {
		t.Fatalf("status %d, %s", status, stderr)
	}
	if got := weightsIn(t, "out"); !slices.Equal(got, []float32{float32((4 + float64(float32(6.2))) / 2)}) {
		t.Errorf("got %v, want 5.1\n%s", got, stdout)
	}
	const mean = "mean.safetensors"
	if got, want := evaluations(t), []string{"a", "b", "c", "d", "e e", mean, mean, mean, mean}; !slices.Equal(got,
		want) {
		t.Errorf("evaluated %q, want %q", got, want)
	}
	for _, want := range []string{
		"score of b: -3\n", "start with c: -1\n", "with a: -0.0999", ", added\n", "with b: -0.93", "with d: ",
		"left out\n", "2 of 5 models: a + c\n",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("stdout\n%s\nwant %q in it", stdout, want)
		}
	}
	m, err := checkpoint.Open("out")
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if got := m.Metadata(); got["soup.ingredients"] != `["a","c"]` || !strings.HasPrefix(got["soup.score"], "-0.0999") {
		t.Errorf("metadata %v", got)
	}
	if got, want := files(t), []string{"a", "b", "c", "d", "e e", "log", "out"}; !slices.Equal(got, want) {
		t.Errorf("files %q, want %q", got, want)
	}

	// The same again asks for no score.
	before, err := os.ReadFile("out")
	if err != nil {
		t.Fatal(err)
	}
	status, again, stderr := executeArgs(t, args...)
	const mark = " (from the log)"
	if unmarked := strings.ReplaceAll(again, mark, ""); status != statusDone || strings.Count(again, mark) != 9 ||
		strings.Split(unmarked, "\nread")[0] != strings.Split(stdout, "\nread")[0] || strings.Contains(stdout, mark) {
		t.Errorf("status %d, %s\n%s\nwant\n%s", status, stderr, again, stdout)
	}
	if got := evaluations(t); got != nil {
		t.Errorf("evaluated %q again", got)
	}
	if after, err := os.ReadFile("out"); err != nil || !slices.Equal(after, before) {
		t.Errorf("the second soup differs: %v", err)
	}

	// A run that was killed while it wrote the log goes on after the last whole line.
	text, err := os.ReadFile("log")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(text), "\n")
	if err := os.WriteFile("log", []byte(strings.Join(lines[:3], "")+lines[3][:20]), 0o666); err != nil {
		t.Fatal(err)
	}
	if status, _, stderr := executeArgs(t, args...); status != statusDone {
		t.Errorf("status %d, %s", status, stderr)
	}
	if got := len(evaluations(t)); got != 6 {
		t.Errorf("%d evaluations after the loss of all but 3, want 6", got)
	}
	if again, err := os.ReadFile("log"); err != nil || string(again) != string(text) {
		t.Errorf("log\n%s\nwant\n%s", again, text)
	}

	// Scores of a file that has changed, and of the means with it, are asked for again.
	if err := os.Chtimes("b", time.Time{}, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if status, _, stderr := executeArgs(t, args...); status != statusDone {
		t.Errorf("status %d, %s", status, stderr)
	}
	if got := evaluations(t); !slices.Equal(got, []string{"b", mean}) {
		t.Errorf("evaluated %q after a change of b", got)
	}
	// So are those of other flags.
	if status, _, stderr := executeArgs(t, append(args, "--integers", "first")...); status != statusDone {
		t.Errorf("status %d, %s", status, stderr)
	}
	if got := evaluations(t); len(got) != 9 {
		t.Errorf("%d evaluations for other flags, want 9", len(got))
	}
}

func TestSoupMinimizeAndJSON(t *testing.T) {
	inDirectory(t)
	status, stdout, stderr := executeArgs(t, evaluator(t, "--minimize", "--json", "a", "b", "c")...)
	if status != statusDone || stderr != "" {
		t.Fatalf("status %d, %s", status, stderr)
	}
	var got struct {
		Scores []struct {
			Path  string
			Score float64
		}
		Ingredients []string
		Score       float64
		Report      struct{ Path string }
		Plan        struct{ Rule string }
	}
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatalf("%v\n%s", err, stdout)
	}
	// The worst is a, with −4; the mean with any other is nearer to 5.
	if !slices.Equal(got.Ingredients, []string{"a"}) || got.Score != -4 || len(got.Scores) != 3 ||
		got.Scores[2].Score != -1 ||
		got.Report.Path != "out" || got.Plan.Rule != "mean" {
		t.Errorf("got %+v", got)
	}
	if w := weightsIn(t, "out"); !slices.Equal(w, []float32{1, 10}) {
		t.Errorf("got %v, want a", w)
	}
}

// A model that makes nothing better is left out, also when it makes nothing worse; names may have quotes in them.
func TestSoupOfEqualModels(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, name := range []string{"it's", "$HOME\"x", "c"} {
		writeModel(t, name, 0, 4)
	}
	status, stdout, stderr := executeArgs(t, evaluator(t, "it's", "$HOME\"x", "c")...)
	if status != statusDone || stderr != "" || !strings.Contains(stdout, "1 of 3 models: it's\n") {
		t.Errorf("status %d, %s\n%s", status, stderr, stdout)
	}
	if got := evaluations(t); len(got) != 5 || got[0] != "it's" || got[1] != "$HOME\"x" {
		t.Errorf("evaluated %q", got)
	}
}

func TestSoupNaN(t *testing.T) {
	s := &soup{}
	nan := math.NaN()
	for _, test := range []struct {
		a, b float64
		want bool
	}{{1, 0, true}, {0, 1, false}, {1, 1, false}, {1, nan, true}, {nan, 1, false}, {nan, nan, false}, {
		math.Inf(1), 1,
		true,
	}} {
		if got := s.better(test.a, test.b); got != test.want {
			t.Errorf("better(%v, %v) = %v, want %v", test.a, test.b, got, test.want)
		}
	}
	s.minimize = true
	if s.better(1, 0) || !s.better(0, 1) || s.better(nan, 1) || !s.better(1, nan) || s.better(1, 1) {
		t.Error("minimize is not the other way round")
	}
}

func TestSoupFailures(t *testing.T) {
	for _, test := range []struct {
		command, want string
	}{
		{"false {}", "score of a: false {}: exit status 1\n"},
		{"echo to stderr >&2; exit 3; {}", "score of a: echo to stderr >&2; exit 3; {}: exit status 3\n"},
		{"echo no digits; true {}", `score of a: echo no digits; true {}: it printed no number, but "no digits"` + "\n"},
		{"no-such-program {}", "not found"},
		{"test {} != 'a' && exit 4; echo 1", "exit status 4"}, // the first mean
	} {
		inDirectory(t)
		before := files(t)
		status, _, stderr := executeArgs(t, "soup", "--eval", test.command, "-o", "out", "a", "a")
		if status != statusFailed || !strings.Contains(stderr, test.want) {
			t.Errorf("%s: status %d, stderr %q, want %q", test.command, status, stderr, test.want)
		}
		if said, ok := strings.CutPrefix(stderr, "to stderr\n"); ok { // is passed through
			stderr = said
		} else if strings.Contains(test.command, ">&2") {
			t.Errorf("%s: what it says to stderr is not in %q", test.command, stderr)
		}
		if test.want != "not found" { // the shell says so
			checkErrorLine(t, test.command, stderr, "")
		}
		if got := files(t); !slices.Equal(got, before) {
			t.Errorf("%s: files %q", test.command, got)
		}
	}
	inDirectory(t)
	if err := os.WriteFile("log", []byte("{\"key\":\"x\",\"files\":[],\"score\":\"1\"}\nnonsense\n"),
		0o666); err != nil {
		t.Fatal(err)
	}
	if status, _, stderr := executeArgs(t, evaluator(t, "--log", "log", "a")...); status != statusFailed ||
		!strings.Contains(stderr, "log: line 2 is no score") {
		t.Errorf("status %d, stderr %q", status, stderr)
	}
	if status, _, stderr := executeArgs(t, evaluator(t, "a", "none")...); status != statusFailed ||
		!strings.Contains(stderr, "none") {
		t.Errorf("status %d, stderr %q", status, stderr)
	}
}

func TestLastNumber(t *testing.T) {
	for text, want := range map[string]float64{
		"0.5":                     0.5,
		"accuracy 91.77 %":        91.77,
		"a 1\nb 2\n":              2,
		"-3":                      -3,
		"loss: 1.5e-3\n":          0.0015,
		"1.":                      1,
		".25":                     0.25,
		"epoch 3 +Inf":            math.Inf(1),
		"-inf":                    math.Inf(-1),
		"\x1b[32macc 0.93\x1b[0m": 0.93,
		"0.9 (top1)":              0.9,
		"0.9 f1":                  0.9,
		"0.9 v1.2.3 0x10 1_000":   0.9,
		"0.9\n2026-11-25 done":    0.9,
		"0.9, 1,234.5":            0.9,
		"0.9 on .s.c0.8e1.scratch/mean.safetensors run1.safetensors": 0.9,
		"accuracy=0.91, loss: 2;":                                    2,
		"{\"loss\": 0.25}":                                           0.25,
		"[0.5]":                                                      0.5,
		"(93.5%).":                                                   93.5,
		"information 4, infinite ∞":                                  4,
	} {
		if got, err := lastNumber(text); err != nil || got != want {
			t.Errorf("lastNumber(%q) = %v, %v, want %v", text, got, err, want)
		}
	}
	if got, err := lastNumber("loss 2 then NaN"); err != nil || !math.IsNaN(got) {
		t.Errorf("got %v, %v, want NaN", got, err)
	}
	for _, text := range []string{"none", "run1", "1.2.3", "", "-", "1e999"} {
		if got, err := lastNumber(text); err == nil {
			t.Errorf("lastNumber(%q) = %v, want an error", text, got)
		}
	}
}

// The example of the repository: the checkpoints of the digit classifier, scored by its own program.
func TestSoupOfDigits(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the example")
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	digits := filepath.Join(dir, "digits")
	build(t, filepath.Join(root, "examples", "digits"), digits)
	t.Chdir(root)
	out := filepath.Join(dir, "soup.safetensors")
	args := []string{"soup", "--eval", shellQuote(digits) + " -score {}", "-o", out, "--json"}
	for k := range 8 {
		args = append(args, filepath.Join("testdata", "digits", fmt.Sprintf("checkpoint-%02d.safetensors", k+1)))
	}
	status, stdout, stderr := executeArgs(t, args...)
	if status != statusDone {
		t.Fatalf("status %d, %s", status, stderr)
	}
	var got struct {
		Scores      []struct{ Score float64 }
		Ingredients []string
		Score       float64
	}
	if err := json.Unmarshal([]byte(stdout), &got); err != nil {
		t.Fatal(err)
	}
	best := 0.0
	for _, s := range got.Scores {
		best = max(best, s.Score)
	}
	t.Logf("%d ingredients, %v %% against %v %% of the best of %d", len(got.Ingredients), got.Score, best,
		len(got.Scores))
	if best != 90.77 || got.Score != 92.32 || len(got.Ingredients) != 4 {
		t.Errorf("best %v, soup %v of %q; want 90.77 and 92.32 of four", best, got.Score, got.Ingredients)
	}
	if score, err := evaluate(t.Context(), shellQuote(digits)+" -score {}", out, io.Discard); err != nil || score != got.Score {
		t.Errorf("the output scores %v, %v; want %v", score, err, got.Score)
	}
}

// The models are directories: so are the means that are scored, with the other files of a model, and the output.
func TestSoupOfDirectories(t *testing.T) {
	t.Chdir(t.TempDir())
	writeDirectory(t, "a", 4)
	writeDirectory(t, "b", 5.5)
	writeDirectory(t, "c", 50)
	args := evaluator(t, "--log", "log", "a", "b", "c")
	args[2] = "test -f {}/config.json && " + args[2]
	status, stdout, stderr := executeArgs(t, args...)
	if status != statusDone || stderr != "" {
		t.Fatalf("status %d, %s", status, stderr)
	}
	if got := weightsIn(t, "out"); !slices.Equal(got, []float32{4.75, 47.5}) {
		t.Errorf("got %v, want 4.75\n%s", got, stdout)
	}
	if got, want := evaluations(t), []string{"a", "b", "c", "mean", "mean"}; !slices.Equal(got, want) {
		t.Errorf("evaluated %q, want %q", got, want)
	}
	if got, want := files(t), []string{"a", "b", "c", "log", "out"}; !slices.Equal(got, want) {
		t.Errorf("files %q, want %q", got, want)
	}
	if got := list(t, "out"); !slices.Equal(got, twoShards) {
		t.Errorf("files in the output %q, want %q", got, twoShards)
	}
	// A shard that changes makes its scores old; another file does not.
	later := time.Now().Add(time.Hour)
	if err := os.Chtimes("b/config.json", later, later); err != nil {
		t.Fatal(err)
	}
	executeArgs(t, args...)
	if got := evaluations(t); got != nil {
		t.Errorf("evaluated %q again", got)
	}
	if err := os.Chtimes(filepath.Join("b", twoShards[2]), later, later); err != nil {
		t.Fatal(err)
	}
	executeArgs(t, args...)
	if got := evaluations(t); len(got) != 3 || got[0] != "b" {
		t.Errorf("evaluated %q after a change of b", got)
	}
}

// What the metadata of a soup say of it is not said of a mean that begins with it.
func TestMeanOfSoup(t *testing.T) {
	inDirectory(t)
	if status, _, stderr := executeArgs(t, evaluator(t, "a", "b")...); status != statusDone {
		t.Fatal(stderr)
	}
	if status, _, stderr := execute(t, "mean -o mean out c"); status != statusDone {
		t.Fatal(stderr)
	}
	for path, want := range map[string]int{"out": 3, "mean": 1} {
		m, err := checkpoint.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		if got := m.Metadata(); len(got) != want {
			t.Errorf("%s: metadata %q, want %d entries", path, got, want)
		}
	}
}

// A model that changes while the soup is made ends it: the mean would be one that nobody has scored.
func TestSoupOfChangingModel(t *testing.T) {
	for _, change := range []string{"mv -f new b", "cat new > b", "touch b", "rm -f b", "rm -rf d; mv -f newd d"} {
		inDirectory(t)
		writeModel(t, "new", 0, 7, 8)
		for _, dir := range []string{"d", "newd"} {
			if err := os.Mkdir(dir, 0o777); err != nil {
				t.Fatal(err)
			}
			writeModel(t, filepath.Join(dir, "model.safetensors"), 0, 5, 6)
		}
		before := files(t)
		// The second evaluation is that of b alone.
		eval := "if test -e once; then " + change + "; fi; touch once; : {}; echo 1"
		status, _, stderr := executeArgs(t, "soup", "--eval", eval, "-o", "out", "a", "b", "d")
		if status != statusFailed || !strings.Contains(stderr, "has changed since the soup was begun") &&
			!strings.Contains(stderr, "no such file") {
			t.Errorf("%s: status %d, %s", change, status, stderr)
		}
		for _, name := range files(t) {
			if !slices.Contains(before, name) && name != "once" {
				t.Errorf("%s: %s is there", change, name)
			}
		}
	}
}
