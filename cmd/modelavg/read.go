package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/modelavg/modelavg/checkpoint"
	"github.com/modelavg/modelavg/internal/bytesize"
)

// standardStream is what other programs take for standard input or output.
const standardStream = "-"

// readFlags are the flags that all commands share that read models.
type readFlags struct {
	void2        choice
	inflateLimit bytesize.Size
	cmd          *cobra.Command
}

// context returns that of the command, once it runs.
func (f *readFlags) context() context.Context {
	if f.cmd == nil || f.cmd.Context() == nil {
		return context.Background()
	}
	return f.cmd.Context()
}

// register adds the flags to the command, and the completion of its arguments with model files.
func (f *readFlags) register(cmd *cobra.Command) {
	f.cmd = cmd
	f.void2 = choice{"", []string{"bf16"}}
	cmd.Flags().Var(&f.void2, "npy-v2-as", "read elements of .npy and .npz files that are two bytes without a type, V2, "+
		"as: bf16")
	_ = cmd.RegisterFlagCompletionFunc("npy-v2-as", cobra.FixedCompletions(f.void2.values,
		cobra.ShellCompDirectiveNoFileComp))
	cmd.Flags().Var(&f.inflateLimit, "inflate-limit", "read .npz files of so many bytes at most when inflated, such as 50GB")
	_ = cmd.RegisterFlagCompletionFunc("inflate-limit", cobra.NoFileCompletions)
	cmd.ValidArgsFunction = func(*cobra.Command, []string, string) ([]cobra.Completion, cobra.ShellCompDirective) {
		return []cobra.Completion{"safetensors", "npz", "npy"}, cobra.ShellCompDirectiveFilterFileExt
	}
}

// options returns the flags as the library has them.
func (f *readFlags) options() []checkpoint.OpenOption {
	opts := []checkpoint.OpenOption{checkpoint.WithContext(f.context())}
	if f.void2.value != "" {
		opts = append(opts, checkpoint.WithVoid2As(checkpoint.BF16))
	}
	if f.inflateLimit != 0 {
		opts = append(opts, checkpoint.WithInflateLimit(int64(f.inflateLimit)))
	}
	return opts
}

// open opens the model at path.
func (f *readFlags) open(path string) (*checkpoint.Model, error) {
	m, err := checkpoint.Open(path, f.options()...)
	return m, hint(err)
}

// hint adds to an error what helps: a flag, or what the file is that is no model.
func hint(err error) error {
	if errors.Is(err, checkpoint.ErrUntyped) {
		return fmt.Errorf("%w (--npy-v2-as bf16 reads them as bfloat16)", err)
	}
	if errors.Is(err, checkpoint.ErrNumPyDType) {
		return fmt.Errorf("%w (--dtype f32 writes averages as such)", err)
	}
	if errors.Is(err, checkpoint.ErrInflateLimit) {
		return fmt.Errorf("%w (--inflate-limit allows more)", err)
	}
	var format *checkpoint.FormatError
	if errors.As(err, &format) {
		if kind := foreignKind(format.Path); kind != "" {
			return fmt.Errorf("%w (it is %s)", err, kind)
		}
	}
	return err
}

// foreignKinds are files that are taken for models, by their beginning.
var foreignKinds = []struct{ begin, kind string }{
	{"version https://git-lfs", "a pointer of Git LFS: git lfs pull gets the file itself"},
	{"PK\x03\x04", "a zip archive, which torch.save writes: convert it to safetensors"},
	{"\x80\x02\x8a\nl\xfc", "a pickle of Python, which torch.save writes: convert it to safetensors"},
	{"GGUF", "a GGUF file: average before the conversion to it"},
	{"\x89HDF\r\n", "an HDF5 file: convert it to safetensors"},
	{"{", "a text in JSON: the model is the directory that it belongs to"},
	{npyBegin, "a .npy file, which has to be called so"},
}

const npyBegin = "\x93NUMPY"

// foreignKind returns what a file is that is no safetensors file, or "".
func foreignKind(path string) string {
	switch e := strings.ToLower(filepath.Ext(path)); {
	case e == ".npy", e == ".npz", strings.HasSuffix(path, ".index.json"):
		return "" // read as what their names say
	}
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	begin := make([]byte, 32)
	n, _ := io.ReadFull(f, begin) // a shorter file is one as well
	if n >= 8 && begin[7] == 0 {
		return "" // the length of a header may begin with any of them, and ends with zeros
	}
	for _, k := range foreignKinds {
		if strings.HasPrefix(string(begin[:n]), k.begin) {
			return k.kind
		}
	}
	return ""
}

// openAll opens all models, or none.
func (f *readFlags) openAll(files []string) (models, error) {
	var list models
	for _, file := range files {
		m, err := f.open(file)
		if err != nil {
			list.close()
			return nil, err
		}
		list = append(list, m)
	}
	return list, nil
}

// checkFiles returns an error if one of the arguments is not the path of a file.
func checkFiles(files []string) error {
	for i, file := range files {
		switch file {
		case "":
			return fmt.Errorf("file %d of %d has an empty name", i+1, len(files))
		case standardStream:
			return errors.New("-: a model is read from a file, not from standard input; ./- is a file of that name")
		}
	}
	return nil
}

// checkOutput returns an error if path is that of standard output, which is no place for what the flag writes.
func checkOutput(flag, path string) error {
	if path == standardStream {
		return fmt.Errorf("%s -: want a file, not standard output; ./- is a file of that name", flag)
	}
	stdout, err := os.Stdout.Stat()
	if err != nil {
		return nil
	}
	if target, err := os.Stat(path); err == nil && os.SameFile(target, stdout) {
		return fmt.Errorf("%s %s: is standard output, to which the report goes: want another file", flag, path)
	}
	return nil
}

// checkParent returns an error unless there is a directory in which path is or may be made.
func checkParent(path string) error {
	dir := filepath.Dir(filepath.Clean(path)) // "new/" may be a directory that is made
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: there is no directory %s", path, dir)
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s: %s is a file, want a directory", path, dir)
	}
	return nil
}
