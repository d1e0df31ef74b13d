package transform

import (
	"context"
	"encoding/binary"
	"flag"
	"log/slog"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/runners/prism"

	"github.com/modelavg/modelavg/checkpoint"
)

func TestMain(m *testing.M) {
	flag.Parse()
	beam.Init()
	slog.SetDefault(slog.New(slog.DiscardHandler)) // Beam logs what fails here on purpose
	os.Exit(inOwnTempDir(m.Run))
}

// inOwnTempDir runs the tests with a directory of their own for temporary files: Beam leaves an empty file there for
// every pipeline.
func inOwnTempDir(run func() int) int {
	dir, err := os.MkdirTemp("", "modelavg-beam-test-*")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Setenv("TMPDIR", dir); err != nil {
		panic(err)
	}
	return run()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// inProcess runs a pipeline in this process.
func inProcess(ctx context.Context, p *beam.Pipeline) (beam.PipelineResult, error) {
	return prism.Execute(ctx, p)
}

// tensors are those of the models of the tests: every dtype that is averaged, integers, one tensor that spans several
// parts, a scalar and one without elements.
var tensors = []checkpoint.Tensor{
	{Name: "f64", DType: checkpoint.F64, Shape: []int64{33, 1001}},
	{Name: "f32", DType: checkpoint.F32, Shape: []int64{800_007}},
	{Name: "f16", DType: checkpoint.F16, Shape: []int64{5, 10_001}},
	{Name: "bf16", DType: checkpoint.BF16, Shape: []int64{600_001}},
	{Name: "e4m3", DType: checkpoint.F8E4M3, Shape: []int64{4099}},
	{Name: "e5m2", DType: checkpoint.F8E5M2, Shape: []int64{3}},
	{Name: "scalar", DType: checkpoint.F32},
	{Name: "nothing", DType: checkpoint.F32, Shape: []int64{0, 7}},
	{Name: "steps", DType: checkpoint.I64, Shape: []int64{3}},
	{Name: "mask", DType: checkpoint.Bool, Shape: []int64{17}},
}

// random returns the data of a tensor: numbers from −2 to 2, and small integers.
func random(r *rand.Rand, t checkpoint.Tensor) []byte {
	var p []byte
	for range t.Elements() {
		x := r.Float64()*4 - 2
		switch t.DType {
		case checkpoint.F64:
			p = binary.LittleEndian.AppendUint64(p, math.Float64bits(x))
		case checkpoint.F32:
			p = binary.LittleEndian.AppendUint32(p, math.Float32bits(float32(x)))
		case checkpoint.BF16:
			p = binary.LittleEndian.AppendUint16(p, uint16(math.Float32bits(float32(x))>>16))
		case checkpoint.F16: // sign, exponents up to that of 1, any fraction
			p = binary.LittleEndian.AppendUint16(p, uint16(r.IntN(2)<<15|r.IntN(16)<<10|r.IntN(1024)))
		case checkpoint.F8E4M3:
			p = append(p, byte(r.IntN(2)<<7|r.IntN(64)))
		case checkpoint.F8E5M2:
			p = append(p, byte(r.IntN(2)<<7|r.IntN(64)))
		case checkpoint.I64:
			p = binary.LittleEndian.AppendUint64(p, uint64(r.IntN(100)))
		default:
			p = append(p, byte(r.IntN(2)))
		}
	}
	return p
}

// write writes a model of the tensors and returns its path. Change may change the data of a tensor.
func write(t testing.TB, path string, seed uint64, tensors []checkpoint.Tensor, change func(name string, data []byte),
	opts ...checkpoint.CreateOption,
) string {
	t.Helper()
	w, err := checkpoint.Create(path, tensors, map[string]string{"seed": "of the first model"}, opts...)
	must(t, err)
	defer w.Close()
	for i, x := range tensors {
		data := random(rand.New(rand.NewPCG(seed, uint64(i))), x)
		if change != nil {
			change(x.Name, data)
		}
		_, err := w.WriteAt(x.Name, data, 0)
		must(t, err)
	}
	must(t, w.Commit())
	return path
}

// writeAll writes so many models and returns their paths. The last one has other dtypes in two tensors.
func writeAll(t testing.TB, n int) []string {
	t.Helper()
	dir := t.TempDir()
	paths := make([]string, n)
	for k := range paths {
		own := append([]checkpoint.Tensor(nil), tensors...)
		if k == n-1 {
			own[2].DType, own[3].DType = checkpoint.BF16, checkpoint.F32
		}
		paths[k] = write(t, filepath.Join(dir, string(rune('a'+k))+".safetensors"), uint64(k), own, nil,
			checkpoint.WithoutSync())
	}
	return paths
}

// oneMachine does the job on one machine, with package merge alone, and returns the path of the output.
func oneMachine(t testing.TB, job Job) string {
	t.Helper()
	job.Output = filepath.Join(t.TempDir(), filepath.Base(job.Output))
	plan, models, err := job.open()
	must(t, err)
	defer closeAll(models)
	_, err = plan.Run(t.Context(), job.Output, nil)
	must(t, err)
	return job.Output
}

// files returns the contents of the file, or of all files in the directory, by name.
func files(t testing.TB, path string) map[string]string {
	t.Helper()
	info, err := os.Stat(path)
	must(t, err)
	if !info.IsDir() {
		text, err := os.ReadFile(path)
		must(t, err)
		return map[string]string{"": string(text)}
	}
	entries, err := os.ReadDir(path)
	must(t, err)
	contents := make(map[string]string)
	for _, e := range entries {
		text, err := os.ReadFile(filepath.Join(path, e.Name()))
		must(t, err)
		contents[e.Name()] = string(text)
	}
	return contents
}

// sameFiles compares outputs, byte by byte.
func sameFiles(t testing.TB, got, want string) {
	t.Helper()
	g, w := files(t, got), files(t, want)
	if len(g) != len(w) {
		t.Errorf("%s: got %d files, want %d", got, len(g), len(w))
	}
	for name := range w {
		if g[name] != w[name] {
			t.Errorf("%s: file %q: %d bytes that are not the %d bytes of one machine", got, name, len(g[name]),
				len(w[name]))
		}
	}
}

// leavesNothing fails unless the directory of path has nothing in it.
func leavesNothing(t testing.TB, path string) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Dir(path))
	must(t, err)
	for _, e := range entries {
		t.Errorf("%s is left behind", e.Name())
	}
}
