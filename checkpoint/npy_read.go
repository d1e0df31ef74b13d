package checkpoint

import (
	"context"
	"io"
)

// arrayName is the name of the one tensor of a file in NumPy's format, which has none of its own.
const arrayName = "array"

// readNPY makes the model of a .npy file.
func readNPY(s *source, o openOptions) (*Model, error) {
	h, err := readNPYHeader(io.NewSectionReader(s.file, 0, s.size), s.size, o.void2)
	if err != nil {
		return nil, formatError(s.path, err)
	}
	t := &tensors{entries: []entry{h.entry(arrayName, s, s, 0, o.ctx)}}
	return &Model{tensors: t, path: s.path, sources: []*source{s}}, nil
}

// entry makes the entry of an array that begins, header and all, at offset begin of from, which is the source or what
// is made of it.
func (h *npyHeader) entry(name string, s *source, from fullReader, begin int64, ctx context.Context) entry {
	e := entry{Tensor: Tensor{Name: name, DType: h.dtype, Shape: h.shape}, offset: begin + h.size}
	_, e.size, _ = e.Tensor.size()
	var shape []int64
	if h.fortran && !isRowMajor(h.shape) {
		shape = h.shape
	}
	if h.bigEndian || shape != nil || from != fullReader(s) {
		a := &array{from: from, offset: e.offset, width: h.dtype.Bits() / 8, swap: h.bigEndian, shape: shape, ctx: ctx}
		if shape != nil {
			a.band = s.useBand()
		}
		if a.unit = a.width; h.dtype == C64 {
			a.unit /= 2
		}
		e.array = a
	}
	return e
}
