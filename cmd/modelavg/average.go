package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"strings"

	"github.com/spf13/cobra"

	"github.com/modelavg/modelavg/checkpoint"
	"github.com/modelavg/modelavg/internal/bytesize"
	"github.com/modelavg/modelavg/internal/printable"
	"github.com/modelavg/modelavg/merge"
	"github.com/modelavg/modelavg/weighting"
)

// averageFlags are the flags that all averaging commands share.
type averageFlags struct {
	readFlags

	planOnly  bool // the command prints the plan and writes nothing
	noWeights bool // the command has no weights, for files or for tensors

	part          partFlags
	output        string
	workers       int
	json          bool
	noSync        bool
	maxShardSize  bytesize.Size
	integers      choice
	keys          choice
	nonFinite     choice
	overflow      choice
	dtype         choice
	include       []string
	exclude       []string
	tensorWeights []string
}

// register adds the flags to the command, and the completion of its arguments.
func (f *averageFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	output := "`FILE` or directory to write; replaced if it exists (required)"
	if f.planOnly {
		output = "`FILE` or directory that would be written"
	}
	flags.StringVarP(&f.output, "output", "o", "", output)
	flags.IntVar(&f.workers, "workers", 0,
		"`NUMBER` of goroutines that work; 0 means as many as the processors need")
	flags.BoolVar(&f.json, "json", false, "print plan and report as JSON")
	flags.Var(&f.maxShardSize, "max-shard-size", "write a directory of shards of at most so many bytes, such as 5GB, "+
		"or of one tensor")
	if !f.planOnly {
		flags.BoolVar(&f.noSync, "no-sync", false, "do not flush the output to the disk: a loss of power may damage it")
	}
	f.registerPolicies(cmd)
	if !f.planOnly && !f.noWeights {
		f.part.register(cmd)
	}
	_ = cmd.MarkFlagFilename("output", "safetensors")
	f.readFlags.register(cmd)
}

const filesHelp = `

Files. Models are safetensors files, model directories (one file, or shards and their index), index files, and .npy and
.npz files. If the first model is a directory, so is the output, with the same shards and with copies of the other files
in it (config.json, tokenizer), unless it is called .safetensors, .npy or .npz. With --max-shard-size it is a directory
in any case; a tensor that is larger than the size gets a shard of its own. A file takes the place of a model file
only, or of an empty one. In a directory, shards and their index take the place of old shards and their index, of which
none are left, and one file (model.safetensors) that of an old one. Either beside the other would be two models, and is
an error: the old weights have to be removed before. Files that are not weights are neither overwritten nor removed.`

// policyHelp is the end of the help of every averaging command.
const policyHelp = `

Tensors. --include and --exclude choose the tensors of the output by regular expressions, which may match anywhere in
the name; the others are left out, and are not compared. A pattern that matches nothing is an error.

Policies. What they touch is counted and named in the report.
  --integers   integer and BOOL tensors: copied from the last or the first
               model that is read, the maximum, the sum (an error where it
               overflows), or copied, with an error if the models differ
  --keys       tensors that not all models have: an error (strict), left out
               (intersection), or averaged over the models that have them,
               their weights divided by their sum (union)
  --nonfinite  NaN and infinities in a model: averaged as they are, or an error
  --overflow   averages of finite numbers that are too large for their dtype:
               infinity (NaN in F8_E4M3, which has none), the largest finite
               number (saturate), or an error
  --dtype      dtype of the averaged tensors: that of the first model, or one
               for all; models may differ in it`

const weightsHelp = `

Weights. --tensor-weights 'REGEXP=WEIGHT,...' gives the tensors that match weights of their own, one for each file. Of
several rules the first that matches counts.`

