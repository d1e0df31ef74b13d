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

// replacedList is what the temporary file is for that lists the shards that a run removes, or would not leave if it were
// stopped. Once the new index is there, or as long as it is not, nothing else says that they are part of a model.
const replacedList = "replaced.safetensors.list"

// A listedShard is a file as it was when the list was made: what has its name later may be somebody else's.
type listedShard struct {
	Name    string `json:"name"`
	Size    int64  `json:"size"`
	ModTime int64  `json:"mod_time"` // nanoseconds
}

// is reports whether info is that of the file, as far as that can be told.
func (x listedShard) is(info fs.FileInfo) bool {
	return info.Size() == x.Size && info.ModTime().UnixNano() == x.ModTime
}

// A listOfReplaced is that file, locked while the process runs; nil if there are no such shards.
type listOfReplaced struct{ file *os.File }

// listReplaced writes the list into the target: the shards of the old model alone, and those of the new one, which have
// the size and time of their temporary files. Files that are kept are not given up by a run that is stopped.
func (d *outputDirectory) listReplaced() (*listOfReplaced, error) {
	var shards []listedShard
	add := func(name, path string) {
		if info, err := os.Lstat(path); err == nil {
			shards = append(shards, listedShard{name, info.Size(), info.ModTime().UnixNano()})
		}
	}
	for _, name := range d.replaced {
		add(name, filepath.Join(d.target, name))
	}
	if d.index != nil && !d.keep {
		for _, f := range d.shards {
			add(filepath.Base(f.target), f.temp)
		}
	}
	if len(shards) == 0 {
		return nil, nil
	}
	f, err := openTemp(filepath.Join(d.target, replacedList), 0o666)
	if err != nil {
		return nil, err
	}
	l := &listOfReplaced{f}
	text, err := json.Marshal(shards)
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
	text, err := os.ReadFile(list)
	if err != nil {
		return err
	}
	var shards []listedShard
	if json.Unmarshal(text, &shards) != nil {
		return nil // it was not written to the end, and nothing was done before that
	}
	dir := filepath.Dir(list)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	named := make(map[string]bool)
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), indexSuffix) {
			continue
		}
		weightMap, err := readIndex(filepath.Join(dir, e.Name()), DefaultHeaderLimit)
		if err != nil {
			return err // it may name them
		}
		for _, file := range weightMap {
			named[strings.ToLower(file)] = true // is the same file on some systems
		}
	}
	var errs []error
	for _, x := range shards {
		if named[strings.ToLower(x.Name)] || x.Name == singleName {
			continue
		}
		i := slices.IndexFunc(entries, func(e fs.DirEntry) bool { return e.Name() == x.Name })
		if i < 0 || !isShard(entries[i], map[string]bool{x.Name: true}) {
			continue
		}
		if info, err := entries[i].Info(); err == nil && x.is(info) {
			errs = append(errs, os.Remove(filepath.Join(dir, x.Name)))
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
