package weighting

import (
	"errors"
	"math"
	"math/big"
	"testing"
)

// checkStep wants kept and added to be the float64 nearest to 1 − added and added, for an exact added; of two that are
// equally near, in 40 more bits, either.
func checkStep(t *testing.T, name string, kept, added float64, exact *big.Float) {
	t.Helper()
	near := func(got float64, want *big.Float) bool {
		off, _ := bigOf(0).Sub(bigOf(got), want).Float64()
		_, exponent := math.Frexp(got)
		half := math.Ldexp(1, exponent-54)
		if fraction, _ := math.Frexp(got); fraction == 0.5 && off > 0 {
			half /= 2 // below a power of two
		}
		return math.Abs(off) <= half*(1+0x1p-40) || math.Abs(off) < 0x1p-250 // the reference has no more
	}
	if rest := bigOf(0).Sub(bigOf(1), exact); !near(kept, rest) || !near(added, exact) {
		t.Errorf("%s: got %v and %v, want %v and %v", name, kept, added, rest, exact)
	}
}

func bigOf(x float64) *big.Float { return new(big.Float).SetPrec(prec).SetFloat64(x) }

// logarithm is log x for x near and below one and far from it, by Newton's method on exponential.
func logarithm(x *big.Float) *big.Float {
	f, _ := x.Float64()
	y := bigOf(math.Log(f))
	for range 4 { // y += x/e^y − 1, and half its square less
		step := bigOf(0).Quo(x, exponential(y))
		step.Sub(step, bigOf(1))
		y.Add(y, step)
	}
	return y
}

func powerBig(x, y *big.Float) *big.Float { return exponential(bigOf(0).Mul(logarithm(x), y)) }

var scheduleUpdates = []int64{1, 2, 3, 4, 10, 15, 16, 17, 100, 999, 12345, 1_000_000, 1 << 40}

func TestCorrectedDecay(t *testing.T) {
	for _, decay := range []float64{0, 1e-300, 0.1, 0.5, 0.9, 0.999, 0.9999, 0.999999, 1 - 0x1p-40, 1 - 0x1p-53, 1} {
		for _, n := range scheduleUpdates {
			var exact *big.Float
			switch {
			case n == 1:
				exact = bigOf(1)
			case decay == 1:
				exact = bigOf(0).Quo(bigOf(1), bigOf(float64(n)))
			default:
				power, base := bigOf(1), bigOf(decay)
				for e := n; e > 0; e >>= 1 {
					if e&1 == 1 {
						power.Mul(power, base)
					}
					base.Mul(base, base)
				}
				exact = bigOf(0).Quo(bigOf(0).Sub(bigOf(1), bigOf(decay)), bigOf(0).Sub(bigOf(1), power))
			}
			kept, added := CorrectedDecay(n, decay)
			checkStep(t, "CorrectedDecay", kept, added, exact)
		}
	}
	for _, bad := range []float64{-0.1, 1.1, math.NaN()} {
		if kept, added := CorrectedDecay(2, bad); !math.IsNaN(kept) || !math.IsNaN(added) {
			t.Errorf("decay %v: got %v and %v, want NaN", bad, kept, added)
		}
	}
}

func TestInverseGammaDecay(t *testing.T) {
	for _, gamma := range []float64{1, 0.1, 7, 1e6, 1e300} {
		for _, exponent := range []float64{1, 2.0 / 3, 0.75, 3, 1e-3, 1e-300} {
			for _, n := range scheduleUpdates {
				base := bigOf(0).Add(bigOf(1), bigOf(0).Quo(bigOf(float64(n-1)), bigOf(gamma)))
				exact := powerBig(bigOf(0).Quo(bigOf(1), base), bigOf(exponent))
				kept, added := InverseGammaDecay(n, gamma, exponent)
				if gamma == 1e300 || exponent == 1e-300 { // nothing is kept, to more digits than there are
					if added != 1 || kept > 1e-280 {
						t.Errorf("%v, %v: got %v and %v, want nearly 0 and 1", gamma, exponent, kept, added)
					}
					continue
				}
				checkStep(t, "InverseGammaDecay", kept, added, exact)
			}
		}
	}
	for _, bad := range []float64{0, -1, math.Inf(1), math.NaN()} {
		if kept, added := InverseGammaDecay(2, bad, 1); !math.IsNaN(kept) || !math.IsNaN(added) {
			t.Errorf("inverse gamma %v: got %v and %v, want NaN", bad, kept, added)
		}
		if kept, added := InverseGammaDecay(2, 1, bad); !math.IsNaN(kept) || !math.IsNaN(added) {
			t.Errorf("exponent %v: got %v and %v, want NaN", bad, kept, added)
		}
	}
}

