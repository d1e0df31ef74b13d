package release

import (
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/modelavg/modelavg/internal/filelock"
)

// Close closes a file of that size whose name is gone. Nothing of its contents is wanted.
//
// Files that are registered with an io_uring are released by a thread of the kernel after the ring is closed; nothing
// else of the ring is used. Where there is no io_uring, the file is simply closed.
func Close(f *os.File, size int64) {
	// Android ends a program that asks for an io_uring.
	if size >= backgroundBytes && runtime.GOOS != "android" {
		if ring, ok := ringWith(f); ok {
			filelock.Unlock(f)
			defer unix.Close(ring)
		}
	}
	f.Close()
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