// registerPolicies adds the flags that say what the result has.
func (f *averageFlags) registerPolicies(cmd *cobra.Command) {
	cmd.Long += filesHelp + policyHelp
	flags := cmd.Flags()
	for _, policy := range []struct {
		value  *choice
		name   string
		usage  string
		values []string
	}{
		{&f.integers, "integers", "integer and BOOL tensors", []string{"last", "first", "max", "sum", "error"}},
		{&f.keys, "keys", "tensors that not all have", []string{"strict", "intersection", "union"}},
		{&f.nonFinite, "nonfinite", "NaN and infinities in a model", []string{"propagate", "error"}},
		{&f.overflow, "overflow", "averages too large for their dtype", []string{"inf", "saturate", "error"}},
		{&f.dtype, "dtype", "of averages", []string{"first", "f64", "f32", "f16", "bf16", "f8_e4m3", "f8_e5m2"}},
	} {
		*policy.value = choice{policy.values[0], policy.values}
		flags.Var(policy.value, policy.name, policy.usage+": "+strings.Join(policy.values, ", "))
		_ = cmd.RegisterFlagCompletionFunc(policy.name, cobra.FixedCompletions(policy.values,
			cobra.ShellCompDirectiveNoFileComp))
	}
	flags.StringArrayVar(&f.include, "include", nil, "average only tensors that match `REGEXP`; repeatable")
	flags.StringArrayVar(&f.exclude, "exclude", nil, "leave out tensors that match `REGEXP`; repeatable")
	if f.noWeights {
		return
	}
	cmd.Long += weightsHelp
	flags.StringArrayVar(&f.tensorWeights, "tensor-weights", nil,
		"`RULE` REGEXP=WEIGHT,... for tensors that match; repeatable")
}

// A choice is the value of a flag that is one of a few words, in upper or lower case.
type choice struct {
	value  string
	values []string
}

func (c *choice) String() string { return c.value }
func (c *choice) Type() string   { return "WORD" }

func (c *choice) Set(s string) error {
	for _, v := range c.values {
		if strings.EqualFold(v, s) {
			c.value = v
			return nil
		}
	}
	return fmt.Errorf("want one of %s", strings.Join(c.values, ", "))
}

// check reports what is missing or wrong on the command line.
func (f *averageFlags) check(files []string) error {
	switch {
	case len(files) == 0:
		return errors.New("no model files given")
	case f.output == "" && !f.planOnly:
		return errors.New("no output file given: -o FILE is required")
	case f.workers < 0:
		return fmt.Errorf("--workers %d: want 0 or more", f.workers)
	}
	if _, err := f.part.given(); err != nil {
		return err
	}
	if err := checkFiles(files); err != nil {
		return err
	}
	return checkOutput("-o", f.output)
}

// planOptions returns the options of a plan of the files. The weights of tensors are parsed as those of the files are.
func (f *averageFlags) planOptions(files []string, parse weightParser) ([]merge.Option, error) {
	opts := []merge.Option{
		merge.WithContext(f.context()),
		merge.WithWorkers(f.workers),
		merge.WithIntegers(merge.IntegerPolicy(f.integers.value)),
		merge.WithKeys(merge.KeyPolicy(f.keys.value)),
		merge.WithNonFinite(merge.NonFinitePolicy(f.nonFinite.value)),
		merge.WithOverflow(merge.OverflowPolicy(f.overflow.value)),
	}
	if f.dtype.value != "first" {
		dtype, err := checkpoint.ParseDType(strings.ToUpper(f.dtype.value))
		if err != nil {
			return nil, err
		}
		opts = append(opts, merge.WithDType(dtype))
	}
	if f.noSync {
		opts = append(opts, merge.WithCreateOptions(checkpoint.WithoutSync()))
	}
	for _, list := range []struct {
		flag     string
		patterns []string
		option   func(...*regexp.Regexp) merge.Option
	}{
		{"include", f.include, merge.WithInclude},
		{"exclude", f.exclude, merge.WithExclude},
	} {
		for _, pattern := range list.patterns {
			re, err := regexp.Compile(pattern)
			if err != nil {
				return nil, fmt.Errorf("--%s %s: %w", list.flag, pattern, err)
			}
			opts = append(opts, list.option(re))
		}
	}
	for _, rule := range f.tensorWeights {
		opt, err := tensorWeights(rule, files, parse)
		if err != nil {
			return nil, fmt.Errorf("--tensor-weights %s: %w", rule, err)
		}
		opts = append(opts, opt)
	}
	return opts, nil
}

// tensorWeights returns the option of a rule REGEXP=WEIGHT,... The last equals sign separates the two.
func tensorWeights(rule string, files []string, parse weightParser) (merge.Option, error) {
	i := strings.LastIndexByte(rule, '=')
	if i < 0 {
		return nil, errors.New("want REGEXP=WEIGHT,... with one weight for each file")
	}
	re, err := regexp.Compile(rule[:i])
	if err != nil {
		return nil, err
	}
	list := strings.Split(rule[i+1:], ",")
	weights, err := parse(list, files)
	if err != nil {
		return nil, err
	}
	if err := weighting.Check(weights, len(files)); err != nil {
		return nil, err
	}
	return merge.WithTensorWeights(re, weights...), nil
}

