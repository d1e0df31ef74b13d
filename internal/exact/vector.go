package exact

import (
	"math"
	"math/bits"
)

// BlockSize is the number of elements in a block, but for the last block of a Vector.
const BlockSize = 512

// A Vector holds an exact sum of products for each element of a model.
//
// The elements are in blocks of [BlockSize]. A block holds a range of digits, the same for all its elements, which
// grows with what is added: ordinary models need two to five digits of 8 bytes for an element, and any finite numbers
// can be added. In a block all elements' first digits come first, then their second digits, and so on.
//
// Infinities and NaNs have no digits. They are flags, which say what has been added and not when.
type Vector struct {
	block   []block
	n       int
	pending int64 // a digit is less than pending·2³²
	any     bool  // something has been added
}

type block struct {
	digit     []int64 // the element i has digit[r·n+i]·2^(32(low+r)+2·leastExponent), for n elements in the block
	flag      []uint8 // one for each element, or nil if all finite products were other than −0, and all were finite
	low, rows int
}

// The flags of an element: what kinds of products have been added.
const (
	seenNaN = 1 << iota
	seenPositiveInfinity
	seenNegativeInfinity
	seenOther // finite, and not −0
	allFlags  = 1<<iota - 1
)

// NewVector returns a Vector of n sums that are empty.
func NewVector(n int) *Vector {
	return &Vector{block: make([]block, (n+BlockSize-1)/BlockSize), n: n}
}

// Blocks returns the number of blocks.
func (v *Vector) Blocks() int { return len(v.block) }

// Elements returns the range of the elements of a block.
func (v *Vector) Elements(block int) (first, end int) {
	return block * BlockSize, min(v.n, (block+1)*BlockSize)
}

func (v *Vector) size(block int) int {
	first, end := v.Elements(block)
	return end - first
}

// Reset empties the sums and keeps their memory.
func (v *Vector) Reset() {
	for i := range v.block {
		b := &v.block[i]
		clear(b.digit)
		b.flag = b.flag[:0]
		if cap(b.flag) == 0 {
			b.flag = nil
		}
	}
	v.pending, v.any = 0, false
}

// A Weight is a finite number other than zero: mantissa·2^exponent with an odd mantissa.
type Weight struct {
	mantissa uint64
	exponent int
	negative bool
}

// NewWeight returns w, which must be finite and not zero.
func NewWeight(w float64) Weight {
	b := math.Float64bits(w)
	e := int(b >> 52 & 0x7ff)
	m := b & (1<<52 - 1)
	if e != 0 {
		m |= 1 << 52
		e--
	}
	zeros := bits.TrailingZeros64(m)
	return Weight{m >> zeros, e + leastExponent + zeros, w < 0}
}

// Begin prepares for one product to be added to every element, by [Vector.Add] for every block, in any order or at
// once. [Vector.End] has to follow.
func (v *Vector) Begin() {
	if v.pending >= mostPending {
		v.normalize()
	}
}

// End tells that a product has been added to every element.
func (v *Vector) End() {
	v.pending++
	v.any = true
}

// Add adds w·x[i] to every element of a block. x must have as many elements as the block, and must be numbers of the
// format.
func (v *Vector) Add(block int, x []float64, f Format, w Weight) {
	b := &v.block[block]
	// Elements of narrow formats end in zeros.
	drop := Binary64.Precision - f.Precision
	least, most, special := exponents(x)
	if special || len(b.flag) > 0 {
		b.note(x, w, v.any)
	}
	if most == 0 {
		return
	}
	// A product is (m >> drop)·w.mantissa·2^(e + base + 2·leastExponent), for an element with mantissa m and exponent
	// e.
	base := drop + w.exponent - leastExponent - 1
	width := f.Precision + bits.Len64(w.mantissa)
	touched := 5 // 53 + 53 bits, moved up by 31
	switch {
	case width <= 64-31:
		touched = 2
	case width <= 64:
		touched = 3
	}
	end := (most+base)/digitBits + touched
	if touched == 3 { // the third digit is not always met
		end = max(end-1, (most+base+width-1)/digitBits+1)
	}
	b.cover((least+base)/digitBits, end, len(x))
	base -= digitBits * b.low
	switch touched {
	case 2:
		addTwo(b.digit, x, drop, base, w)
	case 3:
		addThree(b.digit, x, drop, base, w)
	default:
		addFive(b.digit, x, drop, base, w)
	}
}

