package exact

import (
	"bytes"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"testing"
)

// randomFloat returns a finite number: of any exponent, or of few.
func randomFloat(rng *rand.Rand, wide bool) float64 {
	for {
		b := rng.Uint64()
		switch {
		case !wide:
			b = b&^(0x7ff<<52) | uint64(1013+rng.IntN(20))<<52
		case rng.IntN(8) == 0:
			b &^= 0x7ff << 52 // subnormal
		}
		if rng.IntN(4) == 0 {
			b &^= 1<<uint(rng.IntN(53)) - 1
		}
		if f := math.Float64frombits(b); f-f == 0 {
			return f
		}
	}
}

func rational(x float64) *big.Rat { return new(big.Rat).SetFloat64(x) }

// in returns x as the nearest number of a format towards zero.
func in(x float64, f Format) float64 {
	switch f {
	case Binary64:
		return x
	case Binary32:
		x = float64(float32(x))
	default:
		e := f.Least + rand.IntN(f.Most-f.Least)
		x = math.Ldexp(math.Trunc(math.Ldexp(math.Copysign(1, x), f.Precision-1)), e-f.Precision+1)
	}
	if x-x != 0 {
		return 1
	}
	return x
}

// nearest is the reference for rounding.
func nearest(x *big.Rat, f Format) float64 {
	switch f {
	case Binary64:
		v, _ := x.Float64()
		return v
	case Binary32:
		v, _ := x.Float32()
		return float64(v)
	}
	if x.Sign() == 0 {
		return 0
	}
	power := func(e int) *big.Rat { return rational(math.Ldexp(1, e)) }
	magnitude := new(big.Rat).Abs(x)
	e := f.Least
	for e <= f.Most && magnitude.Cmp(power(e+1)) >= 0 {
		e++
	}
	unit := power(e - f.Precision + 1)
	q := new(big.Rat).Quo(magnitude, unit)
	n, r := new(big.Int).QuoRem(q.Num(), q.Denom(), new(big.Int))
	r.Lsh(r, 1)
	if c := r.Cmp(q.Denom()); c > 0 || c == 0 && n.Bit(0) == 1 {
		n.Add(n, big.NewInt(1))
	}
	v, _ := new(big.Rat).Mul(new(big.Rat).SetInt(n), unit).Float64()
	if v >= math.Ldexp(1, f.Most) && v/2 >= math.Ldexp(1, f.Most) {
		v = math.Inf(1)
	}
	if x.Sign() < 0 {
		v = -v
	}
	return v
}

// rounds returns how often to try, of a number of times for a long test.
func rounds(n int) int {
	if testing.Short() {
		return n / 5
	}
	return n
}

var formats = []Format{Binary64, Binary32, Binary16, BFloat16}

func TestSum(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for round := range rounds(2000) {
		var s, shuffled, left, right Sum
		want := new(big.Rat)
		x := make([]float64, 1+rng.IntN(12))
		for k := range x {
			x[k] = randomFloat(rng, round%2 == 0)
			if k > 0 && rng.IntN(3) == 0 {
				x[k] = -x[rng.IntN(k)]
			}
			s.Add(x[k])
			want.Add(want, rational(x[k]))
		}
		if s.Sign() != want.Sign() {
			t.Fatalf("%v: sign %d, want %d", x, s.Sign(), want.Sign())
		}
		for _, f := range formats {
			if got, want := s.Round(f), nearest(want, f); got != want {
				t.Fatalf("%v to %v: got %v, want %v", x, f, got, want)
			}
		}
		for _, k := range rng.Perm(len(x)) {
			shuffled.Add(x[k])
			if k%2 == 0 {
				left.Add(x[k])
			} else {
				right.Add(x[k])
			}
		}
		left.Merge(&right)
		encoded := s.Append(nil)
		if !bytes.Equal(shuffled.Append(nil), encoded) || !bytes.Equal(left.Append(nil), encoded) {
			t.Fatalf("%v: the order shows in the encoding", x)
		}
		var parsed Sum
		rest, err := parsed.Parse(append(encoded, 7))
		if err != nil || len(rest) != 1 || parsed.Round(Binary64) != s.Round(Binary64) {
			t.Fatalf("%v: decoded to %v, %v, rest %v", x, parsed.Round(Binary64), err, rest)
		}
	}
}

