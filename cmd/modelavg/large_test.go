//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/modelavg/modelavg/checkpoint"
)

// largeVariable names a directory with some 25 GB of room, which makes the tests below run: memory and time with models
// of 4 GB. They take minutes and want a machine that does nothing else.
const largeVariable = "MODELAVG_TEST_LARGE"

// largeDirectory returns a new directory for large files, or skips the test.
func largeDirectory(t *testing.T) string {
	t.Helper()
	root := os.Getenv(largeVariable)
	if root == "" {
		t.Skipf("%s is not set", largeVariable)
	}
	dir, err := os.MkdirTemp(root, "modelavg")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	t.Chdir(dir)
	return dir
}

// A largeTensor is a BF16 tensor of so many elements.
type largeTensor struct {
	name     string
	elements int64
}

// writeLarge writes a safetensors file of BF16 tensors. Their data is random numbers around zero, the same again in every
// MiB, or zeros that take no room on the disk if sparse is set.
func writeLarge(t *testing.T, path string, seed uint64, sparse bool, tensors ...largeTensor) {
	t.Helper()
	type entry struct {
		DType   string   `json:"dtype"`
		Shape   []int64  `json:"shape"`
		Offsets [2]int64 `json:"data_offsets"`
	}
	header := make(map[string]entry)
	var end int64
	for _, x := range tensors {
		header[x.name] = entry{"BF16", []int64{x.elements}, [2]int64{end, end + 2*x.elements}}
		end += 2 * x.elements
	}
	text, err := json.Marshal(header)
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	out := bufio.NewWriterSize(f, 1<<20)
	out.Write(binary.LittleEndian.AppendUint64(nil, uint64(len(text))))
	out.Write(text)
	if sparse {
		if err := out.Flush(); err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(8 + int64(len(text)) + end); err != nil {
			t.Fatal(err)
		}
		return
	}
	r := rand.New(rand.NewPCG(seed, seed))
	block := make([]byte, 0, 1<<20)
	for len(block) < cap(block) {
		block = binary.LittleEndian.AppendUint16(block, uint16(r.IntN(2)<<15|0x3c00+r.IntN(0x400))) // 2^-7 to 2
	}
	for left := end; left > 0; left -= int64(len(block)) {
		out.Write(block[:min(left, int64(len(block)))])
	}
	if err := out.Flush(); err != nil {
		t.Fatal(err)
	}
}

// writeLargeModel writes a model of 4 GB as a language model has it, one file in a directory or several with an index,
// and returns the path to open.
func writeLargeModel(t *testing.T, dir string, seed uint64, shards int) string {
	t.Helper()
	if err := os.Mkdir(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	const layers = 32
	tensors := make([][]largeTensor, shards)
	tensors[0] = append(tensors[0], largeTensor{"model.embed_tokens.weight", 128_000 * 2048})
	for i := range layers {
		s := i * shards / layers
		layer := fmt.Sprintf("model.layers.%d.", i)
		tensors[s] = append(tensors[s],
			largeTensor{layer + "input_layernorm.weight", 2048},
			largeTensor{layer + "self_attn.qkv_proj.weight", 3 * 2048 * 2048},
			largeTensor{layer + "mlp.up_proj.weight", 2048 * 8192},
			largeTensor{layer + "mlp.down_proj.weight", 2048 * 8192},
			largeTensor{layer + "self_attn.o_proj.weight", 2048*2048*2 + 2048*1024})
	}
	if shards == 1 {
		path := filepath.Join(dir, "model.safetensors")
		writeLarge(t, path, seed, false, tensors[0]...)
		return path
	}
	weightMap := map[string]string{}
	for s, list := range tensors {
		name := fmt.Sprintf("model-%05d-of-%05d.safetensors", s+1, shards)
		writeLarge(t, filepath.Join(dir, name), seed, false, list...)
		for _, x := range list {
			weightMap[x.name] = name
		}
	}
	text, err := json.Marshal(map[string]any{"metadata": map[string]any{}, "weight_map": weightMap})
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "model.safetensors.index.json"), text, 0o666); err != nil {
		t.Fatal(err)
	}
	return dir
}

// measure runs a command and returns how long it took and its largest resident memory in bytes.
func measure(t *testing.T, name string, args ...string) (time.Duration, int64) {
	t.Helper()
	cmd := exec.Command(name, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	start := time.Now()
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out.String())
	}
	return time.Since(start), cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss * 1024
}

