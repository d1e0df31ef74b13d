//go:build unix

package main

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/modelavg/modelavg/checkpoint"
)

// Runs that write a model directory are killed at random moments, half of them while they put it in its place. Where
// there was none, there is none or the whole new one; one with shards of the same names is wholly the old one or wholly
// the new one. The next run leaves nothing of those that were killed.
func TestKillShards(t *testing.T) {
	t.Run("new", func(t *testing.T) { testKillShards(t, false) })
	t.Run("replaced", func(t *testing.T) {
		if runtime.GOOS != "linux" {
			t.Skip("directories are not replaced in one step")
		}
		testKillShards(t, true)
	})
}

func testKillShards(t *testing.T, replaced bool) {
	kills := 20
	if text := os.Getenv(killsVariable); text != "" {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		kills = n
	} else if testing.Short() {
		kills = 6
	}
	t.Chdir(t.TempDir())
	args := []string{"mean", "-o", "out", "--max-shard-size", "8MiB"}
	run := func(inputs ...string) {
		t.Helper()
		if out, err := exec.Command(program, append(args, inputs...)...).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	if err := manyTensors("zeros", 8, 4<<20, 0); err != nil {
		t.Fatal(err)
	}
	if err := manyTensors("ones", 8, 4<<20, 1); err != nil {
		t.Fatal(err)
	}
	run("zeros", "zeros", "zeros")
	older := contents(t, "out")
	if err := os.RemoveAll("out"); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	run("ones", "ones", "ones")
	took := time.Since(start)
	newer := contents(t, "out")
	if maps.Equal(older, newer) || len(newer) != 5 {
		t.Fatalf("files %q", slices.Sorted(maps.Keys(newer)))
	}
	const side = "config.json"
	if replaced {
		older[side], newer[side] = "{}", "{}"
	} else {
		older = nil
	}
	outcomes := make(map[string]int)
	for i := range kills {
		os.RemoveAll("out")
		if replaced {
			if err := os.Mkdir("out", 0o777); err != nil {
				t.Fatal(err)
			}
			for name, content := range older {
				if err := os.WriteFile(filepath.Join("out", name), []byte(content), 0o666); err != nil {
					t.Fatal(err)
				}
			}
		}
		before := files(t)
		cmd := exec.Command(program, append(args, "ones", "ones", "ones")...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if i%2 == 0 {
			time.Sleep(time.Duration(rand.Float64() * 1.2 * float64(took)))
		} else {
			awaitShard(before, 10*took)
			time.Sleep(time.Duration(rand.Float64() * float64(4*time.Millisecond)))
		}
		cmd.Process.Kill()
		cmd.Wait()
		got := contents(t, "out")
		switch {
		case maps.Equal(got, newer):
			outcomes["new"]++
		case maps.Equal(got, older):
			outcomes["old"]++
		default:
			t.Errorf("the directory is neither old nor new, it has %q", slices.Sorted(maps.Keys(got)))
		}
		if m, err := checkpoint.Open("out"); err == nil {
			m.Close()
		} else if len(got) > 0 || replaced {
			t.Error(err)
		}
		// The unfinished directories of this run and of earlier ones that were killed: the next one removes them.
		for _, name := range files(t) {
			if strings.HasSuffix(name, ".tmp") {
				outcomes["left"]++
			}
		}
	}
	run("ones", "ones", "ones")
	if got, want := files(t), []string{"ones", "out", "zeros"}; !slices.Equal(got, want) {
		t.Errorf("files after the next run %q, want %q", got, want)
	}
	if got := contents(t, "out"); !maps.Equal(got, newer) && (replaced || len(got) != len(newer)) {
		t.Errorf("after the next run, the directory has %q", slices.Sorted(maps.Keys(got)))
	}
	if hidden, err := filepath.Glob("out/.*"); len(hidden) > 0 || err != nil {
		t.Errorf("after the next run, there are %q, %v", hidden, err)
	}
	t.Logf("%d kills: the directory is old %d times and new %d times; %d unfinished directories were seen", kills,
		outcomes["old"], outcomes["new"], outcomes["left"])
}

// awaitShard waits until a shard in an unfinished directory has its name, which is when that is about to take its
// place; or until the time is over.
func awaitShard(before []string, limit time.Duration) {
	for start := time.Now(); time.Since(start) < limit; {
		list, _ := filepath.Glob(".out.*.tmp/model-00001*")
		list = slices.DeleteFunc(list, func(path string) bool { return slices.Contains(before, filepath.Dir(path)) })
		if len(list) > 0 {
			return
		}
	}
}

// contents returns the files of a directory except hidden ones; nil if there is none.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	m := make(map[string]string)
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		m[e.Name()] = string(text)
	}
	return m
}

// manyTensors writes a model of F32 tensors of so many bytes, all elements of the same value.
func manyTensors(path string, n int, size int64, value float32) error {
	var tensors []checkpoint.Tensor
	for i := range n {
		tensors = append(tensors, checkpoint.Tensor{
			Name: fmt.Sprintf("t%d", i), DType: checkpoint.F32, Shape: []int64{size / 4},
		})
	}
	w, err := checkpoint.Create(path, tensors, nil, checkpoint.WithoutSync())
	if err != nil {
		return err
	}
	defer w.Close()
	elements := slices.Repeat([]float32{value}, int(size/4))
	for _, t := range tensors {
		if _, err := w.WriteAt(t.Name, values(t.Name, checkpoint.F32, elements, len(elements)).data, 0); err != nil {
			return err
		}
	}
	return w.Commit()
}
