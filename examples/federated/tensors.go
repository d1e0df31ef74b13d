package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"slices"

	"github.com/modelavg/modelavg"
	"github.com/modelavg/modelavg/checkpoint"
)

// A tensor is the running sum of one tensor of the model.
type tensor interface {
	describe() checkpoint.Tensor
	check(m *checkpoint.Model, r *room) error               // wraps errNotFinite or errTooLarge for what cannot be added
	add(m *checkpoint.Model, weight float64, r *room) error // adds a part of the tensor only after an error of reading
	writeMean(w *checkpoint.Writer, r *room) error
	reset()
	save(w io.Writer, r *room) error
	restore(rd io.Reader, models int) error
}

var (
	errNotFinite = modelavg.ErrNotFinite
	errTooLarge  = errors.New("too large for sums that are rounded")
)

// piece is how many elements are read, added and written at once. It is a multiple of the blocks of exact sums.
const piece = 1 << 15

// A room is the memory that all tensors share while one of their pieces is worked on.
type room struct {
	bytes    []byte
	elements map[checkpoint.DType]any
	state    []byte
	memory   memory
}

// of returns n bytes and n elements in the room.
func of[T modelavg.Element](r *room, d checkpoint.DType, n int) ([]byte, []T) {
	if r.elements == nil {
		r.bytes, r.elements = make([]byte, 8*piece), make(map[checkpoint.DType]any)
	}
	x, ok := r.elements[d].([]T)
	if !ok {
		x = make([]T, piece)
		r.elements[d] = x
	}
	return r.bytes[:n*d.Bits()/8], x[:n]
}

// newTensor returns a tensor of nothing, for rounds of up to so many samples. An integer tensor, a counter as a rule, is not averaged but copied from the initial
// model. The error says which dtypes can be averaged if t has another.
func newTensor(t checkpoint.Tensor, accumulation modelavg.Accumulation, samples int64, initial string) (tensor, error) {
	limit := math.Inf(1)
	switch {
	case accumulation == modelavg.Exact:
	case t.DType == checkpoint.F64:
		limit = math.MaxFloat64 / 2 / float64(samples)
	case t.DType == checkpoint.BF16: // sums of float32
		limit = math.MaxFloat32 / 2 / float64(samples)
	}
	if t.DType.IsInteger() {
		return copied{t, initial}, nil
	}
	switch t.DType {
	case checkpoint.F32:
		return newTyped[float32](t, accumulation, limit)
	case checkpoint.F64:
		return newTyped[float64](t, accumulation, limit)
	case checkpoint.F16:
		return newTyped[modelavg.Float16](t, accumulation, limit)
	case checkpoint.BF16:
		return newTyped[modelavg.BFloat16](t, accumulation, limit)
	}
	return nil, fmt.Errorf("got dtype %v, want F64, F32, F16, BF16 or integers", t.DType)
}

// A copied is a tensor whose mean is that of the initial model.
type copied struct {
	tensor  checkpoint.Tensor
	initial string // path
}

func (c copied) describe() checkpoint.Tensor               { return c.tensor }
func (copied) check(*checkpoint.Model, *room) error        { return nil }
func (copied) add(*checkpoint.Model, float64, *room) error { return nil }
func (copied) reset()                                      {}
func (copied) save(io.Writer, *room) error                 { return nil }
func (copied) restore(io.Reader, int) error                { return nil }
func (c copied) writeMean(w *checkpoint.Writer, _ *room) error {
	m, err := checkpoint.Open(c.initial)
	if err != nil {
		return err
	}
	defer m.Close()
	from, err := m.TensorReader(c.tensor.Name)
	if err != nil {
		return err
	}
	to, err := w.TensorWriter(c.tensor.Name)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.NewOffsetWriter(to, 0), io.NewSectionReader(from, 0, from.Size()))
	return err
}

// A typed is a tensor whose elements are of type T. Each piece has a sum of its own, so that memory for sums that grow
// is needed for one piece after the other.
type typed[T modelavg.Element] struct {
	tensor checkpoint.Tensor
	limit  float64 // of an element, so that a sum cannot overflow
	sums   []*modelavg.Accumulator[T]
}

func newTyped[T modelavg.Element](t checkpoint.Tensor, accumulation modelavg.Accumulation, limit float64) (
	tensor, error,
) {
	x := &typed[T]{tensor: t, limit: limit}
	for left := t.Elements(); left > 0; left -= piece {
		n := int(min(left, piece))
		sum, err := modelavg.NewAccumulator[T](n, modelavg.WithAccumulation(accumulation), modelavg.WithWorkers(0))
		if err != nil {
			return nil, err
		}
		x.sums = append(x.sums, sum)
	}
	return x, nil
}

func (t *typed[T]) describe() checkpoint.Tensor { return t.tensor }

// pieces calls do with the elements of one piece after the other.
func (t *typed[T]) pieces(m *checkpoint.Model, r *room, do func(i int, x []T) error) error {
	data, err := m.TensorReader(t.tensor.Name)
	if err != nil {
		return err
	}
	for i, sum := range t.sums {
		b, x := of[T](r, t.tensor.DType, sum.Len())
		if _, err := data.ReadAt(b, t.offset(i)); err != nil {
			return err
		}
		decode(x, b)
		if err := do(i, x); err != nil {
			return err
		}
	}
	return nil
}

