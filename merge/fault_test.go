package merge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/modelavg/modelavg/checkpoint"
)

// A faulty input or output fails, or comes short, at one call.
type faulty struct {
	input
	output
	calls *atomic.Int64
	at    int64 // the call that fails, counted from 0
	n     int   // bytes that it does nevertheless
	err   error
}

func (f faulty) ReadAt(tensor string, p []byte, off int64) (int, error) {
	if f.calls.Add(1)-1 == f.at {
		n, _ := f.input.ReadAt(tensor, p[:min(f.n, len(p))], off)
		return n, f.err
	}
	return f.input.ReadAt(tensor, p, off)
}

func (f faulty) WriteAt(tensor string, p []byte, off int64) (int, error) {
	if f.calls.Add(1)-1 == f.at {
		n, _ := f.output.WriteAt(tensor, p[:min(f.n, len(p))], off)
		return n, f.err
	}
	return f.output.WriteAt(tensor, p, off)
}

// faultModel writes a model of three tensors, in several chunks of 64 bytes.
func faultModel(t *testing.T, path string) *checkpoint.Model {
	t.Helper()
	tensors := []checkpoint.Tensor{
		{Name: "x", DType: checkpoint.F32, Shape: []int64{50}},
		{Name: "n", DType: checkpoint.I64, Shape: []int64{3}},
		{Name: "h", DType: checkpoint.BF16, Shape: []int64{40}},
	}
	writeZeros(t, path, tensors, nil)
	m, err := checkpoint.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

// Every read and every write of a run fails once, in every way, with one worker and with several. The error is that of
// the fault, and an output that is closed then leaves nothing behind.
func TestFaults(t *testing.T) {
	dir := t.TempDir()
	models := []*checkpoint.Model{faultModel(t, filepath.Join(dir, "a")), faultModel(t, filepath.Join(dir, "b"))}
	fault := errors.New("the cable is out")
	const reads, writes = 13, 7 // 4 chunks of x and 2 of h from both models, and n from one
	for _, test := range []struct {
		name  string
		write bool
		n     int
		err   error
		want  error
	}{
		{"read error", false, 0, fault, fault},
		{"read error after some bytes", false, 4, fault, fault},
		{"short read", false, 4, nil, io.ErrUnexpectedEOF},
		{"end of file", false, 4, io.EOF, io.ErrUnexpectedEOF},
		{"write error", true, 0, fault, fault},
		{"write error after some bytes", true, 4, fault, fault},
	} {
		calls := int64(reads)
		if test.write {
			calls = writes
		}
		for at := range calls + 1 {
			for _, workers := range []int{1, 3} {
				p, err := Mean(models, WithChunkBytes(64), WithWorkers(workers))
				if err != nil {
					t.Fatal(err)
				}
				target := filepath.Join(dir, "out")
				w, err := checkpoint.Create(target, p.tensors(), nil, checkpoint.WithoutSync())
				if err != nil {
					t.Fatal(err)
				}
				count := new(atomic.Int64)
				r := &run{plan: p, output: w, inputs: []input{models[0], models[1]}}
				if test.write {
					r.output = faulty{output: w, calls: count, at: at, n: test.n, err: test.err}
				} else {
					for k, m := range models {
						r.inputs[k] = faulty{input: m, calls: count, at: at, n: test.n, err: test.err}
					}
				}
				err = r.do(context.Background())
				if at < calls && !errors.Is(err, test.want) {
					t.Errorf("%s at call %d, %d workers: error %v, want %v", test.name, at, workers, err, test.want)
				}
				if at == calls && (err != nil || count.Load() != calls) {
					t.Errorf("%s: %d calls, error %v, want %d and none", test.name, count.Load(), err, calls)
				}
				if test.want == io.ErrUnexpectedEOF && err != nil {
					if want := fmt.Sprintf("read %d of ", test.n); !strings.Contains(err.Error(), want) ||
						!strings.Contains(err.Error(), "tensor \"") {
						t.Errorf("%s: error %v, want tensor and %q", test.name, err, want)
					}
				}
				if at < calls && test.write {
					if err := w.Commit(); !errors.Is(err, checkpoint.ErrIncomplete) {
						t.Errorf("%s at call %d: the output can be committed: %v", test.name, at, err)
					}
				}
				w.Close()
				if files, err := os.ReadDir(dir); err != nil || len(files) != 2 {
					t.Fatalf("%s at call %d: %d files are left, want 2: %v", test.name, at, len(files), err)
				}
			}
		}
	}
}
