package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/modelavg/modelavg/checkpoint"
	"github.com/modelavg/modelavg/internal/convert"
	"github.com/modelavg/modelavg/internal/printable"
)

func newInspect() *cobra.Command {
	var (
		read    readFlags
		stats   bool
		asJSON  bool
		workers int
	)
	cmd := &cobra.Command{
		Use:                   "inspect FILE",
		DisableFlagsInUseLine: true,
		Short:                 "List the tensors and the metadata of a model",
		Long: `Inspect lists the tensors of a model with their dtype, shape and size, and its metadata.

With --stats it reads the data, in fixed memory, and adds the least and the greatest element, mean, root mean square,
and how many elements are NaN and infinite, which have no part in the rest. They are computed in float64, for integers,
BOOL and the floats that modelavg averages; other dtypes have none.`,
		Example: `  modelavg inspect model.safetensors
  modelavg inspect --stats --json model.safetensors`,
		RunE: func(cmd *cobra.Command, files []string) error {
			switch {
			case len(files) != 1:
				return fmt.Errorf("%s given, want one", plural(len(files), "file"))
			case workers < 0:
				return fmt.Errorf("--workers %d: want 0 or more", workers)
			}
			if err := checkFiles(files); err != nil {
				return err
			}
			i, err := inspect(cmd, read, files[0], stats, workers)
			if err != nil {
				return &failure{err}
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), i)
			}
			i.print(cmd.OutOrStdout(), stats)
			return nil
		},
	}
	cmd.Flags().BoolVar(&stats, "stats", false, "read the data and print what numbers are in it")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().IntVar(&workers, "workers", 0, "`NUMBER` of goroutines that work; 0 means one for each processor")
	read.register(cmd)
	return cmd
}

// An inspection is what inspect prints. The names in JSON are what programs rely on.
type inspection struct {
	Path     string            `json:"path"`
	Bytes    int64             `json:"bytes"` // of tensor data
	Elements int64             `json:"elements"`
	Shards   []string          `json:"shards"` // the files that the tensors are in
	Metadata map[string]string `json:"metadata"`
	Tensors  []inspected       `json:"tensors"`
}

type inspected struct {
	Name  string           `json:"name"`
	DType checkpoint.DType `json:"dtype"`
	Shape []int64          `json:"shape"`
	Bytes int64            `json:"bytes"`
	Stats *summary         `json:"stats,omitempty"`
}

// inspect looks at a file.
func inspect(cmd *cobra.Command, read readFlags, file string, stats bool, workers int) (*inspection, error) {
	m, err := read.open(file)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	i := &inspection{Path: file, Metadata: m.Metadata(), Tensors: []inspected{}}
	for _, s := range m.Shards() {
		i.Shards = append(i.Shards, s.File)
	}
	if i.Metadata == nil {
		i.Metadata = map[string]string{}
	}
	for _, t := range m.Tensors() {
		i.Tensors = append(i.Tensors, inspected{
			Name: t.Name, DType: t.DType, Shape: append([]int64{}, t.Shape...),
			Bytes: t.Bytes(),
		})
		i.Bytes += t.Bytes()
		i.Elements += t.Elements()
	}
	if !stats {
		return i, nil
	}
	progress := newProgress(cmd.ErrOrStderr(), i.Bytes)
	defer progress.close()
	s := newScanner(1, workers, progress.add)
	for k := range i.Tensors {
		t := &i.Tensors[k]
		if !convert.IsNumber(t.DType) {
			continue
		}
		summary, err := summaryOf(cmd.Context(), s, m, t.Name)
		if err != nil {
			return nil, err
		}
		t.Stats = &summary
	}
	return i, m.Unchanged()
}

// summaryOf reads the tensor.
func summaryOf(ctx context.Context, s *scanner, m *checkpoint.Model, name string) (summary, error) {
	r, err := m.TensorReader(name)
	if err != nil {
		return summary{}, err
	}
	total := statisticsOf(nil)
	err = scan(ctx, s, []*checkpoint.TensorReader{r},
		func(x [2][]float64) statistics { return statisticsOf(x[0]) }, total.add)
	return total.summary(), err
}

// print prints a table of the tensors, and then the file.
func (i *inspection) print(out io.Writer, stats bool) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	header := "DTYPE\tSHAPE\tBYTES"
	if stats {
		header += "\tMIN\tMAX\tMEAN\tRMS\tNAN\tINF"
	}
	fmt.Fprintln(w, header+"\tTENSOR")
	dtypes := make(map[checkpoint.DType]int)
	for _, t := range i.Tensors {
		dtypes[t.DType]++
		fmt.Fprintf(w, "%v\t%v\t%d", t.DType, t.Shape, t.Bytes)
		switch s := t.Stats; {
		case stats && s == nil:
			fmt.Fprint(w, "\t-\t-\t-\t-\t-\t-")
		case stats:
			fmt.Fprintf(w, "\t%v\t%v\t%v\t%v\t%d\t%d", s.Min, s.Max, s.Mean, s.RMS, s.NaN, s.Inf)
		}
		fmt.Fprintf(w, "\t%s\n", printable.Name(t.Name))
	}
	w.Flush()
	fmt.Fprintf(out, "%s: %s, %d elements, %d bytes", printable.Name(i.Path), plural(len(i.Tensors), "tensor"), i.Elements,
		i.Bytes)
	for _, d := range slices.Sorted(maps.Keys(dtypes)) {
		fmt.Fprintf(out, ", %d %v", dtypes[d], d)
	}
	if len(i.Shards) > 1 {
		fmt.Fprintf(out, ", in %d shards", len(i.Shards))
	}
	fmt.Fprintln(out)
	for _, k := range slices.Sorted(maps.Keys(i.Metadata)) {
		fmt.Fprintf(out, "metadata %s: %s\n", printable.Name(k), printable.Name(i.Metadata[k]))
	}
}