// exponents returns the least and the greatest biased exponent of the finite numbers that are not zero, or 0 if there
// is none, and whether there are others.
func exponents(x []float64) (least, most int, special bool) {
	low, high := uint64(infinity), uint64(0)
	for _, f := range x {
		b := math.Float64bits(f) &^ signBit
		if b-1 >= infinity-1 {
			special = true
			continue
		}
		low, high = min(low, b), max(high, b)
	}
	if high == 0 {
		return 0, 0, special
	}
	return max(int(low>>52), 1), max(int(high>>52), 1), special
}

// split returns the mantissa, the biased exponent and the sign (0 or −1) of x. The mantissa is 0 if x is not finite.
func split(x float64) (m uint64, e int, sign int64) {
	b := math.Float64bits(x)
	e = int(b >> 52 & 0x7ff)
	m = b & (1<<52 - 1)
	switch e {
	default:
		m |= 1 << 52
	case 0:
		e = 1
	case 0x7ff:
		m = 0
	}
	return m, e, int64(b) >> 63
}

func (w Weight) sign() int64 {
	if w.negative {
		return -1
	}
	return 0
}

// above returns what p << shift loses, for a shift from 0 to 63. So written it takes no comparison.
func above(p uint64, shift uint) uint64 { return p >> 1 >> ((63 - shift) & 63) }

// addTwo is Add for products of at most 33 bits, which meet two digits.
func addTwo(digit []int64, x []float64, drop, base int, w Weight) {
	weightSign, stride := w.sign(), len(x)
	for i, f := range x {
		m, e, sign := split(f)
		if m == 0 {
			continue
		}
		sign ^= weightSign
		at := uint(e + base)
		p := (m >> (drop & 63) * w.mantissa) << (at % digitBits)
		d := digit[int(at/digitBits)*stride+i:]
		d[0] += (int64(uint32(p)) ^ sign) - sign
		d[stride] += (int64(p>>digitBits) ^ sign) - sign
	}
}

// addThree is Add for products of at most 64 bits, which meet three digits.
func addThree(digit []int64, x []float64, drop, base int, w Weight) {
	weightSign, stride := w.sign(), len(x)
	for i, f := range x {
		m, e, sign := split(f)
		if m == 0 {
			continue
		}
		sign ^= weightSign
		at := uint(e + base)
		shift := at % digitBits
		p := m >> (drop & 63) * w.mantissa
		low, high := p<<shift, above(p, shift)
		d := digit[int(at/digitBits)*stride+i:]
		d[0] += (int64(uint32(low)) ^ sign) - sign
		d[stride] += (int64(low>>digitBits) ^ sign) - sign
		third := 2 * stride
		if high == 0 { // and may not be there
			third = 0
		}
		d[third] += (int64(high) ^ sign) - sign
	}
}

// addFive is Add for products of at most 106 bits, which meet five digits.
func addFive(digit []int64, x []float64, drop, base int, w Weight) {
	weightSign, stride := w.sign(), len(x)
	for i, f := range x {
		m, e, sign := split(f)
		if m == 0 {
			continue
		}
		sign ^= weightSign
		at := uint(e + base)
		shift := at % digitBits
		high, low := bits.Mul64(m>>(drop&63), w.mantissa)
		top := above(high, shift)
		high = high<<shift | above(low, shift)
		low <<= shift
		d := digit[int(at/digitBits)*stride+i:]
		d[0] += (int64(uint32(low)) ^ sign) - sign
		d[stride] += (int64(low>>digitBits) ^ sign) - sign
		d[2*stride] += (int64(uint32(high)) ^ sign) - sign
		d[3*stride] += (int64(high>>digitBits) ^ sign) - sign
		d[4*stride] += (int64(top) ^ sign) - sign
	}
}

// cover makes the block hold the digits from first to end−1, for n elements.
func (b *block) cover(first, end, n int) {
	if b.rows == 0 {
		b.low, b.rows = first, end-first
		b.digit = make([]int64, b.rows*n)
		return
	}
	first, end = min(first, b.low), max(end, b.low+b.rows)
	if end-first == b.rows {
		return
	}
	digit := make([]int64, (end-first)*n)
	copy(digit[(b.low-first)*n:], b.digit)
	b.digit, b.low, b.rows = digit, first, end-first
}

