package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"github.com/modelavg/modelavg/internal/filelock"
)

// An outputDirectory is a model directory that is written: files under temporary names, which are put in their places
// together.
//
// A directory that does not exist yet is itself written under a temporary name, and locked as an atomicFile is. So is
// one that takes the place of another, where that can be done in one step.
type outputDirectory struct {
	target string
	temp   string        // the temporary directory; empty if files are put into the target one by one
	lock   *os.File      // of the temporary directory, where open ones can be renamed
	shards []*atomicFile // in order
	index  *atomicFile   // nil if there is one file and no index

	sideFrom *Model   // whose side files a directory that did not exist gets; nil if there are none to copy
	copied   []string // the names of those that are in the temporary directory; not nil once they are
	exchange bool     // the target exists, and the temporary directory is to take its place
	replaced []string // names of shards of the old model that the new one does not have, known from commit on
	removed  []string // those of them that commit has removed
	there    []string // names of files of the new model that are in the target already
	keep     bool     // the temporary directory stays where it would be discarded, and so do all files
}

// createDirectory begins a model directory of the files of the plans, and perhaps an index. The caller adds the files,
// and discards it if that fails.
func createDirectory(target string, plans []shardPlan, withIndex bool) (*outputDirectory, error) {
	target = resolveLink(filepath.Clean(target))
	_, _ = RemoveStale(target) // as in createAtomic

	there, err := directoryThere(target)
	switch {
	case err != nil:
		return nil, err
	case there:
		return createInDirectory(target, plans, withIndex)
	}
	temp, lock, err := openTempDirectory(target)
	if err != nil {
		return nil, err
	}
	return &outputDirectory{target: target, temp: temp, lock: lock}, nil
}

// resolveLink returns the path of the directory that a symbolic link at target points to, and target if there is none.
// It is that directory which can be replaced by another one.
func resolveLink(target string) string {
	info, err := os.Lstat(target)
	if err != nil || info.Mode()&fs.ModeSymlink == 0 {
		return target
	}
	if real, err := filepath.EvalSymlinks(target); err == nil {
		return real
	}
	return target // what is wrong with it is said where it is opened
}

// directoryThere reports whether there is a directory at the target, and returns an error if there is anything else.
func directoryThere(target string) (bool, error) {
	info, err := os.Stat(target)
	switch {
	case err == nil && !info.IsDir():
		return false, fmt.Errorf("%s: is a file, want a directory for the shards", target)
	case err == nil:
		return true, nil
	case !errors.Is(err, fs.ErrNotExist):
		return false, err
	}
	if _, err := os.Lstat(target); err == nil {
		return false, fmt.Errorf("%s: is a symbolic link to nothing, want a directory for the shards", target)
	}
	return false, nil
}

// createInDirectory begins a model directory that takes the place of another one.
//
// If no shard has the name of one that is there, renaming file after file does no harm to the old model, and the index
// is what replaces it. Nor is there more than one step if there is only one file. Otherwise a whole new directory takes
// the place of the old one, if that is possible.
func createInDirectory(target string, plans []shardPlan, withIndex bool) (*outputDirectory, error) {
	d := &outputDirectory{target: target}
	if err := d.checkOthers(plans, withIndex); err != nil {
		return nil, err
	}
	replaced := false
	for _, p := range plans {
		there, err := exists(filepath.Join(target, p.file))
		if err != nil {
			return nil, err
		}
		replaced = replaced || there
	}
	if !withIndex || !replaced {
		return d, nil
	}
	temp, lock, err := openTempDirectory(target)
	if err != nil {
		return d, nil // the directory of the directory may be write-protected
	}
	d.temp, d.lock, d.exchange = temp, lock, true
	if checkReplaceable(target, temp) != nil {
		err := os.RemoveAll(temp)
		d.unlock()
		return &outputDirectory{target: target}, err
	}
	return d, nil
}

// openTempDirectory creates and locks a temporary directory for the target. It is openTemp for directories.
func openTempDirectory(target string) (string, *os.File, error) {
	prefix := filepath.Join(filepath.Dir(target), tempPrefix(target))
	for range 100 {
		temp := fmt.Sprintf("%s%0*x%s", prefix, randomDigits, rand.Uint64(), tempSuffix)
		err := os.Mkdir(temp, 0o777)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return "", nil, fmt.Errorf("%s: %w", target, err)
		}
		if !renamesOpenFiles {
			return temp, nil, nil
		}
		f, err := filelock.Open(temp)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", nil, errors.Join(fmt.Errorf("%s: %w", target, err), os.Remove(temp))
		}
		if filelock.Lock(f) != filelock.Taken && filelock.IsAt(f, temp) {
			return temp, f, nil
		}
		f.Close()
	}
	return "", nil, fmt.Errorf("%s: cannot create a temporary directory: all names are taken", target)
}

