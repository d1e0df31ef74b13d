package checkpoint

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// weightSuffixes are the ends of the names, in lower case, of files that hold weights or say where they are.
var weightSuffixes = []string{
	shardExtension, indexSuffix, ".bin", ".pt", ".pth", ".ckpt", ".h5", ".msgpack", ".gguf", ".ggml", ".onnx",
	".onnx_data", ".npy", ".npz", ".pkl", ".pickle", ".ot", ".tflite", ".pb", ".nemo", ".distcp", ".data",
}

// isSideFile reports whether a file of that name belongs to a model directory and has no weights.
func isSideFile(name string) bool {
	lower := strings.ToLower(name)
	return !strings.HasPrefix(name, ".") &&
		!slices.ContainsFunc(weightSuffixes, func(suffix string) bool { return strings.HasSuffix(lower, suffix) })
}

// CopySideFiles copies what a model directory has besides its weights, config.json and the files of the tokenizer for
// example, from the directory of the model to dir, which has to exist. It returns the names of the files that it copied
// and of those that it skipped since dir has something of that name, sorted: nothing is ever overwritten. Each file
// appears whole or not at all.
//
// Files of weights are told by their names (.safetensors, .index.json, .bin, .pt, .h5 and others like them). Neither they
// nor hidden files nor directories are copied. Of a symbolic link, the file that it points to is copied.
//
// A model that was opened as one file, [Model.Dir] being empty, is an error: the other files beside it may have nothing
// to do with it. After an error, the files that were copied before it remain.
func CopySideFiles(from *Model, dir string) (copied, skipped []string, err error) {
	if from == nil {
		return nil, nil, errors.New("checkpoint: no model to copy other files from: it is nil")
	}
	if from.dir == "" {
		return nil, nil, fmt.Errorf("%s: is one file, want a model directory to copy other files from", from.path)
	}
	entries, err := os.ReadDir(from.dir)
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		name := e.Name()
		if !isSideFile(name) {
			continue
		}
		source := filepath.Join(from.dir, name)
		info, err := os.Stat(source)
		if err != nil {
			return copied, skipped, err
		}
		if !info.Mode().IsRegular() {
			continue
		}
		switch err := copyNew(source, filepath.Join(dir, name)); {
		case errors.Is(err, fs.ErrExist):
			skipped = append(skipped, name)
		case err != nil:
			return copied, skipped, err
		default:
			copied = append(copied, name)
		}
	}
	return copied, skipped, nil
}

// copyNew copies a file. The error wraps [fs.ErrExist] if there is something at target.
func copyNew(source, target string) error {
	if _, err := os.Lstat(target); err == nil {
		return fmt.Errorf("%s: %w", target, fs.ErrExist)
	}
	s, err := openSource(source)
	if err != nil {
		return err
	}
	defer s.Close()
	a, err := createAtomic(target, target, s.size)
	if err != nil {
		return err
	}
	n, err := io.Copy(a.file, s.file)
	switch {
	case err != nil:
		err = fmt.Errorf("copy %s to %s: %w", source, target, err)
	case n != s.size:
		err = fmt.Errorf("%s: %w: %d bytes read, had %d", source, ErrChanged, n, s.size)
	default:
		err = a.flush()
	}
	if err != nil {
		return errors.Join(err, a.discard())
	}
	return a.commitNew()
}
