//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// lock tries to take the lock of the file, which is given back when the file is closed, and when the process ends,
// however it ends.
func lock(f *os.File) error {
	for {
		switch err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err {
		case nil:
			return nil
		case unix.EINTR:
		case unix.EWOULDBLOCK:
			return errLocked
		default:
			return errNoLocks
		}
	}
}

// openDirectory opens a directory to lock it. It does not follow a symbolic link.
func openDirectory(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW, 0)
}

// dontWait is a flag for opening a file that may be a named pipe.
const dontWait = unix.O_NONBLOCK
