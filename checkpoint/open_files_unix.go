//go:build unix

package checkpoint

import "golang.org/x/sys/unix"

// openFilesLimit returns how many files this process may have open, if that is known.
func openFilesLimit() (uint64, bool) {
	var limit unix.Rlimit
	err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit)
	return uint64(limit.Cur), err == nil && limit.Cur > 0
}
