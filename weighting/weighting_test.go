package weighting_test

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/modelavg/modelavg/weighting"
)

// rational returns the exact value of a float64.
func rational(x float64) *big.Rat { return new(big.Rat).SetFloat64(x) }

// pow returns x to the power e ≥ 0, exactly; 0⁰ is 1.
func pow(x *big.Rat, e int) *big.Rat {
	p := big.NewRat(1, 1)
	for range e {
		p.Mul(p, x)
	}
	return p
}

// over divides every element by the sum of all.
func over(shares []*big.Rat) []*big.Rat {
	total := new(big.Rat)
	for _, s := range shares {
		total.Add(total, s)
	}
	for _, s := range shares {
		s.Quo(s, total)
	}
	return shares
}

// The formulas, in exact arithmetic and in the most literal form.

func exactGeometric(n int, decay float64) []*big.Rat {
	var shares []*big.Rat
	for k := range n {
		shares = append(shares, pow(rational(decay), n-1-k))
	}
	return over(shares)
}

// unit returns model k of n as the vector of its own coefficients, so that a recurrence run on units gives its weights.
func unit(k, n int) []*big.Rat {
	v := make([]*big.Rat, n)
	for i := range v {
		v[i] = new(big.Rat)
	}
	v[k].SetInt64(1)
	return v
}

// mix sets a to f·a + g·b.
func mix(f *big.Rat, a []*big.Rat, g *big.Rat, b []*big.Rat) {
	for i := range a {
		a[i].Mul(a[i], f)
		a[i].Add(a[i], new(big.Rat).Mul(g, b[i]))
	}
}

func complement(x *big.Rat) *big.Rat { return new(big.Rat).Sub(big.NewRat(1, 1), x) }

func exactEMA(n int, decay float64) []*big.Rat {
	d := rational(decay)
	a := unit(0, n)
	for k := 1; k < n; k++ {
		mix(d, a, complement(d), unit(k, n))
	}
	return a
}

func exactArticle(n int, decay float64) []*big.Rat {
	a := unit(0, n)
	a[0].SetInt64(0)
	for j := range n {
		alpha := pow(rational(decay), j)
		mix(complement(alpha), a, alpha, unit(n-1-j, n))
	}
	return a
}

func exactPower(n, gamma int) []*big.Rat {
	a := unit(0, n)
	for t := 1; t <= n; t++ {
		beta := pow(big.NewRat(int64(t-1), int64(t)), gamma+1)
		mix(beta, a, complement(beta), unit(t-1, n))
	}
	return a
}

func exactLinear(n int) []*big.Rat {
	var shares []*big.Rat
	for k := range n {
		shares = append(shares, big.NewRat(int64(k+1), 1))
	}
	return over(shares)
}

func exactUniform(n int) []*big.Rat {
	shares := unit(0, n)
	for _, s := range shares {
		s.SetInt64(1)
	}
	return over(shares)
}

func exactNormalized(w []float64) []*big.Rat {
	var shares []*big.Rat
	for _, x := range w {
		shares = append(shares, rational(x))
	}
	return over(shares)
}

func exactCounts(samples []int64) []*big.Rat {
	var shares []*big.Rat
	for _, n := range samples {
		shares = append(shares, big.NewRat(n, 1))
	}
	return over(shares)
}

// checkExact wants every weight to be the float64 nearest to the exact one, and the exact sum of the weights to be
// within 2⁻⁵³ of one.
func checkExact(t *testing.T, name string, got []float64, err error, want []*big.Rat) {
	t.Helper()
	if err != nil {
		t.Errorf("%s: %v", name, err)
		return
	}
	if len(got) != len(want) {
		t.Errorf("%s: got %d weights, want %d", name, len(got), len(want))
		return
	}
	for k := range got {
		if nearest, _ := want[k].Float64(); got[k] != nearest || math.Signbit(got[k]) {
			t.Errorf("%s: weight %d: got %v, want %v", name, k, got[k], nearest)
		}
	}
	checkSum(t, name, got)
}

