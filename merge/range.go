package merge

import (
	"context"
	"fmt"
	"time"

	"github.com/modelavg/modelavg/checkpoint"
)

// A Range is Length bytes of the data of a tensor of the result, from byte Offset on. Both are multiples of the size of
// an element. It is all that a program which divides a plan among several processes has to send to them, if each makes
// the same plan.
type Range struct {
	Tensor string
	Offset int64
	Length int64
}

// An Output is where the data of a result goes: a [checkpoint.Writer], a [checkpoint.PartWriter] or another. WriteAt is
// called from several goroutines at once.
type Output interface {
	// WriteAt writes p, little-endian elements, to the data of the tensor from byte off of it.
	WriteAt(tensor string, p []byte, off int64) (int, error)
}

// Ranges returns ranges of at most maxBytes that cover all bytes of the result, each once, in the order of the steps: a
// tensor that is larger is divided, at multiples of maxBytes rounded down to one of 64. Zero or less means whole
// tensors. Tensors without data have no range. The same plan gives the same ranges.
func (p *Plan) Ranges(maxBytes int64) []Range {
	if maxBytes > 0 {
		maxBytes = max(maxBytes&^(alignment-1), alignment)
	}
	var ranges []Range
	for i := range p.Steps {
		s := &p.Steps[i]
		for off := int64(0); off < s.Bytes; {
			n := s.Bytes - off
			if maxBytes > 0 {
				n = min(n, maxBytes)
			}
			ranges = append(ranges, Range{s.Tensor.Name, off, n})
			off += n
		}
	}
	return ranges
}

// RunRange reads what the range needs of every model, averages it and writes it to w, with as many workers as the plan
// has or fewer. The bytes are those that [Plan.Run] writes there. It returns a report of the range alone, without a
// path. It may be called from several goroutines at once, each with buffers of its own of up to Plan.Memory bytes.
//
// An unknown tensor, and a range that is not inside the tensor or divides an element, is an error; other errors are
// those of [Plan.Run]. What was written before an error stays written.
func (p *Plan) RunRange(ctx context.Context, r Range, w Output) (*Report, error) {
	report, _, err := p.runRanges(ctx, []Range{r}, w, nil)
	return report, err
}

// runRanges does the ranges and returns the report of them, and the run, which has the counts.
func (p *Plan) runRanges(ctx context.Context, ranges []Range, w Output, progress func(done, total int64)) (*Report,
	*run, error,
) {
	start := time.Now()
	pieces, err := p.piecesOf(ranges)
	if err != nil {
		return nil, nil, err
	}
	r := p.newRun(w, progress)
	r.pieces, r.total = pieces, 0
	report := p.report("")
	report.Averaged, report.Integers, report.OtherWeights = nil, nil, nil
	report.BytesRead, report.BytesWritten = 0, 0
	last := -1
	for _, x := range pieces {
		s := &p.Steps[x.step]
		for i := range s.Sources {
			r.total += x.elements * int64(s.dtype(i).Bits()/8)
		}
		report.BytesWritten += x.elements * int64(s.Tensor.DType.Bits()/8)
		if x.step == last {
			continue
		}
		last = x.step
		if s.Action == Average {
			report.Averaged = append(report.Averaged, s.Tensor.Name)
		} else {
			report.Integers = append(report.Integers, s.Tensor.Name)
		}
	}
	report.BytesRead = r.total
	report.tensors = plural(len(report.Averaged), "tensor") + " averaged, at least in part"
	if n := len(report.Integers); n > 0 {
		report.tensors += fmt.Sprintf(", %d of integers", n)
	}
	if err := r.do(ctx); err != nil {
		return nil, nil, err
	}
	if err := p.unchanged(); err != nil {
		return nil, nil, err
	}
	r.counts.fill(p, report)
	report.Duration = time.Since(start)
	return report, r, nil
}

// piecesOf checks the ranges and returns them as pieces. The result is never nil.
func (p *Plan) piecesOf(ranges []Range) ([]piece, error) {
	if p == nil || len(p.models) == 0 {
		return nil, errNoPlan
	}
	steps := make(map[string]int, len(p.Steps))
	for i := range p.Steps {
		steps[p.Steps[i].Tensor.Name] = i
	}
	pieces := make([]piece, 0, len(ranges))
	for _, r := range ranges {
		i, ok := steps[r.Tensor]
		if !ok {
			return nil, fmt.Errorf("merge: %w %q in the result", checkpoint.ErrNoTensor, r.Tensor)
		}
		s := &p.Steps[i]
		size := int64(s.Tensor.DType.Bits() / 8)
		switch {
		case r.Offset < 0 || r.Length < 0 || r.Offset > s.Bytes || r.Length > s.Bytes-r.Offset:
			return nil, fmt.Errorf("merge: tensor %q: range of %d bytes at byte %d: the tensor has %d", r.Tensor,
				r.Length, r.Offset, s.Bytes)
		case r.Offset%size != 0 || r.Length%size != 0:
			return nil, fmt.Errorf("merge: tensor %q: range of %d bytes at byte %d: want multiples of %d, as of a %v",
				r.Tensor, r.Length, r.Offset, size, s.Tensor.DType)
		}
		pieces = append(pieces, piece{step: i, first: r.Offset / size, elements: r.Length / size})
	}
	return pieces, nil
}
