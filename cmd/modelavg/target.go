package main

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/modelavg/modelavg/checkpoint"
)

// checkTarget returns an error if an output of this layout cannot or should not be written to path: a file where there
// is a directory or is to be one, and what would take the place of a file that is no model.
func checkTarget(path string, l *layout) error {
	if l.directory {
		return nil // the names of the files in it are those of models
	}
	if extension := filepath.Ext(path); foreignExtensions[strings.ToLower(extension)] != "" {
		return fmt.Errorf("%s: is a name for %s, which are not written: want one that ends with .safetensors, .npy or .npz", path,
			foreignExtensions[strings.ToLower(extension)])
	}
	trimmed := cmp.Or(strings.TrimRight(path, separators), path) // of "/" it would be nothing
	info, err := os.Lstat(trimmed)
	there := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if there && info.Mode()&fs.ModeSymlink != 0 {
		if pointed, err := os.Stat(path); err == nil && pointed.IsDir() {
			info = pointed
		} else if path == trimmed {
			return nil // the link is replaced, and not what it points to
		}
	}
	switch {
	case there && info.IsDir():
		return fmt.Errorf("%s: is a directory, want a file for a model of one file (--max-shard-size SIZE writes a directory)",
			path)
	case path != trimmed:
		return fmt.Errorf("%s: there is no directory %s (--max-shard-size SIZE writes one; without it the output is a file)",
			path, trimmed)
	case !there || !info.Mode().IsRegular() || info.Size() == 0:
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil // whether it can be replaced does not depend on that
	}
	defer f.Close()
	if !isModel(f, info.Size()) {
		return fmt.Errorf("%s: exists and is no model file: remove it or choose another name", path)
	}
	return nil
}

// foreignExtensions are the ends of names that other programs would take for files of other formats.
var foreignExtensions = map[string]string{
	".pt": "PyTorch's files", ".pth": "PyTorch's files", ".ckpt": "PyTorch's files", ".bin": "PyTorch's files",
	".pkl": "pickled files", ".gguf": "GGUF files", ".onnx": "ONNX files", ".h5": "HDF5 files",
	".msgpack": "Flax's files",
}

// separators are the characters that end the path of a directory.
var separators = "/" + string(os.PathSeparator)

// isModel reports whether the first bytes of a file are those of a safetensors, .npy or .npz file, whole or not.
func isModel(r io.Reader, size int64) bool {
	begin := make([]byte, 512)
	n, _ := io.ReadFull(r, begin) // a shorter file is one as well
	begin = begin[:n]
	switch {
	case bytes.HasPrefix(begin, []byte(npyBegin)):
		return true
	case bytes.HasPrefix(begin, []byte("PK\x05\x06")): // an archive of nothing
		return size == 22
	case bytes.HasPrefix(begin, []byte("PK\x03\x04")) && n > 30: // whose first member is an array
		length := int(binary.LittleEndian.Uint16(begin[26:]))
		return 30+length <= n && bytes.HasSuffix(begin[:30+length], []byte(".npy"))
	}
	// The length of the header, which is JSON, perhaps of a file that was cut off.
	return n > 8 && begin[8] == '{' && binary.LittleEndian.Uint64(begin) <= checkpoint.DefaultHeaderLimit
}
