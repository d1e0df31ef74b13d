//go:build !(darwin || dragonfly || freebsd || linux || netbsd || openbsd)

package checkpoint

import "os"

func lockShared(*os.File) lockState { return lockUnsupported }