// Division is exact for words that lead the estimate of a quotient astray.
func TestDivide(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	word := func() uint64 {
		switch rng.IntN(8) {
		case 0:
			return 0
		case 1:
			return math.MaxUint64
		case 2:
			return 1 << 63
		case 3:
			return 1<<63 - 1
		case 4:
			return uint64(rng.IntN(3))
		}
		return rng.Uint64()
	}
	integer := func(w []uint64) *big.Int {
		n := new(big.Int)
		for _, v := range slices.Backward(w) {
			n.Add(n.Lsh(n, 64), new(big.Int).SetUint64(v))
		}
		return n
	}
	for range rounds(200000) {
		var m magnitude
		var d Divisor
		d.length = 1 + rng.IntN(4)
		for k := range d.length {
			d.word[k] = word()
		}
		d.word[d.length-1] |= 1 << 63
		m.length = 1 + rng.IntN(6)
		for k := range m.length {
			m.word[k] = word()
			if rng.IntN(2) == 0 && k >= m.length-d.length {
				m.word[k] = d.word[k-m.length+d.length]
			}
		}
		if m.word[m.length-1] == 0 {
			m.word[m.length-1] = 1 + word()>>1
		}
		q, more, exponent := m.divide(&d)
		x, y := integer(m.word[:m.length]), integer(d.word[:d.length])
		if exponent < 0 {
			x.Lsh(x, uint(-exponent))
		} else {
			y.Lsh(y, uint(exponent))
		}
		want, r := new(big.Int).QuoRem(x, y, new(big.Int))
		if !want.IsUint64() || want.Uint64() != q || more != (r.Sign() != 0) || q < 1<<62 {
			t.Fatalf("%#x / %#x: got %#x, %v, want %#x", m.word[:m.length], d.word[:d.length], q, more, want)
		}
	}
}

// One vector of every format: the quotient is that of math/big, whatever the exponents.
func TestVector(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for _, f := range formats {
		for _, wide := range []bool{false, true} {
			t.Run(fmt.Sprintf("precision=%d/most=%d/wide=%v", f.Precision, f.Most, wide), func(t *testing.T) {
				for range rounds(30) {
					testVector(t, rng, f, wide)
				}
			})
		}
	}
}

func testVector(t *testing.T, rng *rand.Rand, f Format, wide bool) {
	n := 1 + rng.IntN(2*BlockSize)
	models := 1 + rng.IntN(6)
	v := NewVector(n)
	halves := [2]*Vector{NewVector(n), NewVector(n)}
	var total Sum
	sums := make([]big.Rat, n)
	weights := new(big.Rat)
	for k := range models {
		w := randomFloat(rng, wide)
		if rng.IntN(2) == 0 {
			w = float64(1 + rng.IntN(1<<uint(rng.IntN(31))))
		}
		x := make([]float64, n)
		for i := range x {
			x[i] = in(randomFloat(rng, wide), f)
			if rng.IntN(30) == 0 {
				x[i] = 0
			}
			sums[i].Add(&sums[i], new(big.Rat).Mul(rational(w), rational(x[i])))
		}
		add(v, x, f, w)
		add(halves[k%2], x, f, w)
		total.Add(w)
		weights.Add(weights, rational(w))
		if rng.IntN(3) == 0 {
			v.normalize()
		}
	}
	var d Divisor
	if total.Divisor(&d) != (weights.Sign() != 0) {
		t.Fatalf("the divisor is zero, want %v", weights)
	}
	if weights.Sign() == 0 {
		return
	}
	halves[1].Merge(halves[0])
	encoded := v.Append(nil)
	if !bytes.Equal(halves[1].Append(nil), encoded) {
		t.Fatal("the order shows in the encoding")
	}
	if len(encoded) > v.Size() {
		t.Fatalf("the encoding has %d bytes, more than the %d announced", len(encoded), v.Size())
	}
	parsed, rest, err := Parse(encoded, n)
	if err != nil || len(rest) > 0 {
		t.Fatalf("decoding: %v, %d bytes left", err, len(rest))
	}
	for block := range v.Blocks() {
		first, end := v.Elements(block)
		got, again := make([]float64, end-first), make([]float64, end-first)
		v.Divide(block, got, f, &d)
		parsed.Divide(block, again, f, &d)
		for i := range got {
			want := nearest(new(big.Rat).Quo(&sums[first+i], weights), f)
			if got[i] != want || again[i] != want {
				t.Fatalf("element %d: got %v, and %v after decoding, want %v", first+i, got[i], again[i], want)
			}
		}
	}
}

func add(v *Vector, x []float64, f Format, w float64) {
	v.Begin()
	for block := range v.Blocks() {
		first, end := v.Elements(block)
		v.Add(block, x[first:end], f, NewWeight(w))
	}
	v.End()
}

// Carries are passed on before a digit can overflow, also when two that are full are merged.
func TestPending(t *testing.T) {
	largest := math.MaxFloat64
	full := func() *Vector {
		v := NewVector(1)
		add(v, []float64{largest}, Binary64, largest)
		for j := range v.block[0].digit {
			v.block[0].digit[j] = (1<<digitBits - 1) * (mostPending - 1)
		}
		v.pending = mostPending - 1
		return v
	}
	value := func(v *Vector) *big.Int {
		n := new(big.Int)
		for _, d := range slices.Backward(v.block[0].digit) {
			n.Add(n.Lsh(n, digitBits), big.NewInt(d))
		}
		return n.Lsh(n, uint(digitBits*v.block[0].low))
	}
	one := NewVector(1)
	add(one, []float64{largest}, Binary64, largest)

	v := full()
	want := new(big.Int).Add(value(v), new(big.Int).Mul(value(one), big.NewInt(3)))
	for range 3 {
		add(v, []float64{largest}, Binary64, largest)
	}
	if got := value(v); got.Cmp(want) != 0 || v.pending > 4 {
		t.Errorf("got %v with %d pending, want %v with carries passed on", got, v.pending, want)
	}

	v = full()
	want = new(big.Int).Mul(value(v), big.NewInt(8))
	for range 7 {
		v.Merge(full())
	}
	if got := value(v); got.Cmp(want) != 0 || v.pending > 2*mostPending {
		t.Errorf("merged: got %v with %d pending, want %v", got, v.pending, want)
	}
	v.normalize()
	if got := value(v); got.Cmp(want) != 0 {
		t.Errorf("normalized: got %v, want %v", got, want)
	}
	for j, d := range v.block[0].digit {
		if d != int64(int32(d)) {
			t.Errorf("digit %d is %d, not balanced", j, d)
		}
	}

	var s Sum
	s.Add(1)
	for range 80 { // 2⁸⁰ in all
		s.Merge(&s)
	}
	if got := s.Round(Binary64); got != 0x1p80 || s.pending > 2*mostPending {
		t.Errorf("sum: got %v with %d pending, want %v", got, s.pending, 0x1p80)
	}
}

