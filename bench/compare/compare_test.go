package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const moduleText = "module example.com/sums\n\ngo 1.26.0\n"

// benchmarkText is a benchmark that allocates a number of times in each run.
const benchmarkText = `package sums

import "testing"

var sink []byte

func BenchmarkSum(b *testing.B) {
	for b.Loop() {
		for range %d {
			sink = make([]byte, 64)
		}
	}
}

func Benchmark%s(b *testing.B) {
	for b.Loop() {
	}
}
`

// newRepository makes a repository with two revisions, tagged one and two, and makes it the working directory.
func newRepository(t *testing.T) (root string) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("no git")
	}
	root = t.TempDir()
	t.Chdir(root)
	for _, variable := range []string{"GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"} {
		t.Setenv(variable, "")
		os.Unsetenv(variable)
	}
	t.Setenv("GIT_CONFIG_GLOBAL", filepath.Join(root, "none"))
	command := func(arguments ...string) {
		t.Helper()
		if text, err := exec.Command("git", arguments...).CombinedOutput(); err != nil {
			t.Fatalf("git %v: %v\n%s", arguments, err, text)
		}
	}
	write := func(name, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	command("init", "-q")
	command("config", "user.name", "test")
	command("config", "user.email", "test@example.com")
	for i, name := range []string{"One", "Two"} {
		write("sums/go.mod", moduleText)
		write("sums/sums.go", "package sums\n")
		write("sums/sums_test.go", fmt.Sprintf(benchmarkText, 2-i, name))
		command("add", ".")
		command("commit", "-q", "-m", "revision "+name)
		command("tag", strings.ToLower(name))
	}
	return root
}

func TestCompare(t *testing.T) {
	root := newRepository(t)
	var out, progress strings.Builder
	keep := filepath.Join(t.TempDir(), "raw")
	arguments := []string{"one", "-package", "sums", "-rounds", "3", "-benchtime", "10x", "two", "-out", keep}
	if err := run(t.Context(), arguments, &out, &progress); err != nil {
		t.Fatalf("%v\n%s", err, progress.String())
	}
	for _, want := range []string{
		"old: ", "revision One", "revision Two", "sec/op", "allocs/op", "n=3", "geometric mean",
		"only in old: One", "only in new: Two",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output lacks %q:\n%s", want, out.String())
		}
	}
	if want := "round 1 of 3 done: number of benchmarks 2, time left about "; !strings.Contains(progress.String(), want) {
		t.Errorf("got the progress\n%s\nwant %q", progress.String(), want)
	}
	raw, err := os.ReadFile(filepath.Join(keep, "new.txt"))
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(string(raw), "BenchmarkSum"); got != 3 {
		t.Errorf("got %d results of BenchmarkSum in new.txt, want 3", got)
	}

	// The other way round it allocates more.
	arguments = []string{"-package", "sums", "-rounds", "1", "-benchtime", "10x", "two", "one"}
	err = run(t.Context(), arguments, &out, &progress)
	if err == nil || !strings.Contains(err.Error(), "got 2 allocations a run, want at most 1 as before") {
		t.Errorf("more allocations: got error %v", err)
	}

	// The working tree as it is.
	arguments = []string{"-package", "sums", "-rounds", "1", "-benchtime", "10x", "two", "."}
	out.Reset()
	if err := run(t.Context(), arguments, &out, &progress); err != nil {
		t.Error(err)
	}
	if !strings.Contains(out.String(), "new: the working tree") {
		t.Errorf("the working tree: got\n%s", out.String())
	}

	trees, err := exec.Command("git", "worktree", "list").Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(string(trees), "\n"); got != 1 {
		t.Errorf("worktrees are left in %s:\n%s", root, trees)
	}
}

func TestCompareErrors(t *testing.T) {
	newRepository(t)
	for _, test := range []struct {
		arguments []string
		want      string
	}{
		{nil, "got 0 revisions, want 2"},
		{[]string{"one", "two", "three"}, "got 3 revisions, want 2"},
		{[]string{"-rounds", "0", "one", "two"}, "-rounds: got 0"},
		{[]string{"-package", "../x", "one", "two"}, `-package: got "../x"`},
		{[]string{"one", "three"}, `"three" is no revision`},
		{[]string{"-package", "nowhere", "one", "two"}, "build the tests of nowhere at"},
		{[]string{"-package", "sums", "-bench", "Nothing", "-rounds", "1", "one", "two"}, "no benchmark ran at"},
	} {
		err := run(t.Context(), test.arguments, new(strings.Builder), new(strings.Builder))
		if err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%q: got error %v, want one with %q", test.arguments, err, test.want)
		}
	}
	trees, err := exec.Command("git", "worktree", "list").Output()
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Count(string(trees), "\n"); got != 1 {
		t.Errorf("worktrees are left:\n%s", trees)
	}
}

func TestMedianRatio(t *testing.T) {
	for _, test := range []struct {
		a, b []float64
		want float64
	}{
		{[]float64{1, 4, 9}, []float64{1, 2, 3}, 2},
		{[]float64{1, 4}, []float64{1, 2}, 1.5},
		{[]float64{3, 100, 1}, []float64{1, 100}, 2},
	} {
		if got := medianRatio(test.a, test.b); got != test.want {
			t.Errorf("%v / %v: got %v, want %v", test.a, test.b, got, test.want)
		}
	}
}
