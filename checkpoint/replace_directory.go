package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/modelavg/modelavg/internal/filelock"
)

// errNoExchange says that a directory could not be replaced in one step, and is as it was.
var errNoExchange = errors.New("directories cannot be exchanged")

// exchangeWithOld puts the temporary directory, which has all files of the model and gets the others of the old one, in
// the place of that, which the caller has locked, and removes it. It returns whether the new one is in its place. If it
// is not, and the error wraps errNoExchange, the files can still be put there one by one.
func (d *outputDirectory) exchangeWithOld(old *os.File, sync bool) (bool, error) {
	if old == nil {
		// Another run might take the old directory for a stale one.
		return false, fmt.Errorf("%w: they cannot be locked", errNoExchange)
	}
	if err := d.becomeLike(old); err != nil {
		return false, fmt.Errorf("%w: %w", errNoExchange, err)
	}
	if err := d.place(sync); err != nil {
		return false, err
	}
	// What has come or gone while the directory was flushed.
	err := d.linkOthers()
	if err == nil {
		err = exchange(d.temp, d.target)
	}
	if err != nil {
		return false, fmt.Errorf("%w: %w", errNoExchange, err)
	}
	// From here on, temp is the old directory. What another program has put there in the last moment is not lost.
	d.removed = d.replaced
	err = d.syncParent(sync, filepath.Dir(d.target))
	if moved := moveOthers(d.temp, d.target, d.outdated()); moved != nil {
		err = errors.Join(err, fmt.Errorf(
			"%s: the model is written, but other files of the directory are still in %s: %w", d.target, d.temp, moved))
	} else if notFlushed := d.syncParent(sync, d.target); notFlushed != nil {
		err = errors.Join(err, notFlushed) // what was moved may not be gone from where it was before that
	} else {
		_ = os.RemoveAll(d.temp) // what stays is not locked any more, and removed by the next run
	}
	removeAbandoned(d.target)
	d.unlock()
	return true, err
}

// removeAbandoned removes the temporary files in a new directory that other runs have given up while it was exchanged:
// the old directory had them when they were linked to the new one, or moved to it, but not when they were removed.
//
// A run that gives up a file gives back its lock and then removes the name, which is in the new directory if the lock
// was still held here. What cannot be removed is left to the next run.
func removeAbandoned(dir string) {
	_, _ = removeStaleIn(dir, "", isAnyTemp)
}

// becomeLike gives the temporary directory the permissions and the other files of the old one.
func (d *outputDirectory) becomeLike(old *os.File) error {
	was, err := old.Stat()
	if err != nil {
		return err
	}
	is, err := os.Lstat(d.temp)
	if err != nil {
		return err
	}
	if is.Mode() != was.Mode() {
		if err := os.Chmod(d.temp, was.Mode()); err != nil {
			return err
		}
	}
	return d.linkOthers()
}

// lockWait is how long a run waits for another one that puts its files in the directory. That takes as long as the names
// take to get to the disk, since the data is there before.
const lockWait = time.Minute

