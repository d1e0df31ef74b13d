package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/modelavg/modelavg/weighting"
)

// ewaFlags say how weights follow from the age of a model.
type ewaFlags struct {
	weighting           string
	decay, gamma, sigma float64
}

// weightingNames are the values of --weighting, the default first.
var weightingNames = []string{"geometric", "ema", "power", "linear", "article"}

// newEWA returns the command, or the one that only plans.
func newEWA(planOnly bool) *cobra.Command {
	f := averageFlags{planOnly: planOnly}
	var ewa ewaFlags
	cmd := &cobra.Command{
		Use:                   "ewa --decay D -o OUT FILE...",
		DisableFlagsInUseLine: true,
		Short:                 "Write an exponentially weighted average of models",
		Long: `Ewa writes an average in which the weight of a model follows from its age. The files are given oldest first.

The decay is the factor by which the weight falls from a model to the next older one: the closer to 1, the longer the
memory. With --weighting the weights, for n models, age 0 the newest, are:

  geometric  decay^age, divided by the sum of all (the default)
  ema        the recurrence avg = decay*avg + (1-decay)*model, started with a
             copy of the oldest model
  power      proportional to the power function of time with exponent --gamma,
             or of relative width --sigma
  linear     n, n-1, ... 1 from the newest to the oldest, divided by their sum
  article    the recurrence avg = a*model + (1-a)*avg with a = decay^age, from
             the newest to the oldest model; for a decay above 1/2 it favours
             the OLDEST model

Linear takes no parameter; power takes --gamma or --sigma; the others take --decay.`,
		Example: `  modelavg ewa --decay 0.9 -o out.safetensors step1.safetensors step2.safetensors step3.safetensors
  modelavg ewa --weighting power --sigma 0.1 -o out.safetensors step1.safetensors step2.safetensors step3.safetensors
  modelavg ewa --weighting linear -o out.safetensors step1.safetensors step2.safetensors step3.safetensors`,
		RunE: func(cmd *cobra.Command, files []string) error {
			if err := f.check(files); err != nil {
				return err
			}
			if err := ewa.check(cmd.Flags().Changed); err != nil {
				return err
			}
			weights, err := ewa.weights(len(files), cmd.Flags().Changed("sigma"))
			if err != nil {
				return err
			}
			if err := weighting.Check(weights, len(files)); err != nil {
				return err
			}
			opts, err := f.planOptions(files, plainWeights)
			if err != nil {
				return err
			}
			return average(cmd, &f, files, weights, opts)
		},
	}
	f.register(cmd)
	flags := cmd.Flags()
	flags.StringVar(&ewa.weighting, "weighting", weightingNames[0],
		"`RULE` for weights: "+strings.Join(weightingNames, ", "))
	flags.Float64Var(&ewa.decay, "decay", 0, "`FACTOR` from the weight of a model to that of the next older one")
	flags.Float64Var(&ewa.gamma, "gamma", 0, "`EXPONENT` of --weighting power")
	flags.Float64Var(&ewa.sigma, "sigma", 0, "relative `WIDTH` of --weighting power, instead of --gamma")
	_ = cmd.RegisterFlagCompletionFunc("weighting",
		cobra.FixedCompletions(weightingNames, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// check reports parameters that the weighting lacks, and those that it would ignore.
func (e *ewaFlags) check(given func(flag string) bool) error {
	var want []string
	switch e.weighting {
	case "geometric", "ema", "article":
		want = []string{"decay"}
	case "power":
		want = []string{"gamma", "sigma"}
	case "linear":
	default:
		return fmt.Errorf("--weighting %s is unknown: want %s", e.weighting, strings.Join(weightingNames, ", "))
	}
	var got int
	for _, flag := range []string{"decay", "gamma", "sigma"} {
		if !given(flag) {
			continue
		}
		if !slices.Contains(want, flag) {
			return fmt.Errorf("--weighting %s takes no --%s", e.weighting, flag)
		}
		got++
	}
	switch {
	case len(want) > 0 && got == 0:
		return fmt.Errorf("--weighting %s needs --%s", e.weighting, strings.Join(want, " or --"))
	case got > 1:
		return errors.New("--gamma and --sigma exclude each other")
	}
	return nil
}

// weights returns the weights of n models, oldest first.
func (e *ewaFlags) weights(n int, sigma bool) ([]float64, error) {
	switch e.weighting {
	case "ema":
		return weighting.EMA(n, e.decay)
	case "article":
		return weighting.ArticleRecurrence(n, e.decay)
	case "linear":
		return weighting.Linear(n)
	case "power":
		if sigma {
			return weighting.PowerSigma(n, e.sigma)
		}
		return weighting.Power(n, e.gamma)
	}
	return weighting.Geometric(n, e.decay)
}
