package checkpoint

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// A new directory appears with the side files of the model; one that is there gets none before Commit.
func TestWithSideFiles(t *testing.T) {
	files := goodFiles()
	files["config.json"], files["tokenizer.json"] = "{}", "t"
	from := modelDir(t, files)
	if err := os.Symlink("nothing", filepath.Join(from, "dangling.json")); err != nil {
		t.Skip(err)
	}
	m := open(t, from)
	if _, others, err := ListSideFiles(m); err != nil || !slices.Equal(others, []string{"dangling.json"}) {
		t.Errorf("others %q, %v", others, err)
	}
	path := filepath.Join(t.TempDir(), "out")
	w := sharded(t, path, sameSizes, WithShards(sameShards), WithSideFiles(m))
	if err := w.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); err == nil || w.Copied() != nil {
		t.Errorf("before Commit the directory is there: %v; copied %q", err, w.Copied())
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	want := []string{"config.json", "tokenizer.json"}
	if got := w.Copied(); !slices.Equal(got, want) {
		t.Errorf("copied %q", got)
	}
	wantFiles(t, path, "config.json", indexName, "s1.safetensors", "s2.safetensors", "tokenizer.json")
	checkSharded(t, path, sameSizes)

	// Without Flush, and with nothing to copy but what is there.
	other := filepath.Join(t.TempDir(), "out")
	w = sharded(t, other, sameSizes, WithShards(sameShards), WithSideFiles(m), WithoutSync())
	if err := w.Commit(); err != nil || !slices.Equal(w.Copied(), want) {
		t.Errorf("copied %q, %v", w.Copied(), err)
	}
	there := modelDir(t, goodFiles())
	w = sharded(t, there, sameSizes, WithShards(sameShards), WithSideFiles(m))
	if err := w.Commit(); err != nil || w.Copied() != nil {
		t.Errorf("copied %q, %v", w.Copied(), err)
	}
	wantFiles(t, there, indexName, "s1.safetensors", "s2.safetensors")

	// Stopped, it leaves nothing.
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped")
	last := filepath.Join(t.TempDir(), "out")
	w = sharded(t, last, sameSizes, WithShards(sameShards), WithSideFiles(m))
	cancel(stopped)
	if err := w.CommitContext(ctx); !errors.Is(err, stopped) {
		t.Errorf("error %v", err)
	}
	wantFiles(t, filepath.Dir(last))
}

// Of a side file that is copied when the context is done, nothing appears.
func TestCopySideFilesContext(t *testing.T) {
	files := goodFiles()
	files["config.json"] = "{}"
	m := open(t, modelDir(t, files))
	ctx, cancel := context.WithCancelCause(t.Context())
	stopped := errors.New("stopped")
	cancel(stopped)
	to := t.TempDir()
	if _, _, err := CopySideFilesContext(ctx, m, to); !errors.Is(err, stopped) {
		t.Errorf("error %v", err)
	}
	wantFiles(t, to)
}
