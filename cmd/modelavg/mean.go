package main

import "github.com/spf13/cobra"

// newMean returns the command, or the one that only plans.
func newMean(planOnly bool) *cobra.Command {
	f := averageFlags{planOnly: planOnly}
	cmd := &cobra.Command{
		Use:                   "mean -o OUT FILE...",
		DisableFlagsInUseLine: true,
		Short:                 "Write the arithmetic mean of models",
		Long: `Mean writes the arithmetic mean of the models: every one has the same weight.

The sum is accumulated in a wider format, divided by the number of models and rounded once.`,
		Example: `  modelavg mean -o out.safetensors a.safetensors b.safetensors c.safetensors`,
		RunE: func(cmd *cobra.Command, files []string) error {
			if err := f.check(files); err != nil {
				return err
			}
			opts, err := f.planOptions(files, plainWeights)
			if err != nil {
				return err
			}
			return average(cmd, &f, files, nil, opts)
		},
	}
	f.register(cmd)
	return cmd
}
