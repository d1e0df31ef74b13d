package transform

import (
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"

	"github.com/modelavg/modelavg/beam/partial"
	"github.com/modelavg/modelavg/merge"
)

// A worker that fails in the middle of a bundle, of which the parts are done again by others, two at once, leaves no
// trace in the output.
func TestBundleIsDoneAgain(t *testing.T) {
	models := writeAll(t, 3)
	job := Job{Models: models, Output: filepath.Join(t.TempDir(), "out.safetensors"), Parts: 6, ID: t.Name()}
	want := oneMachine(t, job)
	whole, err := os.ReadFile(models[1])
	must(t, err)

	// The first worker has done one part when a model is cut under its hands.
	worker := &runPart{job}
	must(t, worker.ProcessElement(t.Context(), 1, func(Done) {}))
	must(t, os.Truncate(models[1], 1<<20))
	err = worker.ProcessElement(t.Context(), 2, func(Done) {})
	if !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(err.Error(), models[1]) ||
		!strings.Contains(err.Error(), `tensor "`) {
		t.Errorf("got error %v, want one that wraps io.ErrUnexpectedEOF and names %s and a tensor", err, models[1])
	}
	must(t, os.WriteFile(models[1], whole, 0o666))
	key, err := job.key()
	must(t, err)
	must(t, jobs.end(key))

	// Others do the whole bundle, the part that was complete included, each part twice at once.
	job.ID += " again"
	var workers sync.WaitGroup
	for part := 1; part <= job.Parts; part++ {
		for range 2 {
			workers.Go(func() {
				if err := (&runPart{job}).ProcessElement(t.Context(), part, func(Done) {}); err != nil {
					t.Error(err)
				}
			})
		}
	}
	workers.Wait()
	_, err = merge.Finish(t.Context(), job.Output)
	must(t, err)
	sameFiles(t, job.Output, want)
	key, err = job.key()
	must(t, err)
	must(t, jobs.end(key))
}

// Elements that an engine delivers twice are harmless.
func TestPartsTwice(t *testing.T) {
	job := Job{Models: writeAll(t, 3), Output: filepath.Join(t.TempDir(), "out.safetensors"), Parts: 4, ID: t.Name()}
	p, s := beam.NewPipelineWithRoot()
	ByReference(s, job, beam.CreateList(s, []int{1, 2, 2, 3, 1, 4, 4, 4}))
	_, err := inProcess(t.Context(), p)
	must(t, err)
	_, err = merge.Finish(t.Context(), job.Output)
	must(t, err)
	sameFiles(t, job.Output, oneMachine(t, job))
}

// A part that is written by sums, in two attempts of which the first one fails after its last byte, is complete and the
// same.
func TestSummedPartIsWrittenAgain(t *testing.T) {
	job := Job{
		Models: writeAll(t, 2), Output: filepath.Join(t.TempDir(), "out.safetensors"), Parts: 1, SumModels: 2, ID: t.Name(),
	}
	var pieces []piece
	must(t, (&splitPart{job}).ProcessElement(t.Context(), 1, func(g group) {
		must(t, (&readGroup{job}).ProcessElement(t.Context(), g, func(r run, s *partial.Sum) {
			data, err := s.Mean()
			must(t, err)
			_, x := toPiece(r, data)
			pieces = append(pieces, x)
		}, func(_ int, x piece) { pieces = append(pieces, x) }))
	}, func(int, piece) {}))
	for _, failure := range []bool{true, false} {
		i := 0
		ctx, cancel := context.WithCancel(t.Context())
		err := (&writePart{job}).ProcessElement(ctx, 1, func(p *piece) bool {
			if i == len(pieces) {
				if failure {
					cancel()
				}
				return false
			}
			*p = pieces[i]
			i++
			return true
		}, func(Done) {})
		cancel()
		if (err != nil) != failure {
			t.Fatalf("got error %v, want one: %v", err, failure)
		}
	}
	must(t, finishSums(t.Context(), job.Output))
	sameFiles(t, job.Output, oneMachine(t, job))
}
