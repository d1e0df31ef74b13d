package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/modelavg/modelavg/checkpoint"
	"github.com/modelavg/modelavg/internal/printable"
	"github.com/modelavg/modelavg/merge"
)

// finishFlags are the flags of finish.
type finishFlags struct {
	output  string
	discard bool
	noCheck bool
	noSync  bool
	json    bool
}

func newFinish() *cobra.Command {
	var f finishFlags
	cmd := &cobra.Command{
		Use:                   "finish OUT",
		DisableFlagsInUseLine: true,
		Short:                 "Put an output that several processes wrote in parts in its place",
		Long: `Finish puts an output in its place that several processes have written, each with mean, weighted or ewa and
--part I/N.

They need a file system that all of them see, and no other connection: each writes its share of the bytes into the
directory .OUT.parts beside OUT, and leaves a record there when all of it is on the disk. Which process runs where, when
and how often does not matter: one that failed or was killed is run again, with the same command line, and one that runs
twice, even at the same time, writes the same bytes. A process with other weights, models, flags or another N is refused
and told what differs. The inputs must not change until all parts are done; OUT may be one of them.

When all parts are done, finish checks that none is missing and reads the files to compare them with the checksums that
the parts have left, renames them, and removes .OUT.parts. The output has the same bytes as that of one process and gets
its name as that would: at once, or not at all. The error says which parts are missing, or have to be run again since
the files are not what they wrote; OUT is as it was then. Finish can itself be killed and run again.

No part may be running while finish is, which would write into what is OUT then. On one machine finish sees to that: it
says that a part is still running. On several, run it after all processes of all parts have ended.

Numbers. --part counts from 1: I is 1, 2, ... N. Where the scheduler counts from 0, --part-from-zero takes its number;
in a shell, --part $((I + 1))/N does the same.

  GNU parallel   parallel modelavg mean --part {}/8 -o OUT FILE... ::: $(seq 8)
  Slurm          sbatch --array=1-8 --wrap 'modelavg mean --part $SLURM_ARRAY_TASK_ID/8 -o OUT FILE...'
                 sbatch --dependency=afterok:JOB --wrap 'modelavg finish OUT'
  Kubernetes     an Indexed Job with the arguments mean --part-from-zero=$(JOB_COMPLETION_INDEX)/8 -o OUT FILE...,
                 and after it a Job with finish OUT

Files. The output is safetensors, one file or a directory of shards; .npy and .npz files cannot be written in parts. On
NFS and other shared file systems no two parts write to the same page of a file, and a file that was closed on one
machine has to be what another one finds when it opens it.`,
		Example: `  modelavg finish out.safetensors
  modelavg finish --discard out.safetensors`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := f.check(args); err != nil {
				return err
			}
			if f.discard {
				return discard(cmd, &f)
			}
			return finish(cmd, &f)
		},
		ValidArgsFunction: func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
			return []cobra.Completion{"safetensors"}, cobra.ShellCompDirectiveFilterFileExt
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.output, "output", "o", "", "`FILE` or directory to finish, instead of the argument")
	flags.BoolVar(&f.discard, "discard", false, "give the output up: remove what the parts have written")
	flags.BoolVar(&f.noCheck, "no-check", false, "do not read the files to compare them with the parts' checksums")
	flags.BoolVar(&f.noSync, "no-sync", false, "do not flush the output to the disk: a loss of power may damage it")
	flags.BoolVar(&f.json, "json", false, "print the report as JSON")
	_ = cmd.MarkFlagFilename("output", "safetensors")
	return cmd
}

// check reports what is missing or wrong on the command line, and takes the argument for the output.
func (f *finishFlags) check(args []string) error {
	switch {
	case len(args) > 1:
		return fmt.Errorf("%d outputs given: want one", len(args))
	case len(args) == 1 && f.output != "":
		return errors.New("an output is given twice: as an argument and with -o")
	case len(args) == 1:
		f.output = args[0]
	}
	switch {
	case f.output == "":
		return errors.New("no output given: want the one that the parts were given with -o")
	case f.discard && (f.noCheck || f.noSync):
		return errors.New("--discard excludes --no-check and --no-sync")
	}
	return checkOutput("-o", f.output)
}

// A finished is what --json prints.
type finished struct {
	Parts     int           `json:"parts"`
	Report    *merge.Report `json:"report"`
	SideFiles *sideFiles    `json:"side_files,omitempty"`
	NotCopied string        `json:"side_files_error,omitempty"` // why there are none
}

// finish puts the output in its place and prints the report.
func finish(cmd *cobra.Command, f *finishFlags) error {
	done, err := runFinish(cmd.Context(), f, cmd.ErrOrStderr())
	if err != nil {
		return &failure{err}
	}
	if cmd.Context().Err() != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "modelavg: stopped too late: %s is complete\n", printable.Name(f.output))
	}
	result := finished{Parts: done.Parts, Report: done.Report}
	switch {
	case done.NotCopied != nil:
		result.NotCopied = done.NotCopied.Error()
		fmt.Fprintf(cmd.ErrOrStderr(), "modelavg: the weights are written, but %s\n", printable.Text(result.NotCopied))
	case done.SideFiles != "":
		result.SideFiles = newSideFiles(done.Copied, done.Skipped)
	}
	out := cmd.OutOrStdout()
	if f.json {
		err = printJSON(out, result)
	} else {
		_, err = fmt.Fprintf(out, "%v%vwritten in %s\n", result.Report, result.SideFiles, plural(result.Parts, "part"))
	}
	return unreported(f.output, err)
}

// runFinish finishes the output with a progress bar.
func runFinish(ctx context.Context, f *finishFlags, stderr io.Writer) (*merge.Finished, error) {
	progress := newProgress(stderr, 0)
	defer progress.close()
	opts := []merge.FinishOption{merge.WithFinishProgress(progress.updateOf), merge.WithFinishSync(!f.noSync)}
	if f.noCheck {
		opts = append(opts, merge.WithoutDataCheck())
	}
	return merge.Finish(ctx, f.output, opts...)
}

// A discarded is what --json prints of an output that was given up.
type discarded struct {
	Removed string `json:"removed"`
}

// discard removes the unfinished output.
func discard(cmd *cobra.Command, f *finishFlags) error {
	removed, err := checkpoint.DiscardParts(f.output)
	if err != nil {
		return &failure{err}
	}
	out := cmd.OutOrStdout()
	if f.json {
		return printJSON(out, discarded{removed})
	}
	_, err = fmt.Fprintf(out, "removed %s\n", printable.Name(removed))
	return err
}
