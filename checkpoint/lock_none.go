//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package checkpoint

import "os"

func lock(*os.File) lockState { return lockUnsupported }

func lockShared(*os.File) lockState { return lockUnsupported }

func openForLock(path string) (*os.File, error) { return os.Open(path) }
