package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/modelavg/modelavg/weighting"
)

// newWeighted returns the command, or the one that only plans.
func newWeighted(planOnly bool) *cobra.Command {
	f := averageFlags{planOnly: planOnly}
	var (
		list      []string
		normalize bool
		counts    bool
	)
	cmd := &cobra.Command{
		Use:                   "weighted -w WEIGHT,... -o OUT FILE...",
		DisableFlagsInUseLine: true,
		Short:                 "Write the weighted mean of models",
		Long: `Weighted writes the weighted mean of the models: one weight for each file, in the order of the files.

The weights must sum to one, within a tolerance of 1e-5. With --normalize they may be any numbers that are not negative
and are divided by their sum. With --counts they are counts of training samples, as in federated averaging: whole
numbers, divided by their sum. A model of weight zero is not read.`,
		Example: `  modelavg weighted -w 0.2,0.5,0.3 -o out.safetensors a.safetensors b.safetensors c.safetensors
  modelavg weighted -w 2,5,3 --normalize -o out.safetensors a.safetensors b.safetensors c.safetensors
  modelavg weighted -w 600,1500,900 --counts -o out.safetensors a.safetensors b.safetensors c.safetensors`,
		RunE: func(cmd *cobra.Command, files []string) error {
			if err := f.check(files); err != nil {
				return err
			}
			switch {
			case len(list) == 0:
				return errors.New("no weights given: -w WEIGHT,... is required")
			case normalize && counts:
				return errors.New("--normalize and --counts exclude each other")
			case len(list) != len(files):
				return fmt.Errorf("%d weights for %d files", len(list), len(files))
			}
			parse := func(list []string) ([]float64, error) { return parseWeights(list, normalize, counts) }
			weights, err := parse(list)
			if err != nil {
				return err
			}
			if err := weighting.Check(weights, len(files)); err != nil {
				return err
			}
			opts, err := f.options(len(files), parse)
			if err != nil {
				return err
			}
			return average(cmd, &f, files, weights, opts)
		},
	}
	f.register(cmd)
	cmd.Flags().StringSliceVarP(&list, "weights", "w", nil, "one `WEIGHT` for each file, separated by commas (required)")
	cmd.Flags().BoolVar(&normalize, "normalize", false, "divide the weights by their sum")
	cmd.Flags().BoolVar(&counts, "counts", false, "the weights are counts of samples; divide them by their sum")
	return cmd
}

// parseWeights returns the numbers of the list, divided by their sum when they are to be normalized or are counts.
func parseWeights(list []string, normalize, counts bool) ([]float64, error) {
	if counts {
		samples := make([]int64, len(list))
		for i, s := range list {
			n, err := strconv.ParseInt(strings.TrimSpace(s), 10, 64)
			if err != nil {
				return nil, fmt.Errorf("count %d is %q: want a whole number", i+1, s)
			}
			samples[i] = n
		}
		return weighting.Counts(samples)
	}
	weights := make([]float64, len(list))
	for i, s := range list {
		w, err := strconv.ParseFloat(strings.TrimSpace(s), 64)
		if err != nil {
			return nil, fmt.Errorf("weight %d is %q: want a number", i+1, s)
		}
		weights[i] = w
	}
	if normalize {
		return weighting.Normalized(weights)
	}
	return weights, nil
}
