package merge

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/modelavg/modelavg/checkpoint"
	"github.com/modelavg/modelavg/internal/convert"
)

// Run does what the plan says and puts the result at path, where a file that stood there is replaced: path may be one
// of the inputs. (On Windows, where an open file cannot be replaced, such an input is closed when all is read.) The
// bytes of the result depend on the models, the weights and the policies alone, not on workers or chunks.
//
// Unless progress is nil, it is called after every chunk with the bytes read so far and those to read in all; one call
// at a time, from the goroutines that work, so it should return soon.
//
// On any error, and when ctx is done, path is as it was and nothing is left behind. The error then names file and
// tensor, several files if it is about what they make together, or is the cause of ctx; where a policy asks for it, it
// wraps [ErrNonFinite], [ErrOverflow] or [ErrIntegers] and names the element. A file that is cut or changed while it is
// read is an error, which wraps [io.ErrUnexpectedEOF] or [checkpoint.ErrChanged]. Cancellation is seen before every read
// of a chunk, and while the finished file is flushed to the disk, between slices of a few megabytes (on Linux; elsewhere
// before it is flushed). It comes too late once all is flushed and the file takes its place, which is a matter of
// milliseconds.
func (p *Plan) Run(ctx context.Context, path string, progress func(done, total int64)) (*Report, error) {
	if p == nil || len(p.models) == 0 {
		return nil, errNoPlan
	}
	start := time.Now()
	w, err := checkpoint.Create(path, p.tensors(), p.Metadata, p.create...)
	if err != nil {
		return nil, err
	}
	defer w.Close() // after Commit this does nothing

	r := p.newRun(w, progress)
	if err := r.do(ctx); err != nil {
		return nil, err
	}
	if err := p.unchanged(); err != nil {
		return nil, err
	}
	if err := w.Flush(ctx); err != nil {
		return nil, err
	}
	if runtime.GOOS == "windows" {
		p.closeReplaced(path)
	}
	if err := w.CommitContext(ctx); err != nil {
		return nil, err
	}
	report := p.report(path)
	r.counts.fill(p, report)
	report.Removed = w.Removed()
	report.Copied = w.Copied()
	report.Duration = time.Since(start)
	return report, nil
}

// newRun returns a run of the whole plan.
func (p *Plan) newRun(w output, progress func(done, total int64)) *run {
	r := &run{plan: p, output: w, total: p.BytesRead, progress: progress}
	for _, m := range p.models {
		r.inputs = append(r.inputs, m)
	}
	return r
}

// unchanged returns an error if one of the models that are read was changed since it was opened.
func (p *Plan) unchanged() error {
	for k, m := range p.models {
		if !p.Sources[k].read() {
			continue
		}
		if err := m.Unchanged(); err != nil {
			return err
		}
	}
	return nil
}

// tensors returns the tensors of the result.
func (p *Plan) tensors() []checkpoint.Tensor {
	tensors := make([]checkpoint.Tensor, len(p.Steps))
	for i := range p.Steps {
		tensors[i] = p.Steps[i].Tensor
	}
	return tensors
}

// closeReplaced closes the models of which a file may be replaced by what is written to path: the file there, or files
// in the directory there.
func (p *Plan) closeReplaced(path string) {
	target, err := os.Stat(path)
	if err != nil {
		return // there is nothing to replace
	}
	for _, m := range p.models {
		dir := m.Dir()
		if dir == "" {
			dir = filepath.Dir(m.Path())
		}
		for _, part := range []string{m.Path(), dir} {
			if info, err := os.Stat(part); err == nil && os.SameFile(info, target) {
				m.Close()
				break
			}
		}
	}
}

// An input is what a run needs of a [checkpoint.Model].
type input interface {
	ReadAt(tensor string, p []byte, off int64) (int, error)
}

// An output is what a run needs of a [checkpoint.Writer].
type output interface {
	WriteAt(tensor string, p []byte, off int64) (int, error)
}

// A located input or output knows at which byte of its file the data of a tensor begins. The system copies whole pages
// fastest.
type located interface {
	Offset(tensor string) (int64, error)
}

