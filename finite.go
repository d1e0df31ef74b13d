package modelavg

import (
	"fmt"
	"unsafe"
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

// allFinite reports whether all elements are finite. It looks at as many as a word holds at once: those that are not
// have all bits of their exponent set, and adding one to the exponent carries into the place of the sign.
func allFinite[T Element](model []T) bool {
	size := int(unsafe.Sizeof(*new(T)))
	lead := min(len(model), int(-uintptr(unsafe.Pointer(unsafe.SliceData(model)))&7)/size)
	words := (len(model) - lead) * size / 8
	for _, x := range model[:lead] {
		if f := float64Of(x); f-f != 0 {
			return false
		}
	}
	for _, x := range model[lead+words*8/size:] {
		if f := float64Of(x); f-f != 0 {
			return false
		}
	}
	var exponents, one uint64 // of every element in a word
	switch any(*new(T)).(type) {
	case float32:
		exponents, one = 0x7f80_0000_7f80_0000, 0x0080_0000_0080_0000
	case float64:
		exponents, one = 0x7ff0_0000_0000_0000, 0x0010_0000_0000_0000
	case Float16:
		exponents, one = 0x7c00_7c00_7c00_7c00, 0x0400_0400_0400_0400
	case BFloat16:
		exponents, one = 0x7f80_7f80_7f80_7f80, 0x0080_0080_0080_0080
	}
	if words == 0 {
		return true
	}
	w := unsafe.Slice((*uint64)(unsafe.Pointer(&model[lead])), words)
	signs := exponents + one
	var a, b, c, d uint64
	for ; len(w) >= 4; w = w[4:] {
		a |= w[0]&exponents + one
		b |= w[1]&exponents + one
		c |= w[2]&exponents + one
		d |= w[3]&exponents + one
	}
	for _, x := range w {
		a |= x&exponents + one
	}
	return (a|b|c|d)&signs == 0
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
