//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package checkpoint

import (
	"os"

	"golang.org/x/sys/unix"
)

// lockShared is lock for a lock that several may hold, as long as nobody holds that of lock.
func lockShared(f *os.File) lockState {
	for {
		switch err := unix.Flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err {
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
