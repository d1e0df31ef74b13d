// Command compare runs the benchmarks of two revisions side by side.
//
//	go run ./bench/compare [flags] REVISION1 REVISION2
//
// builds the test binary of a package at both revisions, runs the two in turn for a number of rounds, so that whatever
// else the machine does hits both alike, and prints for each benchmark the medians and the significance of the
// difference, as benchstat does, and the median of the ratios of the rounds. The revision "." is the working tree as it
// is. The status is 1 if a benchmark allocates more often in the second revision than in the first, and never depends on
// a time.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	switch {
	case errors.Is(err, flag.ErrHelp):
	case errors.As(err, new(usageError)):
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}

// A usageError is a command line that cannot be followed.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// options are the command line.
type options struct {
	revisions  [2]string
	benchmarks string
	benchTime  string
	rounds     int
	directory  string // of the package, in the repository
	out        string
}

func parseFlags(arguments []string, output io.Writer) (o options, err error) {
	set := flag.NewFlagSet("compare", flag.ContinueOnError)
	set.SetOutput(output)
	set.StringVar(&o.benchmarks, "bench", ".", "`regexp` of the benchmarks, as for go test")
	set.StringVar(&o.benchTime, "benchtime", "100ms", "`time` of a benchmark in one round, as for go test")
	set.IntVar(&o.rounds, "rounds", 10, "number of rounds")
	set.StringVar(&o.directory, "package", ".", "`directory` of the package in the repository")
	set.StringVar(&o.out, "out", "", "keep the raw results, old.txt and new.txt, in this `directory`")
	set.Usage = func() {
		fmt.Fprintf(output, "Usage: go run ./bench/compare [flags] REVISION1 REVISION2\n\n")
		set.PrintDefaults()
	}
	// Flags may stand after the revisions too.
	var revisions []string
	for len(arguments) > 0 {
		if err := set.Parse(arguments); err != nil {
			if errors.Is(err, flag.ErrHelp) {
				return o, err
			}
			return o, usageError{err}
		}
		arguments = set.Args()
		if len(arguments) > 0 {
			revisions = append(revisions, arguments[0])
			arguments = arguments[1:]
		}
	}
	switch {
	case len(revisions) != 2:
		return o, usageError{fmt.Errorf("got %d revisions, want 2", len(revisions))}
	case o.rounds < 1:
		return o, usageError{fmt.Errorf("-rounds: got %d, want at least 1", o.rounds)}
	case !filepath.IsLocal(o.directory):
		return o, usageError{fmt.Errorf("-package: got %q, want a directory inside the repository", o.directory)}
	}
	o.revisions = [2]string(revisions)
	return o, nil
}

