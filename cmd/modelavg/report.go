package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/modelavg/modelavg/internal/printable"
	"github.com/modelavg/modelavg/merge"
)

// A reportWriter is standard output. It writes nothing after the first error, which it remembers. When ctx is done it
// ends soon: it writes what is short, as the report of a run that was complete already, but neither the rest of a long
// text nor all of many short ones, and does not wait for who reads them.
type reportWriter struct {
	ctx  context.Context
	to   io.Writer
	late int // bytes that were to be written since ctx is done
	err  error
}

const (
	reportSlice = 64 << 10              // bytes that are written between two looks at the context, and more than after it
	reportGrace = 50 * time.Millisecond // for a write when the context is done
)

func (w *reportWriter) Write(p []byte) (int, error) {
	var done int
	for w.err == nil && done < len(p) {
		slice := p[done:min(done+reportSlice, len(p))]
		if w.ctx.Err() != nil {
			if w.late += len(slice); w.late >= reportSlice {
				w.err = context.Cause(w.ctx)
				break
			}
		}
		var n int
		n, w.err = w.write(slice)
		done += n
	}
	return done, w.err
}

// write writes p. A pipe that nobody reads from keeps a write for as long as it is full, and nothing ends that: the
// goroutine is left to it.
func (w *reportWriter) write(p []byte) (int, error) {
	type result struct {
		n   int
		err error
	}
	written := make(chan result, 1)
	p = bytes.Clone(p) // the caller may use its own again
	go func() {
		n, err := w.to.Write(p)
		written <- result{n, err}
	}()
	select {
	case r := <-written:
		return r.n, r.err
	case <-w.ctx.Done():
	}
	select {
	case r := <-written:
		return r.n, r.err
	case <-time.After(reportGrace):
		return 0, context.Cause(w.ctx)
	}
}

// plural returns the number and the noun, with an s unless it is one.
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// unreported returns a failure that says that the model at path is complete, if err is about writing the report.
func unreported(path string, err error) error {
	if err == nil {
		return nil
	}
	return &failure{fmt.Errorf("%s is written, but not the report: %w", path, err)}
}

// printJSON prints x in several lines.
func printJSON(out io.Writer, x any) error {
	marshal := func() ([]byte, error) { return json.Marshal(x) }
	if m, ok := x.(json.Marshaler); ok {
		marshal = m.MarshalJSON // the same without a copy, since none here returns white space
	}
	text, err := marshal()
	if err == nil {
		err = writeIndented(out, append(text, '\n'))
	}
	if err != nil {
		return &failure{err}
	}
	return nil
}

// maxNamed is how many differences the text of a [merge.DifferenceError] names.
const maxNamed = 20

// listed adds to the error of a plan where all is to be found that its text does not name.
func listed(err error) error {
	d, u := (*merge.DifferenceError)(nil), (*merge.UnsupportedError)(nil)
	err = hint(keysHint(err))
	if errors.As(err, &d) && len(d.Differences) > maxNamed || errors.As(err, &u) && len(u.Tensors) > maxNamed {
		return fmt.Errorf("%w (modelavg plan lists all)", err)
	}
	return err
}

// keysHint adds to an error which flag allows what it is about, if all of that is tensors that not all models have.
func keysHint(err error) error {
	d := (*merge.DifferenceError)(nil)
	if !errors.As(err, &d) || slices.ContainsFunc(d.Differences, func(x merge.Difference) bool {
		return x.Field != "missing" && x.Field != "extra"
	}) {
		return err
	}
	return fmt.Errorf("%w (--keys intersection leaves such tensors out, --keys union averages them where they are)", err)
}

// obstacles are what --json prints of a plan that cannot be made: all differences between the models that the policies
// do not allow, or all tensors that can be neither averaged nor copied.
type obstacles struct {
	Error       string        `json:"error"`
	Differences []difference  `json:"differences,omitempty"`
	Unsupported []unsupported `json:"unsupported,omitempty"`
}

type difference struct {
	Path   string `json:"path"`
	Tensor string `json:"tensor"`
	Field  string `json:"field"`
	Want   string `json:"want"`
	Got    string `json:"got"`
}

type unsupported struct {
	Path   string `json:"path"`
	Tensor string `json:"tensor"`
	DType  string `json:"dtype"`
}

// printObstacles prints all that err is about, of which its text names the first ones only.
func printObstacles(out io.Writer, err error, asJSON bool) error {
	o := obstacles{Error: oneLine(err)}
	text := bufio.NewWriterSize(out, 64<<10) // there may be a million
	if d := (*merge.DifferenceError)(nil); errors.As(err, &d) {
		for _, x := range d.Differences {
			if asJSON {
				o.Differences = append(o.Differences, difference(x))
			} else {
				fmt.Fprintf(text, "difference: %s: %v\n", printable.Name(x.Path), x)
			}
		}
	}
	if u := (*merge.UnsupportedError)(nil); errors.As(err, &u) {
		for _, t := range u.Tensors {
			if asJSON {
				o.Unsupported = append(o.Unsupported, unsupported{u.Path, t.Name, t.DType.String()})
			} else {
				fmt.Fprintf(text, "unsupported: %s: tensor %q of dtype %v\n", printable.Name(u.Path), t.Name, t.DType)
			}
		}
	}
	if asJSON {
		return printJSON(out, o)
	}
	return text.Flush()
}

// countOmissions returns how many tensors are left out, for each reason.
func countOmissions(list []merge.Omission) string {
	counts := make(map[string]int)
	for _, o := range list {
		counts[o.Reason]++
	}
	var text []string
	for _, reason := range slices.Sorted(maps.Keys(counts)) {
		text = append(text, plural(counts[reason], "tensor")+" "+reason)
	}
	return strings.Join(text, ", ")
}
