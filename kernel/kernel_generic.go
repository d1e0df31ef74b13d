package kernel

import (
	"math"
	"unsafe"

	"github.com/modelavg/modelavg/internal/implementation"
)

// The reference: the contract of the package comment in pure Go. Every other implementation is tested against it, bit
// for bit. A block of accumulators stays in the first-level cache while all models are folded into it, so that this too
// is one pass over the models in memory.

// genericBlock is the accumulators in a block: few, since all are zeroed in every call.
const genericBlock = 64

// weightedSumGeneric is:
//
//	for i := range n {
//		a := −0 or, if acc != nil, acc[i]
//		for k := range models { a = fma(w[k], x[k][offset+i], a) }
//		if flags&divide != 0 { a /= divisor } else if flags&scale != 0 { a *= divisor }
//		dst[i] = round(a)
//	}
//
// Without acc the divisor is not NaN: it is a number of models, or 1.
func weightedSumGeneric(kind implementation.Kind, dst, x, w, acc unsafe.Pointer, n, models, offset int, divisor float64, flags int) {
	var a accumulators
	for i := 0; i < n; i += genericBlock {
		m := min(genericBlock, n-i)
		if acc != nil {
			a.load(kind, acc, i, m)
		} else {
			a.clear(kind, m)
		}
		for k := range models {
			fold(kind, unsafe.Pointer(&a.sum), unsafe.Pointer(&a.compensation), x, w, k, offset+i, m)
		}
		if flags&divide != 0 {
			a.divide(kind, divisor, m)
		} else if flags&scale != 0 {
			a.divide(kind, 1/divisor, m) // a power of two: exact, and the same bits
		}
		a.round(kind, dst, i, m)
	}
}

// accumulateGeneric is:
//
//	for i := range n {
//		for k := range models { acc[i] = fma(w[k], x[k][offset+i], acc[i]) }
//	}
func accumulateGeneric(kind implementation.Kind, acc, x, w unsafe.Pointer, n, models, offset int) {
	var compensation unsafe.Pointer
	for i := 0; i < n; i += genericBlock {
		m := min(genericBlock, n-i)
		sum := unsafe.Add(acc, i*accumulatorSize(kind))
		if kind == implementation.Float64Wider {
			compensation = unsafe.Add(sum, widerStride)
		}
		for k := range models {
			fold(kind, sum, compensation, x, w, k, offset+i, m)
		}
	}
}

// accumulators is one block of accumulators: float64, float32 in the first half of the same memory, or pairs of float64.
type accumulators struct {
	sum, compensation [genericBlock]float64
}

func (a *accumulators) float32s(m int) []float32 {
	return unsafe.Slice((*float32)(unsafe.Pointer(&a.sum)), m)
}

func (a *accumulators) load(kind implementation.Kind, acc unsafe.Pointer, i, m int) {
	if accumulatorSize(kind) == 4 {
		copy(a.float32s(m), unsafe.Slice((*float32)(acc), i+m)[i:])
		return
	}
	copy(a.sum[:m], unsafe.Slice((*float64)(acc), i+m)[i:])
	if kind == implementation.Float64Wider {
		copy(a.compensation[:m], unsafe.Slice((*float64)(unsafe.Add(acc, widerStride)), i+m)[i:])
	}
}

// clear sets the accumulators to −0, from which the first fused multiply-add gives the product itself, sign of zero
// included.
func (a *accumulators) clear(kind implementation.Kind, m int) {
	if accumulatorSize(kind) == 4 {
		sum := a.float32s(m)
		for i := range sum {
			sum[i] = float32(math.Copysign(0, -1))
		}
		return
	}
	for i := range a.sum[:m] {
		a.sum[i] = math.Copysign(0, -1)
	}
	clear(a.compensation[:m])
}

// divide is: for i := range m { a[i] /= divisor }
func (a *accumulators) divide(kind implementation.Kind, divisor float64, m int) {
	switch {
	case accumulatorSize(kind) == 4:
		sum := a.float32s(m)
		for i := range sum {
			sum[i] /= float32(divisor)
		}
	case kind == implementation.Float64Wider:
		for i, h := range a.sum[:m] {
			q := h / divisor
			r := math.FMA(q, divisor, -h)
			a.sum[i] = q
			a.compensation[i] = (r + a.compensation[i]) / divisor
		}
	default:
		for i := range a.sum[:m] {
			a.sum[i] /= divisor
		}
	}
}

// round is: for j := range m { dst[i+j] = round(a[j]) }
func (a *accumulators) round(kind implementation.Kind, dst unsafe.Pointer, i, m int) {
	switch kind {
	case implementation.Float32:
		roundFloat32(unsafe.Slice((*float32)(dst), i+m)[i:], a.sum[:m])
	case implementation.Float64:
		copy(unsafe.Slice((*float64)(dst), i+m)[i:], a.sum[:m])
	case implementation.Float16:
		roundFloat16(unsafe.Slice((*uint16)(dst), i+m)[i:], a.float32s(m))
	case implementation.BFloat16:
		roundBFloat16(unsafe.Slice((*uint16)(dst), i+m)[i:], a.float32s(m))
	case implementation.Float32Native:
		copy(unsafe.Slice((*float32)(dst), i+m)[i:], a.float32s(m))
	case implementation.Float64Wider:
		roundFloat64Wider(unsafe.Slice((*float64)(dst), i+m)[i:], a.sum[:m], a.compensation[:m])
	}
}

