//go:build !purego && !noasm

package kernel

import (
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
	"unsafe"
)

// These tests compare every NEON function with a reference of their own, which shares no code with the package: sums and
// products come from math/big, the 16-bit formats from the definition of their values.

// A neonKind is one pair of functions and the plain arithmetic that they promise. Elements and accumulators stand in
// memory in size and accumulatorSize bytes; the reference has both as float64, which holds every one of them exactly.
type neonKind struct {
	name                  string
	size, accumulatorSize int
	pair                  bool
	weightedSum           func(dst, x, w, narrow, acc unsafe.Pointer, n, models, offset int, divisor float64, flags int)
	accumulate            func(acc, x, w, narrow unsafe.Pointer, n, models, offset int)
	decode                func(bits uint64) float64
	encode                func(value float64) uint64 // rounds to nearest even
}

var neonKinds = []neonKind{
	{
		"Float32", 4, 8, false, weightedSumFloat32NEON, accumulateFloat32NEON,
		neonFloat32, neonFloat32Bits,
	},
	{
		"Float64", 8, 8, false, weightedSumFloat64NEON, accumulateFloat64NEON,
		math.Float64frombits, math.Float64bits,
	},
	{
		"Float16", 2, 4, false, weightedSumFloat16NEON, accumulateFloat16NEON,
		func(bits uint64) float64 { return neonHalf(bits, 5) },
		func(value float64) uint64 { return neonHalfBits(value, 5) },
	},
	{
		"BFloat16", 2, 4, false, weightedSumBFloat16NEON, accumulateBFloat16NEON,
		func(bits uint64) float64 { return neonHalf(bits, 8) },
		func(value float64) uint64 { return neonHalfBits(value, 8) },
	},
	{
		"Float32Native", 4, 4, false, weightedSumFloat32NativeNEON, accumulateFloat32NativeNEON,
		neonFloat32, neonFloat32Bits,
	},
	{
		"Float64Wider", 8, 8, true, weightedSumFloat64WiderNEON, accumulateFloat64WiderNEON,
		math.Float64frombits, math.Float64bits,
	},
}

func neonFloat32(bits uint64) float64 { return float64(math.Float32frombits(uint32(bits))) }

func neonFloat32Bits(value float64) uint64 { return uint64(math.Float32bits(float32(value))) }

// neonHalf is the value of a 16-bit format: a sign, as many bits of exponent, and the rest.
func neonHalf(bits uint64, exponentBits int) float64 {
	fractionBits := 15 - exponentBits
	exponent := int(bits>>fractionBits) & (1<<exponentBits - 1)
	fraction := float64(bits&(1<<fractionBits-1)) / float64(uint64(1)<<fractionBits)
	bias := 1<<(exponentBits-1) - 1
	var magnitude float64
	switch {
	case exponent == 0:
		magnitude = math.Ldexp(fraction, 1-bias)
	case exponent < 1<<exponentBits-1:
		magnitude = math.Ldexp(1+fraction, exponent-bias)
	case fraction == 0:
		magnitude = math.Inf(1)
	default:
		return math.NaN()
	}
	if bits>>15 != 0 {
		return -magnitude
	}
	return magnitude
}

// neonHalfBits is the 16-bit number nearest to value. For values that are one, it is the reverse of neonHalf; all others
// are rounded to one first.
func neonHalfBits(value float64, exponentBits int) uint64 {
	fractionBits := 15 - exponentBits
	bias := 1<<(exponentBits-1) - 1
	infinity := uint64(1<<exponentBits-1) << fractionBits
	var sign uint64
	if math.Signbit(value) {
		sign = 1 << 15
	}
	value = math.Abs(value)
	switch {
	case math.IsNaN(value):
		return infinity | 1
	case value == 0:
		return sign
	case math.IsInf(value, 0):
		return sign | infinity
	}
	_, exponent := math.Frexp(value) // value = f·2^exponent, ½ ≤ f < 1
	exponent = max(exponent-1, 1-bias)
	units := math.RoundToEven(math.Ldexp(value, fractionBits-exponent))
	if units == float64(uint64(2)<<fractionBits) {
		units /= 2
		exponent++
	}
	switch {
	case exponent > bias:
		return sign | infinity
	case units < float64(uint64(1)<<fractionBits): // subnormal
		return sign | uint64(units)
	}
	return sign | uint64(exponent+bias)<<fractionBits | (uint64(units) - 1<<fractionBits)
}

