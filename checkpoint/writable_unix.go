//go:build unix

package checkpoint

import (
	"fmt"
	"io/fs"

	"golang.org/x/sys/unix"
)

// checkWritable returns an error, which names path, if this process may make no files in the directory.
func checkWritable(path, dir string) error {
	if err := unix.Access(dir, unix.W_OK|unix.X_OK); err != nil {
		return fmt.Errorf("%s: %w", path, &fs.PathError{Op: "write to", Path: dir, Err: err})
	}
	return nil
}
