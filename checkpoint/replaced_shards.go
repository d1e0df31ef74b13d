package checkpoint

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
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
		if isShard(e, old) {
			names = append(names, e.Name())
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

// replacedList is what the temporary file is for that has the names of the shards to be removed, in the form of an index.
// Once the new index is there, nothing else says that they were part of a model.
const replacedList = "replaced.safetensors" + indexSuffix

// A listOfReplaced is that file, locked while the process runs; nil if there are no such shards.
type listOfReplaced struct{ file *os.File }

// listReplaced writes the list into the target.
func (d *outputDirectory) listReplaced() (*listOfReplaced, error) {
	if len(d.replaced) == 0 {
		return nil, nil
	}
	f, err := openTemp(filepath.Join(d.target, replacedList), 0o666)
	if err != nil {
		return nil, err
	}
	weightMap := make(map[string]string, len(d.replaced))
	for i, name := range d.replaced {
		weightMap[strconv.Itoa(i)] = name
	}
	l := &listOfReplaced{f}
	text, err := json.Marshal(map[string]any{weightMapKey: weightMap})
	if err == nil {
		_, err = f.Write(text)
	}
	if err != nil {
		l.remove()
		return nil, fmt.Errorf("%s: list of replaced shards: %w", d.target, err)
	}
	return l, nil
}

// remove removes the list. What stays is removed by the next run.
func (l *listOfReplaced) remove() {
	if l == nil {
		return
	}
	if !renamesOpenFiles {
		l.file.Close()
	}
	_ = os.Remove(l.file.Name())
	if renamesOpenFiles {
		l.file.Close() // the lock is held until the name is gone
	}
}

// isReplacedList reports whether a temporary file is such a list.
func isReplacedList(temp string) bool { return isTemp(filepath.Base(temp), tempPrefix(replacedList)) }

// removeListed removes the files of the list, as a run that was killed would have, unless an index in the directory names
// them: the old model is still there, or another one has come.
func removeListed(list string) error {
	dir := filepath.Dir(list)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	names := shardsNamed(dir, filepath.Base(list))
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), indexSuffix) {
			if _, err := readIndex(filepath.Join(dir, e.Name()), DefaultHeaderLimit); err != nil {
				return err // it may name them
			}
			for file := range shardsNamed(dir, e.Name()) {
				delete(names, file)
			}
		}
	}
	var errs []error
	for _, e := range entries {
		if isShard(e, names) && e.Name() != singleName {
			errs = append(errs, os.Remove(filepath.Join(dir, e.Name())))
		}
	}
	return errors.Join(errs...)
}

// isShard reports whether the entry is one of the files, or a link in the place of it.
func isShard(e fs.DirEntry, files map[string]bool) bool {
	return files[e.Name()] && strings.HasSuffix(strings.ToLower(e.Name()), shardExtension) &&
		(e.Type().IsRegular() || e.Type() == fs.ModeSymlink)
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
