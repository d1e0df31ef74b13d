package main

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/modelavg/modelavg/checkpoint"
	"github.com/modelavg/modelavg/internal/convert"
	"github.com/modelavg/modelavg/internal/printable"
)

// measures are what diff can sort by, the default first.
var measures = []string{"relative", "max", "rms", "cosine"}

func newDiff() *cobra.Command {
	var (
		read    readFlags
		asJSON  bool
		workers int
		plot    string
	)
	by := choice{measures[0], measures}
	cmd := &cobra.Command{
		Use:                   "diff A B",
		DisableFlagsInUseLine: true,
		Short:                 "Show how far two models are from each other, tensor by tensor",
		Long: `Diff compares the tensors of two models, computed in float64 and in fixed memory, and lists them, the farthest first:

  max       the largest absolute difference of two elements
  rms       the root of the mean squared difference
  relative  the norm of the difference divided by the norm of the tensor in A
  cosine    the cosine distance: one minus the cosine of the angle between the two

Elements that are NaN or infinite in one model, and not the same in the other, are counted and have no part in the rest;
tensors with such elements come first. Dtypes may differ. Tensors that only one model has, or whose shapes differ, are
named; the one of a .npy file is called "array". The exit status is 0 however far the models are from each other, and 1
if no tensor can be compared.

--plot draws a bar for each tensor, in the order of the names, or for each layer if there are many tensors, into an SVG
file, but none for tensors of integers; what is not compared is noted below them. The name of the file has to end with
.svg, and nothing but an SVG file is replaced.`,
		Example: `  modelavg diff a.safetensors b.safetensors
  modelavg diff --by max --plot diff.svg a.safetensors b.safetensors`,
		RunE: func(cmd *cobra.Command, files []string) error {
			switch {
			case len(files) != 2:
				return fmt.Errorf("%s given, want two", plural(len(files), "file"))
			case workers < 0:
				return fmt.Errorf("--workers %d: want 0 or more", workers)
			}
			if err := cmp.Or(checkFiles(files), checkOutput("--plot", plot)); err != nil {
				return err
			}
			if plot != "" || cmd.Flags().Changed("plot") {
				if err := checkPlot(plot, files...); err != nil {
					return err
				}
			}
			d, err := diff(cmd, read, files[0], files[1], workers)
			if err == nil && plot != "" {
				err = d.plot(plot, by.value)
			}
			if err != nil {
				return &failure{err}
			}
			if plot != "" {
				fmt.Fprintf(cmd.ErrOrStderr(), "modelavg: the bars are in %s\n", printable.Name(plot))
			}
			d.sort(by.value)
			if asJSON {
				if err := printJSON(cmd.OutOrStdout(), d); err != nil {
					return err
				}
			} else {
				d.print(cmd.OutOrStdout())
			}
			if len(d.Tensors) == 0 && len(d.Differences) > 0 {
				return &failure{fmt.Errorf("%s and %s: no tensor of the one can be compared with one of the other", d.A, d.B)}
			}
			return nil
		},
	}
	flags := cmd.Flags()
	flags.Var(&by, "by", "sort and plot by this: relative, max, rms, cosine")
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	flags.StringVar(&plot, "plot", "", "SVG `FILE` to draw a bar for each tensor into")
	flags.IntVar(&workers, "workers", 0, "`NUMBER` of goroutines that work; 0 means one for each processor")
	_ = cmd.MarkFlagFilename("plot", "svg")
	_ = cmd.RegisterFlagCompletionFunc("by", cobra.FixedCompletions(measures, cobra.ShellCompDirectiveNoFileComp))
	read.register(cmd)
	return cmd
}

// A comparison is what diff prints. The names in JSON are what programs rely on.
type comparison struct {
	A           string     `json:"a"`
	B           string     `json:"b"`
	Tensors     []compared `json:"tensors"`
	Differences []string   `json:"differences"` // of keys and shapes, and tensors that are no numbers
}

type compared struct {
	Name      string `json:"name"`
	Elements  int64  `json:"elements"`
	Max       number `json:"max"`
	RMS       number `json:"rms"`
	Relative  number `json:"relative"`
	Cosine    number `json:"cosine"`
	NonFinite int64  `json:"non_finite"`
	sums      distances
	integers  bool
}

// newCompared returns what is shown of the distances.
func newCompared(name string, elements int64, d distances) compared {
	return compared{
		name, elements, number(d.max), number(d.rms()), number(d.relative()), number(d.cosine()),
		d.nonFinite, d, false,
	}
}

