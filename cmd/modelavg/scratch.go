package main

import (
	"errors"
	"fmt"
	"hash/fnv"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/modelavg/modelavg/internal/filelock"
	"github.com/modelavg/modelavg/internal/release"
)

// A scratch is a directory beside an output for what is made on the way to it. No two have one name, and nothing that
// was there before is touched, but for the scratches of killed runs.
//
// It is locked as long as its process runs, on systems and file systems that have locks.
type scratch struct {
	dir  string
	lock *os.File // nil without locks
}

// The directories are called .NAME.HOST.RANDOM.scratch: NAME is that of the output, HOST a hash of the machine's name,
// since other machines may not see the lock.
const (
	scratchSuffix = ".scratch"
	scratchDigits = 16
	maxNameBytes  = 255 // most file systems allow no more
)

// scratchPrefix returns what the paths of all scratches of this machine for the output begin with.
func scratchPrefix(output string) string {
	host, _ := os.Hostname() // without a name, all such machines are one
	h := fnv.New32a()
	h.Write([]byte(host))
	suffix := fmt.Sprintf(".%08x.", h.Sum32())

	name := filepath.Base(output)
	if n := maxNameBytes - len(".") - len(suffix) - scratchDigits - len(scratchSuffix); len(name) > n {
		for n > 0 && !utf8.RuneStart(name[n]) {
			n--
		}
		name = name[:n]
	}
	return filepath.Join(filepath.Dir(output), "."+name+suffix)
}

// openScratch makes a directory for the output, and removes those of runs that were killed.
func openScratch(output string) (*scratch, error) {
	output = filepath.Clean(output)
	prefix := scratchPrefix(output)
	removeStaleScratches(prefix)
	// A name can be taken, and a directory that is not locked yet can be removed by another process, which takes it for
	// a stale one. Neither happens twice but by malice.
	for range 100 {
		dir := fmt.Sprintf("%s%0*x%s", prefix, scratchDigits, rand.Uint64(), scratchSuffix)
		err := os.Mkdir(dir, 0o777)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", output, err)
		}
		f, err := filelock.Open(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", output, err), os.Remove(dir))
		}
		switch state := filelock.Lock(f); {
		case state == filelock.Unsupported:
			f.Close() // an open directory could not be removed on Windows
			return &scratch{dir: dir}, nil
		case state == filelock.Held && filelock.IsAt(f, dir):
			return &scratch{dir, f}, nil
		}
		f.Close()
	}
	return nil, fmt.Errorf("%s: cannot make a temporary directory: all names are taken", output)
}

// path returns the path of a file of that name in the directory.
func (s *scratch) path(name string) string { return filepath.Join(s.dir, name) }

// close removes the directory and all that is in it. It does not wait for the system to free the memory of large files.
func (s *scratch) close() error {
	err := release.RemoveAll(s.dir)
	if s.lock != nil {
		s.lock.Close()
	}
	return err
}

// removeStaleScratches removes the directories with the prefix that no process has the lock of. This is a service to
// the user: what cannot be removed stays.
func removeStaleScratches(prefix string) {
	dir, prefix := filepath.Split(prefix)
	if dir == "" {
		dir = "."
	}
	list, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, d := range list {
		if d.IsDir() && isScratch(d.Name(), prefix) {
			removeStaleScratch(filepath.Join(dir, d.Name()))
		}
	}
}

// isScratch reports whether name is that of a scratch with the prefix.
func isScratch(name, prefix string) bool {
	random, begins := strings.CutPrefix(name, prefix)
	random, ends := strings.CutSuffix(random, scratchSuffix)
	return begins && ends && len(random) == scratchDigits && strings.Trim(random, "0123456789abcdef") == ""
}

// removeStaleScratch removes the directory if nobody has its lock, which it keeps until the directory is gone.
func removeStaleScratch(dir string) {
	f, err := filelock.Open(dir)
	if err != nil {
		return
	}
	defer f.Close()
	if filelock.Lock(f) == filelock.Held && filelock.IsAt(f, dir) {
		_ = os.RemoveAll(dir)
	}
}
