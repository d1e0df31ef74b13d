package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// checkFileTarget returns an error if a file of tensors at path would break a model directory, or could not be opened: a
// shard of a model in shards would no longer have the tensors of the index, and model.safetensors beside an index makes
// it ambiguous which model is meant.
func checkFileTarget(path string) error {
	if strings.HasSuffix(path, indexSuffix) {
		return fmt.Errorf("%s: the name ends with %s as that of an index, want that of a file of tensors", path, indexSuffix)
	}
	dir, name := filepath.Split(path)
	if dir == "" {
		dir = "."
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) {
			return nil // what cannot be listed may still be written to
		}
		return fmt.Errorf("%s: %w", path, err)
	}
	for _, e := range entries {
		index := e.Name()
		if !strings.HasSuffix(index, indexSuffix) {
			continue
		}
		if shardsNamed(dir, index)[name] {
			return fmt.Errorf("%s: is a shard of the model of %s, which it would break: want a file of another name or the "+
				"directory as a whole", path, filepath.Join(dir, index))
		}
		if index == indexName && name == singleName {
			return fmt.Errorf("%s: would be ambiguous beside %s: want a file of another name or the directory as a whole",
				path, filepath.Join(dir, index))
		}
	}
	return nil
}
