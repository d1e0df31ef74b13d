package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// errNoExchange says that a directory could not be replaced in one step, and is as it was.
var errNoExchange = errors.New("directories cannot be exchanged")

// exchangeWithOld puts the temporary directory, which has all files of the model and gets the others of the old one, in
// the place of that, and removes it. It returns whether the new one is in its place. If it is not, and the error wraps
// errNoExchange, the files can still be put there one by one.
func (d *outputDirectory) exchangeWithOld(sync bool) (bool, error) {
	old, err := d.lockOld()
	if err != nil {
		return false, err
	}
	defer old.Close()
	if err := d.becomeLike(old); err != nil {
		return false, fmt.Errorf("%w: %w", errNoExchange, err)
	}
	if err := d.place(sync); err != nil {
		return false, err
	}
	// What has come or gone while the directory was flushed.
	err = d.linkOthers()
	if err == nil {
		err = exchange(d.temp, d.target)
	}
	if err != nil {
		return false, fmt.Errorf("%w: %w", errNoExchange, err)
	}
	// From here on, temp is the old directory. What another program has put there in the last moment is not lost.
	err = d.syncParent(sync, filepath.Dir(d.target))
	if moved := moveOthers(d.temp, d.target, d.names()); moved == nil {
		_ = os.RemoveAll(d.temp) // what stays is not locked any more, and removed by the next run
	} else {
		err = errors.Join(err, fmt.Errorf(
			"%s: the model is written, but files that came while it took its place are in %s: %w", d.target, d.temp, moved))
	}
	d.unlock()
	return true, err
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

// lockOld locks the directory that is to be replaced, so that nobody takes it for a stale one after it has been.
func (d *outputDirectory) lockOld() (*os.File, error) {
	for range 500 {
		f, err := openForLock(d.target)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", errNoExchange, err)
		}
		switch lock(f) {
		case lockHeld:
			if isAt(f, d.target) {
				return f, nil
			}
		case lockUnsupported:
			f.Close()
			return nil, fmt.Errorf("%w: they cannot be locked", errNoExchange)
		}
		f.Close()
		time.Sleep(10 * time.Millisecond) // another run replaces it, which does not take long
	}
	return nil, fmt.Errorf("%w: another program has the lock", errNoExchange)
}

// names returns the names of the files that are written.
func (d *outputDirectory) names() map[string]bool {
	names := make(map[string]bool)
	for _, f := range d.files() {
		names[filepath.Base(f.target)] = true
		names[filepath.Base(f.temp)] = true
	}
	return names
}

// linkOthers makes the files of the temporary directory that are not written those of the target: links to its regular
// files, and copies of its symbolic links. Anything else in the target is an error.
func (d *outputDirectory) linkOthers() error {
	ours := d.names()
	wanted := make(map[string]fs.FileInfo)
	entries, err := os.ReadDir(d.target)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if ours[e.Name()] {
			continue
		}
		info, err := e.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue // gone
		}
		if err != nil {
			return err
		}
		wanted[e.Name()] = info
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
		switch info.Mode().Type() {
		case 0:
			err = os.Link(from, to)
		case fs.ModeSymlink:
			var points string
			if points, err = os.Readlink(from); err == nil {
				err = os.Symlink(points, to)
			}
		default:
			err = fmt.Errorf("%s: is neither a file nor a link (%v)", from, info.Mode().Type())
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
		path := filepath.Join(to, name)
		if there, err := os.Lstat(path); err == nil && os.SameFile(there, info) {
			continue
		}
		errs = append(errs, os.Rename(filepath.Join(from, name), path))
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

// rescue moves what only a stale temporary directory for the target has, of files that are not weights, to the target.
// A run that was killed right after it had replaced the target leaves the old one, which has nothing else that is not
// in the new one, or was replaced by it. The target has to be a directory.
func rescue(temp, target string) error {
	if info, err := os.Stat(target); err != nil || !info.IsDir() {
		return nil
	}
	entries, err := os.ReadDir(temp)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !e.Type().IsRegular() || !isSideFile(e.Name()) {
			continue
		}
		err := os.Link(filepath.Join(temp, e.Name()), filepath.Join(target, e.Name()))
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	return nil
}