// A neonFormat is an accumulator format's arithmetic: every operation is computed exactly and rounded once.
type neonFormat struct{ single bool }

func (f neonFormat) round(x *big.Float) float64 {
	if f.single {
		v, _ := x.Float32()
		return float64(v)
	}
	v, _ := x.Float64()
	return v
}

// fma is x·y + z. Where an operand is not finite or the exact result is zero, float64 arithmetic has the right answer.
func (f neonFormat) fma(x, y, z float64) float64 {
	const precision = 5000 // bits: more than any exact sum of a product of two float64 and a third has
	if neonFinite(x) && neonFinite(y) && neonFinite(z) {
		b := func(v float64) *big.Float { return new(big.Float).SetPrec(precision).SetFloat64(v) }
		product := b(0).Mul(b(x), b(y))
		if sum := b(0).Add(product, b(z)); sum.Sign() != 0 {
			v := f.round(sum)
			if v == 0 {
				v = math.Copysign(0, float64(sum.Sign()))
			}
			return v
		}
		if product.Sign() != 0 {
			return 0 // two numbers that cancel
		}
	}
	if !neonFinite(z) && neonFinite(x) && neonFinite(y) {
		return z // even if x·y overflows
	}
	return x*y + z
}

func (f neonFormat) add(x, y float64) float64 { return f.fma(x, 1, y) }

// mul starts from −0, which is the zero that changes the sign of no other.
func (f neonFormat) mul(x, y float64) float64 { return f.fma(x, y, math.Copysign(0, -1)) }

// div is x/y, which Go computes as IEEE 754 says.
func (f neonFormat) div(x, y float64) float64 {
	if f.single {
		return float64(float32(x) / float32(y))
	}
	return x / y
}

func neonFinite(x float64) bool { return !math.IsNaN(x) && !math.IsInf(x, 0) }

// neonSum is an accumulator: sum − compensation.
type neonSum struct{ sum, compensation float64 }

// step adds w·x.
func (k *neonKind) step(a neonSum, w, x float64) neonSum {
	f := neonFormat{k.accumulatorSize == 4}
	if !k.pair {
		return neonSum{f.fma(w, x, a.sum), 0}
	}
	p := f.mul(w, x)
	e := f.fma(-w, x, p)
	s := f.add(a.sum, p)
	b := f.add(s, -a.sum)
	t := f.add(f.add(s, -b), -a.sum)
	u := f.add(b, -p)
	return neonSum{s, f.add(a.compensation, f.add(f.add(t, u), e))}
}

func (k *neonKind) divide(a neonSum, divisor float64) neonSum {
	f := neonFormat{k.accumulatorSize == 4}
	if f.single {
		divisor = float64(float32(divisor))
	}
	q := f.div(a.sum, divisor)
	if !k.pair {
		return neonSum{q, 0}
	}
	r := f.fma(q, divisor, -a.sum)
	return neonSum{q, f.div(f.add(r, a.compensation), divisor)}
}

// element is the accumulator rounded to an element.
func (k *neonKind) element(a neonSum) uint64 {
	if k.pair && neonFinite(a.compensation) {
		return k.encode(neonFormat{}.add(a.sum, -a.compensation))
	}
	return k.encode(a.sum)
}

// neonGet and neonPut are element i of a slice in memory.
func neonGet(p unsafe.Pointer, size, i int) uint64 {
	p = unsafe.Add(p, i*size)
	switch size {
	case 2:
		return uint64(*(*uint16)(p))
	case 4:
		return uint64(*(*uint32)(p))
	}
	return *(*uint64)(p)
}