// A run is the state that the workers share.
type run struct {
	plan   *Plan
	inputs []input // of all sources
	output output
	pieces []piece      // what is done; nil for the whole plan
	next   atomic.Int64 // the next chunk, counted through all pieces
	counts counts

	mu       sync.Mutex // guards done and the call of progress
	done     int64      // bytes read
	total    int64      // bytes to read
	progress func(done, total int64)
}

// A piece is elements of a step that are done, chunk by chunk.
type piece struct {
	step     int
	first    int64
	elements int64
	offset   int64 // of the first byte of the piece in the file that is written, or 0 if that is not known
}

// locate finds out where in the file the pieces are written.
func (r *run) locate() error {
	w, ok := r.output.(located)
	if !ok {
		return nil
	}
	for i := range r.pieces {
		x := &r.pieces[i]
		t := &r.plan.Steps[x.step].Tensor
		begin, err := w.Offset(t.Name)
		switch {
		case errors.Is(err, checkpoint.ErrNoTensor):
			continue // the output writes it elsewhere than the one that it has Offset from
		case err != nil:
			return err
		}
		x.offset = begin + x.first*int64(t.DType.Bits()/8)
	}
	return nil
}

// lead returns how many elements of the piece come before the first one that is written at a multiple of a chunk in the
// file. They are a chunk of their own, so that all others but the last are whole pages.
func (p *Plan) lead(x piece) int64 {
	s := &p.Steps[x.step]
	size := int64(s.Tensor.DType.Bits() / 8)
	chunk := p.perChunk(s) * size
	if chunk%pageBytes != 0 {
		return 0
	}
	return min((chunk-x.offset%chunk)%chunk/size, x.elements)
}

// chunks returns in how many chunks the piece is done.
func (p *Plan) chunks(x piece) int64 {
	n := p.perChunk(&p.Steps[x.step])
	lead := p.lead(x)
	return (lead+n-1)/n + (x.elements-lead+n-1)/n
}

// chunk returns the first element of chunk i of the piece, counted in the piece, and their number.
func (p *Plan) chunk(x piece, i int64) (first, n int64) {
	if lead := p.lead(x); lead > 0 {
		if i == 0 {
			return 0, lead
		}
		first, i = lead, i-1
	}
	n = p.perChunk(&p.Steps[x.step])
	first += i * n
	return first, min(n, x.elements-first)
}

