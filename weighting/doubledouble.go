package weighting

import "math"

// A double is an unevaluated sum hi + lo of two float64 with |lo| ≤ ulp(hi)/2: about 106 bits of significand.
// The algorithms are those of Dekker (1971) and Knuth (TAOCP 2, 4.2.2).
//
// Products are converted to float64: without the conversion the compiler may fuse a product with a sum on some
// processors, also one in another statement, and p + e would no longer be what p was rounded from.
type double struct{ hi, lo float64 }

var (
	one = double{hi: 1}
	ln2 = double{hi: 0x1.62e42fefa39efp-1, lo: 0x1.abc9e3b39803fp-56}
)

// twoSum returns the rounded sum of a and b and its rounding error.
func twoSum(a, b float64) double {
	s := a + b
	t := s - a
	return double{s, (a - (s - t)) + (b - t)}
}

// quickTwoSum is twoSum for |a| ≥ |b| or a = 0.
func quickTwoSum(a, b float64) double {
	s := a + b
	return double{s, b - (s - a)}
}

// twoProduct returns the rounded product of a and b and its rounding error.
func twoProduct(a, b float64) double {
	p := float64(a * b)
	return double{p, math.FMA(a, b, -p)}
}

func (x double) neg() double { return double{-x.hi, -x.lo} }

func (x double) add(y double) double {
	s := twoSum(x.hi, y.hi)
	t := twoSum(x.lo, y.lo)
	s = quickTwoSum(s.hi, s.lo+t.hi)
	return quickTwoSum(s.hi, s.lo+t.lo)
}

func (x double) sub(y double) double { return x.add(y.neg()) }

func (x double) mul(y double) double {
	p := twoProduct(x.hi, y.hi)
	return quickTwoSum(p.hi, p.lo+(float64(x.hi*y.lo)+float64(x.lo*y.hi)))
}

// scale returns x·f, exact when f is a power of two and nothing underflows.
func (x double) scale(f float64) double { return x.mul(double{hi: f}) }

func (x double) div(y double) double {
	q1 := x.hi / y.hi
	r := x.sub(y.scale(q1))
	q2 := r.hi / y.hi
	r = r.sub(y.scale(q2))
	q3 := r.hi / y.hi
	return quickTwoSum(q1, q2).add(double{hi: q3})
}

// ldexp returns x·2ᵏ.
func (x double) ldexp(k int) double { return double{math.Ldexp(x.hi, k), math.Ldexp(x.lo, k)} }

// float64 returns the nearest float64, which is hi by the definition of a double.
func (x double) float64() float64 { return x.hi }

// exp returns e^x for x ≤ 0. It reduces x to r = (x − k·ln 2)/512, sums the series of e^r − 1 and squares nine times;
// squaring e^r − 1 as 2s + s² keeps the bits that a square of e^r would push out.
func (x double) exp() double {
	const halvings = 9
	if x.hi < -746 { // below half of the least float64
		return double{}
	}
	k := math.Round(x.hi / ln2.hi)
	r := x.sub(ln2.scale(k)).scale(1.0 / (1 << halvings))
	term, sum := r, r
	for i := 2.0; i <= 10; i++ { // |r| < 2^-10.5, so the first term left out is below 2^-140
		term = term.mul(r).div(double{hi: i})
		sum = sum.add(term)
	}
	for range halvings {
		sum = sum.scale(2).add(sum.mul(sum))
	}
	return sum.add(one).ldexp(int(k))
}

// log returns the natural logarithm of x for 0 < x ≤ 1 by Newton's method on exp. The second step makes the result
// independent of how the processor at hand computes math.Log.
func (x double) log() double {
	y := double{hi: -math.Log(x.hi)} // −log x ≥ 0
	if y.hi < 0 {
		y.hi = 0
	}
	for range 2 {
		// e^−y = x at the solution; a step adds 1 − x/e^−y, to first order.
		y = y.add(one.sub(x.div(y.neg().exp())))
	}
	return y.neg()
}