func neonPut(p unsafe.Pointer, size, i int, bits uint64) {
	p = unsafe.Add(p, i*size)
	switch size {
	case 2:
		*(*uint16)(p) = uint16(bits)
	case 4:
		*(*uint32)(p) = uint32(bits)
	default:
		*(*uint64)(p) = bits
	}
}

// accumulatorBits is the accumulator format's arithmetic value as it stands in memory.
func (k *neonKind) accumulatorBits(value float64) uint64 {
	if k.accumulatorSize == 4 {
		return neonFloat32Bits(value)
	}
	return math.Float64bits(value)
}

func (k *neonKind) accumulatorValue(bits uint64) float64 {
	if k.accumulatorSize == 4 {
		return neonFloat32(bits)
	}
	return math.Float64frombits(bits)
}

const (
	neonElements = 232 // at most, in one model
	neonModels   = 9
	neonGuard    = 64 // bytes around what a function may write
)

// neonBuffer is 64-byte aligned memory.
func neonBuffer(bytes int) unsafe.Pointer {
	memory := make([]uint64, bytes/8+8)
	p := unsafe.Pointer(unsafe.SliceData(memory))
	return unsafe.Add(p, -uintptr(p)&63)
}

// neonCase is the input of one test: models that stand side by side in memory of their own, weights and accumulators.
type neonCase struct {
	*neonKind
	models  []unsafe.Pointer
	headers [neonModels]struct {
		data          unsafe.Pointer
		length, space int
	}
	weights       unsafe.Pointer
	narrow        unsafe.Pointer // room for them in float32
	weightValues  [neonModels]float64
	accumulators  [neonElements]neonSum
	divisor       float64
	folded        [2][neonModels + 1][neonElements]neonSum // from −0 and from the accumulators, by number of models
	sums, divided [2][neonModels + 1][neonElements]uint64
}

// randomElement is a random element: mostly around one, often anything at all, often a special one.
func (k *neonKind) randomElement(r *rand.Rand) uint64 {
	mask := uint64(1)<<(8*k.size) - 1
	if k.size == 8 {
		mask = math.MaxUint64
	}
	switch r.IntN(4) {
	case 0:
		return r.Uint64() & mask
	case 1:
		special := []float64{0, 1, math.Inf(1), math.NaN(), k.decode(1), k.decode(3), k.decode(k.encode(math.Inf(1)) - 1), 1.5}
		return k.encode(math.Copysign(special[r.IntN(len(special))], r.Float64()-0.5))
	case 2:
		// A value with few bits, so that sums tie and cancel.
		return k.encode(float64(r.IntN(64)-32) / 16)
	}
	return k.encode(r.NormFloat64())
}

func (k *neonKind) randomAccumulator(r *rand.Rand) float64 {
	switch r.IntN(4) {
	case 0:
		if k.accumulatorSize == 4 {
			return neonFloat32(uint64(r.Uint32()))
		}
		return math.Float64frombits(r.Uint64())
	case 1:
		special := []float64{0, 1, math.Inf(1), math.NaN(), 0x1p-149, 0x1p-126, math.MaxFloat32, 65519.998, 65520}
		return k.accumulatorValue(k.accumulatorBits(math.Copysign(special[r.IntN(len(special))], r.Float64()-0.5)))
	case 2:
		// Just around the middle of two elements.
		value := k.decode(k.randomElement(r))
		bits := k.accumulatorBits(value)
		if neonFinite(value) && k.size < k.accumulatorSize {
			bits |= 1 << (52 - 24)
			if k.accumulatorSize == 4 {
				bits |= map[string]uint64{"Float16": 0x1000, "BFloat16": 0x8000}[k.name]
			}
			bits += uint64(r.IntN(3)) - 1
		}
		return k.accumulatorValue(bits)
	}
	return k.accumulatorValue(k.accumulatorBits(r.NormFloat64()))
}

