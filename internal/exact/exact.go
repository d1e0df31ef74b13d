// Package exact sums products of floating-point numbers without rounding, and rounds a quotient of two such sums once.
//
// Every finite float64 is an integer times 2^−1074, and every product of two is an integer times 2^−2148. A sum of them
// is therefore an integer too, of at most some 4,300 bits, and it is kept as one: in digits of radix 2³², each in an
// int64 of its own, so that 2³⁰ products can be added before a digit has to pass on a carry (carry-save; Kulisch,
// "Computer Arithmetic and Validity", 2008, describes accumulators of this kind). Addition of integers is associative
// and commutative, so that neither the order of the products nor how sums were merged can be seen in the result.
//
// A [Sum] is one such integer, of numbers alone. A [Vector] is one for each element of a model, and holds only those
// digits that some element of a block of elements has needed.
package exact

import (
	"math"
	"math/bits"
)

const (
	digitBits = 32

	// mostPending is how many products may be added to digits before they pass on their carries: a digit grows by less
	// than 2³² with each, and two sums that are both full can be merged.
	mostPending = 1 << 29

	// leastExponent is that of the lowest bit of a float64, and of the first digit of a Sum. The first digit of a
	// Vector has twice that.
	leastExponent = -1074

	// parsedSumDigits hold the 2,098 bits of a float64 and the growth of 2⁶³ additions, parsedDigits the 4,196 bits of
	// a product and as much growth. That is what may be read; the others have room for as many additions again.
	parsedSumDigits = 68
	sumDigits       = parsedSumDigits + 4
	parsedDigits    = 135
	mostDigits      = parsedDigits + 4

	signBit  = 1 << 63
	infinity = 0x7ff << 52
)

// A Format is a binary floating-point format: bits of significand, the implied one included, and the range of the
// exponent of normal numbers 1.f·2^e. All of its numbers are numbers of float64.
type Format struct{ Precision, Least, Most int }

// The formats of the elements, and of sums of weights.
var (
	Binary64 = Format{53, -1022, 1023}
	Binary32 = Format{24, -126, 127}
	Binary16 = Format{11, -14, 15}
	BFloat16 = Format{8, -126, 127}
)

// round returns the number of the format nearest to (q + f)·2^exponent, where f is 0, or unknown and between 0 and 1 if
// more is set. Of two that are equally near it is the even one, and an infinity stands for what is too large. With
// more, q must have at least two bits more than the format's precision.
func (f Format) round(q uint64, more bool, exponent int) float64 {
	if q == 0 {
		return 0
	}
	leading := exponent + bits.Len64(q) - 1
	unit := max(leading, f.Least) - f.Precision + 1
	drop := unit - exponent
	if drop > 0 {
		if drop > 64 { // less than half of the least number
			return 0
		}
		half := q >> (drop - 1) & 1
		more = more || q&(1<<(drop-1)-1) != 0
		q >>= drop
		if half != 0 && (more || q&1 != 0) {
			q++
		}
		exponent = unit
	}
	if bits.Len64(q)-1+exponent > f.Most {
		return math.Inf(1)
	}
	return math.Ldexp(float64(q), exponent)
}

// A magnitude is the absolute value of a sum: Σ word[k]·2^(64k+exponent). The last of its length words is not zero.
type magnitude struct {
	word     [(mostDigits + 3) / 2]uint64
	length   int
	exponent int
	negative bool
}

// set makes m the sum of digit[r·stride]·2^(32r+exponent) for r from 0 to rows−1.
func (m *magnitude) set(digit []int64, stride, rows, exponent int) {
	var carry int64
	k := 0
	for r := 0; r < rows; r += 2 {
		carry += digit[r*stride]
		w := uint64(uint32(carry))
		carry >>= digitBits
		if r+1 < rows {
			carry += digit[(r+1)*stride]
		}
		m.word[k] = w | uint64(carry)<<digitBits
		carry >>= digitBits
		k++
	}
	m.word[k] = uint64(carry)
	k++
	m.negative = carry < 0
	if m.negative { // two's complement
		borrow := uint64(1)
		for i := range m.word[:k] {
			m.word[i], borrow = bits.Add64(^m.word[i], 0, borrow)
		}
	}
	for k > 0 && m.word[k-1] == 0 {
		k--
	}
	m.length, m.exponent = k, exponent
}

