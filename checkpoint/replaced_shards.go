package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Removed returns the names of the files that Commit removed, sorted: shards of the model that was in the directory,
// which its index named and the new one does not. It is nil before Commit, and where there was nothing to remove.
func (w *Writer) Removed() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	d, ok := w.out.(*outputDirectory)
	if !ok {
		return nil
	}
	return slices.Clone(d.removed)
}

// replacedShards returns the names of the files in the target that are part of the old model alone: files or links that
// the index which is to be replaced names, and neither the new model nor another index in the directory has. An index
// that cannot be read says nothing about any file.
func (d *outputDirectory) replacedShards() []string {
	if d.index == nil {
		return nil
	}
	ours := make(map[string]bool)
	for name := range d.names() {
		ours[strings.ToLower(name)] = true // is the same file on some systems
	}
	return slices.DeleteFunc(shardsOfIndex(d.target), func(name string) bool { return ours[strings.ToLower(name)] })
}

// shardsOfIndex returns the names of the files in the directory, or links, that its index names and no other index in
// it does, sorted.
func shardsOfIndex(dir string) []string {
	old := shardsNamed(dir, indexName)
	if len(old) == 0 {
		return nil
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		if name := e.Name(); name != indexName && strings.HasSuffix(name, indexSuffix) {
			for file := range shardsNamed(dir, name) {
				delete(old, file)
			}
		}
	}
	var names []string
	for _, e := range entries {
		name := e.Name()
		if old[name] && strings.HasSuffix(strings.ToLower(name), shardExtension) &&
			(e.Type().IsRegular() || e.Type() == fs.ModeSymlink) {
			names = append(names, name)
		}
	}
	return names // in the order of ReadDir, which is sorted
}

// shardsNamed returns the names of the shards of an index; none if it cannot be read.
func shardsNamed(dir, index string) map[string]bool {
	weightMap, err := readIndex(filepath.Join(dir, index), DefaultHeaderLimit)
	if err != nil {
		return nil
	}
	names := make(map[string]bool)
	for file := range maps.Values(weightMap) {
		names[file] = true
	}
	return names
}

// removeReplaced removes the shards of the old model from the target, in which the new one is.
func (d *outputDirectory) removeReplaced() error {
	var errs []error
	for _, name := range d.replaced {
		err := os.Remove(filepath.Join(d.target, name))
		switch {
		case err == nil:
			d.removed = append(d.removed, name)
		case !errors.Is(err, fs.ErrNotExist):
			errs = append(errs, err)
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("%s: the model is written, but shards of the old one are still there: %w", d.target,
		errors.Join(errs...))
}
