package main

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"
)

func newPlan() *cobra.Command {
	plan := &cobra.Command{
		Use:   "plan",
		Short: "Print what mean, weighted or ewa would do, and write nothing",
		Args:  onlyCommands,
		Long: `Plan prints what an averaging command would do: every tensor of the result with its dtype, shape and size, the models
that it comes from and their effective weights, the policies, how the models differ, the bytes that would be read and
written, and the memory of the buffers. Only the headers of the files are read. If the models differ in a way that the
policies do not allow, it prints all differences, a line each, where the other commands name the first 20.

The flags are those of the command that is planned, but for those about how a file is written, such as --part and
--no-sync; -o may be left out.`,
		Example: `  modelavg plan mean a.safetensors b.safetensors
  modelavg plan ewa --decay 0.9 --json step1.safetensors step2.safetensors step3.safetensors`,
		RunE: func(*cobra.Command, []string) error {
			return errors.New("no command given: want mean, weighted or ewa")
		},
	}
	for _, cmd := range []*cobra.Command{newMean(true), newWeighted(true), newEWA(true)} {
		cmd.Use = strings.Replace(cmd.Use, " -o OUT", "", 1)
		cmd.Short = "Plan: " + strings.ToLower(cmd.Short[:1]) + cmd.Short[1:]
		cmd.Example = strings.ReplaceAll(strings.ReplaceAll(cmd.Example, "modelavg ", "modelavg plan "),
			" -o out.safetensors", "")
		plan.AddCommand(cmd)
	}
	return plan
}
