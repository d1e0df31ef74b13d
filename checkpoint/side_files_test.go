package checkpoint

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// What is in a model directory is a part of the model, is copied, or is not.
func TestListSideFiles(t *testing.T) {
	files := goodFiles()
	for _, name := range []string{"config.json", "vocab.txt", "pytorch_model.bin", "other.safetensors", ".hidden", "x.index.json"} {
		files[name] = "x"
	}
	dir := modelDir(t, files)
	mkdir(t, filepath.Join(dir, "onnx"))
	side := []string{"config.json", "vocab.txt"}
	others := []string{".hidden", "onnx/", "other.safetensors", "pytorch_model.bin", "x.index.json"}
	if os.Symlink("onnx", filepath.Join(dir, "link")) == nil && os.Symlink("vocab.txt", filepath.Join(dir, "words.txt")) == nil {
		side = append(side, "words.txt")
		others = slices.Insert(others, 1, "link/")
	}
	got, not, err := ListSideFiles(open(t, dir))
	if err != nil || !slices.Equal(got, side) || !slices.Equal(not, others) {
		t.Errorf("files %q, others %q, %v; want %q and %q", got, not, err, side, others)
	}
	single := modelDir(t, map[string]string{singleName: string(smallFile("a")), "config.json": "{}"})
	got, not, err = ListSideFiles(open(t, single))
	if err != nil || !slices.Equal(got, []string{"config.json"}) || not != nil {
		t.Errorf("files %q, others %q, %v", got, not, err)
	}
	file := writeFile(t, smallFile("a"))
	if _, _, err := ListSideFiles(open(t, file)); err == nil {
		t.Error("no error for a file")
	}
	if _, _, err := ListSideFiles(nil); err == nil {
		t.Error("no error for nothing")
	}
}
