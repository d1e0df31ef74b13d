package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/modelavg/modelavg/checkpoint"
)

func newVerify() *cobra.Command {
	cmd := &cobra.Command{
		Use:                   "verify FILE...",
		DisableFlagsInUseLine: true,
		Short:                 "Check that model files obey every rule of their format",
		Long: `Verify checks model files against every rule of their format: the header and its fields, names, dtypes and shapes, and
that the tensors fill the file without holes and overlaps. Of a model in shards, given as a directory or an index, every
shard is checked, and all of them against the index.

A line says of each file that it is valid, or what is wrong with it. The exit status is 1 if anything is wrong.`,
		Example: `  modelavg verify a.safetensors b.safetensors`,
		RunE: func(cmd *cobra.Command, files []string) error {
			if len(files) == 0 {
				return errors.New("no model files given")
			}
			violations := 0
			for _, file := range files {
				m, err := checkpoint.Open(file)
				if err == nil {
					fmt.Fprintf(cmd.OutOrStdout(), "%s: valid, %d tensors\n", file, len(m.Tensors()))
					m.Close()
					continue
				}
				for _, text := range append([]string{err.Error()}, shardViolations(file, err)...) {
					violations++
					fmt.Fprintln(cmd.OutOrStdout(), strings.ReplaceAll(text, "\n", " "))
				}
			}
			if violations > 0 {
				return &failure{fmt.Errorf("violations found: %d", violations)}
			}
			return nil
		},
	}
	completeFiles(cmd)
	return cmd
}

// shardViolations returns what is wrong with the single shards of a model, other than what was found first.
func shardViolations(path string, first error) []string {
	dir := path
	if info, err := os.Stat(path); err != nil {
		return nil
	} else if !info.IsDir() {
		if !strings.HasSuffix(path, ".index.json") {
			return nil
		}
		dir = filepath.Dir(path)
	}
	shards, _ := filepath.Glob(filepath.Join(dir, "*.safetensors")) // the pattern is a legal one unless dir is strange
	slices.Sort(shards)
	var list []string
	for _, shard := range shards {
		m, err := checkpoint.Open(shard)
		if err == nil {
			m.Close()
			continue
		}
		if !strings.Contains(first.Error(), err.Error()) {
			list = append(list, err.Error())
		}
	}
	return list
}