func checkSum(t *testing.T, name string, w []float64) {
	t.Helper()
	sum := new(big.Rat)
	for _, x := range w {
		sum.Add(sum, rational(x))
	}
	bound := new(big.Rat).SetFrac(big.NewInt(1), new(big.Int).Lsh(big.NewInt(1), 53))
	if off := complement(sum); off.Abs(off).Cmp(bound) > 0 {
		o, _ := off.Float64()
		t.Errorf("%s: the exact sum is off by %v, want at most 2⁻⁵³", name, o)
	}
}

func TestExact(t *testing.T) {
	decays := []float64{0, 0.1, 0.5, math.Nextafter(0.5, 1), 0.8, 0.9, 0.99, 0.999999, math.Nextafter(1, 0), 1}
	sizes := []int{1, 2, 3, 5, 10, 18}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 4 {
		decays = append(decays, rng.Float64())
	}
	for _, n := range sizes {
		w, err := weighting.Uniform(n)
		checkExact(t, fmt.Sprintf("Uniform(%d)", n), w, err, exactUniform(n))
		w, err = weighting.Linear(n)
		checkExact(t, fmt.Sprintf("Linear(%d)", n), w, err, exactLinear(n))
		for gamma := range 9 {
			w, err = weighting.Power(n, float64(gamma))
			checkExact(t, fmt.Sprintf("Power(%d, %d)", n, gamma), w, err, exactPower(n, gamma))
		}
		tried := decays
		if n <= 3 { // powers of these are slow in exact arithmetic
			tried = append([]float64{5e-324, 1e-200, 1e-100}, decays...)
		}
		for _, d := range tried {
			w, err = weighting.Geometric(n, d)
			checkExact(t, fmt.Sprintf("Geometric(%d, %v)", n, d), w, err, exactGeometric(n, d))
			w, err = weighting.EMA(n, d)
			checkExact(t, fmt.Sprintf("EMA(%d, %v)", n, d), w, err, exactEMA(n, d))
			w, err = weighting.ArticleRecurrence(n, d)
			checkExact(t, fmt.Sprintf("ArticleRecurrence(%d, %v)", n, d), w, err, exactArticle(n, d))
		}
		for range 20 {
			scores := make([]float64, n)
			samples := make([]int64, n)
			for k := range n {
				scores[k] = math.Ldexp(rng.Float64(), rng.IntN(60))
				samples[k] = rng.Int64() >> rng.IntN(62)
			}
			samples[0] |= 1 // not all zero
			w, err = weighting.Normalized(scores)
			checkExact(t, fmt.Sprintf("Normalized(%v)", scores), w, err, exactNormalized(scores))
			w, err = weighting.Counts(samples)
			checkExact(t, fmt.Sprintf("Counts(%v)", samples), w, err, exactCounts(samples))
		}
	}
}

func TestNormalizedRange(t *testing.T) {
	for _, w := range [][]float64{
		{math.MaxFloat64, math.MaxFloat64, math.MaxFloat64},
		{5e-324, 5e-324, 1e-323},
		{math.MaxFloat64, 5e-324},
		{3, math.Copysign(0, -1), 1},
		{0, 0, 7},
	} {
		before := fmt.Sprint(w)
		got, err := weighting.Normalized(w)
		checkExact(t, fmt.Sprintf("Normalized(%v)", w), got, err, exactNormalized(w))
		if fmt.Sprint(w) != before {
			t.Errorf("Normalized changed its argument from %s to %v", before, w)
		}
	}
}

func TestCountsRange(t *testing.T) {
	for _, samples := range [][]int64{
		{math.MaxInt64, math.MaxInt64, math.MaxInt64},
		{math.MaxInt64, math.MaxInt64 - 1, 1, 0},
		{1<<53 + 1, 1 << 53},
		{0, 1},
	} {
		got, err := weighting.Counts(samples)
		checkExact(t, fmt.Sprintf("Counts(%v)", samples), got, err, exactCounts(samples))
	}
}

