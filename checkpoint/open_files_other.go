//go:build !unix

package checkpoint

// openFilesLimit returns false: there is no limit that could be asked for.
func openFilesLimit() (uint64, bool) { return 0, false }
