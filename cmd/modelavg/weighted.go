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

The weights must sum to one, within a tolerance of 1e-5; they may be negative, for task arithmetic. With --normalize
they may be any numbers that are not negative and are divided by their sum. With --counts they are counts of training
samples, as in federated averaging: whole numbers, divided by their sum. Of a model of weight zero only the header is
read.`,
		Example: `  modelavg weighted -w 0.2,0.5,0.3 -o out.safetensors a.safetensors b.safetensors c.safetensors
  modelavg weighted -w 2,5,3 --normalize -o out.safetensors a.safetensors b.safetensors c.safetensors
  modelavg weighted -w 1,0.4,-0.4 -o out.safetensors base.safetensors tuned.safetensors origin.safetensors
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
			}
			parse := plainWeights
			switch {
			case normalize:
				parse = normalizedWeights
			case counts:
				parse = countWeights
			}
			weights, err := parse(list, files)
			if err != nil {
				return err
			}
			if err := weighting.Check(weights, len(files)); err != nil {
				return sumHint(err, normalize || counts)
			}
			opts, err := f.planOptions(files, parse)
			if err != nil {
				return sumHint(err, normalize || counts)
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

// sumHint adds to an error about the sum of weights the flag that makes any sum right, unless they are divided by it.
func sumHint(err error, divided bool) error {
	if !divided && errors.Is(err, weighting.ErrWeightSum) {
		return fmt.Errorf("%w (--normalize divides them by their sum)", err)
	}
	return err
}

// A weightParser returns the weights of the files. Its errors name the file, and count from one.
type weightParser func(list, files []string) ([]float64, error)

// plainWeights parses weights that sum to one.
func plainWeights(list, files []string) ([]float64, error) {
	return parseWeights("weight", "a finite number", list, files, parseFinite)
}

// normalizedWeights parses weights that are divided by their sum.
func normalizedWeights(list, files []string) ([]float64, error) {
	weights, err := parseWeights("weight", "a finite number of 0 or more", list, files, func(s string) (float64, bool) {
		w, ok := parseFinite(s)
		return w, ok && w >= 0
	})
	if err != nil {
		return nil, err
	}
	return weighting.Normalized(weights)
}

// countWeights parses counts of samples, which are divided by their sum.
func countWeights(list, files []string) ([]float64, error) {
	samples, err := parseWeights("count", "a whole number of 0 or more", list, files, func(s string) (int64, bool) {
		n, err := strconv.ParseInt(s, 10, 64)
		return n, err == nil && n >= 0
	})
	if err != nil {
		return nil, err
	}
	return weighting.Counts(samples)
}

// parseWeights parses one number for each file.
func parseWeights[T any](what, want string, list, files []string, parse func(string) (T, bool)) ([]T, error) {
	if len(list) != len(files) {
		return nil, fmt.Errorf("%s for %s: want one for each", plural(len(list), what), plural(len(files), "file"))
	}
	numbers := make([]T, len(list))
	for i, s := range list {
		var ok bool
		if numbers[i], ok = parse(strings.TrimSpace(s)); !ok {
			return nil, fmt.Errorf("%s %d, of %s, is %q: want %s", what, i+1, files[i], s, want)
		}
	}
	return numbers, nil
}

// parseFinite parses a number that is neither NaN nor infinite.
func parseFinite(s string) (float64, bool) {
	x, err := strconv.ParseFloat(s, 64)
	return x, err == nil && finite(x, x)
}