// root returns the degree-th root of x in 300 bits.
func root(x *big.Rat, degree int) *big.Rat {
	const bits = 300
	// The integer root of x·2^(bits·degree), by bisection.
	scaled := new(big.Int).Lsh(x.Num(), bits*uint(degree))
	scaled.Quo(scaled, x.Denom())
	low, high := new(big.Int), new(big.Int).Lsh(big.NewInt(1), uint(scaled.BitLen()/degree+1))
	for {
		middle := new(big.Int).Add(low, high)
		middle.Rsh(middle, 1)
		if middle.Cmp(low) == 0 {
			break
		}
		if new(big.Int).Exp(middle, big.NewInt(int64(degree)), nil).Cmp(scaled) <= 0 {
			low = middle
		} else {
			high = middle
		}
	}
	return new(big.Rat).SetFrac(low, new(big.Int).Lsh(big.NewInt(1), bits))
}

func TestHalfLife(t *testing.T) {
	for _, h := range []int{1, 2, 3, 7, 10} {
		for _, n := range []int{1, 2, 3, 10, 40} {
			ratio := root(big.NewRat(1, 2), h)
			var shares []*big.Rat
			for k := range n {
				shares = append(shares, pow(ratio, n-1-k))
			}
			got, err := weighting.HalfLife(n, float64(h))
			checkExact(t, fmt.Sprintf("HalfLife(%d, %d)", n, h), got, err, over(shares))
		}
	}
	for _, h := range []float64{5e-324, 1e-5, 1.0 / 2000, 1.0 / 2048} { // the weight of the second newest is below every float64
		got, err := weighting.HalfLife(3, h)
		checkExact(t, fmt.Sprintf("HalfLife(3, %v)", h), got, err, exactGeometric(3, 0))
	}
	for _, h := range []float64{1e20, math.MaxFloat64} { // nearly uniform
		got, err := weighting.HalfLife(3, h)
		checkExact(t, fmt.Sprintf("HalfLife(3, %v)", h), got, err, exactGeometric(3, 1))
	}
	for h, ratio := range map[float64]float64{0.5: 0.25, 0.25: 0.0625, 1.0 / 512: 0x1p-512} {
		got, err := weighting.HalfLife(3, h)
		checkExact(t, fmt.Sprintf("HalfLife(3, %v)", h), got, err, exactGeometric(3, ratio))
	}
	// A fraction: age 3 is two half-lives of 1.5.
	got, err := weighting.HalfLife(4, 1.5)
	if err != nil || got[0] != got[3]/4 {
		t.Errorf("HalfLife(4, 1.5): got %v, %v, want the oldest to have a quarter of the newest", got, err)
	}
}

func TestPowerFraction(t *testing.T) {
	for _, n := range []int{1, 2, 3, 10, 50} {
		// gamma = ½: (k/n)^1.5 = √(k³/n³)
		at := func(k int) *big.Rat { return root(pow(big.NewRat(int64(k), int64(n)), 3), 2) }
		var want []*big.Rat
		for k := range n {
			want = append(want, new(big.Rat).Sub(at(k+1), at(k)))
		}
		got, err := weighting.Power(n, 0.5)
		checkExact(t, fmt.Sprintf("Power(%d, 0.5)", n), got, err, want)
	}
	for _, gamma := range []float64{2000, 1e20, math.MaxFloat64} { // (1/2)^2001 is below every float64
		got, err := weighting.Power(2, gamma)
		checkExact(t, fmt.Sprintf("Power(2, %v)", gamma), got, err, exactGeometric(2, 0))
	}
}

