package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"time"

	"github.com/modelavg/modelavg/internal/filelock"
)

// The directory of the unfinished output has a lock, which the processes of one machine see: parts share it while they
// write, and who finishes or discards the output has it alone. Without it, a part that is still running would write
// into files that have become those of the finished output.

// Errors of the lock.
var (
	errFinishing = errors.New("another process is finishing or discarding it")
	errRunning   = errors.New("a part of it is still running on this machine: wait until it has ended, or end it")
	errNotThere  = errors.New("the unfinished output is gone: it was finished or discarded meanwhile")
)

// partsLockWait is how long a process waits for the lock. A look at what is missing takes less.
const partsLockWait = 2 * time.Second

// lockParts takes the lock of the unfinished output in dir, alone or shared, and waits for it. It returns nil where
// there are no such locks. The error is errFinishing, errRunning or errNotThere.
func lockParts(dir string, shared bool, wait time.Duration) (*os.File, error) {
	take := filelock.Lock
	if shared {
		take = filelock.LockShared
	}
	until := time.Now().Add(wait)
	for {
		f, err := filelock.Open(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, errNotThere
		}
		if err != nil {
			return nil, nil // not every system opens directories
		}
		switch take(f) {
		case filelock.Held:
			if filelock.IsAt(f, dir) {
				return f, nil
			}
			f.Close()
			return nil, errNotThere
		case filelock.Unsupported:
			f.Close()
			return nil, nil
		}
		// Parts let others share it with them.
		err = errFinishing
		if !shared && filelock.LockShared(f) == filelock.Held {
			err = errRunning
		}
		f.Close()
		if !time.Now().Before(until) {
			return nil, err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// removeParts removes the unfinished output in dir, which the caller has locked. It gets another name first: nobody
// ever finds a part of it. What is left when the process is killed goes with removeStaleParts.
func removeParts(path, dir string) error {
	var stale string
	for range 100 {
		stale = fmt.Sprintf("%s%0*x%s", filepath.Join(filepath.Dir(dir), tempPrefix(dir)), randomDigits, rand.Uint64(),
			tempSuffix)
		if there, err := exists(stale); err != nil || !there {
			break
		}
	}
	switch err := os.Rename(dir, stale); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := os.RemoveAll(stale); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// removeStaleParts removes what is left of unfinished outputs in dir whose removal was stopped. What cannot be removed
// stays.
func removeStaleParts(dir string) {
	prefix := tempPrefix(dir)
	_, _ = removeStaleIn(filepath.Dir(dir), "", func(name string) bool { return isTemp(name, prefix) })
}
