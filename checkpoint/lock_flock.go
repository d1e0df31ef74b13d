//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package checkpoint

import (
	"os"

	"golang.org/x/sys/unix"
)

// lock tries to take the lock of the file, which is given back when the file is closed.
func lock(f *os.File) lockState {
	for {
		switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err {
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
