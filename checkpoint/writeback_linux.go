package checkpoint

import (
	"os"

	"golang.org/x/sys/unix"
)

// hasWriteback says that parts of a file can be brought to the disk.
const hasWriteback = true

// startWriteback starts to bring n bytes of the file to the disk. An error is left to the Sync that follows.
func startWriteback(f *os.File, off, n int64) {
	_ = unix.SyncFileRange(int(f.Fd()), off, n, unix.SYNC_FILE_RANGE_WRITE)
}

// waitWriteback waits until n bytes of the file are on the disk, of which all were started.
func waitWriteback(f *os.File, off, n int64) error {
	for {
		switch err := unix.SyncFileRange(int(f.Fd()), off, n, unix.SYNC_FILE_RANGE_WAIT_BEFORE); err {
		case unix.EINTR:
		case unix.EIO, unix.ENOSPC, unix.EDQUOT:
			return os.NewSyscallError("sync_file_range", err)
		default: // done, or not possible here
			return nil
		}
	}
}
