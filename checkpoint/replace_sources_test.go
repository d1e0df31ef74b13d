package checkpoint

import (
	"os"
	"path/filepath"
	"testing"
)

// If a new file has vanished, the old index is not removed.
func TestReplaceWithoutSource(t *testing.T) {
	t.Chdir(t.TempDir())
	opts := WithMaxShardSize(3 << 20)
	writeWhole(t, "m", partTensors(), 2, opts)
	before := filesUnder(t, "m")
	writeParts(t, "m", 2, partTensors(), 1, opts)
	u, err := OpenUnfinished("m")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	if err := u.Check(t.Context(), true, nil); err != nil {
		t.Fatal(err)
	}
	d := &outputDirectory{target: "m", keep: true}
	for i, f := range u.plan.Files {
		a, err := u.open(i, filepath.Join("m", f.Name))
		if err != nil {
			t.Fatal(err)
		}
		if f.Name == indexName {
			d.index = a
		} else {
			d.shards = append(d.shards, a)
		}
	}
	if err := os.Remove(d.shards[1].temp); err != nil {
		t.Fatal(err)
	}
	if err := d.replace(false); err == nil {
		t.Error("no error")
	}
	checkFiles(t, filesUnder(t, "m"), before)
}
