//go:build !linux

package checkpoint

import "os"

// preallocate makes the file size bytes long.
func preallocate(f *os.File, size int64) error { return f.Truncate(size) }
