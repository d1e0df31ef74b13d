package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/modelavg/modelavg/checkpoint"
	"github.com/modelavg/modelavg/merge"
)

// The test binary is the command itself when this variable is set, so that it runs as a process of its own.
const asCommand = "MODELAVG_BEAM_TEST_COMMAND"

func TestMain(m *testing.M) {
	if os.Getenv(asCommand) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// command returns the command with the arguments.
func command(t testing.TB, args ...string) *exec.Cmd {
	t.Helper()
	path, err := os.Executable()
	must(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute) // more than any takes, unless it hangs
	t.Cleanup(cancel)
	c := exec.CommandContext(ctx, path, args...)
	c.Env = append(os.Environ(), asCommand+"=1")
	return c
}

// call runs the command and returns what it prints and its exit status.
func call(t testing.TB, args ...string) (stdout, stderr string, status int) {
	t.Helper()
	c := command(t, args...)
	temp := t.TempDir()
	c.Env = append(c.Env, "TMPDIR="+temp)
	defer leavesNothing(t, filepath.Join(temp, "any"))
	var out, errs bytes.Buffer
	c.Stdout, c.Stderr = &out, &errs
	var exit *exec.ExitError
	if err := c.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return out.String(), errs.String(), c.ProcessState.ExitCode()
}

// writeModels writes so many models, with a tensor of several MiB in each, and returns their paths.
func writeModels(t testing.TB, n int) []string {
	t.Helper()
	dir := t.TempDir()
	paths := make([]string, n)
	for k := range paths {
		paths[k] = filepath.Join(dir, fmt.Sprintf("%d.safetensors", k))
		r := rand.New(rand.NewPCG(5, uint64(k)))
		tensors := []checkpoint.Tensor{
			{Name: "weight", DType: checkpoint.F32, Shape: []int64{900, 1000}},
			{Name: "half", DType: checkpoint.BF16, Shape: []int64{700_001}},
			{Name: "steps", DType: checkpoint.I64},
		}
		w, err := checkpoint.Create(paths[k], tensors, nil, checkpoint.WithoutSync())
		must(t, err)
		defer w.Close()
		var weight, half []byte
		for range 900_000 {
			weight = binary.LittleEndian.AppendUint32(weight, math.Float32bits(r.Float32()-0.5))
		}
		for range 700_001 {
			half = binary.LittleEndian.AppendUint16(half, uint16(math.Float32bits(r.Float32()-0.5)>>16))
		}
		steps := []byte{byte(k), 0, 0, 0, 0, 0, 0, 0}
		for name, data := range map[string][]byte{"weight": weight, "half": half, "steps": steps} {
			_, err := w.WriteAt(name, data, 0)
			must(t, err)
		}
		must(t, w.Commit())
	}
	return paths
}

// oneMachine returns the bytes of the mean, made by package merge alone.
func oneMachine(t testing.TB, paths []string) []byte {
	t.Helper()
	var models []*checkpoint.Model
	for _, path := range paths {
		m, err := checkpoint.Open(path)
		must(t, err)
		defer m.Close()
		models = append(models, m)
	}
	plan, err := merge.Mean(models)
	must(t, err)
	out := filepath.Join(t.TempDir(), "out.safetensors")
	_, err = plan.Run(t.Context(), out, nil)
	must(t, err)
	text, err := os.ReadFile(out)
	must(t, err)
	return text
}

// averages runs the command both ways, with the flags of an engine, and compares what it writes.
func averages(t *testing.T, engine ...string) {
	t.Helper()
	models := writeModels(t, 4)
	want := oneMachine(t, models)
	for _, way := range [][]string{{}, {"-sums=4"}, {"-sums=2"}} {
		out := filepath.Join(t.TempDir(), "out.safetensors")
		args := append(append([]string{"-o", out, "-parts=3"}, way...), engine...)
		stdout, stderr, status := call(t, append(args, models...)...)
		if status != 0 || !strings.HasPrefix(stdout, "weight 0.25        "+models[0]+"\n") ||
			!strings.Contains(stdout, models[3]+"\n"+out+": ") {
			t.Fatalf("%v: status %d, stdout %q, stderr %q, want status 0, the weights and a report", args, status, stdout,
				stderr)
		}
		var notice string
		for _, flag := range engine {
			if endpoint, found := strings.CutPrefix(flag, "-endpoint="); found {
				notice = "modelavg-beam: the job goes to the engine at " + endpoint + "\n"
			}
		}
		if stderr != notice {
			t.Errorf("%v: stderr %q, want %q", args, stderr, notice)
		}
		got, err := os.ReadFile(out)
		must(t, err)
		// Four models, two by two, are summed in another order than one after the other.
		if len(way) > 0 && way[0] == "-sums=2" {
			if len(got) != len(want) {
				t.Errorf("%v: got %d bytes, want %d", args, len(got), len(want))
			}
		} else if !bytes.Equal(got, want) {
			t.Errorf("%v: %d bytes that are not the %d bytes of one machine", args, len(got), len(want))
		}
		must(t, os.Remove(out))
		leavesNothing(t, out)
	}

	// A model that fails in a worker: the error comes back, and there is no output.
	out := filepath.Join(t.TempDir(), "out.safetensors")
	bad := models[2]
	spoil(t, bad)
	args := append([]string{"-o", out, "-parts=3", "-nonfinite=error"}, engine...)
	_, stderr, status := call(t, append(args, models...)...)
	if status != 1 || !strings.Contains(stderr, bad) || !strings.Contains(stderr, `"weight"`) {
		t.Errorf("status %d, stderr %q, want status 1 and %s and its tensor", status, stderr, bad)
	}
	leavesNothing(t, out)
}

// spoil puts a NaN at the end of the tensor "weight" of a model: in the middle of the file, after the header and 3.6
// MB.
func spoil(t testing.TB, path string) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	var length [8]byte
	_, err = f.ReadAt(length[:], 0)
	must(t, err)
	// I64 goes before F32.
	_, err = f.WriteAt([]byte{0, 0, 0xc0, 0x7f}, 8+int64(binary.LittleEndian.Uint64(length[:]))+8+4*899_999)
	must(t, err)
}

