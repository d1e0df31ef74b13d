//go:build unix

package checkpoint

import (
	"os"

	"golang.org/x/sys/unix"
)

// openWithoutWaiting opens the file for reading, and does not wait for a writer of a named pipe.
func openWithoutWaiting(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
}
