package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/modelavg/modelavg/checkpoint"
	"github.com/modelavg/modelavg/merge"
)

// averageFlags are the flags that all averaging commands share.
type averageFlags struct {
	output  string
	workers int
}

// register adds the flags to the command, and the completion of its arguments.
func (f *averageFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&f.output, "output", "o", "", "`FILE` to write; replaced if it exists (required)")
	cmd.Flags().IntVar(&f.workers, "workers", 0,
		"`NUMBER` of goroutines that read, average and write; 0 means one for each processor")
	_ = cmd.MarkFlagFilename("output", "safetensors")
	cmd.ValidArgsFunction = func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return []cobra.Completion{"safetensors"}, cobra.ShellCompDirectiveFilterFileExt
	}
}

// check reports what is missing or wrong on the command line.
func (f *averageFlags) check(files []string) error {
	switch {
	case len(files) == 0:
		return errors.New("no model files given")
	case f.output == "":
		return errors.New("no output file given: -o FILE is required")
	case f.workers < 0:
		return fmt.Errorf("--workers %d: want 0 or more", f.workers)
	}
	return nil
}

// average averages the files into f.output, with weights, or their mean when weights is nil. Its errors are failures.
func average(cmd *cobra.Command, f *averageFlags, files []string, weights []float64) (err error) {
	defer func() {
		if err != nil {
			err = &failure{err}
		}
	}()
	models := make([]*checkpoint.Model, 0, len(files))
	defer func() {
		for _, m := range models {
			m.Close()
		}
	}()
	for _, file := range files {
		m, err := checkpoint.Open(file)
		if err != nil {
			return err
		}
		models = append(models, m)
	}

	var plan *merge.Plan
	if weights == nil {
		plan, err = merge.Mean(models, merge.WithWorkers(f.workers))
	} else {
		plan, err = merge.WeightedMean(models, weights, merge.WithWorkers(f.workers))
	}
	if err != nil {
		return err
	}
	fmt.Fprint(cmd.OutOrStdout(), plan.Weights())

	progress := newProgress(cmd.ErrOrStderr(), plan.BytesRead)
	report, err := plan.Run(cmd.Context(), f.output, progress.update)
	progress.close()
	if err != nil {
		return err
	}
	fmt.Fprint(cmd.OutOrStdout(), report)
	return nil
}
