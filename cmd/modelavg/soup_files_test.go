//go:build unix

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/modelavg/modelavg/internal/filelock"
)

// Only a log is written to: nothing else loses a byte, whatever is in it.
func TestSoupLogIsNoLog(t *testing.T) {
	const line = `{"key":"x","files":[],"score":"1"}` + "\n"
	for _, test := range []struct{ text, want string }{
		{"no line at all", "is no log of scores"},
		{"{", "is no log of scores"},
		{`{"key":"`, "line 1 is no score"},
		{`{"key":"of another program"`, "line 1 is no score"},
		{`{"key":"of another program"}`, "line 1 is no score"},
		{"{\"key\":\"x\"}\n", "line 1 is no score"},
		{"{\"key\":\"x\",\"score\":\"1\"}\n", "as it is: it names no files"},
		{"{\"key\":\"x\",\"files\":[],\"score\":\"1\",\"more\":1}\n", "line 1 is no score"},
		{line[:len(line)-1] + "{}\n", "as it is: there is something after it"},
		{line + "text without an end", "line 2 is no score"},
		{line + "{\"key\":\"x\",\"fil\n" + line, "line 2 is no score"},
		{"\n" + line, "is no log of scores"},
		{"\x10\x00\x00\x00\x00\x00\x00\x00{}              ", "is no log of scores"},
	} {
		inDirectory(t)
		if err := os.WriteFile("log", []byte(test.text), 0o666); err != nil {
			t.Fatal(err)
		}
		before := files(t)
		status, _, stderr := executeArgs(t, "soup", "--eval", "echo 1; true {}", "--log", "log", "-o", "out", "a", "b")
		if status != statusFailed || !strings.Contains(stderr, "left as it is") || !strings.Contains(stderr, test.want) {
			t.Errorf("%q: status %d, stderr %q, want %q", test.text, status, stderr, test.want)
		}
		if got, err := os.ReadFile("log"); err != nil || string(got) != test.text {
			t.Errorf("%q: has become %q, %v", test.text, got, err)
		}
		if got := files(t); !slices.Equal(got, before) {
			t.Errorf("%q: files %q", test.text, got)
		}
	}
}

// The log is none of the files of the run, by whatever name.
func TestSoupLogIsAnotherFile(t *testing.T) {
	for _, test := range []struct{ log, want string }{
		{"a", "--log a: is the same file as a"},
		{"hard", "--log hard: is the same file as b"},
		{"soft", "--log soft: is the same file as b"},
		{"./out", "--log ./out: is the same file as out"},
		{"pipe", "pipe: is a named pipe, want a file of scores"},
		{"directory", "directory: is a directory, want a file of scores"},
		{"/dev/null", "/dev/null: is a device, want a file of scores"},
		{"none/log", "no such file or directory"},
		{"large", fmt.Sprintf("large: has %d bytes, want a log of at most %d", int64(maxScoreLog+1), int64(maxScoreLog))},
	} {
		inDirectory(t)
		content := make(map[string][]byte)
		for _, err := range []error{
			os.Link("b", "hard"), os.Symlink("b", "soft"), syscall.Mkfifo("pipe", 0o666), os.Mkdir("directory", 0o777),
			os.WriteFile("large", []byte(lineBegin), 0o666), os.Truncate("large", maxScoreLog+1),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		for _, name := range []string{"a", "b"} {
			content[name], _ = os.ReadFile(name)
		}
		before := files(t)
		began := time.Now()
		status, _, stderr := executeArgs(t, "soup", "--eval", "echo 1; true {}", "--log", test.log, "-o", "out", "a", "b")
		if status != statusFailed || !strings.Contains(stderr, test.want) {
			t.Errorf("%s: status %d, stderr %q, want %q", test.log, status, stderr, test.want)
		}
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("%s: took %v", test.log, took)
		}
		if got := files(t); !slices.Equal(got, before) {
			t.Errorf("%s: files %q, want %q", test.log, got, before)
		}
		for name, text := range content {
			if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, text) {
				t.Errorf("%s: %s has changed, %v", test.log, name, err)
			}
		}
	}
	inDirectory(t)
	executeArgs(t, "mean", "-o", "out", "a")
	old, _ := os.ReadFile("out")
	status, _, stderr := executeArgs(t, "soup", "--eval", "echo 1; true {}", "--log", "out", "-o", "out", "a", "b")
	if got, err := os.ReadFile("out"); status != statusFailed || err != nil || !bytes.Equal(got, old) {
		t.Errorf("status %d, stderr %q, the old output has changed: %v", status, stderr, err)
	}
}

