package kernel

import (
	"fmt"
	"math/big"
	"math/bits"

	"github.com/modelavg/modelavg/internal/implementation"
)

// Exact arithmetic on integers, rounded once at the end: what the tests hold the reference loop against. It shares
// nothing with the code under test, not even its conversions.

// A format is an IEEE 754 interchange format, or bfloat16, which has the same shape.
type format struct {
	size     int  // bytes
	exponent uint // bits
	fraction uint // bits, without the hidden one
}

var (
	binary16 = format{2, 5, 10}
	bfloat16 = format{2, 8, 7}
	binary32 = format{4, 8, 23}
	binary64 = format{8, 11, 52}
)

// elementFormat returns the format of an element of dst and of the models.
func elementFormat(kind implementation.Kind) format {
	switch kind {
	case implementation.Float16:
		return binary16
	case implementation.BFloat16:
		return bfloat16
	case implementation.Float32, implementation.Float32Native:
		return binary32
	}
	return binary64
}

// accumulatorFormat returns the format in which a kind sums, or that of each half of a pair.
func accumulatorFormat(kind implementation.Kind) format {
	switch kind {
	case implementation.Float16, implementation.BFloat16, implementation.Float32Native:
		return binary32
	}
	return binary64
}

func (f format) sign() uint64     { return 1 << (f.exponent + f.fraction) }
func (f format) infinity() uint64 { return (1<<f.exponent - 1) << f.fraction }
func (f format) quiet() uint64    { return f.infinity() | 1<<(f.fraction-1) }
func (f format) one() uint64      { return (1<<(f.exponent-1) - 1) << f.fraction }

// unit returns the exponent of the least subnormal: all numbers are multiples of 2^unit.
func (f format) unit() int { return 2 - 1<<(f.exponent-1) - int(f.fraction) }

func (f format) isNaN(b uint64) bool { return b&^f.sign() > f.infinity() }

// equal reports whether two elements are the same number: the same bits, or both NaN.
func (f format) equal(a, b uint64) bool { return a == b || f.isNaN(a) && f.isNaN(b) }

// A real is a number of unlimited precision: ±m·2^e, or an infinity, or no number. Zero has a sign.
type real struct {
	nan, infinite, negative bool
	m                       *big.Int // ≥ 0
	e                       int
}

// decode returns the number that a pattern of bits stands for.
func (f format) decode(b uint64) real {
	fraction := b & (1<<f.fraction - 1)
	exponent := int(b &^ f.sign() >> f.fraction)
	x := real{negative: b&f.sign() != 0, m: new(big.Int)}
	switch {
	case exponent == 1<<f.exponent-1:
		x.nan, x.infinite = fraction != 0, fraction == 0
	case exponent == 0:
		x.m.SetUint64(fraction)
		x.e = f.unit()
	default:
		x.m.SetUint64(fraction | 1<<f.fraction)
		x.e = f.unit() + exponent - 1
	}
	return x
}

// encode rounds to the nearest number of the format, to the even one of two, and to infinity from half a unit in the
// last place above the largest.
func (f format) encode(x real) uint64 {
	var sign uint64
	if x.negative {
		sign = f.sign()
	}
	switch {
	case x.nan:
		return f.quiet()
	case x.infinite:
		return sign | f.infinity()
	case x.m.Sign() == 0:
		return sign
	}
	// The last place kept: of precision bits, but not below the least subnormal.
	place := max(x.e+x.m.BitLen()-int(f.fraction)-1, f.unit())
	m := new(big.Int)
	if place <= x.e {
		m.Lsh(x.m, uint(x.e-place))
	} else {
		shift := uint(place - x.e)
		rest := new(big.Int)
		m.DivMod(x.m, new(big.Int).Lsh(big.NewInt(1), shift), rest)
		half := new(big.Int).Lsh(big.NewInt(1), shift-1)
		if c := rest.Cmp(half); c > 0 || c == 0 && m.Bit(0) == 1 {
			m.Add(m, big.NewInt(1))
		}
	}
	// m has up to precision+1 bits now. A subnormal has exponent field 0 and no hidden bit, and so the field is that of
	// the last place, less one, plus the hidden bit where there is one: the sum also carries a rounded-up power of two.
	b := uint64(place-f.unit())<<f.fraction + m.Uint64()
	if b >= f.infinity() {
		return sign | f.infinity()
	}
	return sign | b
}

func (x real) isZero() bool { return !x.nan && !x.infinite && x.m.Sign() == 0 }

func (x real) signed() *big.Int {
	if x.negative {
		return new(big.Int).Neg(x.m)
	}
	return x.m
}

