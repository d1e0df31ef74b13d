// Package filelock takes locks of open files and directories, which the system gives back when they are closed and when
// the process ends, however it ends: what can be locked belongs to nobody.
package filelock

import "os"

// A State is the outcome of an attempt to lock a file.
type State uint8

const (
	Unsupported State = iota // by the system or the file system
	Held                     // by us
	Taken                    // by another
)

// IsAt reports whether f is the file at path. A lock says nothing of a path at which there is another file by now.
func IsAt(f *os.File, path string) bool {
	opened, err := f.Stat()
	if err != nil {
		return false
	}
	named, err := os.Lstat(path)
	return err == nil && os.SameFile(opened, named)
}
