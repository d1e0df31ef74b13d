package main

import (
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/modelavg/modelavg/checkpoint"
)

// fileExtensions are the ends of names that are those of files, also when the first model is a directory.
var fileExtensions = []string{".safetensors", ".npy", ".npz"}

// A layout says into which files an output is divided.
type layout struct {
	text      string // for people, after "writes "
	options   []checkpoint.CreateOption
	directory bool
	first     *checkpoint.Model // from whose directory the side files come; nil if there are none to copy
}

// newLayout returns the layout of an output: shards of at most so many bytes, if that is not zero; the shards of the
// first model, if it is a directory and path is not the name of a file; one file otherwise.
func newLayout(first *checkpoint.Model, path string, maxShardSize int64) layout {
	l := layout{text: "one file"}
	isFile := slices.Contains(fileExtensions, strings.ToLower(filepath.Ext(path)))
	switch {
	case maxShardSize > 0:
		l.directory = true
		l.text = fmt.Sprintf("a directory, in shards of at most %d bytes", maxShardSize)
		l.options = []checkpoint.CreateOption{checkpoint.WithMaxShardSize(maxShardSize)}
	case first.Dir() != "" && !isFile:
		l.directory = true
		l.text = fmt.Sprintf("a directory, in the shards of %s", first.Path())
		l.options = []checkpoint.CreateOption{checkpoint.WithShards(first.Shards())}
	}
	if l.directory && first.Dir() != "" {
		l.first = first
		l.text += ", with its other files"
	}
	return l
}

// A sideFiles is what --json prints of the files that a model directory has besides the weights.
type sideFiles struct {
	Copied  []string `json:"copied"`
	Skipped []string `json:"skipped"` // since there is one of that name
}

// copySideFiles copies the side files of the first model, if the layout has any, to the output.
func (l *layout) copySideFiles(path string) (*sideFiles, error) {
	if l.first == nil {
		return nil, nil
	}
	copied, skipped, err := checkpoint.CopySideFiles(l.first, path)
	if err != nil {
		return nil, fmt.Errorf("the weights are written, but not all other files: %w", err)
	}
	return &sideFiles{append([]string{}, copied...), append([]string{}, skipped...)}, nil
}

// String returns a line for each of the two kinds, if there are any.
func (s *sideFiles) String() string {
	var text string
	if s != nil && len(s.Copied) > 0 {
		text += "copied " + strings.Join(s.Copied, ", ") + "\n"
	}
	if s != nil && len(s.Skipped) > 0 {
		text += "left as they were: " + strings.Join(s.Skipped, ", ") + "\n"
	}
	return text
}

// A byteSize is the value of a flag: a number of bytes, with a unit.
type byteSize int64

var units = map[string]float64{
	"": 1, "B": 1, "KB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12,
	"KIB": 1 << 10, "MIB": 1 << 20, "GIB": 1 << 30, "TIB": 1 << 40,
}

func (b *byteSize) String() string {
	if *b == 0 {
		return ""
	}
	return strconv.FormatInt(int64(*b), 10)
}

func (b *byteSize) Type() string { return "SIZE" }

func (b *byteSize) Set(text string) error {
	number := strings.TrimRight(text, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
	unit, ok := units[strings.ToUpper(text[len(number):])]
	x, err := strconv.ParseFloat(strings.TrimSpace(number), 64)
	if !ok || err != nil || !(x*unit >= 1 && x*unit < math.MaxInt64) {
		return fmt.Errorf("want a number of bytes such as 5GB or 500MiB")
	}
	*b = byteSize(x * unit)
	return nil
}
