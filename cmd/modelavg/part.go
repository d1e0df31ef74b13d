package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/modelavg/modelavg/checkpoint"
	"github.com/modelavg/modelavg/internal/printable"
	"github.com/modelavg/modelavg/merge"
)

// partHelp is a paragraph of the help of the commands that can write a part.
const partHelp = `

Parts. With --part I/N, N processes that see the same files write the output together, on one machine or on many: each
gets another I, from 1 to N, and else the same command line. Their order does not matter, nor do repetitions. The
output is at OUT once modelavg finish OUT has been run; modelavg finish --help says more.`

// partFlags say which part of the output is written; none of them means all of it.
type partFlags struct {
	part     string // counted from 1
	fromZero string
	changed  func(flag string) bool // whether it was given; nil for commands without the flags
}

// register adds the flags to the command.
func (f *partFlags) register(cmd *cobra.Command) {
	cmd.Long += partHelp
	cmd.Flags().StringVar(&f.part, "part", "", "write part `I/N` of the output, I from 1 to N; see modelavg finish")
	cmd.Flags().StringVar(&f.fromZero, "part-from-zero", "", "the same, with `I/N` where I is from 0 to N-1")
	f.changed = cmd.Flags().Changed
	for _, flag := range []string{"part", "part-from-zero"} {
		_ = cmd.RegisterFlagCompletionFunc(flag, cobra.NoFileCompletions)
	}
}

// given returns the part, whose Of is zero if there is none.
func (f *partFlags) given() (merge.Part, error) {
	if f.changed == nil {
		return merge.Part{}, nil
	}
	// An empty value is one of a variable that is not set, and would otherwise mean the whole output.
	part, fromZero := f.changed("part"), f.changed("part-from-zero")
	switch {
	case part && fromZero:
		return merge.Part{}, errors.New("--part and --part-from-zero exclude each other")
	case fromZero:
		return parsePart("--part-from-zero", f.fromZero, 0)
	case part:
		return parsePart("--part", f.part, 1)
	}
	return merge.Part{}, nil
}

// maxParts is how many parts an output may have.
const maxParts = 1_000_000

// parsePart parses the value of the flag, I/N with numbers from first on.
func parsePart(flag, text string, first int) (merge.Part, error) {
	if text == "" {
		return merge.Part{}, fmt.Errorf("%s: the value is empty, want I/N, two whole numbers such as %d/8", flag, first)
	}
	number, of, ok := strings.Cut(text, "/")
	i, err := strconv.Atoi(number)
	n, err2 := strconv.Atoi(of)
	if !ok || err != nil || err2 != nil {
		return merge.Part{}, fmt.Errorf("%s %s: want I/N, two whole numbers such as %d/8", flag, text, first)
	}
	if n < 1 || n > maxParts {
		return merge.Part{}, fmt.Errorf("%s %s: want 1 to %d parts", flag, text, maxParts)
	}
	if i < first || i >= first+n {
		return merge.Part{}, fmt.Errorf("%s %s: want a number from %d to %d before the slash", flag, text, first,
			first+n-1)
	}
	return merge.Part{Number: i - first + 1, Of: n}, nil
}

// A partResult is what --json prints of a part.
type partResult struct {
	Number int `json:"number"` // from 1
	Of     int `json:"of"`
}

// averagePart does one part of the plan and prints what it did.
func averagePart(cmd *cobra.Command, f *averageFlags, plan *merge.Plan, layout layout, part merge.Part) error {
	if layout.first != nil {
		dir, err := filepath.Abs(layout.first.Dir())
		if err != nil {
			return &failure{err}
		}
		part.SideFiles = dir
	}
	result := result{Plan: plan, Layout: layout.text, Part: &partResult{part.Number, part.Of}}
	var err error
	result.Report, err = runPart(cmd.Context(), plan, f.output, part, cmd.ErrOrStderr())
	if errors.Is(err, checkpoint.ErrOtherPlan) {
		err = fmt.Errorf("%w (modelavg finish --discard %s gives the unfinished output up, to begin anew)", err, f.output)
	}
	if err != nil {
		return &failure{err}
	}
	out := cmd.OutOrStdout()
	switch {
	case f.json:
		err = printJSON(out, result)
	case result.Report.BytesWritten == 0:
		_, err = fmt.Fprintf(out, "part %d/%d of %s: nothing to do: shares meet at multiples of 1 MiB, and other parts have "+
			"all of the data\n", part.Number, part.Of, printable.Name(f.output))
	default:
		_, err = fmt.Fprintf(out, "part %d/%d of %v", part.Number, part.Of, result.Report)
	}
	if err != nil {
		return &failure{fmt.Errorf("part %d/%d of %s is written, but not the report: %w", part.Number, part.Of, f.output,
			err)}
	}
	return nil
}

// runPart runs the part with a progress bar.
func runPart(ctx context.Context, plan *merge.Plan, path string, part merge.Part, stderr io.Writer) (*merge.Report,
	error,
) {
	progress := newProgress(stderr, 0)
	defer progress.close()
	return plan.RunPart(ctx, path, part, progress.updateOf)
}
