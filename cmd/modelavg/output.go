package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/modelavg/modelavg/checkpoint"
	"github.com/modelavg/modelavg/internal/printable"
	"github.com/modelavg/modelavg/merge"
)

// fileExtensions are the ends of names that are those of files, also when the first model is a directory.
var fileExtensions = []string{".safetensors", ".npy", ".npz"}

// A layout says into which files an output is divided.
type layout struct {
	text         string // for people, after "writes "
	options      []checkpoint.CreateOption
	directory    bool
	maxShardSize int64             // zero if there is none
	first        *checkpoint.Model // from whose directory the side files come; nil if there are none to copy
}

// newLayout returns the layout of an output: shards of at most so many bytes, if that is not zero; the shards of the
// first model, if it is a directory and path is not the name of a file; one file otherwise.
func newLayout(first *checkpoint.Model, path string, maxShardSize int64) layout {
	l := layout{text: "one file", maxShardSize: maxShardSize}
	isFile := slices.Contains(fileExtensions, strings.ToLower(filepath.Ext(path)))
	switch {
	case maxShardSize > 0:
		l.directory = true
		l.text = fmt.Sprintf("a directory, in shards of at most %d bytes, or of one tensor that is larger", maxShardSize)
		l.options = []checkpoint.CreateOption{checkpoint.WithMaxShardSize(maxShardSize)}
	case first.Dir() != "" && !isFile:
		l.directory = true
		l.text = fmt.Sprintf("a directory, in the shards of %s", first.Path())
		l.options = []checkpoint.CreateOption{checkpoint.WithShards(first.Shards())}
	}
	if l.directory && first.Dir() != "" {
		l.first = first
		l.options = append(l.options, checkpoint.WithSideFiles(first))
		l.text += ", with its other files"
	}
	return l
}

// A sideFiles is what --json prints of the files that a model directory has besides the weights.
type sideFiles struct {
	Copied    []string `json:"copied"`
	Skipped   []string `json:"skipped"`    // since there is one of that name
	NotCopied []string `json:"not_copied"` // weights of other formats, hidden files and directories
}

// copySideFiles copies the side files of the first model, if the layout has any, to the output, which a run has written. A
// new directory has them already.
func (l *layout) copySideFiles(ctx context.Context, path string, run *merge.Report) (*sideFiles, error) {
	if l.first == nil {
		return nil, nil
	}
	copied, skipped := run.Copied, []string(nil)
	var err error
	if copied == nil {
		if copied, skipped, err = checkpoint.CopySideFilesContext(ctx, l.first, path); err != nil {
			return nil, fmt.Errorf("the weights are written, but not all other files: %w", err)
		}
	}
	s := newSideFiles(copied, skipped)
	if s.NotCopied, err = l.notCopied(path); err != nil {
		return nil, fmt.Errorf("the model is written, but not the report: %w", err)
	}
	return s, nil
}

// notCopied returns the names of what is in the directory of the first model and is not copied: nothing if that is the
// output.
func (l *layout) notCopied(path string) ([]string, error) {
	if sameFile(l.first.Dir(), path) {
		return []string{}, nil
	}
	_, others, err := checkpoint.ListSideFiles(l.first)
	return append([]string{}, others...), err
}

// plannedSideFiles returns what copySideFiles would do. The path may be empty.
func (l *layout) plannedSideFiles(path string) (*sideFiles, error) {
	if l.first == nil {
		return nil, nil
	}
	files, _, err := checkpoint.ListSideFiles(l.first)
	if err != nil {
		return nil, err
	}
	s := newSideFiles(nil, nil)
	for _, name := range files {
		if _, err := os.Lstat(filepath.Join(path, name)); path != "" && err == nil {
			s.Skipped = append(s.Skipped, name)
		} else {
			s.Copied = append(s.Copied, name)
		}
	}
	s.NotCopied, err = l.notCopied(path)
	return s, err
}

// sameFile reports whether both paths are there and lead to the same file or directory.
func sameFile(a, b string) bool {
	x, err := os.Stat(a)
	y, err2 := os.Stat(b)
	return err == nil && err2 == nil && os.SameFile(x, y)
}

// dtypeNames are the names of --dtype as config.json has them.
var dtypeNames = map[string]string{
	"f64": "float64", "f32": "float32", "f16": "float16", "bf16": "bfloat16", "f8_e4m3": "float8_e4m3fn",
	"f8_e5m2": "float8_e5m2",
}

// notes returns what the user should know about the directory that is written, or would be: that tensors are larger than
// a shard should be, and that its config.json has another dtype than the flag. The path may be empty.
func (l *layout) notes(plan *merge.Plan, path, dtype string) []string {
	var notes []string
	if l.maxShardSize > 0 {
		larger := 0
		for i := range plan.Steps {
			if plan.Steps[i].Bytes > l.maxShardSize {
				larger++
			}
		}
		switch larger {
		case 0:
		case 1:
			notes = append(notes, "1 tensor is larger than --max-shard-size, and has a shard of its own")
		default:
			notes = append(notes, fmt.Sprintf("%d tensors are larger than --max-shard-size, and have a shard of their own each",
				larger))
		}
	}
	want, ok := dtypeNames[dtype]
	if l.first == nil || !ok {
		return notes
	}
	text, err := os.ReadFile(filepath.Join(path, "config.json"))
	if path == "" || err != nil { // it is copied, if there is one
		text, err = os.ReadFile(filepath.Join(l.first.Dir(), "config.json"))
	}
	if err != nil {
		return notes
	}
	var config map[string]json.RawMessage
	if json.Unmarshal(text, &config) != nil {
		return notes
	}
	for _, key := range []string{"torch_dtype", "dtype"} {
		var says string
		if json.Unmarshal(config[key], &says) == nil && says != "" && says != want {
			notes = append(notes, fmt.Sprintf("config.json still says %s %s, the averaged tensors are %s", key,
				printable.Name(says), want))
		}
	}
	return notes
}

// newSideFiles returns lists that are never null in JSON.
func newSideFiles(copied, skipped []string) *sideFiles {
	return &sideFiles{append([]string{}, copied...), append([]string{}, skipped...), []string{}}
}

// String returns a line for each of the kinds, if there are any.
func (s *sideFiles) String() string { return s.text("copied") }

// text returns the same, with a verb for what is copied.
func (s *sideFiles) text(verb string) string {
	if s == nil {
		return ""
	}
	var b strings.Builder
	for _, list := range []struct {
		what  string
		names []string
	}{
		{verb + " ", s.Copied},
		{"skipped, since it is there already: ", s.Skipped},
		{"not copied: ", s.NotCopied},
	} {
		if len(list.names) == 0 {
			continue
		}
		names := make([]string, min(len(list.names), maxNamed))
		for i := range names {
			names[i] = printable.Name(list.names[i])
		}
		b.WriteString(list.what + strings.Join(names, ", "))
		if more := len(list.names) - len(names); more > 0 {
			fmt.Fprintf(&b, " and %d more", more)
		}
		b.WriteString("\n")
	}
	return b.String()
}