func TestPowerDecay(t *testing.T) {
	for _, gamma := range []float64{0, 0.5, 1, 6.94, 16.97, 1000} {
		for _, n := range scheduleUpdates {
			exact := bigOf(1)
			if n > 1 {
				base := bigOf(0).Quo(bigOf(float64(n-1)), bigOf(float64(n)))
				exact.Sub(exact, powerBig(base, bigOf(0).Add(bigOf(gamma), bigOf(1))))
			}
			kept, added := PowerDecay(n, gamma)
			checkStep(t, "PowerDecay", kept, added, exact)
		}
	}
	if kept, added := PowerDecay(5, 1e300); kept != 0 || added != 1 {
		t.Errorf("gamma 1e300: got %v and %v, want 0 and 1", kept, added)
	}
	for _, bad := range []float64{-1, math.Inf(1), math.NaN()} {
		if kept, added := PowerDecay(2, bad); !math.IsNaN(kept) || !math.IsNaN(added) {
			t.Errorf("gamma %v: got %v and %v, want NaN", bad, kept, added)
		}
	}
}

// A schedule run from the first update to the last gives the vector that has its name, to the last digits.
func TestSchedulesGiveVectors(t *testing.T) {
	const n = 50
	for _, test := range []struct {
		name   string
		vector func() ([]float64, error)
		step   func(t int64) (kept, added float64)
	}{
		{
			"Geometric", func() ([]float64, error) { return Geometric(n, 0.93) },
			func(t int64) (kept, added float64) { return CorrectedDecay(t, 0.93) },
		},
		{
			"Power", func() ([]float64, error) { return Power(n, 3.56) },
			func(t int64) (kept, added float64) { return PowerDecay(t, 3.56) },
		},
		{
			"Uniform", func() ([]float64, error) { return Uniform(n) },
			func(t int64) (kept, added float64) { return InverseGammaDecay(t, 1, 1) },
		},
	} {
		want, err := test.vector()
		if err != nil {
			t.Fatal(err)
		}
		rest := 1.0
		for k := n; k >= 1; k-- {
			kept, added := test.step(int64(k))
			if got := rest * added; math.Abs(got/want[k-1]-1) > 1e-13 {
				t.Errorf("%s: weight %d is %v, want %v", test.name, k-1, got, want[k-1])
			}
			rest *= kept
		}
	}
}

func TestHalfLifeDecay(t *testing.T) {
	for _, h := range []float64{0.5, 1, 3, 1000, 1e9} {
		want, _ := powerBig(bigOf(0.5), bigOf(0).Quo(bigOf(1), bigOf(h))).Float64()
		if got, err := HalfLifeDecay(h); err != nil || got != want {
			t.Errorf("%v: got %v and error %v, want %v", h, got, err, want)
		}
	}
	if got, err := HalfLifeDecay(1e-9); err != nil || got != 0 {
		t.Errorf("1e-9: got %v and error %v, want 0", got, err)
	}
	for _, bad := range []float64{0, -1, math.Inf(1), math.NaN()} {
		if _, err := HalfLifeDecay(bad); !errors.Is(err, ErrHalfLife) {
			t.Errorf("%v: got error %v, want one of %q", bad, err, ErrHalfLife)
		}
	}
}

func TestPowerGamma(t *testing.T) {
	for sigma, want := range map[float64]float64{0.05: 16.97, 0.1: 6.94, 0.15: 3.56, 0.2: 1.83, 0.25: 0.72, maxSigma: 0} {
		if got, err := PowerGamma(sigma); err != nil || math.Abs(got-want) > 0.005 {
			t.Errorf("%v: got %v and error %v, want %v", sigma, got, err, want)
		}
	}
	for _, bad := range []float64{0, -1, 0.29, math.NaN()} {
		if _, err := PowerGamma(bad); !errors.Is(err, ErrSigma) {
			t.Errorf("%v: got error %v, want one of %q", bad, err, ErrSigma)
		}
	}
}

var sinkFloat float64

func BenchmarkPowerDecay(b *testing.B) {
	for b.Loop() {
		_, sinkFloat = PowerDecay(12345, 6.94)
	}
}
