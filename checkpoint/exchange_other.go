//go:build !linux

package checkpoint

import "errors"

// exchange is not possible.
func exchange(_, _ string) error { return errors.ErrUnsupported }

// checkReplaceable returns an error: directories cannot be exchanged.
func checkReplaceable(_, _ string) error { return errors.ErrUnsupported }
