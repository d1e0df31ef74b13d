//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package filelock

import "os"

// Lock does nothing and returns [Unsupported].
func Lock(*os.File) State { return Unsupported }

// LockShared does nothing and returns [Unsupported].
func LockShared(*os.File) State { return Unsupported }

// Unlock does nothing.
func Unlock(*os.File) {}

// Open opens the file or directory at path.
func Open(path string) (*os.File, error) { return os.Open(path) }

// DontWait is no flag.
const DontWait = 0