func fromSigned(m *big.Int, e int, negativeZero bool) real {
	negative := m.Sign() < 0 || m.Sign() == 0 && negativeZero
	return real{negative: negative, m: new(big.Int).Abs(m), e: e}
}

// times returns x·y.
func (x real) times(y real) real {
	negative := x.negative != y.negative
	switch {
	case x.nan || y.nan || x.infinite && y.isZero() || y.infinite && x.isZero():
		return real{nan: true}
	case x.infinite || y.infinite:
		return real{infinite: true, negative: negative}
	}
	return real{negative: negative, m: new(big.Int).Mul(x.m, y.m), e: x.e + y.e}
}

// plus returns x + y. The sum of opposite numbers is +0, that of two zeros of a sign has the sign.
func (x real) plus(y real) real {
	switch {
	case x.nan || y.nan || x.infinite && y.infinite && x.negative != y.negative:
		return real{nan: true}
	case x.infinite:
		return x
	case y.infinite:
		return y
	}
	e := min(x.e, y.e)
	a := new(big.Int).Lsh(x.signed(), uint(x.e-e))
	b := new(big.Int).Lsh(y.signed(), uint(y.e-e))
	return fromSigned(a.Add(a, b), e, x.negative && y.negative)
}

func (x real) magnitude() real { return real{nan: x.nan, infinite: x.infinite, m: x.m, e: x.e} }

func (x real) negated() real {
	x.negative = !x.negative
	return x
}

// over returns x/y, cut off so far behind the last place of any format that it rounds as the exact quotient does.
func (x real) over(y real) real {
	negative := x.negative != y.negative
	switch {
	case x.nan || y.nan || x.infinite && y.infinite || x.isZero() && y.isZero():
		return real{nan: true}
	case x.infinite || y.isZero():
		return real{infinite: true, negative: negative}
	case x.isZero() || y.infinite:
		return real{negative: negative, m: new(big.Int)}
	}
	const extra = 200
	shift := uint(max(0, y.m.BitLen()-x.m.BitLen()) + extra)
	quotient, rest := new(big.Int).QuoRem(new(big.Int).Lsh(x.m, shift), y.m, new(big.Int))
	quotient.Lsh(quotient, 1)
	if rest.Sign() != 0 {
		quotient.SetBit(quotient, 0, 1) // something follows
	}
	return real{negative: negative, m: quotient, e: x.e - y.e - int(shift) - 1}
}

// convert returns the bits in format g of a number given in format f, rounded once.
func convert(f, g format, b uint64) uint64 { return g.encode(f.decode(b)) }

// fmaExact returns the bits of x·y + z, all in one format, rounded once.
func fmaExact(f format, x, y, z uint64) uint64 {
	return f.encode(f.decode(x).times(f.decode(y)).plus(f.decode(z)))
}

// sumExact returns the accumulator of a weighted sum after the models x, from start on: each step is rounded in the
// accumulator's format, as the contract says, to which the weights, given in float64, are rounded first.
func sumExact(kind implementation.Kind, start uint64, w, x []uint64) uint64 {
	e, a := elementFormat(kind), accumulatorFormat(kind)
	for k := range x {
		weight := a.decode(convert(binary64, a, w[k]))
		start = a.encode(weight.times(e.decode(x[k])).plus(a.decode(start)))
	}
	return start
}

// firstExact is sumExact from the beginning: the first product is rounded, and added to nothing.
func firstExact(kind implementation.Kind, w, x []uint64) uint64 {
	e, a := elementFormat(kind), accumulatorFormat(kind)
	product := a.encode(a.decode(convert(binary64, a, w[0])).times(e.decode(x[0])))
	return sumExact(kind, product, w[1:], x[1:])
}

// finishExact returns the element for an accumulator: divided, rounded, and then rounded to the element's format.
func finishExact(kind implementation.Kind, acc, divisor uint64) uint64 {
	a := accumulatorFormat(kind)
	if divisor != binary64.one() {
		acc = a.encode(a.decode(acc).over(a.decode(convert(binary64, a, divisor))))
	}
	return convert(a, elementFormat(kind), acc)
}

// exactSum returns Σ w[k]·x[k] and Σ |w[k]·x[k]| for numbers in binary64, without rounding.
func exactSum(f format, w, x []uint64) (sum, magnitudes real) {
	sum, magnitudes = real{negative: true, m: new(big.Int)}, real{m: new(big.Int)}
	for k := range x {
		product := binary64.decode(w[k]).times(f.decode(x[k]))
		sum = sum.plus(product)
		magnitudes = magnitudes.plus(product.magnitude())
	}
	return sum, magnitudes
}

func (f format) String() string {
	return fmt.Sprintf("binary%d/%d", f.size*8, bits.Len64(f.infinity()>>f.fraction))
}