// moveBytes does the reads and writes of an average of two files, and nothing else: chunks of 512 KiB that meet at
// multiples of that in the file, as many workers, space reserved at the beginning.
func moveBytes(t *testing.T, a, b []string, out string, flush bool) time.Duration {
	t.Helper()
	start := time.Now()
	if err := os.MkdirAll(out, 0o777); err != nil {
		t.Fatal(err)
	}
	for k := range a {
		if err := moveFile(a[k], b[k], filepath.Join(out, filepath.Base(a[k])), flush); err != nil {
			t.Fatal(err)
		}
	}
	return time.Since(start)
}

func moveFile(a, b, out string, flush bool) error {
	const chunk = 512 << 10
	var files [3]*os.File
	for i, path := range []string{a, b, out} {
		var err error
		if i < 2 {
			files[i], err = os.Open(path)
		} else {
			files[i], err = os.Create(path)
		}
		if err != nil {
			return err
		}
		defer files[i].Close()
	}
	info, err := files[0].Stat()
	if err != nil {
		return err
	}
	if err := unix.Fallocate(int(files[2].Fd()), 0, 0, info.Size()); err != nil {
		return err
	}
	var next atomic.Int64
	var wait sync.WaitGroup
	var failed atomic.Pointer[error]
	for range 2 * runtime.GOMAXPROCS(0) {
		wait.Go(func() {
			var p [2][chunk]byte
			for {
				off := (next.Add(1) - 1) * chunk
				if off >= info.Size() {
					return
				}
				n := min(chunk, info.Size()-off)
				for k := range p {
					if _, err := files[k].ReadAt(p[k][:n], off); err != nil {
						failed.Store(&err)
						return
					}
				}
				if _, err := files[2].WriteAt(p[0][:n], off); err != nil {
					failed.Store(&err)
					return
				}
			}
		})
	}
	wait.Wait()
	if err := failed.Load(); err != nil {
		return *err
	}
	if flush {
		return files[2].Sync()
	}
	return nil
}

// touchVariable makes the test program take so many bytes of memory, and do nothing else.
const touchVariable = "MODELAVG_TEST_TOUCH"

func init() {
	text := os.Getenv(touchVariable)
	if text == "" {
		return
	}
	bytes, err := strconv.Atoi(text)
	if err == nil {
		_, err = unix.Mmap(-1, 0, bytes, unix.PROT_READ|unix.PROT_WRITE,
			unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_POPULATE)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// touch takes so much memory, if that is free, so that the machine has it, and frees it again. It does so in a process of
// its own: what was once this one's would count as memory of the programs that it starts.
func touch(t *testing.T, bytes int64) {
	t.Helper()
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		t.Fatal(err)
	}
	if bytes = min(bytes, int64(info.Freeram)*int64(info.Unit)-1<<30); bytes <= 0 {
		return
	}
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), fmt.Sprintf("%s=%d", touchVariable, bytes))
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// Two models of 4 GB in shards: less than 200 MB of memory, no more time than cat of both into one, and at most 1.25
// times that of the reads and writes without arithmetic. The page cache is warm, and the programs take turns.
func TestLargeModels(t *testing.T) {
	t.Run("files", func(t *testing.T) { testLargeModels(t, 1) })
	t.Run("shards", func(t *testing.T) { testLargeModels(t, 4) })
}

