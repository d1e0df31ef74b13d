package merge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"github.com/modelavg/modelavg/checkpoint"
)

// Run does what the plan says and puts the result at path, where a file that stood there is replaced: path may be one
// of the inputs. (On Windows, where an open file cannot be replaced, such an input is closed when all is read.) The bytes
// of the result depend on the models and the weights alone, not on workers or chunks.
//
// Unless progress is nil, it is called after every chunk with the bytes read so far and those to read in all; one call
// at a time, from the goroutines that work, so it should return soon.
//
// On any error, and when ctx is done, path is as it was and nothing is left behind. The error then names file and
// tensor, or is the cause of ctx. A file that is cut or changed while it is read is an error, which wraps
// [io.ErrUnexpectedEOF] or [checkpoint.ErrChanged]. Cancellation is seen before every read of a chunk; it comes too late
// once the finished file is being flushed to the disk.
func (p *Plan) Run(ctx context.Context, path string, progress func(done, total int64)) (*Report, error) {
	start := time.Now()
	tensors := make([]checkpoint.Tensor, len(p.Steps))
	for i, s := range p.Steps {
		tensors[i] = s.Tensor
	}
	w, err := checkpoint.Create(path, tensors, p.Metadata)
	if err != nil {
		return nil, err
	}
	defer w.Close() // after Commit this does nothing

	r := &run{plan: p, writer: w, progress: progress}
	if err := r.do(ctx); err != nil {
		return nil, err
	}
	for _, m := range p.models {
		if err := m.Unchanged(); err != nil {
			return nil, err
		}
	}
	if runtime.GOOS == "windows" {
		p.closeReplaced(path)
	}
	if err := w.Commit(); err != nil {
		return nil, err
	}
	return &Report{
		Path:         path,
		Averaged:     p.names(Average),
		Copied:       p.names(CopyLast),
		CopiedFrom:   p.Sources[p.lastRead()].Path,
		BytesRead:    p.BytesRead,
		BytesWritten: p.BytesWritten,
		Duration:     time.Since(start),
	}, nil
}

// closeReplaced closes the models whose file is the one at path.
func (p *Plan) closeReplaced(path string) {
	target, err := os.Stat(path)
	if err != nil {
		return // there is nothing to replace
	}
	for _, m := range p.opened {
		if file, err := os.Stat(m.Path()); err == nil && os.SameFile(file, target) {
			m.Close()
		}
	}
}

// A run is the state that the workers share.
type run struct {
	plan   *Plan
	writer *checkpoint.Writer
	next   atomic.Int64 // the next chunk, counted through all steps

	mu       sync.Mutex // guards done and the call of progress
	done     int64      // bytes read
	progress func(done, total int64)
}

// do lets the workers do all chunks; the first error stops all of them.
func (r *run) do(ctx context.Context) error {
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var workers sync.WaitGroup
	for range r.plan.Workers {
		workers.Go(func() {
			if err := r.work(ctx); err != nil {
				stop(err)
			}
		})
	}
	workers.Wait()
	return context.Cause(ctx)
}

// work takes one chunk after the other until none is left.
func (r *run) work(ctx context.Context) error {
	steps, size := r.plan.Steps, int64(r.plan.ChunkBytes)
	b := newBuffer(len(r.plan.models), r.plan.ChunkBytes)
	// The chunks that a worker gets only ever grow, so it walks the steps once.
	var step int
	var first int64 // chunk with which the step begins
	for {
		chunk := r.next.Add(1) - 1
		for step < len(steps) && chunk >= first+r.plan.chunks(steps[step]) {
			first += r.plan.chunks(steps[step])
			step++
		}
		if step == len(steps) {
			return nil
		}
		off := (chunk - first) * size
		if err := r.chunk(ctx, b, steps[step], off, int(min(size, steps[step].Bytes-off))); err != nil {
			return err
		}
	}
}

// chunk does n bytes of one tensor from offset off.
func (r *run) chunk(ctx context.Context, b *buffer, s Step, off int64, n int) error {
	name := s.Tensor.Name
	models := r.plan.models
	if s.Action == CopyLast {
		models = models[len(models)-1:]
	}
	for i, m := range models {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := readChunk(m, name, b.data[i][:n], off); err != nil {
			return err
		}
	}
	result := b.data[0][:n]
	if s.Action == Average {
		var err error
		if result, err = b.average(s.Tensor.DType, n, r.plan.weights); err != nil {
			return fmt.Errorf("tensor %q: %w", name, err)
		}
	}
	if _, err := r.writer.WriteAt(name, result, off); err != nil {
		return err
	}
	if r.progress != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.done += int64(n) * int64(len(models))
		r.progress(r.done, r.plan.BytesRead)
	}
	return nil
}

// readChunk fills p from the model's tensor; less than that is an error.
func readChunk(m *checkpoint.Model, name string, p []byte, off int64) error {
	n, err := m.ReadAt(name, p, off)
	switch {
	case n == len(p):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return fmt.Errorf("%s: tensor %q: read %d of %d bytes at %d: %w", m.Path(), name, n, len(p), off, io.ErrUnexpectedEOF)
	}
	return err
}