func TestParseRefuses(t *testing.T) {
	v := NewVector(2)
	add(v, []float64{1, math.Inf(1)}, Binary32, 3)
	good := v.Append(nil)
	for n := range good {
		if _, _, err := Parse(good[:n], 2); err == nil {
			t.Errorf("%d of %d bytes were accepted", n, len(good))
		}
	}
	change := func(at int, to byte) []byte {
		b := slices.Clone(good)
		b[at] = to
		return b
	}
	for name, b := range map[string][]byte{
		"unknown marker": change(0, 2), "digits for nothing": change(0, 0), "too high": change(2, 1),
		"unknown marker of flags": change(5, 2), "unknown flag": change(len(good)-1, 0x10),
	} {
		if _, _, err := Parse(b, 2); err == nil {
			t.Errorf("%s: accepted %x", name, b)
		}
	}
	var s Sum
	for _, b := range [][]byte{
		{},
		{0, 0, 1, 0, 0, 0, 0, 0, 0}, // a digit of zero
		{1, 0, 0, 0, 0},             // no digits, but not from 0 on
		{68, 0, 1, 0, 0, 1, 0, 0, 0},
		{0, 0, 0, 0, 1, 0}, // flags
	} {
		if _, err := s.Parse(b); err == nil {
			t.Errorf("sum: accepted %x", b)
		}
	}
}

// Rounding looks at every bit that it drops.
func TestRound(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	for range rounds(25000) {
		f := formats[rng.IntN(len(formats))]
		var q uint64
		for range 1 + rng.IntN(3) {
			q |= 1 << rng.IntN(64)
		}
		if rng.IntN(2) == 0 {
			q |= (1<<rng.IntN(64) - 1) << rng.IntN(64)
		}
		if top := f.Precision + 1 + rng.IntN(62-f.Precision); rng.IntN(2) == 0 { // next to the middle of two numbers
			half := top - f.Precision
			q = 1<<top | uint64(rng.IntN(2))<<(half+1) | 1<<half | 1<<rng.IntN(half)
		}
		more := rng.IntN(2) == 0 && q > 1<<60
		exponent := f.Least - 140 + rng.IntN(f.Most-f.Least+120)
		x := new(big.Rat).SetInt(new(big.Int).SetUint64(q))
		if more {
			x.Add(x, big.NewRat(1, 3))
		}
		power := new(big.Rat).SetInt(new(big.Int).Lsh(big.NewInt(1), uint(max(exponent, -exponent))))
		if exponent < 0 {
			power.Inv(power)
		}
		if got, want := f.round(q, more, exponent), nearest(x.Mul(x, power), f); got != want {
			t.Fatalf("%#x (and more: %v)·2^%d to %v: got %v, want %v", q, more, exponent, f, got, want)
		}
	}
}

// The widest products of every width, at every place in a digit, fit into the digits that they are added to.
func TestWidestProducts(t *testing.T) {
	for _, f := range formats {
		for width := 1; width <= 53; width++ {
			w := float64(int64(1)<<width - 1)
			x := make([]float64, 32)
			for i := range x {
				x[i] = math.Ldexp(float64(int64(1)<<f.Precision-1), i-31-f.Precision)
			}
			v := NewVector(len(x))
			add(v, x, f, -w)
			digits := make([]*big.Int, len(x))
			for i := range x {
				digits[i] = new(big.Int)
				for r := v.block[0].rows - 1; r >= 0; r-- {
					digits[i].Add(digits[i].Lsh(digits[i], digitBits), big.NewInt(v.block[0].digit[r*len(x)+i]))
				}
				want := new(big.Rat).Mul(rational(-w), rational(x[i]))
				places := uint(-2*leastExponent - digitBits*v.block[0].low)
				unit := new(big.Int).Lsh(big.NewInt(1), places)
				if want.Mul(want, new(big.Rat).SetInt(unit)); !want.IsInt() || want.Num().Cmp(digits[i]) != 0 {
					t.Fatalf("precision %d, weight of %d bits, element %d: got %v, want %v",
						f.Precision, width, i, digits[i], want)
				}
			}
		}
	}
}