// A whole line that has lost its end is a line; a disk that is full leaves no half of one.
func TestSoupLogEnd(t *testing.T) {
	inDirectory(t)
	const line = `{"key":"x","files":[],"score":"1"}`
	if err := os.WriteFile("log", []byte(line), 0o666); err != nil {
		t.Fatal(err)
	}
	l, err := openScoreLog("log", "k", readFlags{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(l.entries) != 1 {
		t.Errorf("%d entries, want 1", len(l.entries))
	}
	if err := l.add(scoreEntry{Key: "k", Files: []fileState{}}, 2); err != nil {
		t.Fatal(err)
	}
	if err := l.close(); err != nil {
		t.Fatal(err)
	}
	want := line + "\n" + `{"key":"k","files":[],"score":"2"}` + "\n"
	if got, err := os.ReadFile("log"); err != nil || string(got) != want {
		t.Errorf("got %q, %v, want %q", got, err, want)
	}
}

// waiting is an evaluator that says that it runs, and which model it has, and then waits for a file called go.
const waiting = `echo {} >> started; until test -f go; do sleep 0.01; done; echo 1`

// background starts the program.
func background(t *testing.T, args ...string) (*exec.Cmd, *bytes.Buffer) {
	t.Helper()
	cmd := exec.Command(program, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Kill() })
	return cmd, &out
}

// until waits until the condition holds.
func until(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for began := time.Now(); !condition(); time.Sleep(2 * time.Millisecond) {
		if time.Since(began) > 20*time.Second {
			t.Fatalf("waited too long for %s", what)
		}
	}
}

// linesOf returns the lines of a file, none if there is no file.
func linesOf(path string) []string {
	text, _ := os.ReadFile(path)
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

// A second process does not get the log of the first one.
func TestSoupLogIsInUse(t *testing.T) {
	inDirectory(t)
	args := []string{"soup", "--eval", waiting, "--log", "log", "-o", "out"}
	first, said := background(t, append(args, "a", "b")...)
	until(t, "the first score", func() bool { return linesOf("started")[0] != "" })
	status, _, stderr := start(t, append(args, "b", "a")...)
	if want := "log: another soup adds scores to it"; status != statusFailed || !strings.Contains(stderr, want) {
		t.Errorf("status %d, stderr %q, want %q", status, stderr, want)
	}
	if err := os.WriteFile("go", nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if err := first.Wait(); err != nil {
		t.Errorf("%v: %s", err, said)
	}
	if got := linesOf("log"); len(got) != 3 {
		t.Errorf("log %q, want 3 lines", got)
	}
	if status, _, stderr := start(t, append(args, "b", "a")...); status != statusDone {
		t.Errorf("after the end of the first: status %d, %s", status, stderr)
	}
}

// Two processes with one output do not take each other's means: the score of each is that of its own.
func TestSoupTwice(t *testing.T) {
	inDirectory(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv(scoreVariable, "evaluations")
	// Of a file by itself the score comes at once. That of a mean is taken when both have made theirs.
	command := `case {} in */mean.safetensors) echo {} >> started; until test -f go; do sleep 0.01; done;; esac; ` +
		shellQuote(self) + ` {}`
	args := []string{"soup", "--eval", command, "-o", "out", "--log"}
	one, oneSaid := background(t, append(args, "log1", "a", "b")...) // 1 and 2: 1.5
	two, twoSaid := background(t, append(args, "log2", "b", "c")...) // 2 and 4: 3
	until(t, "both means", func() bool { return len(linesOf("started")) == 2 })
	if got := linesOf("started"); got[0] == got[1] {
		t.Errorf("both means are %s", got[0])
	}
	if err := os.WriteFile("go", nil, 0o666); err != nil {
		t.Fatal(err)
	}
	for _, run := range []struct {
		cmd  *exec.Cmd
		said *bytes.Buffer
		want string
	}{{one, oneSaid, "with a: -3.5, left out"}, {two, twoSaid, "with b: -2, left out"}} {
		if err := run.cmd.Wait(); err != nil || !strings.Contains(run.said.String(), run.want) {
			t.Errorf("%v\n%s\nwant %q", err, run.said, run.want)
		}
	}
	os.Remove("go")
	os.Remove("started")
	os.Remove("evaluations")
	if got, want := files(t), []string{"a", "b", "c", "log1", "log2", "out"}; !slices.Equal(got, want) {
		t.Errorf("files %q, want %q", got, want)
	}
}

// What is beside the output stays, whatever its name, unless a killed run has left it.
func TestSoupRemovesNothing(t *testing.T) {
	inDirectory(t)
	stale := scratchPrefix("out") + "0123456789abcdef" + scratchSuffix
	mine := []string{
		".out.soup", ".out.soup.safetensors", ".out.soup.tmp", scratchPrefix("out") + "0123456789abcdeg" + scratchSuffix,
		scratchPrefix("other") + "0123456789abcdef" + scratchSuffix,
	}
	for _, name := range append(mine, stale) {
		if err := os.Mkdir(name, 0o777); err != nil {
			t.Fatal(err)
		}
		writeModel(t, filepath.Join(name, "mean.safetensors"), 0, 9, 9)
	}
	held := scratchPrefix("out") + "00000000000000ab" + scratchSuffix // by a run
	file := scratchPrefix("out") + "00000000000000cd" + scratchSuffix // is no directory
	link := scratchPrefix("out") + "00000000000000ef" + scratchSuffix
	writeModel(t, file, 0, 9)
	for _, err := range []error{os.Mkdir(held, 0o777), os.Symlink(".out.soup", link)} {
		if err != nil {
			t.Fatal(err)
		}
	}
	f, err := filelock.Open(held)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if filelock.Lock(f) != filelock.Held {
		t.Skip("the file system has no locks")
	}
	want := slices.Sorted(slices.Values(append(mine, "a", "b", "c", "evaluations", "out", held, file, link)))
	for _, model := range []string{".out.soup.safetensors/mean.safetensors", ".out.soup/mean.safetensors"} {
		if status, _, stderr := executeArgs(t, evaluator(t, "a", model)...); status != statusDone {
			t.Fatalf("status %d, %s", status, stderr)
		}
		if got := slices.Sorted(slices.Values(files(t))); !slices.Equal(got, want) {
			t.Errorf("files %q, want %q", got, want)
		}
		for _, name := range mine {
			if got := weightsIn(t, filepath.Join(name, "mean.safetensors")); !slices.Equal(got, []float32{9, 9}) {
				t.Errorf("%s has changed", name)
			}
		}
	}
}

// A model of soup is called anything that one of mean is called, and so is its directory.
func TestSoupOutputNames(t *testing.T) {
	long := strings.Repeat("ä", 121) + ".safetensors1" // 255 bytes
	for _, test := range []struct{ output, want string }{
		{"new/", "new"}, {"new//", "new"}, {"old/", "old"}, {"./old/.", "old"}, {long, long},
	} {
		inDirectory(t)
		if err := os.Mkdir("old", 0o777); err != nil {
			t.Fatal(err)
		}
		args := []string{"-o", test.output, "a", "b"}
		if test.output != long {
			args = append(args, "--max-shard-size", "1GB")
		}
		before := append(files(t), test.want)
		slices.Sort(before)
		status, _, stderr := executeArgs(t, append([]string{"soup", "--eval", "echo 1; true {}"}, args...)...)
		if status != statusDone {
			t.Errorf("%s: status %d, %s", test.output, status, stderr)
			continue
		}
		if got := files(t); !slices.Equal(got, slices.Compact(before)) {
			t.Errorf("%s: files %q, want %q", test.output, got, before)
		}
		if got := weightsIn(t, test.want); !slices.Equal(got, []float32{1, 10}) {
			t.Errorf("%s: got %v", test.output, got)
		}
	}
}

// A command that does not want to end, and what it has started: nothing of it is left 100 ms after the signal.
func TestSoupSignal(t *testing.T) {
	for name, command := range map[string]string{
		"obeys":      `echo $$ > pid; exec sleep 30; true {}`,
		"ignores":    `trap '' TERM INT HUP; echo $$ > pid; sleep 30; sleep 30; true {}`,
		"background": `sh -c 'trap "" TERM; echo $$ > pid; sleep 30; sleep 30' & wait; true {}`,
	} {
		t.Run(name, func(t *testing.T) {
			inDirectory(t)
			before := append(files(t), "pid")
			var times []time.Duration
			for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
				os.Remove("pid")
				cmd, said := background(t, "soup", "--eval", command, "-o", "out", "a", "b")
				until(t, "the command", func() bool { return linesOf("pid")[0] != "" })
				time.Sleep(20 * time.Millisecond)
				var pid int
				if _, err := fmt.Sscan(linesOf("pid")[0], &pid); err != nil {
					t.Fatal(err)
				}
				sent := time.Now()
				if err := cmd.Process.Signal(signal); err != nil {
					t.Fatal(err)
				}
				cmd.Wait()
				times = append(times, time.Since(sent))
				if want := fmt.Sprintf("modelavg: %v signal received\n", signal); !strings.HasSuffix(said.String(), want) {
					t.Errorf("said %q, want %q", said, want)
				}
				until(t, "the end of the command", func() bool { return !living(pid) })
				if got := files(t); !slices.Equal(got, before) {
					t.Errorf("files %q, want %q", got, before)
				}
			}
			slices.Sort(times)
			t.Logf("ended after %v", times)
			if times[1] > 100*time.Millisecond {
				t.Errorf("median %v, want at most 100 ms", times[1])
			}
		})
	}
}

// living reports whether the process runs. A zombie that nobody has asked for does not.
func living(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || !bytes.Contains(stat, []byte(") Z "))
}

// The score counts when the command has ended; what it has left running is ended too.
func TestEvaluateLeftRunning(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, command := range []string{
		`sleep 30 & echo $! > pid; echo 3; true {}`,
		`sleep 30 >&2 & echo $! > pid; echo 3; true {}`,
		`(trap '' TERM HUP; echo 3; exec sleep 30) & echo $! > pid; sleep 0.1; true {}`,
	} {
		began := time.Now()
		var stderr bytes.Buffer
		score, err := evaluate(t.Context(), command, "model", &stderr)
		if took := time.Since(began); err != nil || score != 3 || took > time.Second {
			t.Errorf("%s: %v, %v after %v, want 3", command, score, err, took)
		}
		var pid int
		if _, err := fmt.Sscan(linesOf("pid")[0], &pid); err != nil {
			t.Fatal(err)
		}
		until(t, "the end of the command", func() bool { return !living(pid) })
	}
	// What has left the group is not waited for.
	if _, err := exec.LookPath("setsid"); err != nil {
		t.Skip(err)
	}
	began := time.Now()
	score, err := evaluate(t.Context(), `setsid sleep 3 & echo 4; true {}`, "model", io.Discard)
	if took := time.Since(began); err != nil || score != 4 || took > 2500*time.Millisecond {
		t.Errorf("%v, %v after %v, want 4", score, err, took)
	}
}

// A command that says much: the last number counts, and no more than the end is kept.
func TestEvaluateMuchOutput(t *testing.T) {
	for command, want := range map[string]float64{
		`head -c 10000000 /dev/zero | tr '\0' 'x'; echo; echo 0.25; true {}`:               0.25,
		`yes 'line 1 of the log' | head -n 50000; echo accuracy 0.5; true {}`:              0.5,
		`head -c 10000000 /dev/zero | tr '\0' 'x' >&2; echo 0.75; true {}`:                 0.75,
		`echo 5; head -c 1000 /dev/zero | tr '\0' ' '; true {}`:                            5,
		`printf 1.23; head -c 65532 /dev/zero | tr '\0' '4'; printf ' 7 is it'; true {}`:   7,
		`head -c 65530 /dev/zero | tr '\0' ' '; head -c 70000 /dev/zero; echo 8; true {}`:  8,
		`head -c 200000 /dev/zero | tr '\0' ' '; echo 9; head -c 9 /dev/zero; exit 0 # {}`: 9,
	} {
		if got, err := evaluate(t.Context(), command, "model", io.Discard); err != nil || got != want {
			t.Errorf("%s: %v, %v, want %v", command, got, err, want)
		}
	}
	// A number of which the beginning is lost is none.
	got, err := evaluate(t.Context(), `head -c 300000 /dev/zero | tr '\0' 1; true {}`, "model", io.Discard)
	if err == nil || !strings.Contains(err.Error(), "it printed no number") {
		t.Errorf("got %v, %v", got, err)
	}
	var end tail
	for i := range 50_000 {
		fmt.Fprintf(&end, "%d\n", i)
		if len(end.kept) > 2*keptBytes {
			t.Fatalf("%d bytes are kept", len(end.kept))
		}
	}
	end.Write(bytes.Repeat([]byte("x"), 1<<22))
	if len(end.kept) > 2*keptBytes || cap(end.kept) > 8*keptBytes {
		t.Errorf("%d bytes are kept, in %d", len(end.kept), cap(end.kept))
	}
}
