package checkpoint

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"
)

// exchange puts two directories of one parent in the places of each other, in one step.
func exchange(a, b string) error {
	if err := unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE); err != nil {
		return &os.LinkError{Op: "exchange", Old: a, New: b, Err: err}
	}
	return nil
}

// errInPlace says that a directory cannot be replaced by another one.
var errInPlace = errors.New("the directory has to be written in place")

// checkReplaceable returns an error unless temp, a new and empty directory beside target, can become what target is
// now: with its owner, its attributes and all its other files, and without a process being left in a removed directory.
func checkReplaceable(target, temp string) error {
	switch filepath.Base(target) {
	case ".", "..", string(filepath.Separator):
		return errInPlace
	}
	old, err := os.Lstat(target)
	if err != nil {
		return err
	}
	if !old.IsDir() { // a symbolic link
		return errInPlace
	}
	if here, err := os.Stat("."); err != nil || os.SameFile(here, old) {
		return errInPlace
	}
	if err := unix.Access(target, unix.W_OK|unix.X_OK); err != nil {
		return err
	}
	info, err := os.Lstat(temp)
	if err != nil {
		return err
	}
	was, ok := old.Sys().(*syscall.Stat_t)
	is, ok2 := info.Sys().(*syscall.Stat_t)
	if !ok || !ok2 || was.Dev != is.Dev || was.Uid != is.Uid || was.Gid != is.Gid {
		return errInPlace
	}
	if err := checkAttributes(target, temp); err != nil {
		return err
	}
	// Links tell whether the other files can be kept, and fail at the border of a mount, also of the same file system.
	entries, err := os.ReadDir(target)
	if err != nil {
		return err
	}
	for _, e := range entries {
		switch e.Type() {
		case fs.ModeSymlink:
		case 0:
			link := filepath.Join(temp, e.Name())
			if err := os.Link(filepath.Join(target, e.Name()), link); err != nil {
				return err
			}
			if err := os.Remove(link); err != nil {
				return err
			}
		default:
			if err := checkMovable(filepath.Join(target, e.Name()), e.IsDir()); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkMovable returns an error unless what is at path, and is no file or link, can be moved to another directory.
func checkMovable(path string, isDir bool) error {
	if isDir {
		if err := unix.Access(path, unix.W_OK|unix.X_OK); err != nil { // of its entry ".."
			return err
		}
	}
	var x unix.Statx_t
	if err := unix.Statx(unix.AT_FDCWD, path, unix.AT_SYMLINK_NOFOLLOW, 0, &x); err != nil {
		return err
	}
	if x.Attributes_mask&unix.STATX_ATTR_MOUNT_ROOT == 0 || x.Attributes&unix.STATX_ATTR_MOUNT_ROOT != 0 {
		return errInPlace // or nobody knows
	}
	return nil
}

// checkAttributes returns an error unless temp has all the extended attributes of target, access control lists among
// them.
func checkAttributes(target, temp string) error {
	list, err := attribute(func(p []byte) (int, error) { return unix.Llistxattr(target, p) })
	if err != nil {
		return err
	}
	for name := range bytes.SplitSeq(bytes.TrimSuffix(list, []byte{0}), []byte{0}) {
		if len(name) == 0 {
			continue
		}
		was, err := attribute(func(p []byte) (int, error) { return unix.Lgetxattr(target, string(name), p) })
		if err != nil {
			return err
		}
		is, err := attribute(func(p []byte) (int, error) { return unix.Lgetxattr(temp, string(name), p) })
		if err != nil || !bytes.Equal(was, is) {
			return fmt.Errorf("attribute %s: %w", quote(name), errInPlace)
		}
	}
	return nil
}

// attribute returns what get puts into a buffer that is large enough. File systems without attributes have empty ones.
func attribute(get func([]byte) (int, error)) ([]byte, error) {
	n, err := get(nil)
	if errors.Is(err, unix.ENOTSUP) || err == nil && n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	p := make([]byte, n)
	n, err = get(p)
	if err != nil {
		return nil, err
	}
	return p[:n], nil
}
