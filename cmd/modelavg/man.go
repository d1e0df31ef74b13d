package main

import (
	"errors"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

func newMan() *cobra.Command {
	var dir string
	cmd := &cobra.Command{
		Use:                   "man --dir DIR",
		DisableFlagsInUseLine: true,
		Hidden:                true, // for those who make packages
		Short:                 "Write the manual pages of all commands",
		Long: `Man writes a manual page for each command, in section 1, into a directory, which is made if there is none.

Each page has the text that --help prints.`,
		Example:           `  modelavg man --dir man`,
		Args:              cobra.NoArgs,
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if dir == "" {
				return errors.New("no directory given: --dir DIR is required")
			}
			if err := writeManPages(cmd.Root(), dir); err != nil {
				return &failure{err}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&dir, "dir", "", "`DIRECTORY` for the pages (required)")
	_ = cmd.MarkFlagDirname("dir")
	return cmd
}

// writeManPages writes the pages. Their date is that of the environment variable SOURCE_DATE_EPOCH, if it is set.
func writeManPages(root *cobra.Command, dir string) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	root.DisableAutoGenTag = true
	verbatim(root)
	return doc.GenManTree(root, &doc.GenManHeader{
		Section: "1", Source: "modelavg " + version(),
		Manual: "modelavg manual",
	}, dir)
}

// verbatim makes the indented lines of all long texts what the pages, which are made from Markdown, show as they are.
func verbatim(cmd *cobra.Command) {
	var b strings.Builder
	indented := false
	for line := range strings.Lines(cmd.Long) {
		if now := strings.HasPrefix(line, "  "); now != indented {
			b.WriteString("\n")
			indented = now
		}
		if indented {
			b.WriteString("  ")
		}
		b.WriteString(line)
	}
	cmd.Long = b.String()
	for _, sub := range cmd.Commands() {
		verbatim(sub)
	}
}
