package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"regexp"
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
	return writeManPage(root, dir)
}

// writeManPage writes the page of a command and those of its commands.
func writeManPage(cmd *cobra.Command, dir string) error {
	for _, sub := range cmd.Commands() {
		if !sub.IsAvailableCommand() || sub.IsAdditionalHelpTopicCommand() {
			continue
		}
		if err := writeManPage(sub, dir); err != nil {
			return err
		}
	}
	var page bytes.Buffer
	err := doc.GenMan(cmd, &doc.GenManHeader{
		Title:   strings.ToUpper(strings.ReplaceAll(cmd.CommandPath(), " ", "-")),
		Section: "1", Source: "modelavg " + version(),
		Manual: "modelavg manual",
	}, &page)
	if err != nil {
		return err
	}
	name := strings.ReplaceAll(cmd.CommandPath(), " ", "-") + ".1"
	return os.WriteFile(filepath.Join(dir, name), emptyDefaults.ReplaceAll(page.Bytes(), []byte("$1")), 0o666)
}

// emptyDefaults matches a flag and a default that says no more than that it is not given.
var emptyDefaults = regexp.MustCompile(`(?m)(\\fB(?:-\w\\fP, \\fB)?--[-a-z0-9]+\\fP)(?:\[=(?:false)?\]|=(?:\[\]|""|0)?)$`)

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