// checkOthers returns an error if the files of the plan, beside those that the directory has already, would make a
// directory in which nobody can tell which model is meant.
func (d *outputDirectory) checkOthers(plans []shardPlan, withIndex bool) error {
	other := indexName
	if withIndex {
		other = singleName
		for _, p := range plans {
			if p.file == singleName {
				return nil // the new one takes its place
			}
		}
	}
	found, err := exists(filepath.Join(d.target, other))
	if err != nil || !found {
		return err
	}
	remove := "it"
	if !withIndex { // without the index nothing would say of its shards what they are
		remove = "it and the shards of its model"
		if names := shardsOfIndex(d.target); len(names) > 0 {
			remove += " (" + someNames(names) + ")"
		}
	}
	return fmt.Errorf("%s: has %s already, which would be ambiguous beside the files to be written: "+
		"remove %s, or choose another directory", d.target, other, remove)
}

// someNames returns the names for an error: all of them, or the first and the last ones of many.
func someNames(names []string) string {
	const most = 4
	text := make([]string, len(names))
	for i, name := range names {
		text[i] = quote(name)
	}
	if len(text) > most {
		text = []string{text[0], text[1], "…", text[len(text)-1]}
	}
	return strings.Join(text, ", ")
}

// add creates a file of the directory.
func (d *outputDirectory) add(name string, size int64) (*atomicFile, error) {
	dir := d.target
	if d.temp != "" {
		dir = d.temp
	}
	return createAtomic(filepath.Join(dir, name), filepath.Join(d.target, name), size)
}

// files returns all files, the index last.
func (d *outputDirectory) files() []*atomicFile {
	if d.index == nil {
		return d.shards
	}
	return append(d.shards[:len(d.shards):len(d.shards)], d.index)
}

// flushSlices flushes the data of all files, slice by slice, until ctx is done.
func (d *outputDirectory) flushSlices(ctx context.Context) error {
	for _, f := range d.files() {
		if err := f.flushSlices(ctx); err != nil {
			return err
		}
	}
	return nil
}

// commit puts all files in their places.
func (d *outputDirectory) commit(sync bool) error { return d.commitContext(context.Background(), sync) }

// commitContext is commit that can be stopped while another run holds the lock of the directory.
func (d *outputDirectory) commitContext(ctx context.Context, sync bool) error {
	if sync {
		for _, f := range d.files() {
			if err := f.flush(); err != nil {
				return errors.Join(err, d.discard())
			}
		}
	}
	if d.temp != "" && !d.exchange {
		return d.commitNew(ctx, sync)
	}
	// From here on the directory is ours: of several runs, each finds what the one before has completed.
	old, err := d.lockTarget(ctx)
	if err != nil {
		return errors.Join(err, d.discard())
	}
	if old != nil {
		defer old.Close()
	}
	if err := d.checkOthersNow(); err != nil {
		return errors.Join(err, d.discard())
	}
	d.replaced = d.replacedShards()
	if d.exchange {
		done, err := d.exchangeWithOld(old, sync)
		switch {
		case done:
			return err
		case !errors.Is(err, errNoExchange):
			return errors.Join(err, d.discard())
		}
		d.inPlace()
		err = d.replace(sync)
		if err == nil {
			err = os.RemoveAll(d.temp)
		}
		d.unlock()
		return err
	}
	return d.replace(sync)
}

// checkOthersNow is checkOthers for the files that are put in their places.
func (d *outputDirectory) checkOthersNow() error {
	var plans []shardPlan
	for _, f := range d.shards {
		plans = append(plans, shardPlan{file: filepath.Base(f.target)})
	}
	withIndex := d.index != nil
	for _, name := range d.there {
		plans = append(plans, shardPlan{file: name})
		withIndex = withIndex || name == indexName
	}
	return d.checkOthers(plans, withIndex)
}

// copySideFiles copies the side files to a directory that did not exist, if there are any and that is not done.
func (d *outputDirectory) copySideFiles(ctx context.Context) error {
	if d.sideFrom == nil || d.temp == "" || d.exchange || d.copied != nil {
		return nil
	}
	copied, _, err := CopySideFilesContext(ctx, d.sideFrom, d.temp)
	if err != nil {
		return err
	}
	d.copied = append([]string{}, copied...)
	return nil
}