// note records the kinds of the products w·x[i]. any tells whether products had been added before.
func (b *block) note(x []float64, w Weight, any bool) {
	b.needFlags(len(x), any)
	for i, f := range x {
		negative := math.Signbit(f) != w.negative
		switch {
		case f != f:
			b.flag[i] |= seenNaN
		case f-f != 0 && negative:
			b.flag[i] |= seenNegativeInfinity
		case f-f != 0:
			b.flag[i] |= seenPositiveInfinity
		case f != 0 || !negative:
			b.flag[i] |= seenOther
		}
	}
}

// needFlags gives the block flags, if it has none, that say what having none says.
func (b *block) needFlags(n int, any bool) {
	if len(b.flag) > 0 {
		return
	}
	if cap(b.flag) < n {
		b.flag = make([]uint8, n)
	}
	b.flag = b.flag[:n]
	var f uint8
	if any {
		f = seenOther
	}
	for i := range b.flag {
		b.flag[i] = f
	}
}

// Merge adds the sums of another Vector of the same length, which is left as it is.
func (v *Vector) Merge(other *Vector) {
	if !other.any {
		return
	}
	if v.pending+other.pending > 2*mostPending {
		v.normalize()
	}
	for i := range v.block {
		b, o := &v.block[i], &other.block[i]
		n := v.size(i)
		if len(b.flag) > 0 || len(o.flag) > 0 {
			b.needFlags(n, v.any)
			for k := range b.flag {
				if len(o.flag) > 0 {
					b.flag[k] |= o.flag[k]
				} else {
					b.flag[k] |= seenOther
				}
			}
		}
		if o.rows == 0 {
			continue
		}
		b.cover(o.low, o.low+o.rows, n)
		digit := b.digit[(o.low-b.low)*n:][:len(o.digit)]
		for k, d := range o.digit {
			digit[k] += d
		}
	}
	v.pending += other.pending
	v.any = true
	if v.pending > 2*mostPending {
		v.normalize()
	}
}

// normalize passes on the carries, as in a [Sum].
func (v *Vector) normalize() {
	for i := range v.block {
		v.block[i].normalize(v.size(i))
	}
	v.pending = min(v.pending, 1)
}

func (b *block) normalize(n int) {
	var carry [BlockSize]int64
	left := int64(0)
	for r := 0; r < b.rows || left != 0; r++ {
		if r == b.rows {
			b.cover(b.low, b.low+b.rows+1, n)
		}
		left = 0
		for i, d := range b.digit[r*n:][:n] {
			b.digit[r*n+i], carry[i] = balance(d + carry[i])
			left |= carry[i]
		}
	}
}

// Divide sets every dst[i] to the quotient of an element of a block and the divisor, correctly rounded to the format:
// to the nearest of its numbers, and of two that are equally near to the even one. What is too large becomes an
// infinity.
//
// Where a NaN was added, or infinities of both signs, the result is NaN, and where infinities of one sign were, that
// infinity, divided. A quotient that is zero because the sum is has the sign of a sum of +0, or of −0 if products of −0
// are all that was added, divided.
func (v *Vector) Divide(block int, dst []float64, f Format, d *Divisor) {
	b := &v.block[block]
	n := len(dst)
	var m magnitude
	exponent := digitBits*b.low + 2*leastExponent
	for i := range dst {
		flag := uint8(seenOther)
		if len(b.flag) > 0 {
			flag = b.flag[i]
		}
		negative := false
		var q float64
		switch flag &^ seenOther {
		case 0:
			m.set(b.digit[min(i, len(b.digit)):], n, b.rows, exponent)
			if m.length == 0 {
				negative = flag == 0
				break
			}
			negative = m.negative
			q = f.round(m.divide(d))
		case seenPositiveInfinity:
			q = math.Inf(1)
		case seenNegativeInfinity:
			q, negative = math.Inf(1), true
		default:
			dst[i] = math.NaN()
			continue
		}
		if negative != d.negative {
			q = -q // of zero too: Go negates by the sign
		}
		dst[i] = q
	}
}

// Empty reports whether nothing has been added.
func (v *Vector) Empty() bool { return !v.any }
