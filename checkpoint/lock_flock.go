//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package checkpoint

import (
	"os"

	"golang.org/x/sys/unix"
)

// lock tries to take the lock of the file, which is given back when the file is closed.
func lock(f *os.File) lockState { return flock(f, unix.LOCK_EX) }

// lockShared is lock for a lock that several may hold, as long as nobody holds that of lock.
func lockShared(f *os.File) lockState { return flock(f, unix.LOCK_SH) }

// unlock gives the lock back while something else, which is not closed yet, holds the file open.
func unlock(f *os.File) { _ = unix.Flock(int(f.Fd()), unix.LOCK_UN) }

func flock(f *os.File, how int) lockState {
	for {
		switch err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); err {
		case nil:
			return lockHeld
		case unix.EINTR:
		case unix.EWOULDBLOCK:
			return lockTaken
		default:
			return lockUnsupported
		}
	}
}

// openForLock opens the file to lock it. It neither follows a symbolic link nor waits at a named pipe.
func openForLock(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
}