// Gamma, to the digits that the doc comment gives, and both ends of the range of sigma.
func TestPowerSigma(t *testing.T) {
	for _, test := range []struct{ sigma, gamma, tolerance float64 }{
		{0.05, 16.97, 0.005},
		{0.10, 6.94, 0.005},
		{0.15, 3.56, 0.005},
		{0.20, 1.83, 0.005},
		{0.25, 0.72, 0.005},
		{math.Sqrt(1.0 / 12), 0, 1e-14},
	} {
		got, err := weighting.PowerSigma(20, test.sigma)
		if err != nil {
			t.Errorf("PowerSigma(20, %v): %v", test.sigma, err)
			continue
		}
		checkSum(t, fmt.Sprintf("PowerSigma(20, %v)", test.sigma), got)
		low, _ := weighting.Power(20, max(test.gamma-test.tolerance, 0))
		high, _ := weighting.Power(20, test.gamma+test.tolerance)
		if newest := got[19]; newest < low[19] || newest > high[19] {
			t.Errorf("PowerSigma(20, %v): newest weight %v, want %v to %v", test.sigma, newest, low[19], high[19])
		}
	}
	for _, sigma := range []float64{5e-324, 1e-300, 1e-18, 1e-4} {
		got, err := weighting.PowerSigma(3, sigma)
		checkExact(t, fmt.Sprintf("PowerSigma(3, %v)", sigma), got, err, exactGeometric(3, 0))
	}
}

// The standard deviation of many weights over time approaches sigma, which is the definition of the parameter.
func TestPowerSigmaWidth(t *testing.T) {
	const n = 20000
	for _, sigma := range []float64{0.05, 0.1, 0.2, 0.28} {
		w, err := weighting.PowerSigma(n, sigma)
		if err != nil {
			t.Fatal(err)
		}
		var mean, square float64
		for k, x := range w {
			at := (float64(k) + 0.5) / n
			mean += x * at
			square += x * at * at
		}
		if got := math.Sqrt(square - mean*mean); math.Abs(got-sigma) > 1e-6 {
			t.Errorf("PowerSigma(%d, %v): the weights' standard deviation is %v", n, sigma, got)
		}
	}
}

// Known values, oldest first, to the digits given.
func TestTable(t *testing.T) {
	type vector = func(int, float64) ([]float64, error)
	for _, test := range []struct {
		name  string
		f     vector
		n     int
		decay float64
		want  map[int]float64 // by index
		unit  float64         // of the last digit
	}{
		{"ArticleRecurrence", weighting.ArticleRecurrence, 3, 0.8, map[int]float64{0: 0.64, 1: 0.288, 2: 0.072}, 1e-15},
		{"ArticleRecurrence", weighting.ArticleRecurrence, 3, 0.9, map[int]float64{0: 0.81, 1: 0.171, 2: 0.019}, 1e-15},
		{"ArticleRecurrence", weighting.ArticleRecurrence, 3, 0.5, map[int]float64{0: 0.25, 1: 0.375, 2: 0.375}, 1e-15},
		{"ArticleRecurrence", weighting.ArticleRecurrence, 5, 0.9, map[int]float64{0: 0.6561, 1: 0.2507, 2: 0.0755}, 1e-4},
		{"ArticleRecurrence", weighting.ArticleRecurrence, 5, 0.9, map[int]float64{3: 0.0159, 4: 0.0018}, 1e-4},
		{"ArticleRecurrence", weighting.ArticleRecurrence, 10, 0.9, map[int]float64{0: 0.387, 1: 0.264, 2: 0.167}, 1e-3},
		{"ArticleRecurrence", weighting.ArticleRecurrence, 10, 0.9, map[int]float64{3: 0.097, 4: 0.050, 5: 0.023}, 1e-3},
		{"ArticleRecurrence", weighting.ArticleRecurrence, 10, 0.9, map[int]float64{6: 0.0088, 7: 0.0026}, 1e-4},
		{"ArticleRecurrence", weighting.ArticleRecurrence, 10, 0.9, map[int]float64{8: 0.00056, 9: 0.00006}, 1e-5},
		{"Geometric", weighting.Geometric, 3, 0.8, map[int]float64{0: 0.2623, 1: 0.3279, 2: 0.4098}, 1e-4},
		{"Geometric", weighting.Geometric, 3, 0.9, map[int]float64{0: 0.2989, 1: 0.3321, 2: 0.3690}, 1e-4},
		{"Geometric", weighting.Geometric, 3, 0.5, map[int]float64{0: 0.1429, 1: 0.2857, 2: 0.5714}, 1e-4},
		{"Geometric", weighting.Geometric, 5, 0.9, map[int]float64{0: 0.160, 4: 0.244}, 1e-3},
		{"Geometric", weighting.Geometric, 10, 0.9, map[int]float64{0: 0.059, 9: 0.154}, 1e-3},
		{"EMA", weighting.EMA, 3, 0.8, map[int]float64{0: 0.64, 1: 0.16, 2: 0.20}, 1e-15},
		{"EMA", weighting.EMA, 3, 0.9, map[int]float64{0: 0.81, 1: 0.09, 2: 0.10}, 1e-15},
		{"EMA", weighting.EMA, 3, 0.5, map[int]float64{0: 0.25, 1: 0.25, 2: 0.50}, 1e-15},
		{"EMA", weighting.EMA, 5, 0.9, map[int]float64{0: 0.6561, 1: 0.0729, 2: 0.081, 3: 0.09, 4: 0.10}, 1e-15},
		{"EMA", weighting.EMA, 10, 0.9, map[int]float64{0: 0.387, 1: 0.043, 9: 0.100}, 1e-3},
	} {
		w, err := test.f(test.n, test.decay)
		if err != nil {
			t.Fatal(err)
		}
		for k, want := range test.want {
			if math.Abs(w[k]-want) > test.unit*0.5000001 {
				t.Errorf("%s(%d, %v)[%d]: got %v, want %v", test.name, test.n, test.decay, k, w[k], want)
			}
		}
	}
}