// do lets the workers do all chunks; the first error stops all of them.
func (r *run) do(ctx context.Context) error {
	if r.pieces == nil {
		r.pieces = r.plan.pieces()
	}
	if err := r.locate(); err != nil {
		return err
	}
	var chunks int64
	for _, x := range r.pieces {
		chunks += r.plan.chunks(x)
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	var workers sync.WaitGroup
	for range min(int64(r.plan.Workers), chunks) {
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
	b := r.plan.newBuffer()
	// The chunks that a worker gets only ever grow, so it walks the pieces once.
	var i int
	var before int64 // chunks of the pieces before this one
	for {
		chunk := r.next.Add(1) - 1
		for i < len(r.pieces) && chunk >= before+r.plan.chunks(r.pieces[i]) {
			before += r.plan.chunks(r.pieces[i])
			i++
		}
		if i == len(r.pieces) {
			return nil
		}
		x := r.pieces[i]
		first, n := r.plan.chunk(x, chunk-before)
		size := r.plan.Steps[x.step].Tensor.DType.Bits() / 8
		to := x.offset + first*int64(size)
		b.placeOut(to, size)
		if err := r.chunk(ctx, b, x.step, x.first+first, int(n), to); err != nil {
			return err
		}
	}
}

// newBuffer allocates the buffer of one worker.
func (p *Plan) newBuffer() *buffer {
	sources, mixed := 1, false
	for i := range p.Steps {
		sources = max(sources, len(p.Steps[i].Sources))
		mixed = mixed || p.Steps[i].mixed()
	}
	return newBuffer(sources, p.ChunkBytes, mixed)
}

// chunk does n elements of one step, from element first on, which begin at that offset in the file of the result.
func (r *run) chunk(ctx context.Context, b *buffer, step int, first int64, n int, to int64) error {
	s := &r.plan.Steps[step]
	var read int64
	for i, k := range s.Sources {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		size := s.dtype(i).Bits() / 8
		from := r.offset(k, s.Tensor.Name) + first*int64(size)
		if i == 0 && s.Action.copies() {
			b.placeCopy(i, from, to)
		} else {
			b.placeData(i, from)
		}
		if err := r.read(k, s.Tensor.Name, b.data[i][:n*size], first*int64(size)); err != nil {
			return err
		}
		read += int64(n * size)
	}
	size := s.Tensor.DType.Bits() / 8
	result := b.out[:n*size]
	var err error
	switch s.Action {
	case Average:
		if err = b.average(s, n); err == nil {
			err = r.special(b, step, first, n)
		}
	case Max, Sum:
		err = b.combine(r.plan, s, first, n)
	case CopyEqual:
		err = b.equal(r.plan, s, first, n)
		result = b.data[0][:n*size]
	default:
		result = b.data[0][:n*size]
	}
	if err != nil {
		return err
	}
	if _, err := r.output.WriteAt(s.Tensor.Name, result, first*int64(size)); err != nil {
		return err
	}
	if r.progress != nil {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.done += read
		r.progress(r.done, r.total)
	}
	return nil
}

// paths names the sources of the step: all of them, or the first ones if there are many.
func (p *Plan) paths(s *Step) string {
	var names []string
	for _, k := range s.Sources {
		names = append(names, p.Sources[k].Path)
	}
	if n := len(names); n > 3 {
		return fmt.Sprintf("%s, %s and %d more", names[0], names[1], n-2)
	}
	return strings.Join(names, ", ")
}

// offset returns at which byte of its file the tensor of source k begins, or 0 if that is not known.
func (r *run) offset(k int, tensor string) int64 {
	if m, ok := r.inputs[k].(located); ok {
		if offset, err := m.Offset(tensor); err == nil {
			return offset
		}
	}
	return 0
}

// read fills p from the tensor of source k; less than that is an error.
func (r *run) read(k int, tensor string, p []byte, off int64) error {
	n, err := r.inputs[k].ReadAt(tensor, p, off)
	switch {
	case n == len(p):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return fmt.Errorf("%s: tensor %q: read %d of %d bytes at %d: %w",
			r.plan.Sources[k].Path, tensor, n, len(p), off, io.ErrUnexpectedEOF)
	}
	return err
}

// special counts what is not finite in a chunk that was averaged, and applies the policies for it.
//
// Weights are not zero, so that a NaN or an infinity in a model makes an element of the result one of them. It is
// therefore enough to look at the result, and at the models where that is not finite.
func (r *run) special(b *buffer, step int, first int64, n int) error {
	s := &r.plan.Steps[step]
	size := s.Tensor.DType.Bits() / 8
	out := b.out[:n*size]
	if allFinite(out, s.Tensor.DType) {
		return nil
	}
	data := make([][]byte, len(s.Sources))
	dtypes := make([]checkpoint.DType, len(s.Sources))
	for i, k := range s.Sources {
		dtypes[i] = s.dtype(i)
		size := dtypes[i].Bits() / 8
		data[i] = b.data[i][:n*size]
		toNative(data[i], size) // back to the order of files
		nan, inf, at := convert.CountSpecial(data[i], dtypes[i])
		if at < 0 {
			continue
		}
		if r.plan.Policies.NonFinite == NonFiniteError {
			return fmt.Errorf("%s: tensor %q: element %d: %w (NaN or infinite)", r.plan.Sources[k].Path, s.Tensor.Name,
				first+int64(at), ErrNonFinite)
		}
		r.counts.addSpecial(step, k, nan, inf)
	}
	var overflows int
	at := -1
	convert.Overflows(out, s.Tensor.DType, data, dtypes, func(i int) {
		if overflows == 0 {
			at = i
		}
		overflows++
		if r.plan.Policies.Overflow == OverflowSaturate {
			convert.Saturate(out, i, s.Tensor.DType)
		}
	})
	if overflows == 0 {
		return nil
	}
	if r.plan.Policies.Overflow == OverflowError {
		return fmt.Errorf("%s: tensor %q: element %d: %w for %v", r.plan.paths(s), s.Tensor.Name, first+int64(at),
			ErrOverflow, s.Tensor.DType)
	}
	r.counts.addOverflows(step, overflows)
	return nil
}
