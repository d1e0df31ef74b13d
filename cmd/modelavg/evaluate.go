package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
)

// placeholder is what the path of a model takes the place of.
const placeholder = "{}"

const (
	// killDelay is how long a command that is told to end has for it. A run ends within 100 ms after a signal.
	killDelay = 50 * time.Millisecond

	// drainDelay is how long the rest of what a command has printed is waited for after its end. There is nothing to
	// wait for unless something that it started has left its process group and still has the pipe.
	drainDelay = time.Second

	// keptBytes is how much of the end of what a command prints is kept.
	keptBytes = 64 << 10
)

// evaluate runs the command on the model at path and returns the last number that it prints. What it says on its stderr
// goes to stderr. When ctx is done, the command is told to end, and killed if it has not soon.
func evaluate(ctx context.Context, command, path string, stderr io.Writer) (float64, error) {
	var stdout tail
	line := strings.ReplaceAll(command, placeholder, shellQuote(path))
	if err := runGroup(ctx, shell(line), &stdout, stderr); err != nil {
		return 0, fmt.Errorf("%s: %w", command, err)
	}
	score, err := lastNumber(stdout.text())
	if err != nil {
		return 0, fmt.Errorf("%s: %w", command, err)
	}
	return score, nil
}

// runGroup runs the command until it ends; all that it has started and that is still running then is killed. When ctx
// is done, the command and all that it has started are told to end, and killed after killDelay.
func runGroup(ctx context.Context, cmd *exec.Cmd, stdout, stderr io.Writer) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	// The pipes are not those of package exec, whose Wait waits until nobody has them open any more.
	var pipes []*pipe
	defer func() {
		for _, p := range pipes {
			p.close()
		}
	}()
	for _, stream := range []struct {
		field *io.Writer
		to    io.Writer
	}{{&cmd.Stdout, stdout}, {&cmd.Stderr, stderr}} {
		if f, ok := stream.to.(*os.File); ok {
			*stream.field = f
			continue
		}
		p, err := newPipe(stream.to)
		if err != nil {
			return err
		}
		pipes = append(pipes, p)
		*stream.field = p.write
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	for _, p := range pipes {
		p.start()
	}
	done := make(chan error, 1)
	go func() { done <- cmd.Wait() }()
	select {
	case err := <-done:
		kill(cmd)
		timeout := time.After(drainDelay)
		for _, p := range pipes {
			select {
			case <-p.copied:
			case <-timeout:
				return err
			case <-ctx.Done():
				return err
			}
		}
		return err
	case <-ctx.Done():
		terminate(cmd)
		timeout := time.After(killDelay)
		for wait := true; wait && runs(cmd); {
			select {
			case <-time.After(time.Millisecond):
			case <-timeout:
				wait = false
			}
		}
		kill(cmd)
		<-done
		return context.Cause(ctx)
	}
}

// A pipe is what a command writes into, and what is read from there goes to a writer.
type pipe struct {
	read, write *os.File
	copied      chan struct{} // closed when nobody can write any more and all is read

	mu     sync.Mutex
	to     io.Writer
	closed bool
}

func newPipe(to io.Writer) (*pipe, error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	return &pipe{read: r, write: w, copied: make(chan struct{}), to: to}, nil
}

// start begins to read. The command has been started and has its own end of the pipe.
func (p *pipe) start() {
	p.write.Close()
	go func() {
		defer close(p.copied)
		_, _ = io.Copy(struct{ io.Writer }{p}, p.read) // it ends with what can be read
	}()
}

// Write writes to the writer until the pipe is closed.
func (p *pipe) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return 0, io.ErrClosedPipe
	}
	_, _ = p.to.Write(b) // the command goes on when nobody reads what it says
	return len(b), nil
}

// close closes the pipe. Nothing is written to the writer after it.
func (p *pipe) close() {
	p.write.Close()
	p.read.Close()
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
}

// A tail keeps the end of what is written to it.
type tail struct {
	kept []byte
	cut  bool // something is not kept
}

func (t *tail) Write(p []byte) (int, error) {
	if len(t.kept)+len(p) > 2*keptBytes {
		all := append(t.kept, p[max(0, len(p)-keptBytes):]...)
		t.kept = append(t.kept[:0], all[max(0, len(all)-keptBytes):]...)
		t.cut = true
		return len(p), nil
	}
	t.kept = append(t.kept, p...)
	return len(p), nil
}

// text returns the end of what was written, without what may be the rest of a number.
func (t *tail) text() string {
	text := string(t.kept)
	if !t.cut {
		return text
	}
	return strings.TrimLeftFunc(text, func(r rune) bool {
		return r == '+' || r == '-' || r == '.' || unicode.IsDigit(r) || unicode.IsLetter(r)
	})
}

var (
	// escapes are what colours a terminal.
	escapes = regexp.MustCompile(`\x1b\[[0-9;:?]*[@-~]`)

	decimal = regexp.MustCompile(`(?i)^[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?$|^[-+]?(?:nan|inf|infinity)$`)
)

// lastNumber returns the last number in the text: a word that is one, but for the punctuation around it and what is before
// = or a colon. Digits in the middle of a word are part of a name, a path or a date.
func lastNumber(text string) (float64, error) {
	apart := func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }
	words := strings.FieldsFunc(escapes.ReplaceAllString(text, " "), apart)
	for _, word := range slices.Backward(words) {
		word = word[1+strings.LastIndexAny(word, "=:"):]
		word = strings.TrimRight(strings.TrimLeft(word, "([{<\"'`"), ")]}>\"'`,;.%")
		if !decimal.MatchString(word) {
			continue
		}
		x, err := strconv.ParseFloat(word, 64)
		if err != nil { // it is too large
			return 0, fmt.Errorf("it printed %s, which is out of range", shortenPath(word))
		}
		return x, nil
	}
	return 0, fmt.Errorf("it printed no number, but %q", shortenPath(strings.Join(words, " ")))
}
