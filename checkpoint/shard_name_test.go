package checkpoint

import (
	"os"
	"path/filepath"
	"testing"
)

// Shards need a directory: the name of a file is refused, unless it is that of a directory already.
func TestShardsOfFileName(t *testing.T) {
	for _, name := range []string{"out.safetensors", "out.Safetensors", "out.npy", "out.npz"} {
		path := filepath.Join(t.TempDir(), name)
		for _, opt := range []CreateOption{WithMaxShardSize(1), WithShards([]Shard{{File: "s.safetensors"}})} {
			_, err := Create(path, twoTensors, nil, opt)
			wantError(t, err, path, name+": the name ends with "+filepath.Ext(name)+
				" as that of a file, want that of a directory for the shards")
			wantFiles(t, filepath.Dir(path))
		}
		if err := os.Mkdir(path, 0o777); err != nil {
			t.Fatal(err)
		}
		w := sharded(t, path, map[string]int{"a": 1, "b": 2}, WithMaxShardSize(1))
		if err := w.Commit(); err != nil {
			t.Error(err)
		}
	}
}