// Up to 22 models at decay 0.9, the recurrence gives the oldest the most; the newest leads only below ½.
func TestArticleRecurrenceFavoursTheOldest(t *testing.T) {
	leader := func(n int, decay float64) int {
		w, err := weighting.ArticleRecurrence(n, decay)
		if err != nil {
			t.Fatal(err)
		}
		best := 0
		for k, x := range w {
			if x > w[best] {
				best = k
			}
		}
		return best
	}
	for n := 1; n <= 22; n++ {
		if k := leader(n, 0.9); k != 0 {
			t.Errorf("decay 0.9, %d models: model %d leads, want the oldest, 0", n, k)
		}
	}
	if k := leader(23, 0.9); k != 1 {
		t.Errorf("decay 0.9, 23 models: model %d leads, want 1", k)
	}
	if k := leader(5, 0.49); k != 4 {
		t.Errorf("decay 0.49, 5 models: model %d leads, want the newest, 4", k)
	}
}

// A long list underflows at the old end and still sums to one.
func TestLongLists(t *testing.T) {
	const n = 100_000
	for name, f := range map[string]func() ([]float64, error){
		"Uniform":           func() ([]float64, error) { return weighting.Uniform(n) },
		"Linear":            func() ([]float64, error) { return weighting.Linear(n) },
		"Geometric 0.9":     func() ([]float64, error) { return weighting.Geometric(n, 0.9) },
		"Geometric 0.9999":  func() ([]float64, error) { return weighting.Geometric(n, 0.9999) },
		"EMA 0.99":          func() ([]float64, error) { return weighting.EMA(n, 0.99) },
		"ArticleRecurrence": func() ([]float64, error) { return weighting.ArticleRecurrence(n, 0.999) },
		"HalfLife":          func() ([]float64, error) { return weighting.HalfLife(n, 1000) },
	} {
		w, err := f()
		if err != nil {
			t.Fatal(err)
		}
		// In units of 2⁻¹⁰⁷⁴ the sum of a long list in big.Rat is slow; big.Float with 200 bits is exact enough.
		sum := new(big.Float).SetPrec(200)
		for k, x := range w {
			if !(x >= 0) {
				t.Fatalf("%s: weight %d is %v", name, k, x)
			}
			sum.Add(sum, new(big.Float).SetFloat64(x))
		}
		off, _ := sum.Sub(sum, big.NewFloat(1)).Float64()
		if math.Abs(off) > 0x1p-53 {
			t.Errorf("%s: the sum of %d weights is off by %v", name, n, off)
		}
	}
}

