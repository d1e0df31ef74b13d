package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/modelavg/modelavg/internal/printable"
)

// The exit statuses.
const (
	statusDone   = 0
	statusFailed = 1 // the work could not be done: a file, a signal
	statusUsage  = 2 // the command line is wrong: nothing was opened
)

// A failure is an error of the work, not of the command line.
type failure struct{ err error }

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// run executes the command line and returns the exit status. Results go to stdout; errors, on one line, and progress to
// stderr.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	report := &reportWriter{ctx: ctx, to: stdout}
	root.SetArgs(args)
	root.SetOut(report)
	root.SetErr(stderr)
	checkCompletion(root, args)
	cmd, err := root, unknownHelp(root, args)
	if err == nil {
		cmd, err = root.ExecuteContextC(ctx)
	}
	if report.err != nil && (err == nil || errors.Is(err, report.err)) {
		err = &failure{cmp.Or(err, report.err)}
	}
	if err == nil {
		return statusDone
	}
	// Who closes the pipe that the report goes to wants to hear no more; that a file is written is worth saying still.
	if errors.Is(err, syscall.EPIPE) && report.err != nil && err.Error() == report.err.Error() {
		return statusFailed
	}
	// An error that is not a failure comes from reading the command line, by cobra or by the commands.
	if fail := (*failure)(nil); errors.As(err, &fail) {
		fmt.Fprintf(stderr, "modelavg: %s\n", printable.Text(oneLine(err)))
		return statusFailed
	}
	if cmd.Name() == "help" { // what was looked for is in the list of all commands
		cmd = root
	}
	fmt.Fprintf(stderr, "modelavg: %s (see %s --help)\n", printable.Text(oneLine(err)), cmd.CommandPath())
	return statusUsage
}

// oneLine returns the text of an error without line breaks, and without the names of the packages that it begins with:
// they tell a programmer where it comes from, and here all come from modelavg.
func oneLine(err error) string {
	lines := strings.FieldsFunc(err.Error(), func(r rune) bool { return r == '\n' || r == '\r' })
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	text := strings.Join(lines, " ")
	for _, name := range []string{"modelavg: ", "weighting: ", "checkpoint: "} {
		text = strings.TrimPrefix(text, name)
	}
	return text
}

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:   "modelavg",
		Short: "Average the weights of machine-learning models",
		Long: `Modelavg averages the weights of model files, in fixed memory and with every result rounded once.

F64, F32, F16, BF16, F8_E4M3 and F8_E5M2 tensors are averaged; integer and BOOL tensors are copied from the last model
that is read, or follow --integers, and the report names them; other dtypes are refused. All models must have the same
tensors, unless --keys says otherwise. The output appears whole or not at all; it may be one of the inputs, and has
the metadata of the first, with format: pt if that has no format. Of a model of weight zero only the header is read.

Task arithmetic is weighted with negative weights, which sum to one where a base model is among the files:
a + 0.4 (b - c) is weighted -w 1,0.4,-0.4.

To write manual pages: modelavg man --dir DIR. To complete command lines in a shell: modelavg completion --help.

Exit status: 0 done, 1 failed (also when stopped by a signal), 2 wrong usage.`,
		Example: `  modelavg mean -o out.safetensors a.safetensors b.safetensors
  modelavg weighted -w 0.2,0.5,0.3 -o out.safetensors a.safetensors b.safetensors c.safetensors
  modelavg ewa --decay 0.9 -o out.safetensors step1.safetensors step2.safetensors step3.safetensors`,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          onlyCommands,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("no command given")
		},
	}
	root.SetVersionTemplate("modelavg {{.Version}}\n")
	root.AddCommand(newMean(false), newWeighted(false), newEWA(false), newPlan(),
		newFinish(), newInspect(), newDiff(), newVerify(), newSoup(), newVersion(), newMan())
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		// The flags are those of a command that there is not.
		if args := cmd.Flags().Args(); cmd.HasSubCommands() && len(args) > 0 {
			return unknownCommand(cmd, args[0])
		}
		return plainNumberError(err)
	})
	checkHelp(root)
	return root
}

// onlyCommands returns an error if there is an argument: a command has taken its own.
func onlyCommands(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	return unknownCommand(cmd, args[0])
}

// unknownCommand returns an error that names the command, and those whose names are near.
func unknownCommand(parent *cobra.Command, name string) error {
	parent.SuggestionsMinimumDistance = 2 // letters that differ
	text := fmt.Sprintf("unknown command %q for %q", name, parent.CommandPath())
	if near := parent.SuggestionsFor(name); len(near) > 0 {
		text += fmt.Sprintf(": did you mean \"%s\"?", strings.Join(near, `" or "`))
	}
	return errors.New(text)
}

// unknownHelp returns an error if the help flag is given for a command that there is not.
func unknownHelp(root *cobra.Command, args []string) error {
	cmd, rest, err := root.Find(args)
	if err != nil || !cmd.HasSubCommands() || !slices.ContainsFunc(rest, func(s string) bool { return s == "--help" || s == "-h" }) {
		return nil
	}
	if len(rest) > 0 && !strings.HasPrefix(rest[0], "-") && !strings.HasPrefix(rest[0], "__") { // which shells call
		return unknownCommand(cmd, rest[0])
	}
	return nil
}

// checkCompletion makes the completion command, which writes to the output that root has now, refuse unknown shells.
func checkCompletion(root *cobra.Command, args []string) {
	root.InitDefaultCompletionCmd(args...)
	if cmd, _, err := root.Find([]string{"completion"}); err == nil && cmd != root {
		cmd.Args = onlyCommands
		cmd.RunE = func(*cobra.Command, []string) error {
			return errors.New("no shell given: want bash, zsh, fish or powershell")
		}
	}
}

// plainNumberError says of a flag that is no number what is wanted, where the error of the library quotes package strconv.
func plainNumberError(err error) error {
	before, after, ok := strings.Cut(err.Error(), ": strconv.")
	switch {
	case !ok:
		return err
	case strings.HasSuffix(after, strconv.ErrRange.Error()):
		return errors.New(before + ": it is out of range")
	case strings.HasPrefix(after, "ParseFloat"):
		return errors.New(before + ": want a number")
	}
	return errors.New(before + ": want a whole number")
}

// checkHelp makes the help command refuse what is no command.
func checkHelp(root *cobra.Command) {
	root.InitDefaultHelpCmd()
	help, _, err := root.Find([]string{"help"})
	if err != nil {
		return // the library has no such command
	}
	help.Example = "  modelavg help mean"
	help.Run = nil
	help.RunE = func(cmd *cobra.Command, args []string) error {
		of := root
		for _, name := range args {
			i := slices.IndexFunc(of.Commands(), func(c *cobra.Command) bool { return c.Name() == name || c.HasAlias(name) })
			if i < 0 {
				return unknownCommand(of, name)
			}
			of = of.Commands()[i]
		}
		of.InitDefaultHelpFlag()
		of.InitDefaultVersionFlag()
		return of.Help()
	}
}
