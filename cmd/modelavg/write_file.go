package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// writeFile writes a file, or puts a new one, with the same permissions, in the place of one that is there: at once, or
// not at all. Of a symbolic link it replaces what it points to.
func writeFile(path string, data []byte) error {
	target := path
	if pointed, err := filepath.EvalSymlinks(path); err == nil {
		target = pointed
	}
	if f, err := os.OpenFile(target, os.O_WRONLY, 0); err == nil { // it may be write-protected
		f.Close()
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	dir, err := openScratch(target)
	if err != nil {
		return err
	}
	if err := writeThrough(dir.path("file"), target, data); err != nil {
		return errors.Join(fmt.Errorf("%s: %w", path, err), dir.close())
	}
	return dir.close()
}

// writeThrough writes a new file, brings it to the disk and gives it the name of the target.
func writeThrough(temp, target string, data []byte) error {
	f, err := os.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if info, statErr := os.Stat(target); err == nil && statErr == nil {
		err = f.Chmod(info.Mode().Perm())
	}
	if err == nil {
		err = f.Sync()
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	return os.Rename(temp, target)
}
