package weighting

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

const prec = 300 // bits of the references

func (x double) big() *big.Float {
	sum := new(big.Float).SetPrec(prec).SetFloat64(x.hi)
	return sum.Add(sum, new(big.Float).SetFloat64(x.lo))
}

// relativeError returns log₂ |got/want − 1|, at least −prec.
func relativeError(got double, want *big.Float) float64 {
	e := new(big.Float).SetPrec(prec).Sub(got.big(), want)
	if e.Sign() == 0 {
		return -prec
	}
	ratio, _ := e.Quo(e, want).Float64()
	return math.Log2(math.Abs(ratio))
}

// exponential is e^x by its series on x/2^k, squared k times.
func exponential(x *big.Float) *big.Float {
	const k = 40
	scaled := new(big.Float).SetPrec(2*prec).SetMantExp(x, -k)
	term, sum := big.NewFloat(1).SetPrec(2*prec), big.NewFloat(1).SetPrec(2*prec)
	for i := 1.0; i < 30; i++ {
		term.Mul(term, scaled)
		term.Quo(term, big.NewFloat(i))
		sum.Add(sum, term)
	}
	for range k {
		sum.Mul(sum, sum)
	}
	return sum.SetPrec(prec)
}

func randomDouble(rng *rand.Rand, exponents int) double {
	x := twoSum(math.Ldexp(1+rng.Float64(), -rng.IntN(exponents)), 0)
	return quickTwoSum(x.hi, x.hi*0x1p-54*(2*rng.Float64()-1))
}

// Every operation keeps at least 96 bits. The last bits of a weight's exact value decide how it rounds, so that this is
// what "the nearest float64" rests on.
func TestDoubleDouble(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	check := func(name string, x, y, got double, want *big.Float) {
		t.Helper()
		if e := relativeError(got, want); e > -96 {
			t.Errorf("%s(%v, %v): relative error 2^%.1f, want at most 2^-96", name, x, y, e)
		}
		if got.hi+got.lo != got.hi {
			t.Errorf("%s(%v, %v): %v is not normalized", name, x, y, got)
		}
	}
	for range 2000 {
		x, y := randomDouble(rng, 40), randomDouble(rng, 40)
		z := func() *big.Float { return new(big.Float).SetPrec(prec) }
		check("add", x, y, x.add(y), z().Add(x.big(), y.big()))
		check("mul", x, y, x.mul(y), z().Mul(x.big(), y.big()))
		check("div", x, y, x.div(y), z().Quo(x.big(), y.big()))
		check("exp", x, y, x.neg().exp(), exponential(x.neg().big()))
		check("exp", x, y, x.scale(300).neg().exp(), exponential(x.scale(300).neg().big()))
		// e^(log x) = x for 0 < x ≤ 1: an absolute error of the logarithm is a relative one of the power.
		x = x.scale(0.25)
		check("log", x, y, x.log().exp(), x.big())
	}
	check("ln2", one, one, ln2.neg().exp(), big.NewFloat(0.5))
	for _, x := range []double{{}, {hi: -746.1}, {hi: -1e300}} {
		want := 0.0
		if x.hi == 0 {
			want = 1
		}
		if got := x.exp(); got.hi != want || got.lo != 0 {
			t.Errorf("exp(%v): got %v, want %v", x, got, want)
		}
	}
}
