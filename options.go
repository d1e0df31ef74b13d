package modelavg

import (
	"fmt"
	"runtime"
)

// An Accumulation says in which format the products are summed before a result is rounded to its element type.
//
//	element     DefaultAccumulation   Wider           Native
//	float32     float64               float64         float32
//	float64     float64               double-double   float64
//	Float16     float32               float32         float32
//	BFloat16    float32               float32         float32
//
// 16-bit elements are summed in float32 whatever is asked: a sum held in 16 bits loses the smaller terms altogether. [Exact]
// is for an [Accumulator] alone.
type Accumulation uint8

const (
	// DefaultAccumulation is Wider for float32 and Native for float64. It is what a call without WithAccumulation uses.
	DefaultAccumulation Accumulation = iota

	// Wider sums in a format with at least twice the bits, so that a result is rounded in effect once. For float32 it
	// costs little when few models come from memory; docs/performance.md has the figures. For float64 the sum is
	// double-double, in pairs of float64.
	Wider

	// Native sums in the element type, by fused multiply-adds. For float32 it is the fastest when the models lie in the
	// innermost cache; the error grows with the number of models.
	Native
)

// An Option changes how a call computes. It is a plain value: making and passing one does not allocate. The zero
// Option changes nothing, and of two options of a kind the later one holds.
type Option struct {
	kind  optionKind
	value int
}

type optionKind uint8

const (
	noOption optionKind = iota
	workersOption
	accumulationOption
)

// WithWorkers lets a call compute on up to n goroutines at once, the caller's included; 0 stands for
// [runtime.GOMAXPROCS]. Without it, and with n = 1, no goroutine is started. The result has the same bits for any n.
//
// Each worker takes one contiguous range of dst of at least 64 KiB, so a short slice is computed by fewer. A negative n
// makes the call return an error that wraps [ErrOption].
func WithWorkers(n int) Option { return Option{workersOption, n} }

// WithAccumulation sets the format in which sums are held. An unknown value makes the call return an error that wraps
// [ErrOption].
func WithAccumulation(a Accumulation) Option { return Option{accumulationOption, int(a)} }

// settings are the options of one call, put together.
type settings struct {
	workers      int
	accumulation Accumulation
}

func gather(options []Option) (settings, error) {
	s := settings{workers: 1}
	for _, o := range options {
		switch o.kind {
		case workersOption:
			if o.value < 0 {
				return s, fmt.Errorf("modelavg: %w: got %d workers, want 0 or more", ErrOption, o.value)
			}
			s.workers = o.value
			if o.value == 0 {
				s.workers = runtime.GOMAXPROCS(0)
			}
		case accumulationOption:
			if o.value == int(Exact) {
				return s, fmt.Errorf("modelavg: %w: got accumulation Exact, which is for an Accumulator alone", ErrOption)
			}
			if o.value > int(Native) {
				return s, fmt.Errorf("modelavg: %w: got accumulation %d, want DefaultAccumulation, Wider or Native", ErrOption, o.value)
			}
			s.accumulation = Accumulation(o.value)
		}
	}
	return s, nil
}