// commitNew puts a directory in its place that did not exist.
func (d *outputDirectory) commitNew(ctx context.Context, sync bool) error {
	if err := d.copySideFiles(ctx); err != nil {
		return errors.Join(err, d.discard())
	}
	if err := d.place(sync); err != nil {
		return errors.Join(err, d.discard())
	}
	err := os.Rename(d.temp, d.target)
	if errors.Is(err, fs.ErrExist) {
		err = fmt.Errorf("another run has made the directory meanwhile, which is left as it is: %w", fs.ErrExist)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("%s: %w", d.target, err), d.discard())
	}
	d.unlock()
	return d.syncParent(sync, filepath.Dir(d.target))
}

// place renames all files in the temporary directory, which nobody else looks at.
func (d *outputDirectory) place(sync bool) error {
	for _, f := range d.files() {
		if err := f.rename(); err != nil {
			return err
		}
	}
	if sync {
		if err := syncDir(d.temp); err != nil {
			return fmt.Errorf("%s: %w", d.target, err)
		}
	}
	return nil
}

// replace renames the files in a directory that exists. Between two renames the old index would speak of new shards if
// one has the name of an old one: then it goes first, and the directory has no model until the new index is there.
func (d *outputDirectory) replace(sync bool) error {
	list, err := d.listReplaced()
	if err != nil {
		return errors.Join(err, d.discard())
	}
	defer list.remove()
	if d.index != nil {
		replaced, err := d.replacesShards()
		if err == nil && replaced {
			// Without the index there is no old model, and without one of these no new one. Files that are kept are
			// not locked: another machine may have removed them.
			for _, f := range d.files() {
				if _, missing := os.Lstat(f.temp); d.keep && missing != nil {
					return errors.Join(fmt.Errorf("%s: %w", d.target, missing), d.discard())
				}
			}
			err = os.Remove(d.index.target)
			if errors.Is(err, fs.ErrNotExist) {
				err = nil
			}
			if err == nil && sync {
				err = syncDir(d.target)
			}
		}
		if err != nil {
			return errors.Join(fmt.Errorf("%s: %w", d.target, err), d.discard())
		}
	}
	files := d.files()
	for i, f := range files {
		// No index may be on the disk before the names of its shards are.
		if f == d.index && sync {
			if err := syncDir(d.target); err != nil {
				return errors.Join(fmt.Errorf("%s: %w", d.target, err), d.discard())
			}
		}
		if err := f.rename(); err != nil {
			if i > 0 {
				err = fmt.Errorf("%w; %d of %d files are in place, and no index of them", err, i, len(files))
			}
			return errors.Join(err, d.discard())
		}
	}
	if len(d.replaced) > 0 && sync {
		// The shards may not be gone from the disk before the old index is.
		if err := d.syncParent(sync, d.target); err != nil {
			return err
		}
	}
	return errors.Join(d.removeReplaced(), d.syncParent(sync, d.target))
}

// replacesShards reports whether a file in the directory has the name of one of the shards.
func (d *outputDirectory) replacesShards() (bool, error) {
	for _, f := range d.shards {
		_, err := os.Lstat(f.target)
		if err == nil {
			return true, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return false, err
		}
	}
	return false, nil
}

func (d *outputDirectory) syncParent(sync bool, dir string) error {
	if !sync {
		return nil
	}
	if err := syncDir(dir); err != nil {
		return fmt.Errorf("%s: the model is written, but its directory is not flushed to the disk: %w", d.target, err)
	}
	return nil
}

// discard removes what is not in its place.
func (d *outputDirectory) discard() error {
	var errs []error
	for _, f := range d.files() {
		errs = append(errs, f.discard())
	}
	if d.temp != "" {
		if !d.keep {
			errs = append(errs, os.RemoveAll(d.temp))
		}
		d.unlock()
	}
	return errors.Join(errs...)
}

func (d *outputDirectory) unlock() {
	if d.lock != nil {
		d.lock.Close()
	}
}

// isAnyTemp reports whether name is that of a temporary file of this machine, whatever it is for: in a model directory that
// may be a shard, the index, a list of replaced shards, or a side file.
func isAnyTemp(name string) bool {
	end := strings.LastIndex(name, hostSuffix())
	return end > 1 && name[0] == '.' && isTemp(name, name[:end]+hostSuffix())
}
