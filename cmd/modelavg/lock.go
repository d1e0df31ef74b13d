package main

import "errors"

// What lock returns where it does not lock a file.
var (
	errLocked  = errors.New("it is in use")
	errNoLocks = errors.New("the system or the file system has no locks")
)
