//go:build unix

package checkpoint

import (
	"errors"
	"os"

	"golang.org/x/sys/unix"
)

// renamesOpenFiles says that files can be renamed and removed while they are open.
const renamesOpenFiles = true

// syncDir flushes the directory to the disk, and with it the names of the files in it.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer d.Close()
	err = d.Sync()
	if errors.Is(err, unix.EINVAL) || errors.Is(err, errors.ErrUnsupported) {
		return nil // some file systems know no such thing
	}
	return err
}