func newNEONCase(k *neonKind, r *rand.Rand) *neonCase {
	c := &neonCase{neonKind: k, divisor: 3}
	for range neonModels {
		model := neonBuffer(neonElements * k.size)
		for i := range neonElements {
			neonPut(model, k.size, i, k.randomElement(r))
		}
		c.models = append(c.models, model)
	}
	c.weights, c.narrow = neonBuffer(neonModels*8), neonBuffer(neonModels*4)
	for j := range neonModels {
		value := r.Float64()
		switch r.IntN(6) {
		case 0:
			value = 1
		case 1:
			value = -0.5
		case 2:
			value = math.Ldexp(value, 100)
		}
		c.weightValues[j] = k.accumulatorValue(k.accumulatorBits(value))
		neonPut(c.weights, 8, j, math.Float64bits(value))
	}
	for i := range c.accumulators {
		c.accumulators[i].sum = k.randomAccumulator(r)
		if k.pair {
			c.accumulators[i].compensation = k.randomAccumulator(r)
			if r.IntN(2) == 0 {
				c.accumulators[i].compensation = c.accumulators[i].sum * 0x1p-54
			}
		}
	}
	for start := range 2 {
		for i := range neonElements {
			a := neonSum{math.Copysign(0, -1), 0}
			if start == 1 {
				a = c.accumulators[i]
			}
			for models := 0; ; models++ {
				c.folded[start][models][i] = a
				c.sums[start][models][i] = k.element(a)
				c.divided[start][models][i] = k.element(k.divide(a, c.divisor))
				if models == neonModels {
					break
				}
				a = k.step(a, c.weightValues[models], k.decode(neonGet(c.models[models], k.size, i)))
			}
		}
	}
	return c
}

// x points the slice headers at the models.
func (c *neonCase) x(models int) unsafe.Pointer {
	if models == 0 {
		return nil
	}
	for k := range models {
		c.headers[k].data, c.headers[k].length, c.headers[k].space = c.models[k], neonElements, neonElements
	}
	return unsafe.Pointer(&c.headers)
}

func (c *neonCase) w(models int) unsafe.Pointer {
	if models == 0 {
		return nil
	}
	return c.weights
}

// putAccumulators writes n accumulators from start on to acc.
func (c *neonCase) putAccumulators(acc unsafe.Pointer, start, n int) {
	for i := range n {
		neonPut(acc, c.accumulatorSize, i, c.accumulatorBits(c.accumulators[start+i].sum))
		if c.pair {
			neonPut(unsafe.Add(acc, widerStride), 8, i, math.Float64bits(c.accumulators[start+i].compensation))
		}
	}
}

func neonSame(got, want uint64, decode func(uint64) float64) bool {
	return got == want || math.IsNaN(decode(got)) && math.IsNaN(decode(want))
}

const neonCanary = 0xa5

func fillNEONCanary(p unsafe.Pointer, n int) {
	for i := range n {
		*(*byte)(unsafe.Add(p, i)) = neonCanary
	}
}

func checkNEONCanary(p unsafe.Pointer, n int) error {
	for i := range n {
		if got := *(*byte)(unsafe.Add(p, i)); got != neonCanary {
			return fmt.Errorf("byte %d of %d beside the result is %#x", i, n, got)
		}
	}
	return nil
}

func eachNEONCase(t *testing.T, test func(t *testing.T, c *neonCase)) {
	for i := range neonKinds {
		k := &neonKinds[i]
		t.Run(k.name, func(t *testing.T) {
			for seed := range uint64(2) {
				test(t, newNEONCase(k, rand.New(rand.NewPCG(seed, uint64(i)))))
			}
		})
	}
}

