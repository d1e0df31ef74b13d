//go:build unix

package checkpoint

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func zeros(tensor Tensor) []byte { return make([]byte, tensor.Bytes()) }

// A new file has the permissions of any new file, and one that replaces another has those of that one.
func TestWriterMode(t *testing.T) {
	defer unix.Umask(unix.Umask(0o027))
	for _, test := range []struct{ old, want fs.FileMode }{
		{0, 0o640}, {0o600, 0o600}, {0o666, 0o666}, {0o755, 0o755}, {0o200, 0o200},
	} {
		path := filepath.Join(t.TempDir(), "out")
		if test.old != 0 {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, test.old); err != nil {
				t.Fatal(err)
			}
		}
		w := create(t, path, twoTensors, nil)
		if info, err := os.Stat(w.out.(*atomicFile).temp); err != nil || info.Mode().Perm() != test.want {
			t.Errorf("temporary file: mode %v, %v, want %v", info.Mode(), err, test.want)
		}
		for _, tensor := range twoTensors {
			if _, err := w.WriteAt(tensor.Name, zeros(tensor), 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Commit(); err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != test.want {
			t.Errorf("old mode %v: new mode %v, %v, want %v", test.old, info.Mode(), err, test.want)
		}
	}
}

// A symbolic link is replaced; what it points to is not touched.
func TestWriterSymlink(t *testing.T) {
	for _, blob := range []string{"blob", "none"} {
		dir := t.TempDir()
		if blob == "blob" {
			if err := os.WriteFile(filepath.Join(dir, blob), []byte("old"), 0o444); err != nil {
				t.Fatal(err)
			}
		}
		path := filepath.Join(dir, "link")
		if err := os.Symlink(blob, path); err != nil {
			t.Fatal(err)
		}
		write(t, path, twoTensors, nil, zeros)
		if info, err := os.Lstat(path); err != nil || !info.Mode().IsRegular() {
			t.Errorf("the link is %v, %v", info.Mode(), err)
		}
		b, err := os.ReadFile(filepath.Join(dir, blob))
		if blob == "blob" && string(b) != "old" || blob == "none" && err == nil {
			t.Errorf("%s is %q, %v", blob, b, err)
		}
		open(t, path)
	}
}

// A model may be read through a symbolic link.
func TestOpenSymlink(t *testing.T) {
	path := writeFile(t, fileBytes(i32, 16))
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	open(t, link)
}

// What is no regular file is neither read, without waiting, nor replaced.
func TestNoRegularFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(path, 0o666); err != nil {
		t.Skip(err)
	}
	_, err := Open(path)
	wantError(t, err, path, "pipe: is no regular file (p---------)")
	_, err = Create(path, nil, nil)
	wantError(t, err, path, "pipe: is no regular file (p---------)")
	_, err = Create("/dev/null", nil, nil)
	if err == nil || !strings.HasPrefix(err.Error(), "/dev/null: is no regular file") {
		t.Errorf("/dev/null: %v", err)
	}
}

func TestCreateUnwritableDirectory(t *testing.T) {
	if os.Getuid() == 0 {
		t.Skip("root may write everywhere")
	}
	path := writeFile(t, []byte("old"))
	dir := filepath.Dir(path)
	if err := os.Chmod(dir, 0o555); err != nil {
		t.Fatal(err)
	}
	defer os.Chmod(dir, 0o777)
	if _, err := Create(path, nil, nil); !errors.Is(err, fs.ErrPermission) || !strings.HasPrefix(err.Error(), path+": ") {
		t.Errorf("error %v", err)
	}
	wantFiles(t, dir, "m.safetensors")
}

// When the rename fails, the temporary file is removed.
func TestCommitRenameFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	w := create(t, path, nil, nil)
	if err := os.MkdirAll(filepath.Join(path, "sub"), 0o777); err != nil {
		t.Fatal(err)
	}
	err := w.Commit()
	if err == nil || !strings.HasPrefix(err.Error(), path+": rename ") {
		t.Errorf("error %v", err)
	}
	wantFiles(t, filepath.Dir(path), "out")
}

// When a write fails, the error names file and tensor, and Commit refuses.
func TestWriteFails(t *testing.T) {
	path := writeFile(t, []byte("old"))
	w := create(t, path, twoTensors, nil)
	for _, done := range []struct {
		name     string
		n, begin int64
	}{{"a", 8, 0}, {"b", 1, 0}, {"b", 4, 4}} {
		if _, err := w.WriteAt(done.name, make([]byte, done.n), done.begin); err != nil {
			t.Fatal(err)
		}
	}
	readOnly, err := os.Open(w.out.(*atomicFile).temp)
	if err != nil {
		t.Fatal(err)
	}
	whole := w.out.(*atomicFile).file
	w.out.(*atomicFile).file = readOnly
	_, err = w.WriteAt("b", make([]byte, 3), 1)
	want := path + `: tensor "b": wrote 0 of 3 bytes at byte 1: write `
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("error %v, want %s…", err, want)
	}
	w.out.(*atomicFile).file = whole
	readOnly.Close()
	wantError(t, w.Commit(), path, `m.safetensors: tensor "b": not all bytes are written: 5 of 8`)
	if b, err := os.ReadFile(path); !bytes.Equal(b, []byte("old")) {
		t.Errorf("the old file has %q, %v", b, err)
	}
	wantFiles(t, filepath.Dir(path), "m.safetensors")
}
