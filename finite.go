package modelavg

import (
	"fmt"
	"unsafe"

	"github.com/modelavg/modelavg/kernel"
)

// CheckFinite returns an error that wraps [ErrNotFinite] and names the first element of the model that is NaN or
// infinite, or nil if there is none. It is the guard of who averages models from elsewhere: a single NaN would reach
// the mean.
//
// It reads the model once and does not allocate.
func CheckFinite[T Element](model []T) error {
	const block = 1 << 14 // so that what is bad is found without another pass over all
	for i := 0; i < len(model); i += block {
		part := model[i:min(len(model), i+block)]
		if allFinite(part) {
			continue
		}
		for k, x := range part {
			if f := float64Of(x); f-f != 0 {
				return fmt.Errorf("modelavg: %w: element %d of %d is %v, want a finite number",
					ErrNotFinite, i+k, len(model), f)
			}
		}
	}
	return nil
}

// allFinite reports whether all elements are finite.
func allFinite[T Element](model []T) bool {
	switch any(*new(T)).(type) {
	case float32:
		return kernel.AllFiniteFloat32(cast[float32](model))
	case float64:
		return kernel.AllFiniteFloat64(cast[float64](model))
	case Float16:
		return kernel.AllFiniteFloat16(cast[uint16](model))
	}
	return kernel.AllFiniteBFloat16(cast[uint16](model))
}

// float64Of returns the value of x, which float64 holds exactly.
func float64Of[T Element](x T) float64 {
	switch x := any(x).(type) {
	case float32:
		return float64(x)
	case float64:
		return x
	case Float16:
		return float64(x.Float32())
	case BFloat16:
		return float64(x.Float32())
	}
	return 0
}

// cast returns the same memory as a slice of E, which has the representation of T.
func cast[E, T any](x []T) []E { return *(*[]E)(unsafe.Pointer(&x)) }