func leavesNothing(t testing.TB, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	must(t, err)
	for _, e := range entries {
		t.Errorf("%s is left behind", e.Name())
	}
}

// Everything runs in the process of the command unless it is told otherwise.
func TestInProcess(t *testing.T) { averages(t) }

// An engine that is another process takes the job, and the workers are in that of the command.
func TestStandalonePrism(t *testing.T) {
	endpoint := startPrism(t)
	averages(t, "-runner=universal", "-endpoint="+endpoint, "-environment_type=LOOPBACK")
}

// The engine, the workers and the command are three processes.
func TestWorkerPool(t *testing.T) {
	endpoint, port := startPrism(t), freePort(t)
	c := command(t, "-pool", fmt.Sprint(port))
	c.Stderr = os.Stderr
	start(t, c)
	waitFor(t, port)
	averages(t, "-runner=universal", "-endpoint="+endpoint, "-environment_type=EXTERNAL",
		fmt.Sprintf("-environment_config=localhost:%d", port))
}

// buildPrism returns the path of Beam's own engine, which the go command builds from the module and keeps in its cache.
var buildPrism = sync.OnceValues(func() (string, error) {
	text, err := exec.Command("go", "tool", "-n", "prism").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("go tool -n prism: %w: %s", err, text)
	}
	return strings.TrimSpace(string(text)), nil
})

// startPrism starts Beam's engine as a process, and returns the address of its job service.
func startPrism(t *testing.T) string {
	t.Helper()
	path, err := buildPrism()
	if err != nil {
		t.Skipf("Beam's engine prism cannot be built: %v", err)
	}
	port := freePort(t)
	start(t, exec.CommandContext(t.Context(), path, "-job_port", fmt.Sprint(port), "-serve_http=false",
		"-log_level=error"))
	waitFor(t, port)
	return fmt.Sprintf("localhost:%d", port)
}

// start starts a process that ends with the test.
func start(t testing.TB, c *exec.Cmd) {
	t.Helper()
	c.Cancel = func() error { return c.Process.Signal(syscall.SIGTERM) }
	c.WaitDelay = 10 * time.Second
	must(t, c.Start())
	t.Cleanup(func() {
		c.Process.Signal(syscall.SIGTERM)
		c.Wait()
	})
}

