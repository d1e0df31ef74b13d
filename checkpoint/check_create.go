package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// CheckCreate returns the error that [Create] would return for the same arguments, and writes nothing: of the format,
// which may not have a dtype or a number of tensors, of the layout, and of what is at path. It returns nil also where
// only the attempt can tell: if there is too little space on the disk, for example.
func CheckCreate(path string, tensors []Tensor, metadata map[string]string, opts ...CreateOption) error {
	o := createOptions{sync: true}
	for _, opt := range opts {
		opt(&o)
	}
	if path == "" {
		return errEmptyPath
	}
	if o.sharded() {
		return checkCreateShards(path, tensors, metadata, o)
	}
	if err := checkFileTarget(path); err != nil {
		return err
	}
	if _, err := layOut(path, tensors, metadata); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if _, _, err := targetMode(path); err != nil {
		return err
	}
	return checkParent(path)
}

// checkCreateShards is CheckCreate for model directories.
func checkCreateShards(path string, tensors []Tensor, metadata map[string]string, o createOptions) error {
	s, err := layOutShards(path, tensors, metadata, o)
	if err != nil {
		return err
	}
	if err := checkOpenFiles(path, s.plans); err != nil {
		return err
	}
	target := filepath.Clean(path)
	there, err := directoryThere(target)
	if err != nil {
		return err
	}
	if !there {
		return checkParent(target)
	}
	d := &outputDirectory{target: target}
	if err := d.checkOthers(s.plans, s.index != nil); err != nil {
		return err
	}
	names := make([]string, 0, len(s.plans)+1)
	for _, p := range s.plans {
		names = append(names, p.file)
	}
	if s.index != nil {
		names = append(names, indexName)
	}
	for _, name := range names {
		if _, _, err := targetMode(filepath.Join(target, name)); err != nil {
			return err
		}
	}
	return checkWritable(target, target)
}

// checkParent returns an error unless there is a directory for path to be made in.
func checkParent(path string) error {
	dir := filepath.Dir(path)
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: there is no directory %s: %w", path, dir, fs.ErrNotExist)
	case err != nil:
		return fmt.Errorf("%s: %w", path, err)
	case !info.IsDir():
		return fmt.Errorf("%s: %s is no directory", path, dir)
	}
	return checkWritable(path, dir)
}