func run(ctx context.Context, arguments []string, stdout, stderr io.Writer) (err error) {
	o, err := parseFlags(arguments, stderr)
	if err != nil {
		return err
	}
	root, err := git(ctx, "rev-parse", "--show-toplevel")
	if err != nil {
		return err
	}
	if o.out != "" {
		if err := os.MkdirAll(o.out, 0o777); err != nil {
			return err
		}
	}
	var commits [2]string
	for i, revision := range o.revisions {
		if commits[i], err = resolve(ctx, revision, root); err != nil {
			return err
		}
	}
	temporary, err := os.MkdirTemp("", "compare-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temporary)) }()

	var sides [2]side
	for i, commit := range commits {
		name := [2]string{"old", "new"}[i]
		s, err := newSide(ctx, commit, root, filepath.Join(temporary, name), o.directory)
		defer s.remove()
		if err != nil {
			return err
		}
		sides[i] = s
		fmt.Fprintf(stderr, "built %s: %s\n", name, s.title)
	}
	began := time.Now()
	for round := range o.rounds {
		for i := range sides {
			// Each side goes first in every other round.
			if err := sides[(i+round)%2].measure(ctx, o); err != nil {
				return err
			}
		}
		done := fmt.Sprintf("round %d of %d done", round+1, o.rounds)
		if round == 0 {
			m, err := parse(sides[0].output.String(), sides[0].title)
			if err != nil {
				return err
			}
			left := time.Since(began) * time.Duration(o.rounds-1)
			done += fmt.Sprintf(": number of benchmarks %d, time left about %v", len(m.names), left.Round(time.Second))
		}
		fmt.Fprintln(stderr, done)
	}
	if o.out != "" {
		for i, name := range []string{"old.txt", "new.txt"} {
			if err := os.WriteFile(filepath.Join(o.out, name), []byte(sides[i].output.String()), 0o666); err != nil {
				return err
			}
		}
	}
	before, err := parse(sides[0].output.String(), sides[0].title)
	if err != nil {
		return err
	}
	after, err := parse(sides[1].output.String(), sides[1].title)
	if err != nil {
		return err
	}
	fmt.Fprintf(stdout, "old: %s\nnew: %s\n", sides[0].title, sides[1].title)
	if err := writeComparison(stdout, before, after); err != nil {
		return err
	}
	return moreAllocations(before, after)
}

// A side is one revision, built.
type side struct {
	title     string
	worktree  string // to be removed, or ""
	directory string // of the package
	binary    string
	output    *strings.Builder
}

// resolve returns the commit of a revision, or "" for the working tree.
func resolve(ctx context.Context, revision, root string) (commit string, err error) {
	if revision == "." {
		return "", nil
	}
	commit, err = git(ctx, "rev-parse", "--verify", "--quiet", "--end-of-options", revision+"^{commit}")
	if err != nil {
		return "", fmt.Errorf("%q is no revision of %s", revision, root)
	}
	return commit, nil
}

// newSide checks a commit out in a temporary directory and builds the package's tests. The side is to be removed also
// after an error.
func newSide(ctx context.Context, commit, root, temporary, directory string) (s side, err error) {
	s = side{title: "the working tree", binary: temporary + ".test", output: new(strings.Builder)}
	if runtime.GOOS == "windows" {
		s.binary += ".exe" // it starts nothing else
	}
	tree := root
	if commit != "" {
		if s.title, err = git(ctx, "log", "-1", "--format=%h %s", commit); err != nil {
			return s, err
		}
		s.worktree, tree = temporary, temporary
		if _, err := git(ctx, "worktree", "add", "--detach", temporary, commit); err != nil {
			return s, err
		}
	}
	s.directory = filepath.Join(tree, directory)
	build := exec.CommandContext(ctx, "go", "test", "-c", "-o", s.binary, ".")
	build.Dir = s.directory
	build.Env = environment()
	if text, err := build.CombinedOutput(); err != nil {
		return s, fmt.Errorf("build the tests of %s at %s: %w\n%s", directory, s.title, err, text)
	}
	if _, err := os.Stat(s.binary); err != nil {
		return s, fmt.Errorf("%s has no tests at %s", directory, s.title)
	}
	return s, nil
}

// remove takes the worktree away. It runs after an interrupt too.
func (s side) remove() {
	if s.worktree != "" {
		_, _ = git(context.Background(), "worktree", "remove", "--force", s.worktree)
		_, _ = git(context.Background(), "worktree", "prune")
	}
}

// measure runs the benchmarks once and keeps what they print.
func (s side) measure(ctx context.Context, o options) error {
	command := exec.CommandContext(ctx, s.binary, "-test.run=^$", "-test.bench="+o.benchmarks, "-test.benchmem",
		"-test.count=1", "-test.benchtime="+o.benchTime)
	command.Dir = s.directory
	var failure strings.Builder
	command.Stdout = s.output
	command.Stderr = &failure
	if err := command.Run(); err != nil {
		return fmt.Errorf("run the benchmarks of %s: %w\n%s", s.title, err, failure.String())
	}
	return nil
}

// environment is that of this process without a workspace file named by it, which would bring in another tree.
func environment() (list []string) {
	for _, variable := range os.Environ() {
		if value, found := strings.CutPrefix(variable, "GOWORK="); !found || value == "off" {
			list = append(list, variable)
		}
	}
	return list
}

func git(ctx context.Context, arguments ...string) (string, error) {
	var failure strings.Builder
	command := exec.CommandContext(ctx, "git", arguments...)
	command.Stderr = &failure
	text, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("git %s: %w\n%s", arguments[0], err, failure.String())
	}
	return strings.TrimSpace(string(text)), nil
}
