// Package release gives files up without waiting until the system has freed them.
//
// The system frees the pages of a file when the last reference to it goes, which takes a tenth of a second for each
// gigabyte, or far longer while they are on their way to the disk. A program that was told to end should not have to wait
// for that, and as long as it does the reference is its own.
package release

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/modelavg/modelavg/internal/filelock"
)

// backgroundBytes is from what size on a file is released in the background.
const backgroundBytes = 32 << 20

// RemoveAll is [os.RemoveAll] of a directory, but does not wait for the large files in it.
func RemoveAll(dir string) error {
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			remove(path)
		}
		return nil
	})
	return os.RemoveAll(dir) // which has an error for what is left
}

// remove removes the name of a large file and closes the file.
func remove(path string) {
	f, err := filelock.Open(path)
	if err != nil {
		return
	}
	info, err := f.Stat()
	if err := errors.Join(err, os.Remove(path)); err != nil || info.Size() < backgroundBytes {
		f.Close() // nothing was written
		return
	}
	Close(f, info.Size())
}