// TestNEONWeightedSum calls every weightedSum function with every length, number of models, start, flag and place of the
// result, and looks at every bit of the result and at what lies beside it.
func TestNEONWeightedSum(t *testing.T) {
	eachNEONCase(t, func(t *testing.T, c *neonCase) {
		buffer := neonBuffer(neonGuard + 64 + neonElements*c.size + neonGuard)
		acc := neonBuffer(2*widerStride + 64)
		for n := range 201 {
			for models := range neonModels + 1 {
				for variant := range 8 {
					start, flags := variant&1, 0
					offset := (n*7 + models + variant) % (neonElements - n)
					dst := unsafe.Add(buffer, neonGuard+(n+models)%4*c.size)
					if variant&2 != 0 {
						flags |= divide
					}
					if variant&4 != 0 {
						flags |= stream
						dst = unsafe.Add(buffer, neonGuard)
					}
					bytes := n * c.size
					fillNEONCanary(unsafe.Add(dst, -neonGuard), neonGuard+bytes+neonGuard)
					a := unsafe.Pointer(nil)
					if start == 1 {
						a = unsafe.Add(acc, models%3*c.accumulatorSize)
						c.putAccumulators(a, offset, n)
					}
					c.weightedSum(dst, c.x(models), c.w(models), c.narrow, a, n, models, offset, c.divisor, flags)
					want := &c.sums[start][models]
					if flags&divide != 0 {
						want = &c.divided[start][models]
					}
					for i := range n {
						if got := neonGet(dst, c.size, i); !neonSame(got, want[offset+i], c.decode) {
							t.Fatalf("n=%d models=%d start=%d flags=%d offset=%d: dst[%d] = %#x, want %#x",
								n, models, start, flags, offset, i, got, want[offset+i])
						}
					}
					err := checkNEONCanary(unsafe.Add(dst, -neonGuard), neonGuard)
					if err == nil {
						err = checkNEONCanary(unsafe.Add(dst, bytes), neonGuard)
					}
					if err != nil {
						t.Fatalf("n=%d models=%d start=%d flags=%d offset=%d: %v", n, models, start, flags, offset, err)
					}
				}
			}
		}
	})
}

// TestNEONAccumulate does the same for every accumulate function.
func TestNEONAccumulate(t *testing.T) {
	eachNEONCase(t, func(t *testing.T, c *neonCase) {
		buffer := neonBuffer(neonGuard + 64 + widerStride + neonElements*8 + neonGuard)
		halves := []unsafe.Pointer{nil}
		if c.pair {
			halves = append(halves, nil)
		}
		for n := range 201 {
			for models := range neonModels + 1 {
				offset := (n*7 + models) % (neonElements - n)
				acc := unsafe.Add(buffer, neonGuard+(n+models)%4*c.accumulatorSize)
				bytes := n * c.accumulatorSize
				for h := range halves {
					halves[h] = unsafe.Add(acc, h*widerStride)
					fillNEONCanary(unsafe.Add(halves[h], -neonGuard), neonGuard+bytes+neonGuard)
				}
				c.putAccumulators(acc, offset, n)
				c.accumulate(acc, c.x(models), c.w(models), c.narrow, n, models, offset)
				for i := range n {
					want := c.folded[1][models][offset+i]
					for h, value := range []float64{want.sum, want.compensation}[:len(halves)] {
						got := neonGet(halves[h], c.accumulatorSize, i)
						if !neonSame(got, c.accumulatorBits(value), c.accumulatorValue) {
							t.Fatalf("n=%d models=%d offset=%d: half %d of acc[%d] = %#x, want %#x",
								n, models, offset, h, i, got, c.accumulatorBits(value))
						}
					}
				}
				for _, half := range halves {
					err := checkNEONCanary(unsafe.Add(half, -neonGuard), neonGuard)
					if err == nil {
						err = checkNEONCanary(unsafe.Add(half, bytes), neonGuard)
					}
					if err != nil {
						t.Fatalf("n=%d models=%d offset=%d: %v", n, models, offset, err)
					}
				}
			}
		}
	})
}