// freePort returns a port of this machine that nobody listens at.
func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "localhost:0")
	must(t, err)
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// waitFor waits until somebody listens at the port.
func waitFor(t testing.TB, port int) {
	t.Helper()
	for range 300 {
		c, err := net.Dial("tcp", fmt.Sprintf("localhost:%d", port))
		if err == nil {
			c.Close()
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Fatalf("nobody listens at port %d after 30 seconds", port)
}

func TestUsage(t *testing.T) {
	for want, args := range map[string][]string{
		"-o PATH is required":      {"a.safetensors"},
		"no models given":          {"-o", "out.safetensors"},
		`weight 2 is "x"`:          {"-o", "out.safetensors", "-w", "1,x", "a", "b"},
		"2 weights for 1 models":   {"-o", "out.safetensors", "-w", "1,0", "a"},
		`runner "dataflow"`:        {"-o", "out.safetensors", "-runner=dataflow", "a"},
		"needs the -endpoint":      {"-o", "out.safetensors", "-runner=flink", "a"},
		"port -1, want 1 to 65535": {"-pool", "-1"},
		"-pool serves":             {"-pool", "50000", "a"},
		"-async is not supported":  {"-o", "out.safetensors", "-async", "a"},
		"flag provided but not de": {"-absent"},
		"-workers: parse error":    {"-workers=x"},
		"bytes such as 5GB":        {"-max-shard-size=5XB", "-o", "out", "a"},
		"f16, bf16, f8_e4m3":       {"-o", "out", "-dtype=i8", "a"},
		"-o after the first model": {"a.safetensors", "-o", "x"},
		"a .npz file cannot be":    {"-o", "m.NPZ", "a"},
	} {
		stdout, stderr, status := call(t, args...)
		if status != 2 || stdout != "" || !strings.Contains(stderr, want) || strings.Count(stderr, "\n") != 1 {
			t.Errorf("%v: status %d, stdout %q, stderr %q, want status 2 and one line with %q", args, status, stdout,
				stderr, want)
		}
	}
	_, stderr, status := call(t, "-help")
	if status != 0 || !strings.Contains(stderr, "modelavg-beam -o OUTPUT") ||
		!strings.Contains(stderr, "-environment_type") {
		t.Errorf("-help: status %d, got %q", status, stderr)
	}
}

// The values of flags are those of the command modelavg.
func TestFlags(t *testing.T) {
	models := writeModels(t, 2)
	for _, spelling := range []string{"-nonfinite", "--nonfinite", "-non-finite"} {
		out := filepath.Join(t.TempDir(), "out")
		args := append([]string{"--o", out, "-dtype=bf16", "-max-shard-size=3MB", spelling, "error", "-w=0.25,0.75"},
			models...)
		stdout, stderr, status := call(t, args...)
		if status != 0 || stderr != "" || !strings.HasPrefix(stdout, "weight 0.25        "+models[0]+"\nweight 0.75 ") {
			t.Fatalf("%s: status %d, stdout %q, stderr %q", spelling, status, stdout, stderr)
		}
		m, err := checkpoint.Open(out)
		must(t, err)
		if w, _ := m.Tensor("weight"); w.DType != checkpoint.BF16 || len(m.Shards()) != 2 {
			t.Errorf("dtype %v in %d shards, want BF16 in 2", w.DType, len(m.Shards()))
		}
		must(t, m.Close())
		spoil(t, models[1])
		_, stderr, status = call(t, args...)
		if status != 1 || !strings.Contains(stderr, models[1]) {
			t.Errorf("%s: status %d, stderr %q, want the NaN in %s", spelling, status, stderr, models[1])
		}
		models = writeModels(t, 2)
	}
}

// A run that is killed leaves an unfinished output, which the next run names and -discard removes.
func TestDiscard(t *testing.T) {
	models := writeModels(t, 2)
	out := filepath.Join(t.TempDir(), "out.safetensors")
	w, err := checkpoint.CreatePart(out, checkpoint.Part{Number: 1, Of: 2},
		[]checkpoint.Tensor{{Name: "other", DType: checkpoint.F32, Shape: []int64{9}}}, nil, nil)
	must(t, err)
	must(t, w.Close())
	_, stderr, status := call(t, append([]string{"-o", out}, models...)...)
	if status != 1 || !strings.Contains(stderr, out) || !strings.Contains(stderr, "-discard removes it") {
		t.Errorf("status %d, stderr %q, want status 1 and how to go on", status, stderr)
	}
	_, stderr, status = call(t, append([]string{"-o", out, "-discard"}, models...)...)
	if status != 0 {
		t.Errorf("-discard: status %d, stderr %q, want 0", status, stderr)
	}
	text, err := os.ReadFile(out)
	must(t, err)
	if !bytes.Equal(text, oneMachine(t, models)) {
		t.Error("the output has not the bytes of one machine")
	}
}

// A run that is interrupted ends with an error and leaves nothing behind.
func TestInterrupt(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out.safetensors")
	c := command(t, append([]string{"-o", out, "-v"}, writeModels(t, 2)...)...)
	log, err := c.StderrPipe()
	must(t, err)
	must(t, c.Start())
	for lines := bufio.NewScanner(log); lines.Scan(); {
		if strings.Contains(lines.Text(), "RUNNING") {
			must(t, c.Process.Signal(os.Interrupt))
		}
	}
	var exit *exec.ExitError
	if err := c.Wait(); err == nil { // it was done before
		_, err = os.Stat(out)
		must(t, err)
		must(t, os.Remove(out))
	} else if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("got error %v, want exit status 1", err)
	}
	leavesNothing(t, out)
}
