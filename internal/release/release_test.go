package release

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// All that is in the directory goes, large or small, and nothing that links in it lead to.
func TestRemoveAll(t *testing.T) {
	root := t.TempDir()
	dir := filepath.Join(root, "dir")
	outside := filepath.Join(root, "outside")
	if err := os.MkdirAll(filepath.Join(dir, "sub"), 0o777); err != nil {
		t.Fatal(err)
	}
	for path, size := range map[string]int64{
		outside: backgroundBytes, filepath.Join(dir, "large"): backgroundBytes + 1, filepath.Join(dir, "small"): 10,
		filepath.Join(dir, "sub", "large"): backgroundBytes, filepath.Join(dir, "empty"): 0,
	} {
		if err := os.WriteFile(path, nil, 0o666); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(path, size); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(outside, filepath.Join(dir, "link")); err != nil {
		t.Logf("no link: %v", err)
	}
	if err := RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(dir); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory is still there: %v", err)
	}
	if info, err := os.Stat(outside); err != nil || info.Size() != backgroundBytes {
		t.Errorf("a file that a link led to: %v", err)
	}
	if err := RemoveAll(dir); err != nil {
		t.Errorf("of a directory that is not there: %v", err)
	}
}
