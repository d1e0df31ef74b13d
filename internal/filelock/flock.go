//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package filelock

import (
	"os"

	"golang.org/x/sys/unix"
)

// Lock tries to take the lock of the file. It does not wait.
func Lock(f *os.File) State { return flock(f, unix.LOCK_EX) }

// LockShared is [Lock] for a lock that several may hold, as long as nobody holds that of Lock.
func LockShared(f *os.File) State { return flock(f, unix.LOCK_SH) }

// Unlock gives the lock back while something else, which is not closed yet, holds the file open.
func Unlock(f *os.File) { _ = unix.Flock(int(f.Fd()), unix.LOCK_UN) }

func flock(f *os.File, how int) State {
	for {
		switch err := unix.Flock(int(f.Fd()), how|unix.LOCK_NB); err {
		case nil:
			return Held
		case unix.EINTR:
		case unix.EWOULDBLOCK:
			return Taken
		default:
			return Unsupported
		}
	}
}

// Open opens the file or directory at path to lock it. It neither follows a symbolic link nor waits at a named pipe.
func Open(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|DontWait|unix.O_NOFOLLOW, 0)
}

// DontWait is a flag for opening a file that may be a named pipe.
const DontWait = unix.O_NONBLOCK