func testLargeModels(t *testing.T, parts int) {
	largeDirectory(t)
	models := []string{writeLargeModel(t, "a", 1, parts), writeLargeModel(t, "b", 2, parts)}
	var shards [2][]string
	for k, dir := range []string{"a", "b"} {
		list, err := filepath.Glob(filepath.Join(dir, "*.safetensors"))
		if err != nil || len(list) == 0 {
			t.Fatal(list, err)
		}
		shards[k] = list
	}
	if _, err := checkpoint.Open(models[0]); err != nil {
		t.Skipf("no models in shards: %v", err)
	}
	cat := "cat " + strings.Join(shards[0], " ") + " " + strings.Join(shards[1], " ") + " > c"
	// prepare leaves the same before every measurement: nothing to be written, both models in the page cache, and memory
	// at hand for what is written. A virtual machine gives memory that is free back to its host after a while; to get it
	// again for a new file takes longer than all the rest, and happens or not as it comes.
	prepare := func() {
		os.RemoveAll("out")
		os.RemoveAll("c")
		syscall.Sync()
		args := append([]string{"-l"}, slices.Concat(shards[0], shards[1])...)
		if out, err := exec.Command("wc", args...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		touch(t, 8<<30) // twice an average: cat writes as much, and which pages of the free ones a file gets is open
	}
	times := make(map[string][]time.Duration)
	var memory int64
	jobs := []string{"cat", "modelavg, no sync", "moves", "modelavg", "cat, sync", "moves, sync"}
	const rounds = 10
	for round := range rounds + 1 {
		for _, i := range rand.Perm(len(jobs)) { // a job finds the memory of the machine as the one before has left it
			what := jobs[i]
			prepare()
			var took time.Duration
			switch what {
			case "cat":
				took, _ = measure(t, "sh", "-c", cat)
			case "cat, sync":
				took, _ = measure(t, "sh", "-c", cat+"; sync c")
			case "moves":
				took = moveBytes(t, shards[0], shards[1], "out", false)
			case "moves, sync":
				took = moveBytes(t, shards[0], shards[1], "out", true)
			case "modelavg":
				var rss int64
				took, rss = measure(t, program, "mean", "-o", "out", models[0], models[1])
				memory = max(memory, rss)
			case "modelavg, no sync":
				var rss int64
				took, rss = measure(t, program, "mean", "--no-sync", "-o", "out", models[0], models[1])
				memory = max(memory, rss)
			}
			if round > 0 { // the first one warms the cache
				times[what] = append(times[what], took)
			}
		}
	}
	for _, what := range jobs {
		list := times[what]
		slices.Sort(list)
		t.Logf("%-18s least %v, median %v: %v", what, list[0], list[rounds/2], list)
	}
	t.Logf("largest resident memory %d MB", memory/1e6)
	if memory > 200e6 {
		t.Errorf("%d MB of memory, want at most 200", memory/1e6)
	}
	ours := median(times["modelavg, no sync"])
	if limit := median(times["cat"]); ours > limit {
		t.Errorf("modelavg took %v, cat %v", ours, limit)
	}
	if limit := median(times["moves"]) * 5 / 4; ours > limit {
		t.Errorf("modelavg took %v, want at most %v, 1.25 times the reads and writes without arithmetic", ours, limit)
	}
	if ours, limit := median(times["modelavg"]), median(times["cat, sync"]); ours > limit {
		t.Errorf("modelavg took %v with its sync, cat and sync %v", ours, limit)
	}
}

// A model of five tensors, one of 2 GB, and eight inputs: the same memory as for small ones. The input takes no room.
func TestLargeTensor(t *testing.T) {
	largeDirectory(t)
	writeLarge(t, "a", 1, true, largeTensor{"embedding", 1 << 30},
		largeTensor{"w1", 1 << 20}, largeTensor{"w2", 1 << 20}, largeTensor{"b1", 1024}, largeTensor{"b2", 1024})
	args := append([]string{"mean", "--no-sync", "-o", "out"}, slices.Repeat([]string{"a"}, 8)...)
	for _, workers := range []int{1, 2, 7} {
		took, rss := measure(t, program, append(args, "--workers", fmt.Sprint(workers))...)
		limit := int64(64e6) + int64(workers)*8*2e6
		t.Logf("%d workers: %v, %d MB of memory", workers, took, rss/1e6)
		if rss > limit {
			t.Errorf("%d workers: %d MB of memory, want at most %d", workers, rss/1e6, limit/1e6)
		}
	}
}

// Four models of 100,000 tensors, with equal headers and with others: what is kept of them is more than all buffers.
func TestLargeHeaders(t *testing.T) {
	largeDirectory(t)
	tensors := make([]largeTensor, 100_000)
	for _, equal := range []bool{true, false} {
		args := []string{"mean", "--no-sync", "--workers", "1", "-o", "out"}
		for k := range 4 {
			for i := range tensors {
				tensors[i] = largeTensor{fmt.Sprintf("model.layers.%02d.mlp.experts.%04d.down_proj.weight", i/2000, i%2000), 16}
			}
			if !equal { // the data of two is in another order
				tensors[k], tensors[k+10] = tensors[k+10], tensors[k]
			}
			name := fmt.Sprint("m", k)
			writeLarge(t, name, uint64(k), false, tensors...)
			args = append(args, name)
		}
		_, rss := measure(t, program, args...)
		t.Logf("equal headers %t: %d MB of memory", equal, rss/1e6)
		if limit := map[bool]int64{true: 120e6, false: 170e6}[equal]; rss > limit {
			t.Errorf("equal headers %t: %d MB of memory, want at most %d", equal, rss/1e6, limit/1e6)
		}
	}
}
