package checkpoint

import (
	"context"
	"errors"
	"fmt"
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
	return CopySideFilesContext(context.Background(), from, dir)
}

// CopySideFilesContext is [CopySideFiles] until ctx is done: the error wraps its cause then, and the file that is being
// copied does not appear.
func CopySideFilesContext(ctx context.Context, from *Model, dir string) (copied, skipped []string, err error) {
	files, _, err := ListSideFiles(from)
	if err != nil {
		return nil, nil, err
	}
	for _, name := range files {
		switch err := copyNew(ctx, filepath.Join(from.dir, name), filepath.Join(dir, name)); {
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

// ListSideFiles returns the names of what a model directory has besides the model, sorted: files that [CopySideFiles]
// copies, and others that it does not, which are weights of other formats or other models, hidden files, symbolic links to
// nothing, and directories and anything else that is no file. The names of directories end with a slash. The shards of the model, its index and
// temporary files of this package are in neither list. Errors are those of CopySideFiles.
func ListSideFiles(from *Model) (files, others []string, err error) {
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
	own := map[string]bool{filepath.Base(from.index): true}
	for _, s := range from.Shards() {
		own[s.File] = true
	}
	for _, e := range entries {
		name := e.Name()
		if own[name] || isAnyTemp(name) {
			continue
		}
		if e.IsDir() {
			others = append(others, name+"/")
			continue
		}
		if !isSideFile(name) {
			others = append(others, name)
			continue
		}
		info, err := os.Stat(filepath.Join(from.dir, name))
		switch {
		case errors.Is(err, fs.ErrNotExist) && e.Type() == fs.ModeSymlink:
			others = append(others, name) // a link to nothing
		case err != nil:
			return nil, nil, err
		case info.IsDir():
			others = append(others, name+"/")
		case !info.Mode().IsRegular():
			others = append(others, name)
		default:
			files = append(files, name)
		}
	}
	return files, others, nil
}

// copyNew copies a file. The error wraps [fs.ErrExist] if there is something at target.
func copyNew(ctx context.Context, source, target string) error {
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
	a.startWriteback(true)
	n, err := copyContext(ctx, &writerAt{a, 0}, s.file)
	switch {
	case err != nil:
		err = fmt.Errorf("copy %s to %s: %w", source, target, err)
	case n != s.size:
		err = fmt.Errorf("%s: %w: %d bytes read, had %d", source, ErrChanged, n, s.size)
	default:
		if err = a.flushSlices(ctx); err == nil {
			err = a.flush()
		}
	}
	if err != nil {
		return errors.Join(err, a.discard())
	}
	return a.commitNew()
}

// A writerAt writes to a file from an offset on.
type writerAt struct {
	file   *atomicFile
	offset int64
}

func (w *writerAt) Write(p []byte) (int, error) {
	n, err := w.file.writeAt(p, w.offset)
	w.offset += int64(n)
	return n, err
}