func TestErrors(t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	vector := func(w []float64, err error) error {
		if err != nil && w != nil {
			t.Errorf("got weights %v beside the error %v", w, err)
		}
		return err
	}
	for _, test := range []struct {
		err    error
		target error
		text   string
	}{
		{vector(weighting.Uniform(0)), weighting.ErrNoModels, "weighting: no models: got n = 0, want at least 1"},
		{vector(weighting.Linear(-3)), weighting.ErrNoModels, "got n = -3, want at least 1"},
		{vector(weighting.Normalized(nil)), weighting.ErrNoModels, "got no weights, want at least 1"},
		{vector(weighting.Normalized([]float64{1, nan})), weighting.ErrWeight, "weight 1 is NaN, want a finite number, not negative"},
		{vector(weighting.Normalized([]float64{1, 2, inf})), weighting.ErrWeight, "weight 2 is +Inf"},
		{vector(weighting.Normalized([]float64{-0.5, 2})), weighting.ErrWeight, "weight 0 is -0.5"},
		{vector(weighting.Normalized([]float64{0, 0})), weighting.ErrWeightSum, "the sum of all 2 is 0, want a positive sum"},
		{vector(weighting.Counts(nil)), weighting.ErrNoModels, "got no sample counts, want at least 1"},
		{vector(weighting.Counts([]int64{5, -7})), weighting.ErrWeight, "sample count 1 is -7, want 0 or more"},
		{vector(weighting.Counts([]int64{0, 0, 0})), weighting.ErrWeightSum, "the sum of all 3 sample counts is 0, want a positive sum"},
		{vector(weighting.Geometric(0, 0.9)), weighting.ErrNoModels, "got n = 0"},
		{vector(weighting.Geometric(3, 1.5)), weighting.ErrDecay, "weighting: decay out of range: got 1.5, want 0 to 1"},
		{vector(weighting.Geometric(3, nan)), weighting.ErrDecay, "got NaN, want 0 to 1"},
		{vector(weighting.EMA(3, -0.1)), weighting.ErrDecay, "got -0.1, want 0 to 1"},
		{vector(weighting.EMA(0, 0.1)), weighting.ErrNoModels, "got n = 0"},
		{vector(weighting.ArticleRecurrence(3, inf)), weighting.ErrDecay, "got +Inf, want 0 to 1"},
		{vector(weighting.ArticleRecurrence(-1, 0.1)), weighting.ErrNoModels, "got n = -1"},
		{vector(weighting.HalfLife(0, 1)), weighting.ErrNoModels, "got n = 0"},
		{vector(weighting.HalfLife(3, 0)), weighting.ErrHalfLife, "got 0, want a positive finite number of models"},
		{vector(weighting.HalfLife(3, -1)), weighting.ErrHalfLife, "got -1"},
		{vector(weighting.HalfLife(3, inf)), weighting.ErrHalfLife, "got +Inf"},
		{vector(weighting.HalfLife(3, nan)), weighting.ErrHalfLife, "got NaN"},
		{vector(weighting.Power(0, 1)), weighting.ErrNoModels, "got n = 0"},
		{vector(weighting.Power(3, -0.5)), weighting.ErrGamma, "got -0.5, want a finite number of at least 0"},
		{vector(weighting.Power(3, nan)), weighting.ErrGamma, "got NaN"},
		{vector(weighting.Power(3, inf)), weighting.ErrGamma, "got +Inf"},
		{vector(weighting.PowerSigma(0, 0.1)), weighting.ErrNoModels, "got n = 0"},
		{vector(weighting.PowerSigma(3, 0)), weighting.ErrSigma, "got 0, want above 0, up to 1/√12 = 0.288675"},
		{vector(weighting.PowerSigma(3, 0.289)), weighting.ErrSigma, "got 0.289"},
		{vector(weighting.PowerSigma(3, nan)), weighting.ErrSigma, "got NaN"},
		{weighting.Check(nil, 0), weighting.ErrNoModels, "got n = 0"},
		{weighting.Check([]float64{0.5, 0.5}, 3), weighting.ErrWeightCount, "got 2 weights for 3 models, want one per model"},
		{weighting.Check([]float64{0.5, nan}, 2), weighting.ErrWeight, "weight 1 is NaN, want a finite number"},
		{weighting.Check([]float64{math.Inf(-1), 1}, 2), weighting.ErrWeight, "weight 0 is -Inf"},
		{weighting.Check([]float64{0.5, 0.25}, 2), weighting.ErrWeightSum, "got a sum of 0.75, want 1 ± 1.001e-05"},
		{weighting.Check([]float64{1e308, 1e308}, 2), weighting.ErrWeightSum, "got a sum of +Inf"},
	} {
		if !errors.Is(test.err, test.target) || !strings.Contains(fmt.Sprint(test.err), test.text) {
			t.Errorf("got error %q, want one that wraps %q and contains %q", test.err, test.target, test.text)
		}
	}
}

