package checkpoint

import (
	"os"
	"runtime"
	"unsafe"

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

// releaseBytes is from what size on a file is released in the background.
const releaseBytes = 32 << 20

// release closes a file whose name is gone. The system frees its pages when the last reference goes, which takes a
// tenth of a second for each gigabyte, or far longer while they are on their way to the disk. A program that was told
// to end should not have to wait for that, and as long as it does the reference is its own. Files that are registered
// with an io_uring are released by a thread of the kernel after the ring is closed; nothing else of the ring is used.
// Where there is no io_uring, the file is simply closed.
func release(f *os.File, size int64) {
	// Android ends a program that asks for an io_uring.
	if size >= releaseBytes && runtime.GOOS != "android" {
		if ring, ok := ringWith(f); ok {
			unlock(f)
			defer unix.Close(ring)
		}
	}
	f.Close() // nothing of the contents is wanted
}

// ringWith returns the descriptor of a new io_uring that holds the file.
func ringWith(f *os.File) (int, bool) {
	const (
		entries       = 1
		registerFiles = 2 // IORING_REGISTER_FILES
	)
	var params [15]uint64 // struct io_uring_params, 120 bytes: no flags
	ring, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, entries, uintptr(unsafe.Pointer(&params)), 0)
	if errno != 0 {
		return 0, false
	}
	files := [1]int32{int32(f.Fd())}
	_, _, errno = unix.Syscall6(unix.SYS_IO_URING_REGISTER, ring, registerFiles, uintptr(unsafe.Pointer(&files)), 1, 0, 0)
	if errno != 0 {
		unix.Close(int(ring))
		return 0, false
	}
	return int(ring), true
}