// lockTarget locks the directory that is written to: nobody else puts files in their places in it, exchanges it, or takes
// it for a stale one after it has been exchanged. It returns nil where directories cannot be locked.
func (d *outputDirectory) lockTarget(ctx context.Context) (*os.File, error) {
	path := resolveLink(d.target)
	waiting, stop := context.WithTimeout(ctx, lockWait)
	defer stop()
	for {
		f, err := filelock.Open(path)
		if errors.Is(err, fs.ErrPermission) {
			return nil, nil // files can be put there, but the directory cannot be opened
		}
		if err != nil {
			return nil, err
		}
		state := filelock.Lock(f)
		if state == filelock.Held && filelock.IsAt(f, path) {
			return f, nil
		}
		f.Close()
		if state == filelock.Unsupported {
			return nil, nil
		}
		select {
		case <-waiting.Done():
			if ctx.Err() != nil {
				return nil, context.Cause(ctx)
			}
			return nil, fmt.Errorf("%s: another program has had the directory locked for %v", d.target, lockWait)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// names returns the names of the files that are written, or were.
func (d *outputDirectory) names() map[string]bool {
	names := make(map[string]bool)
	for _, name := range d.there {
		names[name] = true
	}
	for _, f := range d.files() {
		names[filepath.Base(f.target)] = true
		names[filepath.Base(f.temp)] = true
	}
	return names
}

// outdated returns the names of the files that the old directory has no more: those that are written, and the shards of
// the old model that the new one does not have.
func (d *outputDirectory) outdated() map[string]bool {
	names := d.names()
	for _, name := range d.replaced {
		names[name] = true
	}
	return names
}

// linkOthers makes the files of the temporary directory that are not written those of the target that are not outdated:
// links to its regular files, and copies of its symbolic links. Directories, which have no links, and anything else that
// is in the target are moved once the new directory is there.
func (d *outputDirectory) linkOthers() error {
	ours, outdated := d.names(), d.outdated()
	wanted := make(map[string]fs.FileInfo)
	entries, err := os.ReadDir(d.target)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if outdated[e.Name()] {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone
		}
		if err != nil {
			return err
		}
		if t := info.Mode().Type(); t == 0 || t == fs.ModeSymlink {
			wanted[e.Name()] = info
		}
	}
	there, err := os.ReadDir(d.temp)
	if err != nil {
		return err
	}
	for _, e := range there {
		name := e.Name()
		if ours[name] {
			continue
		}
		path := filepath.Join(d.temp, name)
		info, err := e.Info()
		if err != nil {
			return err
		}
		if want := wanted[name]; want != nil && os.SameFile(info, want) {
			delete(wanted, name)
			continue
		}
		if err := os.Remove(path); err != nil {
			return err
		}
	}
	for name, info := range wanted {
		from, to := filepath.Join(d.target, name), filepath.Join(d.temp, name)
		if info.Mode().IsRegular() {
			err = os.Link(from, to)
		} else {
			var points string
			if points, err = os.Readlink(from); err == nil {
				err = os.Symlink(points, to)
			}
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// moveOthers moves what one directory has and the other has not, except these names, to the other.
func moveOthers(from, to string, except map[string]bool) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		name := e.Name()
		if except[name] {
			continue
		}
		info, err := e.Info()
		if err != nil {
			errs = append(errs, err)
			continue
		}
		source, path := filepath.Join(from, name), filepath.Join(to, name)
		there, err := os.Lstat(path)
		switch {
		case err == nil && os.SameFile(there, info):
		case err == nil && there.IsDir() && info.IsDir():
			// Another program has made it anew in the last moment.
			errs = append(errs, moveMissing(source, path))
		default:
			errs = append(errs, os.Rename(source, path))
		}
	}
	return errors.Join(errs...)
}

// moveMissing moves what one directory has, and what the directories in it have, and the other has not, to the other.
// What both have is that of the other.
func moveMissing(from, to string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		source, path := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		there, err := os.Lstat(path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			errs = append(errs, os.Rename(source, path))
		case err != nil:
			errs = append(errs, err)
		case there.IsDir() && e.IsDir():
			errs = append(errs, moveMissing(source, path))
		}
	}
	return errors.Join(errs...)
}

// inPlace makes a directory of files under temporary names of one that was to be exchanged.
func (d *outputDirectory) inPlace() {
	for _, f := range d.files() {
		if f.placed {
			f.temp = f.target
		}
		f.target = filepath.Join(d.target, filepath.Base(f.target))
	}
	d.exchange = false
}

// rescue moves what only a stale temporary directory for the target has to the target: directories, and files that are
// not weights. A run that was killed right after it had replaced the target leaves the old one, which has nothing else
// that is not in the new one, or was replaced by it. The target has to be a directory.
func rescue(temp, target string) error {
	if info, err := os.Stat(target); err != nil || !info.IsDir() {
		return nil
	}
	entries, err := os.ReadDir(temp)
	if err != nil {
		return err
	}
	for _, e := range entries {
		source, path := filepath.Join(temp, e.Name()), filepath.Join(target, e.Name())
		switch {
		case e.Type() == fs.ModeSymlink:
			continue // the new directory has got a copy
		case e.Type().IsRegular():
			if !isSideFile(e.Name()) {
				continue
			}
			err = os.Link(source, path)
		default:
			there, statErr := os.Lstat(path)
			switch {
			case errors.Is(statErr, fs.ErrNotExist):
				err = os.Rename(source, path)
			case statErr == nil && there.IsDir() && e.IsDir():
				err = moveMissing(source, path)
			}
		}
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}
