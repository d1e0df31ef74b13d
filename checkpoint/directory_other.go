//go:build !unix

package checkpoint

const renamesOpenFiles = false

// syncDir does nothing: there is no way to flush a directory.
func syncDir(string) error { return nil }
