package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/modelavg/modelavg/checkpoint"
	"github.com/modelavg/modelavg/internal/printable"
)

func newVerify() *cobra.Command {
	var (
		read   readFlags
		asJSON bool
	)
	cmd := &cobra.Command{
		Use:                   "verify FILE...",
		DisableFlagsInUseLine: true,
		Short:                 "Check that model files obey every rule of their format",
		Long: `Verify checks model files against every rule of their format: the header and its fields, names, dtypes and shapes,
that the tensors fill the file without holes and overlaps, and, in .npz files, that the data has the checksum that was
written with it; the other formats have none. Of a model in shards, given as a directory or an index, every shard is
checked, and all of them against the index, its total_size included, which no other command looks at.

A line says of each file that it is valid, or there is a line for everything that is wrong with it. The exit status is 1
if anything is wrong.`,
		Example: `  modelavg verify a.safetensors b.safetensors
  modelavg verify --json directory`,
		RunE: func(cmd *cobra.Command, files []string) error {
			if len(files) == 0 {
				return errors.New("no model files given")
			}
			if err := checkFiles(files); err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			list := []verified{}
			violations, unread := 0, 0
			for _, file := range files {
				v := verified{Path: file, Violations: []string{}}
				found := func(violation string, inFormat bool) {
					if inFormat {
						violations++
					} else {
						unread++
					}
					if asJSON {
						v.Violations = append(v.Violations, violation)
					} else {
						fmt.Fprintln(out, printable.Text(violation))
					}
				}
				var err error
				if v.Valid, v.Tensors, err = verify(cmd.Context(), read, file, found); err != nil {
					return &failure{err}
				}
				if v.Valid && !asJSON {
					fmt.Fprintf(out, "%s: valid, %s\n", printable.Name(file), plural(v.Tensors, "tensor"))
				}
				list = append(list, v)
			}
			if asJSON {
				if err := printJSON(out, list); err != nil {
					return err
				}
			}
			var faults []string
			if violations > 0 {
				faults = append(faults, fmt.Sprintf("violations found: %d", violations))
			}
			if unread > 0 {
				faults = append(faults, fmt.Sprintf("files that could not be read: %d", unread))
			}
			if faults != nil {
				return &failure{errors.New(strings.Join(faults, "; "))}
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	read.register(cmd)
	return cmd
}

// A verified is what verify --json prints of a file. The names in JSON are what programs rely on.
type verified struct {
	Path       string   `json:"path"`
	Valid      bool     `json:"valid"`
	Tensors    int      `json:"tensors"` // of a valid model
	Violations []string `json:"violations"`
}

// verify checks a file, calls found with every violation, in one line, and whether it is one of the format, and returns
// how many tensors a valid model has.
func verify(ctx context.Context, read readFlags, file string, found func(violation string, inFormat bool)) (valid bool,
	tensors int, err error,
) {
	valid = true
	for err := range checkpoint.Violations(file, read.options()...) {
		if ctx.Err() != nil {
			return false, 0, context.Cause(ctx)
		}
		if valid || errors.Is(err, checkpoint.ErrUntyped) {
			err = hint(err)
		}
		valid = false
		format := (*checkpoint.FormatError)(nil)
		found(strings.ReplaceAll(err.Error(), "\n", " "), errors.As(err, &format))
	}
	if !valid {
		return false, 0, nil
	}
	m, err := read.open(file)
	if err != nil {
		return false, 0, err
	}
	defer m.Close()
	return true, len(m.Tensors()), nil
}
