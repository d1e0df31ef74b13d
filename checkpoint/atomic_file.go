package checkpoint

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"unicode/utf8"

	"github.com/modelavg/modelavg/internal/filelock"
	"github.com/modelavg/modelavg/internal/release"
)

// An atomicFile is a file that is written under a temporary name and then takes the place of another.
//
// While it is written its process holds a lock on it, on systems that have such locks. The system gives the lock back
// when the process ends, however it ends: a temporary file that can be locked belongs to nobody. See RemoveStale.
type atomicFile struct {
	target string
	name   string // of the target in errors
	temp   string
	file   *os.File
	size   int64

	// Linux lets one write of a file in at a time and has the others spin. A goroutine that waits here instead leaves its
	// processor to another one.
	writing sync.Mutex

	writeback *writeback // nil unless it is to be flushed, and large
	placed    bool       // it has its name, and is closed
	keep      bool       // it is closed where it would be discarded, and stays
}

// createAtomic creates the temporary file for the target, size bytes long. It has the permissions of a file that is at
// the path name, which is what errors call it: the target, or where that will be in the end.
func createAtomic(target, name string, size int64) (*atomicFile, error) {
	perm, keep, err := targetMode(name)
	if err != nil {
		return nil, err
	}
	// This is a service to the user, not a condition: what cannot be removed stays.
	_, _ = RemoveStale(target)

	f, err := openTemp(target, perm)
	if err != nil {
		return nil, err
	}
	a := &atomicFile{target: target, name: name, temp: f.Name(), file: f, size: size}
	if keep {
		if err := setMode(f, perm); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", name, err), a.discard())
		}
	}
	if err := preallocate(f, size); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: reserve %d bytes: %w", name, size, err), a.discard())
	}
	return a, nil
}

// setMode gives the file these permissions. It was created with them less the umask, which mostly leaves nothing to do,
// and nothing to be refused on a file system without permissions.
func setMode(f *os.File, perm fs.FileMode) error {
	info, err := f.Stat()
	if err != nil || info.Mode().Perm() == perm {
		return err
	}
	return f.Chmod(perm)
}

// targetMode returns the permissions for the new file, and whether they are those of an existing file and therefore
// above the umask. It returns an error for what must not be replaced.
func targetMode(target string) (perm fs.FileMode, keep bool, err error) {
	info, err := os.Lstat(target)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return 0o666, false, nil
	case err != nil:
		return 0, false, err
	case info.Mode()&fs.ModeSymlink != 0:
		return 0o666, false, nil
	}
	if err := checkRegular(target, info); err != nil {
		return 0, false, err
	}
	perm = info.Mode().Perm()
	if perm&0o222 == 0 {
		return 0, false, fmt.Errorf("%s: the file is write-protected (%v): %w", target, perm, fs.ErrPermission)
	}
	return perm, true, nil
}

// Temporary files are called .NAME.HOST.RANDOM.tmp: NAME is that of the target, HOST a hash of the machine's name.
const (
	tempSuffix   = ".tmp"
	randomDigits = 16
	maxTempName  = 255 // most file systems allow no more
)

// tempPrefix returns what the names of all temporary files of this machine for the target begin with. The name of the
// machine is part of it since locks on a shared file system may not be seen by other machines.
func tempPrefix(target string) string {
	suffix := hostSuffix()
	name := filepath.Base(target)
	if n := maxTempName - len(".") - len(suffix) - randomDigits - len(tempSuffix); len(name) > n {
		for n > 0 && !utf8.RuneStart(name[n]) {
			n--
		}
		name = name[:n]
	}
	return "." + name + suffix
}

// hostSuffix returns the part of those names that stands for this machine.
func hostSuffix() string {
	host, _ := os.Hostname() // without a name, all such machines are one
	h := fnv.New32a()
	h.Write([]byte(host))
	return fmt.Sprintf(".%08x.", h.Sum32())
}