// fold is: for i := range m { sum[i] = fma(w[k], x[k][offset+i], sum[i]) }
func fold(kind implementation.Kind, sum, compensation, x, w unsafe.Pointer, k, offset, m int) {
	header := unsafe.Add(x, k*sliceHeader)
	weight := *(*float64)(unsafe.Add(w, k*8))
	switch kind {
	case implementation.Float32:
		foldFloat32(unsafe.Slice((*float64)(sum), m), (*(*[]float32)(header))[offset:offset+m], weight)
	case implementation.Float64:
		foldFloat64(unsafe.Slice((*float64)(sum), m), (*(*[]float64)(header))[offset:offset+m], weight)
	case implementation.Float16:
		foldFloat16(unsafe.Slice((*float32)(sum), m), (*(*[]uint16)(header))[offset:offset+m], float32(weight))
	case implementation.BFloat16:
		foldBFloat16(unsafe.Slice((*float32)(sum), m), (*(*[]uint16)(header))[offset:offset+m], float32(weight))
	case implementation.Float32Native:
		foldFloat32Native(unsafe.Slice((*float32)(sum), m), (*(*[]float32)(header))[offset:offset+m], float32(weight))
	case implementation.Float64Wider:
		foldFloat64Wider(unsafe.Slice((*float64)(sum), m), unsafe.Slice((*float64)(compensation), m),
			(*(*[]float64)(header))[offset:offset+m], weight)
	}
}

// foldFloat32 is: for i := range x { a[i] = fma(w, x[i], a[i]) } in float64.
func foldFloat32(a []float64, x []float32, w float64) {
	a = a[:len(x)]
	for i, v := range x {
		a[i] = math.FMA(w, float64(v), a[i])
	}
}

// foldFloat64 is: for i := range x { a[i] = fma(w, x[i], a[i]) }
func foldFloat64(a, x []float64, w float64) {
	a = a[:len(x)]
	for i, v := range x {
		a[i] = math.FMA(w, v, a[i])
	}
}

// foldFloat16 is: for i := range x { a[i] = fma(w, x[i], a[i]) } in float32.
func foldFloat16(a []float32, x []uint16, w float32) {
	a = a[:len(x)]
	for i, v := range x {
		a[i] = fma32(w, float32FromFloat16(v), a[i])
	}
}

// foldBFloat16 is: for i := range x { a[i] = fma(w, x[i], a[i]) } in float32.
func foldBFloat16(a []float32, x []uint16, w float32) {
	a = a[:len(x)]
	for i, v := range x {
		a[i] = fma32(w, float32FromBFloat16(v), a[i])
	}
}

// foldFloat32Native is: for i := range x { a[i] = fma(w, x[i], a[i]) } in float32.
func foldFloat32Native(a, x []float32, w float32) {
	a = a[:len(x)]
	for i, v := range x {
		a[i] = fma32(w, v, a[i])
	}
}

// foldFloat64Wider adds w·x to the pair (sum, compensation), whose value is sum − compensation: the product and the sum
// are split into their rounded values and their exact errors (TwoProduct by fused multiply-add, TwoSum of Knuth; Ogita,
// Rump and Oishi, "Accurate Sum and Dot Product", 2005). The compensation is kept negated, because then all of its zeros
// are positive and sum − compensation keeps the sign of a zero sum.
func foldFloat64Wider(sum, compensation, x []float64, w float64) {
	sum, compensation = sum[:len(x)], compensation[:len(x)]
	for i, v := range x {
		h := sum[i]
		p := float64(w * v)
		e := math.FMA(-w, v, p)
		s := h + p
		b := s - h
		t := (s - b) - h
		u := b - p
		compensation[i] += (t + u) + e
		sum[i] = s
	}
}

func roundFloat32(dst []float32, a []float64) {
	for i, v := range a {
		dst[i] = float32(v)
	}
}

func roundFloat16(dst []uint16, a []float32) {
	for i, v := range a {
		dst[i] = float16FromFloat32(v)
	}
}

func roundBFloat16(dst []uint16, a []float32) {
	for i, v := range a {
		dst[i] = bfloat16FromFloat32(v)
	}
}

// roundFloat64Wider is: dst[i] = sum[i] − compensation[i], or sum[i] where the compensation is not finite: an infinite or
// overflowed sum has no error to add.
func roundFloat64Wider(dst, sum, compensation []float64) {
	for i, h := range sum {
		c := compensation[i]
		if c-c != 0 {
			dst[i] = h
		} else {
			dst[i] = h - c
		}
	}
}