// offset returns where a piece begins in the data.
func (t *typed[T]) offset(i int) int64 { return int64(i) * piece * int64(t.tensor.DType.Bits()/8) }

func (t *typed[T]) check(m *checkpoint.Model, r *room) error {
	return t.pieces(m, r, func(i int, x []T) error {
		if modelavg.CheckFinite(x) != nil {
			for k := range x {
				if modelavg.CheckFinite(x[k:k+1]) != nil {
					return fmt.Errorf("element %d of %d is %w", i*piece+k, t.tensor.Elements(), errNotFinite)
				}
			}
		}
		if k := firstBeyond(x, t.limit); k >= 0 {
			return fmt.Errorf("element %d of %d is %w: want at most ±%.3g", i*piece+k, t.tensor.Elements(), errTooLarge,
				t.limit)
		}
		return nil
	})
}

// firstBeyond returns the index of the first element whose magnitude is above the limit, or −1. Float32 and float16
// elements are none of them: their accumulators hold the sums of all that are finite.
func firstBeyond[T modelavg.Element](x []T, limit float64) int {
	switch x := any(x).(type) {
	case []float64:
		return slices.IndexFunc(x, func(v float64) bool { return math.Abs(v) > limit })
	case []modelavg.BFloat16:
		return slices.IndexFunc(x, func(v modelavg.BFloat16) bool { return math.Abs(float64(v.Float32())) > limit })
	}
	return -1
}

func (t *typed[T]) add(m *checkpoint.Model, weight float64, r *room) error {
	return t.pieces(m, r, func(i int, x []T) error {
		defer r.memory.trim()
		return t.sums[i].Add(x, weight)
	})
}

func (t *typed[T]) writeMean(w *checkpoint.Writer, r *room) error {
	for i, sum := range t.sums {
		b, x := of[T](r, t.tensor.DType, sum.Len())
		if err := sum.Mean(x); err != nil {
			return err
		}
		if _, err := w.WriteAt(t.tensor.Name, encode(b[:0], x), t.offset(i)); err != nil {
			return err
		}
	}
	return nil
}

func (t *typed[T]) reset() {
	for _, sum := range t.sums {
		sum.Reset()
	}
}

// save writes each sum as modelavg.Accumulator.AppendBinary has it, and its length before it, 8 bytes.
func (t *typed[T]) save(w io.Writer, r *room) error {
	for _, sum := range t.sums {
		var err error
		if r.state, err = sum.AppendBinary(r.state[:0]); err != nil {
			return err
		}
		if err := binary.Write(w, binary.LittleEndian, int64(len(r.state))); err != nil {
			return err
		}
		if _, err := w.Write(r.state); err != nil {
			return err
		}
	}
	return nil
}

// restore reads what save has written of sums of so many models.
func (t *typed[T]) restore(rd io.Reader, models int) error {
	for _, sum := range t.sums {
		var length int64
		if err := binary.Read(rd, binary.LittleEndian, &length); err != nil {
			return err
		}
		// A length that is wrong must not take memory; ReadAll stops at the end of the file.
		state, err := io.ReadAll(io.LimitReader(rd, length))
		if err != nil {
			return err
		}
		n := sum.Len()
		if err := sum.UnmarshalBinary(state); err != nil {
			return err
		}
		if sum.Len() != n || sum.Count() != models {
			return fmt.Errorf("got the sum of %d models of %d elements, want %d of %d", sum.Count(), sum.Len(), models, n)
		}
	}
	return nil
}

// decode sets x to the elements in b, which are little-endian as all data of checkpoint.
func decode[T modelavg.Element](x []T, b []byte) {
	little := binary.LittleEndian
	switch x := any(x).(type) {
	case []float32:
		for i := range x {
			x[i] = math.Float32frombits(little.Uint32(b[4*i:]))
		}
	case []float64:
		for i := range x {
			x[i] = math.Float64frombits(little.Uint64(b[8*i:]))
		}
	case []modelavg.Float16:
		for i := range x {
			x[i] = modelavg.Float16(little.Uint16(b[2*i:]))
		}
	case []modelavg.BFloat16:
		for i := range x {
			x[i] = modelavg.BFloat16(little.Uint16(b[2*i:]))
		}
	}
}

// encode appends the elements of x to b.
func encode[T modelavg.Element](b []byte, x []T) []byte {
	little := binary.LittleEndian
	switch x := any(x).(type) {
	case []float32:
		for _, v := range x {
			b = little.AppendUint32(b, math.Float32bits(v))
		}
	case []float64:
		for _, v := range x {
			b = little.AppendUint64(b, math.Float64bits(v))
		}
	case []modelavg.Float16:
		for _, v := range x {
			b = little.AppendUint16(b, uint16(v))
		}
	case []modelavg.BFloat16:
		for _, v := range x {
			b = little.AppendUint16(b, uint16(v))
		}
	}
	return b
}