// isTemp reports whether name is that of a temporary file with the prefix.
func isTemp(name, prefix string) bool {
	random, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return false
	}
	random, ok = strings.CutSuffix(random, tempSuffix)
	return ok && len(random) == randomDigits && strings.Trim(random, "0123456789abcdef") == ""
}

// openTemp creates and locks a temporary file for the target.
func openTemp(target string, perm fs.FileMode) (*os.File, error) {
	prefix := filepath.Join(filepath.Dir(target), tempPrefix(target))
	// A name can be taken, and a new file that is not yet locked can be removed by RemoveStale in another process.
	// Neither happens twice but by malice.
	for range 100 {
		f, err := os.OpenFile(fmt.Sprintf("%s%0*x%s", prefix, randomDigits, rand.Uint64(), tempSuffix),
			os.O_RDWR|os.O_CREATE|os.O_EXCL, perm)
		if errors.Is(err, fs.ErrExist) || errors.Is(err, fs.ErrNotExist) && isDirectory(filepath.Dir(target)) {
			continue // the name is taken, or the directory was another one that has been exchanged and removed
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", target, err)
		}
		if filelock.Lock(f) != filelock.Taken && filelock.IsAt(f, f.Name()) {
			return f, nil
		}
		f.Close()
		// If the directory was exchanged meanwhile, the file is moved to the new one: see removeAbandoned.
		_ = os.Remove(f.Name())
	}
	return nil, fmt.Errorf("%s: cannot create a temporary file: all names are taken", target)
}

