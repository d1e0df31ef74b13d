package checkpoint

import (
	"os"

	"golang.org/x/sys/unix"
)

// preallocate makes the file size bytes long and reserves the space for it where the file system can.
func preallocate(f *os.File, size int64) error {
	if size == 0 {
		return nil
	}
	for {
		switch err := unix.Fallocate(int(f.Fd()), 0, 0, size); err {
		case nil:
			return nil
		case unix.EINTR:
		case unix.ENOSPC, unix.EDQUOT, unix.EFBIG, unix.EIO:
			return os.NewSyscallError("fallocate", err)
		default: // not supported here
			return f.Truncate(size)
		}
	}
}