// bitLength returns the bits of the integer Σ word[k]·2^(64k).
func (m *magnitude) bitLength() int {
	if m.length == 0 {
		return 0
	}
	return 64*m.length - bits.LeadingZeros64(m.word[m.length-1])
}

// at returns 64 bits of the integer from bit i on. There are zeros below its first bit and above its last.
func (m *magnitude) at(i int) uint64 {
	k, shift := i>>6, i&63
	var v uint64
	if uint(k) < uint(m.length) {
		v = m.word[k] >> shift
	}
	if shift != 0 && uint(k+1) < uint(m.length) {
		v |= m.word[k+1] << (64 - shift)
	}
	return v
}

// anyBelow reports whether a bit below bit i is set.
func (m *magnitude) anyBelow(i int) bool {
	if i <= 0 {
		return false
	}
	k := min(i>>6, m.length)
	for _, w := range m.word[:k] {
		if w != 0 {
			return true
		}
	}
	return k < m.length && m.word[k]&(1<<(i&63)-1) != 0
}

// round returns the number of the format nearest to the sum.
func (m *magnitude) round(f Format) float64 {
	low := m.bitLength() - 64
	v := f.round(m.at(low), m.anyBelow(low), m.exponent+low)
	if m.negative {
		return -v
	}
	return v
}

// A Divisor is a sum that is not zero, made ready to divide by.
type Divisor struct {
	word     [sumDigits/2 + 2]uint64 // the highest bit of the last one in use is set
	length   int
	exponent int
	negative bool
}

// divide returns |m/d| as q and an exponent: the quotient is (q + f)·2^exponent, where f is 0, or between 0 and 1 if
// more is set. q has 63 or 64 bits. m must not be zero.
//
// It is one step of the long division of Knuth (TAOCP 2, 4.3.1, algorithm D) with digits of 64 bits.
func (m *magnitude) divide(d *Divisor) (q uint64, more bool, exponent int) {
	// The dividend has one word more than the divisor, and its highest bit is the one below the word's highest, so that
	// the quotient fits into a word.
	low := m.bitLength() - (64*d.length + 63)
	more = m.anyBelow(low)
	exponent = m.exponent + low - d.exponent
	n := d.length
	if n == 1 {
		q, r := bits.Div64(m.at(low+64), m.at(low), d.word[0])
		return q, more || r != 0, exponent
	}
	var u [len(d.word) + 1]uint64
	for k := range n + 1 {
		u[k] = m.at(low + 64*k)
	}
	top := d.word[n-1]
	q, r := bits.Div64(u[n], u[n-1], top)
	for {
		high, lower := bits.Mul64(q, d.word[n-2])
		if high < r || high == r && lower <= u[n-2] {
			break
		}
		q--
		var carry uint64
		if r, carry = bits.Add64(r, top, 0); carry != 0 {
			break
		}
	}
	var high, borrow uint64
	for k := range n {
		h, l := bits.Mul64(q, d.word[k])
		var carry uint64
		l, carry = bits.Add64(l, high, 0)
		high = h + carry
		u[k], borrow = bits.Sub64(u[k], l, borrow)
	}
	if u[n], borrow = bits.Sub64(u[n], high, borrow); borrow != 0 { // one too many
		q--
		var carry uint64
		for k := range n {
			u[k], carry = bits.Add64(u[k], d.word[k], carry)
		}
	}
	for _, w := range u[:n] {
		more = more || w != 0
	}
	return q, more, exponent
}