func isDirectory(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// startWriteback has the file brought to the disk while it is written, if it is to be flushed.
func (a *atomicFile) startWriteback(sync bool) {
	if sync {
		a.writeback = newWriteback(a.file, a.size)
	}
}

// writeAt writes to the file, and has its full blocks brought to the disk if there is a writeback.
func (a *atomicFile) writeAt(p []byte, off int64) (int, error) {
	a.writing.Lock()
	n, err := a.file.WriteAt(p, off)
	a.writing.Unlock()
	a.writeback.wrote(off, int64(n))
	return n, err
}

// flushSlices flushes the data of the file, slice by slice, until ctx is done. It has to be flushed all the same.
func (a *atomicFile) flushSlices(ctx context.Context) error {
	a.writeback.stop()
	if err := flushSlices(ctx, a.file, a.size); err != nil {
		if ctx.Err() != nil {
			return err
		}
		return fmt.Errorf("%s: %w", a.name, err)
	}
	return nil
}

// commit gives the file its name, flushing it before and the directory after if sync is set.
func (a *atomicFile) commit(sync bool) error {
	if sync {
		if err := a.flush(); err != nil {
			return errors.Join(err, a.discard())
		}
	}
	if err := a.rename(); err != nil {
		return errors.Join(err, a.discard())
	}
	if sync {
		if err := syncDir(filepath.Dir(a.target)); err != nil {
			return fmt.Errorf("%s: the file is written, but its directory is not flushed to the disk: %w", a.name, err)
		}
	}
	return nil
}

// flush flushes the file to the disk.
func (a *atomicFile) flush() error {
	a.writeback.stop()
	if err := a.file.Sync(); err != nil {
		return fmt.Errorf("%s: %w", a.name, err)
	}
	return nil
}

// rename gives the file its name and closes it.
func (a *atomicFile) rename() error {
	// The lock goes with the file, so that the file is closed last where open files can be renamed.
	if !renamesOpenFiles && !a.placed {
		if err := a.file.Close(); err != nil {
			return fmt.Errorf("%s: %w", a.name, err)
		}
	}
	if err := os.Rename(a.temp, a.target); err != nil {
		return fmt.Errorf("%s: %w", a.name, err)
	}
	if renamesOpenFiles && !a.placed {
		if err := a.file.Close(); err != nil {
			return fmt.Errorf("%s: %w", a.name, err)
		}
	}
	a.placed = true
	return nil
}

// commitNew gives the file its name unless something has it: then the error wraps [fs.ErrExist].
func (a *atomicFile) commitNew() error {
	if err := os.Link(a.temp, a.target); err == nil || errors.Is(err, fs.ErrExist) {
		return errors.Join(err, a.discard())
	}
	// Not every file system has links. What comes between the look and the renaming is lost there.
	if _, err := os.Lstat(a.target); err == nil {
		return errors.Join(fmt.Errorf("%s: %w", a.name, fs.ErrExist), a.discard())
	}
	if err := a.rename(); err != nil {
		return errors.Join(err, a.discard())
	}
	return nil
}

// discard removes the file, or closes it if it is to be kept.
func (a *atomicFile) discard() error {
	a.writeback.stop()
	if a.keep {
		if !a.placed {
			a.file.Close() // it is the error before this that counts
		}
		return nil
	}
	if !renamesOpenFiles {
		a.file.Close() // nothing of the contents is wanted
	}
	err := os.Remove(a.temp)
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	if renamesOpenFiles && !a.placed {
		release.Close(a.file, a.size)
		_ = os.Remove(a.temp) // the link to it in a directory that has been exchanged meanwhile: see removeAbandoned
	}
	return err
}

// RemoveStale removes the temporary files and directories that earlier runs on this machine have left beside path, or
// in it if it is a model directory, because they were killed, and returns their paths. Files that a running process,
// this one included, is still writing are not touched: they are locked. On systems and file systems without such locks
// nothing is removed. [Create] calls this for its path.
//
// So are the files that a list among them has, if they are still the same and no index beside them names them: shards of a
// model that a run had replaced, and was killed before it had removed them, and new ones that it had put in their places
// before their index.
//
// A directory may be an old model that was replaced right before the run was killed, which has links to the files that
// path has too; a directory that only the old one has, and a file that is not weights, is put into path before it is
// removed.
//
// A path without such files, or in no directory, is no error.
func RemoveStale(path string) ([]string, error) {
	path = filepath.Clean(path)
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		path = resolveLink(path) // as for createDirectory
	}
	prefix := tempPrefix(path)
	removed, err := removeStaleIn(filepath.Dir(path), path, func(name string) bool {
		return isTemp(name, prefix) || isReplacedList(name)
	})
	if info, statErr := os.Stat(path); statErr != nil || !info.IsDir() {
		return removed, err
	}
	inside, insideErr := removeStaleIn(path, "", isAnyTemp)
	return append(removed, inside...), errors.Join(err, insideErr)
}

// removeStaleIn removes the stale files and directories among those in dir whose names match. The directories are those
// for the target.
func removeStaleIn(dir, target string, match func(name string) bool) ([]string, error) {
	names, err := os.ReadDir(dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return nil, err
	}
	var removed []string
	var errs []error
	for _, d := range names {
		if !d.Type().IsRegular() && !d.IsDir() || !match(d.Name()) {
			continue
		}
		temp := filepath.Join(dir, d.Name())
		ok, err := removeIfStale(temp, target)
		if ok {
			removed = append(removed, temp)
		}
		errs = append(errs, err)
	}
	return removed, errors.Join(errs...)
}

// removeIfStale removes the temporary file or directory if nobody holds its lock.
func removeIfStale(temp, target string) (bool, error) {
	f, err := filelock.Open(temp)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return false, err
	}
	defer f.Close()
	// The lock is kept until the name is gone: whoever creates a file looks, with the lock, whether it still has its
	// name.
	if filelock.Lock(f) != filelock.Held || !filelock.IsAt(f, temp) {
		return false, nil
	}
	info, err := f.Stat()
	switch {
	case err == nil && info.IsDir() && target != "":
		err = rescue(temp, target)
	case err == nil && isReplacedList(temp):
		err = removeListed(temp)
	}
	if err != nil {
		return false, err
	}
	if err := os.RemoveAll(temp); err != nil {
		return false, err
	}
	return true, nil
}
