package main

import (
	"context"
	"fmt"
	"io"
	"math"
	"runtime"
	"sync"

	"github.com/modelavg/modelavg/checkpoint"
	"github.com/modelavg/modelavg/internal/convert"
)

// scanElements is how many elements of a tensor are looked at by one worker at a time.
const scanElements = 1 << 16

// A scanner reads tensors as numbers, chunk by chunk, with several workers and in fixed memory.
type scanner struct {
	workers []scanWorker
	read    func(bytes int64) // called for what has been read
}

// A scanWorker has the buffers of one goroutine, for one or two models.
type scanWorker struct {
	bytes  [2][]byte
	values [2][]float64
}

// newScanner returns a scanner for so many models; workers 0 means one for each processor.
func newScanner(models, workers int, read func(bytes int64)) *scanner {
	if workers == 0 {
		workers = runtime.GOMAXPROCS(0)
	}
	s := &scanner{workers: make([]scanWorker, workers), read: read}
	for i := range s.workers {
		for k := range models {
			s.workers[i].bytes[k] = make([]byte, 8*scanElements)
			s.workers[i].values[k] = make([]float64, scanElements)
		}
	}
	return s
}

// scan calls visit with the values of every chunk of the tensor, of one model or the same of two, and merge with what
// that returns, in the order of the chunks, so that the outcome does not depend on the workers.
func scan[T any](ctx context.Context, s *scanner, tensors []*checkpoint.TensorReader, visit func(x [2][]float64) T,
	merge func(T),
) error {
	n := tensors[0].Tensor().Elements()
	chunks := (n + scanElements - 1) / scanElements
	results := make([]T, len(s.workers))
	errs := make([]error, len(s.workers))
	for first := int64(0); first < chunks; first += int64(len(s.workers)) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		count := int(min(chunks-first, int64(len(s.workers))))
		var wait sync.WaitGroup
		for i := range count {
			wait.Go(func() {
				begin := (first + int64(i)) * scanElements
				var x [2][]float64
				x, errs[i] = s.workers[i].chunk(tensors, begin, int(min(scanElements, n-begin)))
				if errs[i] == nil {
					results[i] = visit(x)
				}
			})
		}
		wait.Wait()
		for i := range count {
			if errs[i] != nil {
				return errs[i]
			}
			merge(results[i])
		}
		for _, t := range tensors {
			size := int64(t.Tensor().DType.Bits() / 8)
			s.read(size * (min(n, (first+int64(count))*scanElements) - first*scanElements))
		}
	}
	return nil
}

// chunk reads n elements of the tensors, from element begin on.
func (w *scanWorker) chunk(tensors []*checkpoint.TensorReader, begin int64, n int) (x [2][]float64, err error) {
	for k, t := range tensors {
		d := t.Tensor().DType
		size := d.Bits() / 8
		p := w.bytes[k][:n*size]
		if got, err := t.ReadAt(p, begin*int64(size)); got < len(p) {
			if err == nil || err == io.EOF {
				err = fmt.Errorf("tensor %q: %w", t.Tensor().Name, io.ErrUnexpectedEOF)
			}
			return x, err
		}
		x[k] = w.values[k][:n]
		convert.Float64s(x[k], p, d)
	}
	return x, nil
}

// A number is a float64 that JSON shows as null where it is not finite.
type number float64

func (x number) MarshalJSON() ([]byte, error) {
	if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
		return []byte("null"), nil
	}
	return fmt.Appendf(nil, "%g", float64(x)), nil
}

// String returns six digits, and "-" for what is no number.
func (x number) String() string {
	if math.IsNaN(float64(x)) {
		return "-"
	}
	return fmt.Sprintf("%.6g", float64(x))
}
