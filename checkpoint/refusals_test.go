package checkpoint

import "testing"

func TestCreateEmptyPath(t *testing.T) {
	t.Chdir(t.TempDir())
	const want = "checkpoint: the path of the file to create is empty"
	for _, opts := range [][]CreateOption{nil, {WithMaxShardSize(1)}} {
		if _, err := Create("", nil, nil, opts...); err == nil || err.Error() != want {
			t.Errorf("error %v", err)
		}
	}
	wantFiles(t, ".")
}

// A key is given twice whatever the value of the first one was.
func TestMetadataTwice(t *testing.T) {
	for _, header := range []string{
		`{"__metadata__":null,"__metadata__":{"a":"b"}}`, `{"__metadata__":null,"__metadata__":null}`,
		`{"__metadata__":{},"__metadata__":null}`,
	} {
		path := writeFile(t, fileBytes(header, 0))
		_, err := Open(path)
		wantError(t, err, path, "m.safetensors: __metadata__: given twice")
	}
}

func TestCopySideFilesOfNothing(t *testing.T) {
	if _, _, err := CopySideFiles(nil, t.TempDir()); err == nil {
		t.Error("no error")
	}
}
