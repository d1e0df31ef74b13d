package exact

import "math"

// A Sum is the exact sum of finite numbers. The zero Sum is 0. Its bits do not depend on the order of the additions,
// once it has been encoded.
type Sum struct {
	digit   [sumDigits]int64 // digit[j]·2^(32j+leastExponent)
	pending int64            // a digit is less than pending·2³²
}

// Add adds x, which must be finite.
func (s *Sum) Add(x float64) {
	b := math.Float64bits(x)
	e := int(b >> 52 & 0x7ff)
	m := b & (1<<52 - 1)
	if e != 0 {
		m |= 1 << 52
		e--
	}
	sign := int64(b) >> 63
	j, shift := e/digitBits, e%digitBits
	low, high := m<<shift, m>>(64-shift)
	s.normalizeFor(1)
	s.digit[j] += (int64(uint32(low)) ^ sign) - sign
	s.digit[j+1] += (int64(low>>digitBits) ^ sign) - sign
	s.digit[j+2] += (int64(high) ^ sign) - sign
}

// Merge adds another sum.
func (s *Sum) Merge(other *Sum) {
	s.normalizeFor(other.pending)
	for j, d := range other.digit {
		s.digit[j] += d
	}
	if s.pending > 2*mostPending {
		s.normalize()
	}
}

// normalizeFor makes room for pending products.
func (s *Sum) normalizeFor(pending int64) {
	if s.pending+pending > 2*mostPending || s.pending > mostPending {
		s.normalize()
	}
	s.pending += pending
}

// normalize passes on the carries. Every digit is then from −2³¹ to 2³¹−1, which determines it, and small sums have few
// that are not zero, also negative ones.
func (s *Sum) normalize() {
	var carry int64
	for j := range s.digit {
		s.digit[j], carry = balance(s.digit[j] + carry)
	}
	s.pending = 1 // and no carry is left: there are more digits than additions can fill
}

// balance returns d as digit + carry·2³² with the digit from −2³¹ to 2³¹−1.
func balance(d int64) (digit, carry int64) {
	digit = int64(int32(d))
	return digit, (d - digit) >> digitBits
}

func (s *Sum) magnitude(m *magnitude) { m.set(s.digit[:], 1, sumDigits, leastExponent) }

// Sign returns −1, 0 or 1.
func (s *Sum) Sign() int {
	var m magnitude
	s.magnitude(&m)
	switch {
	case m.length == 0:
		return 0
	case m.negative:
		return -1
	}
	return 1
}

// Round returns the number of the format that is nearest to the sum: of two the even one, and an infinity for what is
// too large. It returns +0 for a sum of zero.
func (s *Sum) Round(f Format) float64 {
	var m magnitude
	s.magnitude(&m)
	return m.round(f)
}

// Divisor sets d to the sum and reports whether it is another than zero.
func (s *Sum) Divisor(d *Divisor) bool {
	var m magnitude
	s.magnitude(&m)
	if m.length == 0 {
		return false
	}
	first := 0
	for m.word[first] == 0 {
		first++
	}
	low := 64 * first
	d.length = (m.bitLength() - low + 63) / 64
	low = m.bitLength() - 64*d.length // the highest bit comes to stand highest; below the first bit are zeros
	for k := range d.length {
		d.word[k] = m.at(low + 64*k)
	}
	d.exponent, d.negative = m.exponent+low, m.negative
	return true
}