// TestNEONAlias lets dst be each of the models in turn.
func TestNEONAlias(t *testing.T) {
	eachNEONCase(t, func(t *testing.T, c *neonCase) {
		const models = 3
		saved := make([]uint64, neonElements)
		for n := range 201 {
			offset := n % (neonElements - n)
			for alias := range models {
				model := c.models[alias]
				for i := range saved {
					saved[i] = neonGet(model, c.size, i)
				}
				c.weightedSum(unsafe.Add(model, offset*c.size), c.x(models), c.weights, c.narrow, nil, n, models, offset, 1, 0)
				for i := range saved {
					want := saved[i]
					if i >= offset && i < offset+n {
						want = c.sums[0][models][i]
					}
					if got := neonGet(model, c.size, i); !neonSame(got, want, c.decode) {
						t.Fatalf("n=%d offset=%d: dst is model %d: element %d is %#x, want %#x", n, offset, alias, i, got, want)
					}
					neonPut(model, c.size, i, saved[i])
				}
			}
		}
	})
}

// TestNEONRoundsInPlace lets dst be acc where both have one format: a running sum that ends in its own memory.
func TestNEONRoundsInPlace(t *testing.T) {
	eachNEONCase(t, func(t *testing.T, c *neonCase) {
		if c.size != c.accumulatorSize {
			return
		}
		acc := neonBuffer(2 * widerStride)
		for n := range 201 {
			c.putAccumulators(acc, 0, n)
			c.weightedSum(acc, nil, nil, nil, acc, n, 0, 0, c.divisor, divide)
			for i := range n {
				if got, want := neonGet(acc, c.size, i), c.divided[1][0][i]; !neonSame(got, want, c.decode) {
					t.Fatalf("n=%d: dst[%d] = %#x, want %#x", n, i, got, want)
				}
			}
		}
	})
}

// TestNEONEvery16BitPattern widens each of the 65,536 patterns and rounds it back.
func TestNEONEvery16BitPattern(t *testing.T) {
	for i := range neonKinds {
		k := &neonKinds[i]
		if k.size != 2 {
			continue
		}
		x, dst := make([]uint16, 1<<16), make([]uint16, 1<<16)
		for i := range x {
			x[i] = uint16(i)
			if got := k.encode(k.decode(uint64(i))); !neonSame(got, uint64(i), k.decode) {
				t.Fatalf("%s: the reference takes %#04x to %#04x", k.name, i, got)
			}
		}
		one := float64(1)
		k.weightedSum(unsafe.Pointer(&dst[0]), unsafe.Pointer(&x), unsafe.Pointer(&one), unsafe.Pointer(new(float32)), nil, len(x), 1, 0, 1, 0)
		for i, got := range dst {
			if !neonSame(uint64(got), uint64(i), k.decode) {
				t.Errorf("%s: 1·%#04x = %#04x", k.name, i, got)
			}
		}
	}
}

// TestNEONKeepsNaN rounds NaNs whose payload would be lost, or would carry into the sign, if they were cut off or
// rounded like numbers.
func TestNEONKeepsNaN(t *testing.T) {
	for i := range neonKinds {
		k := &neonKinds[i]
		patterns := []uint64{0x7ff0000000000001, 0x7fffffffffffffff, 0xfff0000000000001, 0xffffffffffffffff}
		if k.accumulatorSize == 4 {
			patterns = []uint64{0x7f800001, 0x7fffffff, 0xff800001, 0xffffffff}
		}
		acc, dst := neonBuffer(2*widerStride), neonBuffer(neonElements*8)
		for n := range 100 {
			for start := range patterns {
				for i := range n {
					neonPut(acc, k.accumulatorSize, i, patterns[(start+i)%len(patterns)])
				}
				k.weightedSum(dst, nil, nil, nil, acc, n, 0, 0, 1, 0)
				for i := range n {
					if got := neonGet(dst, k.size, i); !math.IsNaN(k.decode(got)) {
						t.Fatalf("%s: n=%d: accumulator %d is a NaN, %#x, and is rounded to %#x",
							k.name, n, i, patterns[(start+i)%len(patterns)], got)
					}
				}
			}
		}
	}
}