// average averages the files into f.output, with weights, or their mean when weights is nil, or prints only the plan.
// Its errors are failures.
func average(cmd *cobra.Command, f *averageFlags, files []string, weights []float64, opts []merge.Option) error {
	if f.output != "" {
		if err := checkParent(f.output); err != nil {
			return &failure{err}
		}
	}
	models, err := f.openAll(files)
	if err != nil {
		return &failure{err}
	}
	defer models.close()
	out := cmd.OutOrStdout()
	layout := newLayout(models[0], f.output, int64(f.maxShardSize))
	if f.output != "" {
		if err := checkTarget(f.output, &layout); err != nil {
			return &failure{err}
		}
	}
	plan, err := models.plan(weights, append(opts, merge.WithCreateOptions(layout.options...)))
	if err != nil {
		if f.planOnly {
			return &failure{errors.Join(keysHint(err), printObstacles(out, err, f.json))}
		}
		return &failure{listed(err)}
	}
	result := result{Plan: plan, Layout: layout.text, Notes: layout.notes(plan, f.output, f.dtype.value)}
	if f.planOnly {
		if f.output != "" {
			if err := plan.Check(f.output); err != nil {
				return &failure{hint(err)}
			}
		}
		if result.SideFiles, err = layout.plannedSideFiles(f.output); err != nil {
			return &failure{err}
		}
	}
	switch {
	case f.planOnly && f.json:
		return printJSON(out, result)
	case f.planOnly:
		fmt.Fprintf(out, "%vwrites %s\n%s%s", plan, printable.Text(layout.text), result.SideFiles.text("copies"), result.notesText())
		return nil
	case !f.json:
		fmt.Fprint(out, plan.Weights()+plan.Notes())
	}
	if part, err := f.part.given(); err != nil {
		return err
	} else if part.Of > 0 {
		return averagePart(cmd, f, plan, layout, part)
	}
	result.Report, err = runPlan(cmd.Context(), plan, f.output, cmd.ErrOrStderr())
	if err == nil {
		result.SideFiles, err = layout.copySideFiles(cmd.Context(), f.output, result.Report)
	}
	if err != nil {
		return &failure{hint(err)}
	}
	if cmd.Context().Err() != nil {
		fmt.Fprintf(cmd.ErrOrStderr(), "modelavg: stopped too late: %s is complete\n", printable.Name(f.output))
	}
	if f.json {
		err = printJSON(out, result)
	} else {
		_, err = io.WriteString(out, result.text())
	}
	return unreported(f.output, err)
}

// A result is what --json prints.
type result struct {
	Plan      *merge.Plan   `json:"plan"`
	Layout    string        `json:"layout"` // for people
	Part      *partResult   `json:"part,omitempty"`
	Report    *merge.Report `json:"report,omitempty"`
	SideFiles *sideFiles    `json:"side_files,omitempty"` // of a plan: what would be done with them
	Notes     []string      `json:"notes,omitempty"`
}

// text returns for people what was done.
func (r *result) text() string { return fmt.Sprintf("%v%v%s", r.Report, r.SideFiles, r.notesText()) }

// notesText returns a line for each note.
func (r *result) notesText() string {
	var b strings.Builder
	for _, note := range r.Notes {
		fmt.Fprintf(&b, "note: %s\n", note)
	}
	return b.String()
}

// models are opened files.
type models []*checkpoint.Model

func (list models) close() {
	for _, m := range list {
		m.Close()
	}
}

// plan plans the weighted mean, or the mean when weights is nil. It returns an error if there are tensors and all of them
// are left out.
func (list models) plan(weights []float64, opts []merge.Option) (plan *merge.Plan, err error) {
	if weights == nil {
		plan, err = merge.Mean(list, opts...)
	} else {
		plan, err = merge.WeightedMean(list, weights, opts...)
	}
	if err == nil {
		// What the first model says of itself as a soup is not true of a mean of it.
		maps.DeleteFunc(plan.Metadata, func(key, _ string) bool { return strings.HasPrefix(key, soupPrefix) })
	}
	if err == nil && len(plan.Steps) == 0 && len(plan.Omissions) > 0 {
		return nil, fmt.Errorf("nothing is left to average: %s", countOmissions(plan.Omissions))
	}
	return plan, err
}

// runPlan runs the plan with a progress bar.
func runPlan(ctx context.Context, plan *merge.Plan, path string, stderr io.Writer) (*merge.Report, error) {
	progress := newProgress(stderr, plan.BytesRead)
	defer progress.close()
	return plan.Run(ctx, path, progress.update)
}