// by returns the measure of that name.
func (c *compared) by(measure string) float64 {
	switch measure {
	case "max":
		return float64(c.Max)
	case "rms":
		return float64(c.RMS)
	case "cosine":
		return float64(c.Cosine)
	}
	return float64(c.Relative)
}

// diff compares two files. The tensors are sorted by name.
func diff(cmd *cobra.Command, read readFlags, fileA, fileB string, workers int) (*comparison, error) {
	models, err := read.openAll([]string{fileA, fileB})
	if err != nil {
		return nil, err
	}
	defer models.close()
	a, b := models[0], models[1]
	c := &comparison{A: fileA, B: fileB, Tensors: []compared{}, Differences: []string{}}

	var common []string
	var total int64
	for _, t := range a.Tensors() {
		u, ok := b.Tensor(t.Name)
		switch {
		case !ok:
			c.Differences = append(c.Differences, fmt.Sprintf("tensor %q is only in %s", t.Name, fileA))
		case !slices.Equal(t.Shape, u.Shape):
			c.Differences = append(c.Differences, fmt.Sprintf("tensor %q has shape %v in %s and %v in %s", t.Name,
				t.Shape, fileA, u.Shape, fileB))
		case !convert.IsNumber(t.DType) || !convert.IsNumber(u.DType):
			c.Differences = append(c.Differences, fmt.Sprintf("tensor %q of dtype %v and %v is not compared", t.Name,
				t.DType, u.DType))
		default:
			common = append(common, t.Name)
			total += t.Bytes() + u.Bytes()
		}
	}
	for _, t := range b.Tensors() {
		if _, ok := a.Tensor(t.Name); !ok {
			c.Differences = append(c.Differences, fmt.Sprintf("tensor %q is only in %s", t.Name, fileB))
		}
	}

	progress := newProgress(cmd.ErrOrStderr(), total)
	defer progress.close()
	s := newScanner(2, workers, progress.add)
	for _, name := range common {
		var readers []*checkpoint.TensorReader
		for _, m := range models {
			r, err := m.TensorReader(name)
			if err != nil {
				return nil, err
			}
			readers = append(readers, r)
		}
		var d distances
		err := scan(cmd.Context(), s, readers, func(x [2][]float64) distances { return distancesOf(x[0], x[1]) }, d.add)
		if err != nil {
			return nil, err
		}
		t := newCompared(name, readers[0].Tensor().Elements(), d)
		t.integers = !convert.IsFloat(readers[0].Tensor().DType) && !convert.IsFloat(readers[1].Tensor().DType)
		c.Tensors = append(c.Tensors, t)
	}
	for _, m := range models {
		if err := m.Unchanged(); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// sort sorts the tensors, the largest first: before all those in which elements differ that are not finite, which are as
// far from each other as elements can be, and those without a number.
func (c *comparison) sort(measure string) {
	slices.SortStableFunc(c.Tensors, func(x, y compared) int {
		if first := cmp.Compare(min(y.NonFinite, 1), min(x.NonFinite, 1)); first != 0 {
			return first
		}
		a, b := x.by(measure), y.by(measure)
		if math.IsNaN(a) || math.IsNaN(b) {
			return cmp.Compare(a, b) // NaN is less than any other
		}
		return cmp.Compare(b, a)
	})
}

// print prints a table of the tensors, and then the differences.
func (c *comparison) print(out io.Writer) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "MAX\tRMS\tRELATIVE\tCOSINE-DISTANCE\tNON-FINITE\tTENSOR")
	equal := 0
	for _, t := range c.Tensors {
		if t.Max == 0 && t.NonFinite == 0 {
			equal++
		}
		fmt.Fprintf(w, "%v\t%v\t%v\t%v\t%d\t%s\n", t.Max, t.RMS, t.Relative, t.Cosine, t.NonFinite,
			printable.Name(t.Name))
	}
	w.Flush()
	for _, d := range c.Differences {
		fmt.Fprintln(out, printable.Text(d))
	}
	fmt.Fprintf(out, "%s compared, %d of them equal\n", plural(len(c.Tensors), "tensor"), equal)
}

// plot draws the comparison into a file.
func (c *comparison) plot(path, measure string) error {
	title := fmt.Sprintf("%s and %s", c.A, c.B)
	picture, err := drawBars(title, measureTitles[measure], c.bars(measure), c.notes())
	if err != nil {
		return err
	}
	return writeFile(path, picture)
}
