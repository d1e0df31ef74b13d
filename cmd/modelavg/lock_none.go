//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package main

import "os"

// lock returns errNoLocks.
func lock(*os.File) error { return errNoLocks }

// openDirectory opens a directory.
func openDirectory(path string) (*os.File, error) { return os.Open(path) }

// dontWait is no flag.
const dontWait = 0
