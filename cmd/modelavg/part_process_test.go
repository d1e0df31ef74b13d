//go:build unix

package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// Eight processes at once, three of which are killed at random moments and run again, two of the others run twice at
// the same time: the output has the bytes of one process, as one file and as shards.
func TestPartsKilled(t *testing.T) {
	const parts = 8
	rounds := 6
	if testing.Short() {
		rounds = 2
	}
	inDirectory(t)
	for i, name := range []string{"x", "y", "z"} {
		if err := manyTensors(name, 5, 3<<20+4, float32(i)+0.125); err != nil {
			t.Fatal(err)
		}
	}
	for _, shards := range [][]string{nil, {"--max-shard-size", "7MiB"}} {
		// Clipped, since several goroutines append to it.
		args := slices.Clip(append([]string{"weighted", "-w", "0.2,0.3,0.5", "x", "y", "z"}, shards...))
		begin := time.Now()
		if status, _, stderr := start(t, append(args, "-o", "one")...); status != statusDone {
			t.Fatal(stderr)
		}
		took := time.Since(begin)
		for round := range rounds {
			part := func(i int) *exec.Cmd {
				cmd := exec.Command(program, append(args, "-o", "out", "--part", fmt.Sprintf("%d/%d", i+1, parts))...)
				var stderr strings.Builder
				cmd.Stderr = &stderr
				return cmd
			}
			order := rand.Perm(parts)
			killed, twice := order[:3], order[3:5]
			var group sync.WaitGroup
			for _, i := range rand.Perm(parts) {
				copies := 1
				if slices.Contains(twice, i) {
					copies = 2
				}
				for range copies {
					group.Go(func() {
						cmd := part(i)
						if slices.Contains(killed, i) {
							if err := cmd.Start(); err != nil {
								t.Error(err)
								return
							}
							time.Sleep(time.Duration(rand.Float64() * 2 * float64(took)))
							cmd.Process.Kill()
							cmd.Wait() // it may have been done before
							cmd = part(i)
						}
						if err := cmd.Run(); err != nil {
							t.Errorf("part %d: %v, %s", i+1, err, cmd.Stderr)
						}
					})
				}
			}
			group.Wait()
			status, stdout, stderr := start(t, "finish", "out")
			if status != statusDone {
				t.Fatalf("round %d: %s", round, stderr)
			}
			if !strings.HasSuffix(stdout, "written in 8 parts\n") {
				t.Error(stdout)
			}
			sameTree(t, "one", "out")
			if list, err := filepath.Glob(".*"); err != nil || len(list) > 0 {
				t.Errorf("%q are left, %v", list, err)
			}
		}
		for _, name := range []string{"one", "out"} {
			if err := os.RemoveAll(name); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// sameTree fails unless the files or directories are equal.
func sameTree(t *testing.T, a, b string) {
	t.Helper()
	if info, err := os.Stat(a); err != nil || !info.IsDir() {
		sameBytes(t, a, b)
		return
	}
	want, got := contents(t, a), contents(t, b)
	if len(want) != len(got) {
		t.Errorf("%d files, want %d", len(got), len(want))
	}
	for name, text := range want {
		if got[name] != text {
			t.Errorf("%s differs", name)
		}
	}
}

// A finish is killed at random moments and run again, where there is no output, where there is a file, and where there
// is a directory with shards of the same names: the output is the old one or the new one each time, and the new one in
// the end.
func TestFinishKilled(t *testing.T) {
	inDirectory(t)
	for i, name := range []string{"x", "y"} {
		if err := manyTensors(name, 4, 1<<20, float32(i)); err != nil {
			t.Fatal(err)
		}
	}
	rounds := 40
	if testing.Short() {
		rounds = 10
	}
	for _, shards := range [][]string{nil, {"--max-shard-size", "2MiB"}} {
		average := func(out string, more ...string) {
			t.Helper()
			args := slices.Concat([]string{"mean", "x", "y", "-o", out}, shards, more)
			if status, _, stderr := start(t, args...); status != statusDone {
				t.Fatal(stderr)
			}
		}
		average("one")
		if status, _, stderr := start(t, slices.Concat([]string{"mean", "x", "-o", "old"}, shards)...); status != statusDone {
			t.Fatal(stderr)
		}
		for _, existing := range []bool{false, true} {
			var took time.Duration
			outcomes := make(map[string]int)
			for round := range rounds {
				os.RemoveAll("out")
				if existing {
					if out, err := exec.Command("cp", "-r", "old", "out").CombinedOutput(); err != nil {
						t.Fatalf("%v: %s", err, out)
					}
				}
				for i := range 2 {
					average("out", "--part-from-zero", fmt.Sprintf("%d/2", i))
				}
				begin := time.Now()
				cmd := exec.Command(program, "finish", "out")
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				if round > 0 {
					time.Sleep(time.Duration(rand.Float64() * 1.1 * float64(took)))
					cmd.Process.Kill()
				}
				err := cmd.Wait()
				if round == 0 {
					took = time.Since(begin)
				}
				if err != nil && round == 0 {
					t.Fatal(err)
				}
				_, there := os.Stat("out")
				if there == nil && existing && !equalTree(t, "out", "one") && !equalTree(t, "out", "old") ||
					there == nil && !existing && !equalTree(t, "out", "one") || there != nil && existing {
					t.Fatalf("round %d: the output is neither old nor new: %q", round, files(t))
				}
				_, unfinished := os.Stat(".out.parts")
				if err == nil && unfinished == nil {
					t.Errorf("round %d: finished, and .out.parts is left", round)
				}
				if unfinished == nil {
					status, _, stderr := start(t, "finish", "out")
					if status != statusDone {
						t.Fatalf("round %d: %s", round, stderr)
					}
					outcomes["again"]++
				} else {
					// What is left if it was killed while it removed the unfinished output goes with the next.
					status, _, stderr := start(t, "finish", "out")
					if status != statusFailed || !strings.Contains(stderr, "there is nothing to finish") {
						t.Errorf("round %d: status %d, %s", round, status, stderr)
					}
					outcomes["done"]++
				}
				sameTree(t, "one", "out")
				if list, err := filepath.Glob(".*"); err != nil || len(list) > 0 {
					t.Errorf("%q are left, %v", list, err)
				}
			}
			t.Logf("shards %q, existing %v: %v", shards, existing, outcomes)
		}
		for _, name := range []string{"one", "old", "out"} {
			os.RemoveAll(name)
		}
	}
}

// equalTree reports whether two files or directories are equal.
func equalTree(t *testing.T, a, b string) bool {
	t.Helper()
	return exec.Command("diff", "-r", a, b).Run() == nil
}