func TestCheck(t *testing.T) {
	for _, w := range [][]float64{
		{1},
		{0.2, 0.5, 0.3},
		{0.33333, 0.33333, 0.33333},   // off by 1e-5
		{1 + 1.0009e-5},               // just inside
		{2, -1},                       // extrapolation
		{1e300, 1, -1e300},            // a plain sum would find 0
		{0.1, 0.2, 0.3, 0.4, 0, 0, 0}, // zeros
	} {
		if err := weighting.Check(w, len(w)); err != nil {
			t.Errorf("Check(%v): %v", w, err)
		}
	}
	for _, w := range [][]float64{{1 + 1.002e-5}, {1 - 1.002e-5}, {0.333, 0.333, 0.333}, {0}} {
		if err := weighting.Check(w, len(w)); !errors.Is(err, weighting.ErrWeightSum) {
			t.Errorf("Check(%v): got %v, want an error that wraps ErrWeightSum", w, err)
		}
	}
	w := []float64{0.2, 0.5, 0.3}
	if n := testing.AllocsPerRun(100, func() { _ = weighting.Check(w, 3) }); n != 0 {
		t.Errorf("Check allocates %v times, want 0", n)
	}
}

// A number of models that no memory has room for is an error, whichever function gets it.
func TestTooManyModels(t *testing.T) {
	for _, n := range []int{1<<30 + 1, math.MaxInt / 8, math.MaxInt - 1, math.MaxInt} {
		for name, make := range map[string]func() ([]float64, error){
			"Uniform":           func() ([]float64, error) { return weighting.Uniform(n) },
			"Linear":            func() ([]float64, error) { return weighting.Linear(n) },
			"Geometric":         func() ([]float64, error) { return weighting.Geometric(n, 0.9) },
			"HalfLife":          func() ([]float64, error) { return weighting.HalfLife(n, 3) },
			"EMA":               func() ([]float64, error) { return weighting.EMA(n, 0.9) },
			"Power":             func() ([]float64, error) { return weighting.Power(n, 1) },
			"PowerSigma":        func() ([]float64, error) { return weighting.PowerSigma(n, 0.1) },
			"ArticleRecurrence": func() ([]float64, error) { return weighting.ArticleRecurrence(n, 0.9) },
		} {
			w, err := make()
			if want := fmt.Sprintf("got n = %d, want at most ", n); w != nil || !errors.Is(err, weighting.ErrTooMany) ||
				!strings.Contains(err.Error(), want) {
				t.Errorf("%s(%d): %d weights, %v, want an error with %q", name, n, len(w), err, want)
			}
		}
		if err := weighting.Check([]float64{1}, n); !errors.Is(err, weighting.ErrWeightCount) {
			t.Errorf("Check for %d models: %v", n, err)
		}
	}
}
