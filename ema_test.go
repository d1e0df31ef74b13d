package modelavg_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"math/big"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/modelavg/modelavg"
	"github.com/modelavg/modelavg/internal/implementation"
	"github.com/modelavg/modelavg/weighting"
)

// An emaRule is a way to make a moving average, and the exact weights that it has to have after k updates.
type emaRule[T modelavg.Element] struct {
	name    string
	make    func(n int) (*modelavg.EMA[T], error)
	weights func(k int) []*big.Float
	state   float64 // unit roundoff of the sum
}

// wider returns x, or x + 0, in so many bits that all roundings of the reference together do not matter.
func wider(x float64) *big.Float { return new(big.Float).SetPrec(400).SetFloat64(x) }

func quotient(a, b int) *big.Float { return wider(0).Quo(wider(float64(a)), wider(float64(b))) }

// weightsOf makes weights of a recurrence whose update t keeps so much of the average.
func weightsOf(kept func(t int) *big.Float) func(k int) []*big.Float {
	return func(k int) []*big.Float {
		w := make([]*big.Float, k)
		rest := wider(1)
		for t := k; t >= 1; t-- {
			d := kept(t)
			w[t-1] = wider(1)
			w[t-1].Sub(w[t-1], d).Mul(w[t-1], rest)
			rest.Mul(rest, d)
		}
		return w
	}
}

// vector makes weights of a vector of package weighting.
func vector(make func(k int) ([]float64, error)) func(k int) []*big.Float {
	return func(k int) []*big.Float {
		v, err := make(k)
		if err != nil {
			panic(err)
		}
		w, sum := []*big.Float(nil), wider(0)
		for _, x := range v {
			w = append(w, wider(x))
			sum.Add(sum, wider(x))
		}
		for _, x := range w {
			x.Quo(x, sum)
		}
		return w
	}
}

func emaRules[T modelavg.Element]() []emaRule[T] {
	const wide, narrow = 0x1p-53, 0x1p-24
	half := elementSize[T]() == 2
	state := func(decay float64) float64 {
		if half && 1-decay >= math.Ldexp(1, formatOf[T]().precision-22) {
			return narrow
		}
		return wide
	}
	var rules []emaRule[T]
	for _, decay := range []float64{0, 0x1p-1074, 1e-300, 1e-30, 0.1, 0.5, 0.9, 0.999, 0.9999, 1 - 0x1p-30, 1 - 0x1p-53, 1} {
		first := func(t int) *big.Float {
			if t == 1 {
				return wider(0)
			}
			return wider(decay)
		}
		rules = append(rules, emaRule[T]{
			fmt.Sprintf("decay %v", decay),
			func(n int) (*modelavg.EMA[T], error) { return modelavg.NewEMA[T](n, decay) },
			weightsOf(first), state(decay),
		}, emaRule[T]{
			fmt.Sprintf("bias correction, decay %v", decay),
			func(n int) (*modelavg.EMA[T], error) {
				return modelavg.NewEMA[T](n, decay, modelavg.WithBiasCorrection())
			},
			weightsOf(func(t int) *big.Float { // 1 − 1/(1 + d + … + d^(t−1))
				sum := wider(1)
				for range t - 1 {
					sum.Mul(sum, wider(decay)).Add(sum, wider(1))
				}
				return wider(0).Sub(wider(1), sum.Quo(wider(1), sum))
			}), state(decay),
		}, emaRule[T]{
			fmt.Sprintf("warm-up, decay %v", decay),
			func(n int) (*modelavg.EMA[T], error) { return modelavg.NewEMA[T](n, decay, modelavg.WithWarmup()) },
			weightsOf(func(t int) *big.Float {
				d, k := first(t), quotient(t, t+9)
				if k.Cmp(d) < 0 {
					return k
				}
				return d
			}), state(decay),
		}, emaRule[T]{
			fmt.Sprintf("inverse gamma 1, 1, decay %v", decay), // the plain mean until the decay is reached
			func(n int) (*modelavg.EMA[T], error) {
				return modelavg.NewEMA[T](n, decay, modelavg.WithInverseGammaWarmup(1, 1))
			},
			weightsOf(func(t int) *big.Float {
				d, k := first(t), quotient(t-1, t)
				if k.Cmp(d) < 0 {
					return k
				}
				return d
			}), state(decay),
		})
	}
	// Against the vectors, which are computed in another way.
	corrected := modelavg.WithBiasCorrection()
	return append(rules, emaRule[T]{
		"weighting.EMA",
		func(n int) (*modelavg.EMA[T], error) { return modelavg.NewEMA[T](n, 0.8) },
		vector(func(k int) ([]float64, error) { return weighting.EMA(k, 0.8) }), state(0.8),
	}, emaRule[T]{
		"weighting.Geometric",
		func(n int) (*modelavg.EMA[T], error) { return modelavg.NewEMA[T](n, 0.95, corrected) },
		vector(func(k int) ([]float64, error) { return weighting.Geometric(k, 0.95) }), state(0.95),
	}, emaRule[T]{
		"weighting.HalfLife",
		func(n int) (*modelavg.EMA[T], error) { return modelavg.NewEMAHalfLife[T](n, 7, corrected) },
		vector(func(k int) ([]float64, error) { return weighting.HalfLife(k, 7) }), state(0.9),
	}, emaRule[T]{
		"weighting.Uniform",
		func(n int) (*modelavg.EMA[T], error) { return modelavg.NewEMAPower[T](n, 0) },
		vector(weighting.Uniform), wide,
	}, emaRule[T]{
		"weighting.Power",
		func(n int) (*modelavg.EMA[T], error) { return modelavg.NewEMAPower[T](n, 6.94) },
		vector(func(k int) ([]float64, error) { return weighting.Power(k, 6.94) }), wide,
	}, emaRule[T]{
		"weighting.PowerSigma",
		func(n int) (*modelavg.EMA[T], error) { return modelavg.NewEMAPowerSigma[T](n, 0.05) },
		vector(func(k int) ([]float64, error) { return weighting.PowerSigma(k, 0.05) }), wide,
	})
}

// emaBound is the stated distance of the unrounded average of models[·][i] from the exact one.
func emaBound[T modelavg.Element](models [][]T, i int, w []*big.Float, state float64) (exact, bound *big.Float) {
	exact, bound = wider(0), wider(0)
	for k, m := range models {
		x := wider(number(m[i]))
		x.Mul(x, w[k])
		exact.Add(exact, x)
		age := len(models) - 1 - k
		bound.Add(bound, x.Abs(x).Mul(x, wider(float64(5*age+8))))
	}
	bound.Mul(bound, wider(state))
	if state == 0x1p-24 {
		return exact, bound.Add(bound, wider(0x1p-119))
	}
	return exact, bound.Add(bound, wider(0x1p-961))
}

// Numbers that are hardly above zero lose bits in an update that scales the sum twice: when it is scaled, and when the
// product is added. What the two lose stays within the stated bound.
func TestEMAUnderflow(t *testing.T) {
	t.Run("float32 state", func(t *testing.T) {
		testEMAUnderflow[modelavg.BFloat16](t, 0x1p-24, 0x1p-131, [][]modelavg.BFloat16{
			{modelavg.NewBFloat16(7.8611185e-38)}, {modelavg.NewBFloat16(-9.3304864e-38)},
		}, 0.125)
		rng := rand.New(rand.NewPCG(43, 44))
		for _, decay := range []float64{0x1p-100, 0x1p-85, 0x1p-20, 1e-3, 0.124, 0.125, 0.5, 0.9} {
			models := make([][]modelavg.BFloat16, 8)
			for k := range models { // of all sizes below 2⁻¹⁰⁰
				models[k] = make([]modelavg.BFloat16, 300)
				for i := range models[k] {
					models[k][i] = modelavg.BFloat16(rng.IntN(27<<7) | rng.IntN(2)<<15)
				}
			}
			testEMAUnderflow(t, 0x1p-24, 0x1p-131, models, decay)
		}
	})
	t.Run("float64 state", func(t *testing.T) {
		rng := rand.New(rand.NewPCG(45, 46))
		for _, decay := range []float64{0x1p-1074, 0x1p-1000, 1e-19, 1e-3, 0.125, 0.5, 0.9999} {
			models := make([][]float64, 8)
			for k := range models {
				models[k] = make([]float64, 300)
				for i := range models[k] {
					models[k][i] = math.Float64frombits(rng.Uint64N(100<<52) | rng.Uint64N(2)<<63)
				}
			}
			testEMAUnderflow(t, 0x1p-53, 0x1p-1012, models, decay)
		}
	})
}

// testEMAUnderflow compares the average of the models, and the quotient of the saved sum and its weight, with the bound
// that has underflow/(1−decay) in it.
func testEMAUnderflow[T modelavg.Element](t *testing.T, state, underflow float64, models [][]T, decay float64) {
	t.Helper()
	format := formatOf[T]()
	e, err := modelavg.NewEMA[T](len(models[0]), decay)
	must(t, err)
	got := make([]T, len(models[0]))
	for k, m := range models {
		must(t, e.Update(m))
		must(t, e.Average(got))
		saved, err := e.MarshalBinary()
		must(t, err)
		total := wider(math.Float64frombits(binary.LittleEndian.Uint64(saved[48:])))
		w := weightsOf(func(t int) *big.Float {
			if t == 1 {
				return wider(0)
			}
			return wider(decay)
		})(k + 1)
		for i := range got {
			exact, bound := wider(0), wider(0)
			for j, m := range models[:k+1] {
				x := wider(number(m[i]))
				x.Mul(x, w[j])
				exact.Add(exact, x)
				bound.Add(bound, x.Abs(x).Mul(x, wider(float64(5*(k-j)+8))))
			}
			bound.Mul(bound, wider(state)).Add(bound, wider(0).Quo(wider(underflow), wider(1-decay)))
			low, _ := wider(0).Sub(exact, bound).Rat(nil)
			high, _ := wider(0).Add(exact, bound).Rat(nil)
			if v := rational(number(got[i])); v.Cmp(format.round(low)) < 0 || v.Cmp(format.round(high)) > 0 {
				t.Fatalf("decay %v, update %d, element %d: got %v, want %.10g ± %.3g, rounded",
					decay, k+1, i, number(got[i]), exact, bound)
			}
			var sum float64
			if state == 0x1p-24 {
				sum = float64(math.Float32frombits(binary.LittleEndian.Uint32(saved[64+4*i:])))
			} else {
				sum = math.Float64frombits(binary.LittleEndian.Uint64(saved[64+8*i:]))
			}
			average := wider(0).Quo(wider(sum), total)
			if off := wider(0).Sub(average, exact); off.Abs(off).Cmp(bound) > 0 {
				t.Fatalf("decay %v, update %d, element %d: the sum is off by %.4g, want at most %.4g",
					decay, k+1, i, off, bound)
			}
		}
	}
}

// A warm-up that adds less than half an ulp of one still adds it, as long as float64 has the product.
func TestEMASmallSteps(t *testing.T) {
	for _, test := range []struct {
		inverseGamma, exponent, decay float64
		models                        []float64
		want                          float64
	}{
		{1, 60, 1, []float64{0, 1}, 0x1p-60},
		{1, 900, 1, []float64{0, -3}, -3 * 0x1p-900},
		{1, 60, 1 - 0x1p-53, []float64{0, 1}, 0x1p-53}, // the decay has been reached
		{1, 1060, 1, []float64{5, 1}, 5},               // the product with the weight of the sum is zero
		{1, 2000, 1, []float64{5, 1}, 5},               // the weight is zero
		{0x1p70, 1, 1e-18, []float64{1, 0}, 0x1p-70},   // keeps less than half an ulp of one
	} {
		e, err := modelavg.NewEMA[float64](1, test.decay,
			modelavg.WithInverseGammaWarmup(test.inverseGamma, test.exponent))
		must(t, err)
		for _, x := range test.models {
			must(t, e.Update([]float64{x}))
		}
		var got [1]float64
		must(t, e.Average(got[:]))
		if !(math.Abs(got[0]-test.want) <= 0x1p-50*math.Abs(test.want)) {
			t.Errorf("inverse gamma %v, exponent %v, decay %v, models %v: got %v, want %v",
				test.inverseGamma, test.exponent, test.decay, test.models, got[0], test.want)
		}
	}
}

// After every update the average lies where the exact one, moved by no more than the bound, is rounded to.
func TestEMA(t *testing.T) {
	t.Run("float32", testEMA[float32])
	t.Run("float64", testEMA[float64])
	t.Run("Float16", testEMA[modelavg.Float16])
	t.Run("BFloat16", testEMA[modelavg.BFloat16])
}

func testEMA[T modelavg.Element](t *testing.T) {
	const n, updates = 11, 150
	format := formatOf[T]()
	for index, rule := range emaRules[T]() {
		rng := rand.New(rand.NewPCG(31, uint64(index)))
		models := randomModels[T](rng, updates, n)
		e, err := rule.make(n)
		must(t, err)
		got := make([]T, n)
		for k := 1; k <= updates; k++ {
			must(t, e.Update(models[k-1]))
			if k > 4 && k%49 != 0 && k != updates {
				continue
			}
			if e.Updates() != int64(k) || e.Len() != n {
				t.Fatalf("%s: %d updates of %d elements, want %d of %d", rule.name, e.Updates(), e.Len(), k, n)
			}
			must(t, e.Average(got))
			w := rule.weights(k)
			for i := range got {
				exact, bound := emaBound(models[:k], i, w, rule.state)
				if elementSize[T]() == 2 && rule.state == 0x1p-53 { // rounded to float32 on the way
					bound.Add(bound, wider(0x1p-24*math.Abs(number(got[i]))))
				}
				low, _ := wider(0).Sub(exact, bound).Rat(nil)
				high, _ := wider(0).Add(exact, bound).Rat(nil)
				if v := rational(number(got[i])); v.Cmp(format.round(low)) < 0 || v.Cmp(format.round(high)) > 0 {
					e, _ := exact.Float64()
					b, _ := bound.Float64()
					t.Fatalf("%s, update %d, element %d: got %v, want %v ± %v, rounded", rule.name, k, i, number(got[i]), e, b)
				}
			}
		}
	}
}

// The moving average of a series is the weighted sum of the series, but for roundings.
func TestEMAIsAWeightedSum(t *testing.T) {
	const n, k = 1000, 60
	models := randomModels[float32](rand.New(rand.NewPCG(33, 34)), k, n)
	for _, rule := range emaRules[float32]() {
		if !strings.HasPrefix(rule.name, "weighting.") {
			continue
		}
		e, err := rule.make(n)
		must(t, err)
		for _, m := range models {
			must(t, e.Update(m))
		}
		var w []float64
		for _, x := range rule.weights(k) {
			f, _ := x.Float64()
			w = append(w, f)
		}
		got, want := make([]float32, n), make([]float32, n)
		must(t, e.Average(got))
		must(t, modelavg.WeightedSum(want, models, w))
		differ := 0
		for i := range got {
			if got[i] != want[i] {
				differ++
				if up, down := math.Nextafter32(want[i], 9), math.Nextafter32(want[i], -9); got[i] != up && got[i] != down {
					t.Errorf("%s, element %d: got %v, want %v", rule.name, i, got[i], want[i])
				}
			}
		}
		if differ > 3 { // both round once, so that they part at ties alone, or at what is hardly one
			t.Errorf("%s: %d of %d elements differ", rule.name, differ, n)
		}
	}
}

// ---- the other libraries

type emaGolden struct {
	Series []struct {
		Name, DType, Decay      string
		Models, Averages, Wider []string
	}
	Decays []struct {
		Library, Rule       string
		Decay, InverseGamma float64
		Power               float64
		Updates             []int64
		Values              string
	}
}

func readEMAGolden(t *testing.T) emaGolden {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "golden", "ema.json"))
	must(t, err)
	data = []byte(strings.ReplaceAll(string(data), `"inverse_gamma"`, `"InverseGamma"`))
	var golden emaGolden
	must(t, json.Unmarshal(data, &golden))
	if len(golden.Series) < 20 || len(golden.Decays) < 30 {
		t.Fatalf("%d series and %d decays", len(golden.Series), len(golden.Decays))
	}
	return golden
}

// After every update the average is within one rounding of what PyTorch has in float64, and as near to what it has in
// the element type as PyTorch's own roundings are.
func TestEMAGolden(t *testing.T) {
	for _, s := range readEMAGolden(t).Series {
		t.Run(s.Name, func(t *testing.T) {
			decay := decode[float64](t, s.Decay)[0]
			switch s.DType {
			case "float64":
				testEMAGolden[float64](t, decay, s.Models, s.Averages, s.Wider)
			case "float32":
				testEMAGolden[float32](t, decay, s.Models, s.Averages, s.Wider)
			case "float16":
				testEMAGolden[modelavg.Float16](t, decay, s.Models, s.Averages, s.Wider)
			case "bfloat16":
				testEMAGolden[modelavg.BFloat16](t, decay, s.Models, s.Averages, s.Wider)
			default:
				t.Fatal(s.DType)
			}
		})
	}
}

func testEMAGolden[T modelavg.Element](t *testing.T, decay float64, series, averages, wider []string) {
	unit, _ := unitRoundoff[T]()
	var e *modelavg.EMA[T]
	var got []T
	most, held := 0.0, 0.0
	for k := range series {
		model := decode[T](t, series[k])
		if e == nil {
			var err error
			e, err = modelavg.NewEMA[T](len(model), decay)
			must(t, err)
			got = make([]T, len(model))
		}
		must(t, e.Update(model))
		must(t, e.Average(got))
		for _, x := range model {
			most = max(most, math.Abs(number(x)))
		}
		if k > 0 { // PyTorch rounds the difference, its product with 1−decay and the sum
			held = decay*held + 6*unit*most
		}
		torch, wide := decode[T](t, averages[k]), decode[float64](t, wider[k])
		for i := range got {
			x := number(got[i])
			if off := math.Abs(x - number(torch[i])); !(off <= held+2*unit*most) {
				t.Errorf("update %d, element %d: got %v, PyTorch has %v, want within %v", k+1, i, x, number(torch[i]), held)
			}
			_, size := math.Frexp(wide[i])
			ulp := math.Ldexp(1, max(size, formatOf[T]().least+1)-formatOf[T]().precision)
			slack := 0x1p-49 * most
			if elementSize[T]() == 2 {
				slack = 0x1p-21 * most
			}
			if off := math.Abs(x - wide[i]); !(off <= ulp/2+slack) {
				t.Errorf("update %d, element %d: got %v, PyTorch has %v in float64, want within half an ulp, %v", k+1, i, x, wide[i], ulp/2)
			}
		}
	}
	if first := decode[T](t, series[0]); decay == 0.999 && len(series) > 20 {
		last := decode[T](t, averages[len(averages)-1])
		if sameBits(got, first) || !sameBits(last, first) {
			t.Errorf("got %v from %v; PyTorch has %v: want one that has moved and one that has not", got, first, last)
		}
	}
}

// The warm-ups count their updates as the libraries do.
func TestEMADecayGolden(t *testing.T) {
	for _, c := range readEMAGolden(t).Decays {
		name := fmt.Sprintf("%s, %s %v %v, decay %v", c.Library, c.Rule, c.InverseGamma, c.Power, c.Decay)
		option := modelavg.WithWarmup()
		if c.Rule == "inverse gamma" {
			option = modelavg.WithInverseGammaWarmup(c.InverseGamma, c.Power)
		}
		e, err := modelavg.NewEMA[float32](0, c.Decay, option)
		must(t, err)
		tolerance := 0x1p-52
		if c.Library == "ema-pytorch" { // it computes in float32
			tolerance = 0x1p-22
		}
		for i, want := range decode[float64](t, c.Values) {
			for e.Updates()+1 < c.Updates[i] {
				must(t, e.Update(nil))
			}
			if got := e.Decay(); math.Abs(got-want) > tolerance {
				t.Errorf("%s: update %d has decay %v, want %v", name, c.Updates[i], got, want)
			}
		}
	}
}

// ---- long runs

// A long series in 16 bits: the average moves to a model that is hardly another one, follows the exact average all the
// way, and ends at the model.
func TestEMAMoves(t *testing.T) {
	t.Run("float32", testEMAMoves[float32])
	t.Run("Float16", testEMAMoves[modelavg.Float16])
	t.Run("BFloat16", testEMAMoves[modelavg.BFloat16])
}

func testEMAMoves[T modelavg.Element](t *testing.T) {
	format := formatOf[T]()
	for _, decay := range []float64{0.99, 0.9999} {
		e, err := modelavg.NewEMA[T](3, decay)
		must(t, err)
		from, to := []float64{1, -1.5, 1}, []float64{1 + math.Ldexp(1, 1-format.precision), -1.5, 3}
		start, target := make([]T, 3), make([]T, 3)
		for i := range start {
			start[i], target[i] = exactElement[T](from[i]), exactElement[T](to[i])
		}
		must(t, e.Update(start))
		got := make([]T, 3)
		updates := int(40 / (1 - decay))
		for k := 1; k <= updates; k++ {
			must(t, e.Update(target))
			if k%(updates/40) != 0 && k != updates {
				continue
			}
			must(t, e.Average(got))
			for i := range got {
				want := to[i] + (from[i]-to[i])*math.Pow(decay, float64(k))
				half := math.Ldexp(math.Abs(want), -format.precision) // at least half an ulp
				if off := math.Abs(number(got[i]) - want); off > 1.5*half {
					t.Errorf("decay %v, update %d: got %v, want %v", decay, k, number(got[i]), want)
				}
			}
		}
		checkBits(t, fmt.Sprintf("decay %v, after %d updates", decay, updates), got, target)
	}
}

// exactElement returns x, which T has.
func exactElement[T modelavg.Element](x float64) T {
	switch any(*new(T)).(type) {
	case float32:
		return any(float32(x)).(T)
	case float64:
		return any(x).(T)
	case modelavg.Float16:
		return any(modelavg.NewFloat16(float32(x))).(T)
	}
	return any(modelavg.NewBFloat16(float32(x))).(T)
}

// The average of equal models is that model.
func TestEMAIdentity(t *testing.T) {
	t.Run("float32", testEMAIdentity[float32])
	t.Run("Float16", testEMAIdentity[modelavg.Float16])
	t.Run("BFloat16", testEMAIdentity[modelavg.BFloat16])
}

func testEMAIdentity[T modelavg.Element](t *testing.T) {
	const n = 500
	model := randomModel[T](rand.New(rand.NewPCG(35, 36)), n)
	for _, rule := range emaRules[T]() {
		e, err := rule.make(n)
		must(t, err)
		got := make([]T, n)
		for k := range 1000 {
			must(t, e.Update(model))
			if k < 50 || k%100 == 0 {
				must(t, e.Average(got))
				checkBits(t, fmt.Sprintf("%s, update %d", rule.name, k+1), got, model)
			}
		}
	}
}

// ---- single numbers

// A copy has all the bits: signs of zero, subnormal numbers, the greatest ones, infinities; and NaN is NaN. So has the
// average that is at its end after an update of decay 0, whatever it was before.
func TestEMACopies(t *testing.T) {
	t.Run("float32", testEMACopies[float32])
	t.Run("float64", testEMACopies[float64])
	t.Run("Float16", testEMACopies[modelavg.Float16])
	t.Run("BFloat16", testEMACopies[modelavg.BFloat16])
}

func testEMACopies[T modelavg.Element](t *testing.T) {
	sign := uint64(1) << (8*elementSize[T]() - 1)
	infinity := sign - 1<<(formatOf[T]().precision-1)
	var model []T
	for _, b := range []uint64{0, 1, 2, 3, 1<<(formatOf[T]().precision-1) - 1, infinity - 1, infinity} {
		model = append(model, fromBits[T](b), fromBits[T](b|sign))
	}
	nan := slices.Repeat([]T{fromBits[T](infinity + 1)}, len(model))
	for _, decay := range []float64{0, 0.9, 1 - 0x1p-20} {
		e, err := modelavg.NewEMA[T](len(model), decay)
		must(t, err)
		got := make([]T, len(model))
		if decay == 0 {
			must(t, e.Update(nan))
		}
		must(t, e.Update(model))
		must(t, e.Average(got))
		checkBits(t, fmt.Sprintf("decay %v", decay), got, model)

		must(t, e.Update(nan))
		must(t, e.Average(got))
		for i := range got {
			if !math.IsNaN(number(got[i])) {
				t.Errorf("decay %v: got %v after a NaN, want NaN", decay, number(got[i]))
			}
		}
		if decay > 0 { // it stays
			must(t, e.Update(model))
			must(t, e.Average(got))
			if !math.IsNaN(number(got[0])) {
				t.Errorf("decay %v: got %v after a NaN and a number, want NaN", decay, number(got[0]))
			}
		}
		e.Reset()
		if e.Updates() != 0 || e.Decay() != 0 {
			t.Errorf("after Reset: %d updates, decay %v, want 0 and 0", e.Updates(), e.Decay())
		}
		must(t, e.Update(model))
		must(t, e.Average(got))
		checkBits(t, "after Reset", got, model)
	}
}

// The greatest numbers do not overflow the sum; infinities stay infinities.
func TestEMARange(t *testing.T) {
	t.Run("float32", testEMARange[float32])
	t.Run("float64", testEMARange[float64])
	t.Run("Float16", testEMARange[modelavg.Float16])
	t.Run("BFloat16", testEMARange[modelavg.BFloat16])
}

func testEMARange[T modelavg.Element](t *testing.T) {
	infinity := uint64(1)<<(8*elementSize[T]()-1) - 1<<(formatOf[T]().precision-1)
	great := fromBits[T](infinity - 1<<(formatOf[T]().precision-2)) // three quarters of the greatest power of two's double
	model := []T{great, fromBits[T](infinity)}
	for _, rule := range emaRules[T]() {
		e, err := rule.make(2)
		must(t, err)
		got := make([]T, 2)
		for range 300 {
			must(t, e.Update(model))
			must(t, e.Average(got))
			if x := number(got[0]); math.Abs(x/number(great)-1) > 0x1p-40 {
				t.Fatalf("%s: got %v after %d updates, want %v", rule.name, x, e.Updates(), number(great))
			}
			if x := number(got[1]); !math.IsInf(x, 1) {
				t.Fatalf("%s: got %v after %d updates, want +Inf", rule.name, x, e.Updates())
			}
		}
	}
}

// An average that is rounded beyond the greatest float64 is infinite, and is finite again with the next model: the sum
// has not overflowed.
func TestEMAGreatest(t *testing.T) {
	e, err := modelavg.NewEMA[float64](1, 0.9999)
	must(t, err)
	var got [1]float64
	infinite := 0
	for range 20_000 {
		must(t, e.Update([]float64{math.MaxFloat64}))
		must(t, e.Average(got[:]))
		if math.IsInf(got[0], 1) {
			infinite++
		} else if !(got[0] >= math.MaxFloat64*(1-0x1p-40)) {
			t.Fatalf("update %d: got %v, want nearly %v or infinity", e.Updates(), got[0], math.MaxFloat64)
		}
	}
	must(t, e.Update([]float64{0}))
	must(t, e.Average(got[:]))
	if want := 0.9999 * math.MaxFloat64; infinite == 0 || !(math.Abs(got[0]/want-1) < 0x1p-40) {
		t.Errorf("after %d infinite averages and a zero: got %v, want %v", infinite, got[0], want)
	}
}

// With decay 1 later models are not read.
func TestEMAUnread(t *testing.T) {
	e, err := modelavg.NewEMA[float32](2, 1)
	must(t, err)
	must(t, e.Update([]float32{1, -2}))
	must(t, e.Update([]float32{float32(math.NaN()), float32(math.Inf(1))}))
	got := make([]float32, 2)
	must(t, e.Average(got))
	if got[0] != 1 || got[1] != -2 || e.Updates() != 2 {
		t.Errorf("got %v after %d updates, want [1 -2] after 2", got, e.Updates())
	}
}

// ---- ways to compute

// Workers, implementations and places in memory do not change a bit.
func TestEMASameBits(t *testing.T) {
	t.Run("float32", testEMASameBits[float32])
	t.Run("float64", testEMASameBits[float64])
	t.Run("Float16", testEMASameBits[modelavg.Float16])
	t.Run("BFloat16", testEMASameBits[modelavg.BFloat16])
}

func testEMASameBits[T modelavg.Element](t *testing.T) {
	const n, updates = 1<<17 + 13, 9
	models := randomModels[T](rand.New(rand.NewPCG(37, 38)), updates, n+1)
	for _, decay := range []float64{0.01, 0.999999} {
		run := func(offset int, options ...modelavg.Option) []T {
			e, err := modelavg.NewEMA[T](n, decay)
			must(t, err)
			for _, m := range models {
				must(t, e.Update(m[offset:][:n], options...))
			}
			dst := make([]T, n+1)[offset:][:n]
			must(t, e.Average(dst, options...))
			return dst
		}
		want := run(0)
		for _, workers := range []int{0, 2, 3, 7} {
			checkBits(t, fmt.Sprintf("decay %v, %d workers", decay, workers), run(0, modelavg.WithWorkers(workers)), want)
		}
		shifted := run(1)
		for k := range models {
			copy(models[k], models[k][1:])
		}
		checkBits(t, "at another address", shifted, run(0))
		want = run(0)
		for _, i := range implementation.Available() {
			restore, err := implementation.Force(i.String())
			must(t, err)
			got := run(0)
			restore()
			checkBits(t, fmt.Sprintf("decay %v, %v", decay, i), got, want)
		}
	}
}

// One goroutine trains while others average, save and ask. Run with the race detector, this shows that they do not
// meet; the averages show that they see whole updates.
func TestEMAConcurrent(t *testing.T) {
	const n, updates = 20_000, 60
	e, err := modelavg.NewEMA[float32](n, 0.9)
	must(t, err)
	model := make([]float32, n)
	must(t, e.Update(model))
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			dst := make([]float32, n)
			for last := float32(0); ; {
				if err := e.Average(dst); err != nil {
					t.Error(err)
					return
				}
				for i, x := range dst {
					if x != dst[0] || x < last {
						t.Errorf("element %d is %v, element 0 %v, and was %v before", i, x, dst[0], last)
						return
					}
				}
				last = dst[0]
				if b, err := e.MarshalBinary(); err != nil || new(modelavg.EMA[float32]).UnmarshalBinary(b) != nil {
					t.Error("a state that cannot be read")
					return
				}
				_, _, _ = e.Len(), e.Updates(), e.Decay()
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	for k := range updates {
		for i := range model {
			model[i] = float32(k)
		}
		if err := e.Update(model); err != nil {
			t.Error(err)
		}
	}
	close(done)
	readers.Wait()
}

// ---- errors

func TestEMAErrors(t *testing.T) {
	nan, infinity := math.NaN(), math.Inf(1)
	for _, test := range []struct {
		name string
		f    func() error
		want error
		text string
	}{
		{"n", func() error { _, err := modelavg.NewEMA[float32](-1, 0.9); return err }, modelavg.ErrLength, "got n = -1"},
		{"great n", func() error { _, err := modelavg.NewEMA[float32](math.MaxInt, 0.9); return err }, modelavg.ErrLength, "want 0 to"},
		{"decay", func() error { _, err := modelavg.NewEMA[float32](1, 1.5); return err }, modelavg.ErrDecay, "got 1.5, want 0 to 1"},
		{"NaN decay", func() error { _, err := modelavg.NewEMA[float32](1, nan); return err }, modelavg.ErrDecay, "got NaN"},
		{"inverse gamma", func() error {
			_, err := modelavg.NewEMA[float32](1, 0.9, modelavg.WithInverseGammaWarmup(0, 1))
			return err
		}, modelavg.ErrOption, "got inverse gamma 0 and exponent 1"},
		{"exponent", func() error {
			_, err := modelavg.NewEMA[float32](1, 0.9, modelavg.WithInverseGammaWarmup(1, infinity))
			return err
		}, modelavg.ErrOption, "exponent +Inf"},
		{"half-life", func() error { _, err := modelavg.NewEMAHalfLife[float32](1, 0); return err }, modelavg.ErrHalfLife, "got 0"},
		{"gamma", func() error { _, err := modelavg.NewEMAPower[float32](1, -1); return err }, modelavg.ErrGamma, "got -1"},
		{"NaN gamma", func() error { _, err := modelavg.NewEMAPower[float32](1, nan); return err }, modelavg.ErrGamma, "got NaN"},
		{"sigma", func() error { _, err := modelavg.NewEMAPowerSigma[float32](1, 0.3); return err }, modelavg.ErrSigma, "got 0.3"},
	} {
		err := test.f()
		if !errors.Is(err, test.want) || !strings.Contains(err.Error(), test.text) || !strings.HasPrefix(err.Error(), "modelavg: ") {
			t.Errorf("%s: got error %v, want one of %q that contains %q", test.name, err, test.want, test.text)
		}
	}

	e, err := modelavg.NewEMA[float32](2, 0.5)
	must(t, err)
	dst := canary[float32](2)
	if err := e.Average(dst); !errors.Is(err, modelavg.ErrNoModels) || !sameBits(dst, canary[float32](2)) {
		t.Errorf("before the first update: got %v and error %v, want one of %q", dst, err, modelavg.ErrNoModels)
	}
	must(t, e.Update([]float32{1, 2}))
	before, _ := e.MarshalBinary()
	for name, err := range map[string]error{
		"short model":        e.Update([]float32{1}),
		"no model":           e.Update(nil),
		"long dst":           e.Average(canary[float32](3)),
		"short dst":          e.Average(dst[:1]),
		"workers":            e.Update([]float32{1, 2}, modelavg.WithWorkers(-1)),
		"accumulation":       e.Update([]float32{1, 2}, modelavg.WithAccumulation(modelavg.Wider)),
		"Average's workers":  e.Average(dst, modelavg.WithWorkers(-1)),
		"Average's accuracy": e.Average(dst, modelavg.WithAccumulation(modelavg.Native)),
	} {
		if !errors.Is(err, modelavg.ErrLength) && !errors.Is(err, modelavg.ErrOption) {
			t.Errorf("%s: got error %v", name, err)
		}
	}
	for _, a := range []struct {
		value modelavg.Accumulation
		name  string
	}{{modelavg.Wider, "Wider"}, {modelavg.Native, "Native"}, {modelavg.Exact, "Exact"}, {77, "77"}} {
		want := "modelavg: option out of range: got accumulation " + a.name +
			", want DefaultAccumulation: the format of a moving average is fixed"
		for call, err := range map[string]error{
			"Update":  e.Update([]float32{1, 2}, modelavg.WithAccumulation(a.value)),
			"Average": e.Average(dst, modelavg.WithAccumulation(a.value)),
		} {
			if !errors.Is(err, modelavg.ErrOption) || err.Error() != want {
				t.Errorf("%s: got error %v, want %q", call, err, want)
			}
		}
	}
	if after, _ := e.MarshalBinary(); !slices.Equal(after, before) || !sameBits(dst, canary[float32](2)) {
		t.Error("an error has changed the average, or dst")
	}
	if err := e.Update([]float32{1, 2, 3}); err.Error() !=
		"modelavg: lengths differ: the model has 3 elements, want 2 as in the average" {
		t.Error(err)
	}
}

// ---- the state

// A restored average goes on with the bits of the one that was saved.
func TestEMAState(t *testing.T) {
	t.Run("float32", testEMAState[float32])
	t.Run("float64", testEMAState[float64])
	t.Run("Float16", testEMAState[modelavg.Float16])
	t.Run("BFloat16", testEMAState[modelavg.BFloat16])
}

func testEMAState[T modelavg.Element](t *testing.T) {
	const n = 33
	models := randomModels[T](rand.New(rand.NewPCG(41, 42)), 40, n)
	for _, rule := range emaRules[T]() {
		for _, at := range []int{0, 1, 2, 25} {
			e, err := rule.make(n)
			must(t, err)
			for _, m := range models[:at] {
				must(t, e.Update(m))
			}
			state, err := e.AppendBinary([]byte("before"))
			must(t, err)
			state = state[len("before"):]
			restored := new(modelavg.EMA[T])
			must(t, restored.UnmarshalBinary(state))
			if restored.Updates() != int64(at) || restored.Len() != n || restored.Decay() != e.Decay() {
				t.Fatalf("%s: %d updates, %d elements, decay %v", rule.name, restored.Updates(), restored.Len(), restored.Decay())
			}
			for _, m := range models[at:] {
				must(t, e.Update(m))
				must(t, restored.Update(m))
			}
			got, want := make([]T, n), make([]T, n)
			must(t, restored.Average(got))
			must(t, e.Average(want))
			checkBits(t, rule.name, got, want)
			a, err := e.MarshalBinary()
			must(t, err)
			b, err := restored.MarshalBinary()
			must(t, err)
			if !slices.Equal(a, b) {
				t.Errorf("%s: the states differ", rule.name)
			}
		}
	}
	// The zero average.
	var zero, restored modelavg.EMA[T]
	must(t, zero.Update(nil))
	state, err := zero.MarshalBinary()
	must(t, err)
	must(t, restored.UnmarshalBinary(state))
	if restored.Len() != 0 || restored.Updates() != 1 {
		t.Errorf("the zero average: got %d elements and %d updates, want 0 and 1", restored.Len(), restored.Updates())
	}
}

// checksummed returns the state with the byte at an offset replaced, and the checksum that it has to have then.
func checksummed(state []byte, offset int, with ...byte) []byte {
	s := slices.Clone(state)
	copy(s[offset:], with)
	body := s[:len(s)-4]
	binary.LittleEndian.PutUint32(s[len(body):], crc32.Checksum(body, crc32.MakeTable(crc32.Castagnoli)))
	return s
}

func TestEMADamagedState(t *testing.T) {
	e, err := modelavg.NewEMA[float32](3, 0.9)
	must(t, err)
	must(t, e.Update([]float32{1, 2, 3}))
	state, err := e.MarshalBinary()
	must(t, err)
	float := func(x float64) []byte { return binary.LittleEndian.AppendUint64(nil, math.Float64bits(x)) }
	refused := func(name string, data []byte, text string) {
		t.Helper()
		err := e.UnmarshalBinary(data)
		if !errors.Is(err, modelavg.ErrState) || !strings.Contains(err.Error(), text) {
			t.Errorf("%s: got error %v, want one of %q that contains %q", name, err, modelavg.ErrState, text)
		}
		if after, _ := e.MarshalBinary(); !slices.Equal(after, state) {
			t.Fatalf("%s: the average has changed", name)
		}
	}
	for i := range state { // any bit
		for bit := range 8 {
			damaged := slices.Clone(state)
			damaged[i] ^= 1 << bit
			refused(fmt.Sprintf("bit %d of byte %d", bit, i), damaged, "")
		}
		refused(fmt.Sprintf("%d bytes", i), state[:i], "")
	}
	refused("nothing", nil, "0 bytes, want at least 68")
	refused("a byte more", append(slices.Clone(state), 0), "checksum")
	refused("magic", []byte(strings.Repeat("x", 100)), `it begins with "xxxxxxxx"`)
	refused("version", checksummed(state, 8, 2), "version 2, want 1")
	refused("element type", checksummed(state, 9, 4), "element type BFloat16, want float32")
	refused("unknown element type", checksummed(state, 9, 9), "element type 9, want float32")
	refused("rule", checksummed(state, 10, 6), "rule 6, want 1 to 5")
	refused("no rule", checksummed(state, 10, 0), "rule 0")
	refused("size", checksummed(state, 11, 4), "numbers of 4 bytes, want 8")
	refused("reserved", checksummed(state, 13, 1), "0x100 at offset 12")
	refused("decay", checksummed(state, 16, float(1.25)...), "got 1.25, want 0 to 1")
	refused("unused", checksummed(state, 24, float(1)...), "got inverse gamma 1")
	refused("updates", checksummed(state, 40, 255, 255, 255, 255, 255, 255, 255, 255), "-1 updates")
	refused("no updates", checksummed(state, 40, 0), "a weight of 1 before the first update")
	refused("no weight", checksummed(state, 48, float(0)...), "a weight of 0 after 1 updates")
	refused("NaN weight", checksummed(state, 48, float(math.NaN())...), "a weight of NaN")
	refused("great weight", checksummed(state, 48, float(2)...), "a weight of 2")
	refused("elements", checksummed(state, 56, 4), "4 elements in 24 bytes")
	refused("many elements", checksummed(state, 63, 0x80), "9223372036854775811 elements")
	if err := new(modelavg.EMA[float64]).UnmarshalBinary(state); !errors.Is(err, modelavg.ErrState) ||
		err.Error() != "modelavg: invalid saved state: element type float32, want float64" {
		t.Errorf("another type: got error %v", err)
	}
}

// Bytes of any kind are refused without a change or restored to what writes the same bytes and goes on.
func FuzzEMAState(f *testing.F) {
	for _, rule := range emaRules[modelavg.BFloat16]() {
		e, err := rule.make(5)
		if err != nil {
			f.Fatal(err)
		}
		for range 3 {
			if err := e.Update([]modelavg.BFloat16{0x3f80, 0x7f80, 0x8000, 1, 0x7fc0}); err != nil {
				f.Fatal(err)
			}
		}
		state, err := e.MarshalBinary()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(state, false)
		f.Add(state[:len(state)-5], true)
	}
	f.Fuzz(func(t *testing.T, data []byte, repair bool) {
		if repair && len(data) >= 4 {
			data = checksummed(data, 0)
		}
		e, err := modelavg.NewEMA[modelavg.BFloat16](2, 0.5)
		must(t, err)
		must(t, e.Update([]modelavg.BFloat16{1, 2}))
		before, _ := e.MarshalBinary()
		if err := e.UnmarshalBinary(data); err != nil {
			if !errors.Is(err, modelavg.ErrState) {
				t.Errorf("error %v does not wrap %q", err, modelavg.ErrState)
			}
			if after, _ := e.MarshalBinary(); !slices.Equal(after, before) {
				t.Error("an error has changed the average")
			}
			return
		}
		after, err := e.MarshalBinary()
		must(t, err)
		if !slices.Equal(after, data) {
			t.Errorf("got % x, want % x", after, data)
		}
		model := make([]modelavg.BFloat16, e.Len())
		must(t, e.Update(model))
		must(t, e.Average(model))
		after, err = e.MarshalBinary()
		must(t, err)
		must(t, new(modelavg.EMA[modelavg.BFloat16]).UnmarshalBinary(after))
	})
}

// ---- speed

// BenchmarkEMAUpdate has WeightedSum of two models beside it, one of them dst as in an average that is held in the
// element type. Bytes are those that are moved: model, sum and sum again; model, dst and dst again.
func BenchmarkEMAUpdate(b *testing.B) {
	b.Run("dtype=float32", benchEMA[float32])
	b.Run("dtype=float64", benchEMA[float64])
	b.Run("dtype=float16", benchEMA[modelavg.Float16])
	b.Run("dtype=bfloat16", benchEMA[modelavg.BFloat16])
	benchArena = nil
}

func benchEMA[T modelavg.Element](b *testing.B) {
	size := elementSize[T]()
	for _, n := range []int{64, 4096, 65536, 1 << 20, 16 << 20} {
		dst, x := benchInputs[T](n, 2)
		for _, decay := range []float64{0.999, 0.9999999} {
			state := 8
			if size == 2 && decay == 0.999 {
				state = 4
			}
			if state == 8 && size != 2 && decay != 0.999 {
				continue // the same state again
			}
			b.Run(fmt.Sprintf("n=%d/call=EMA/state=%d", n, state), func(b *testing.B) {
				e, err := modelavg.NewEMA[T](n, decay)
				if err != nil {
					b.Fatal(err)
				}
				if err := e.Update(x[0]); err != nil { // the first one touches the memory
					b.Fatal(err)
				}
				b.SetBytes(int64(n * (size + 2*state)))
				b.ReportAllocs()
				for b.Loop() {
					if err := e.Update(x[0]); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		b.Run(fmt.Sprintf("n=%d/call=WeightedSum", n), func(b *testing.B) {
			models, w := [][]T{x[0], x[1]}, []float64{0.999, 0.001}
			b.SetBytes(int64(n * 3 * size))
			for b.Loop() {
				if err := modelavg.WeightedSum(dst, models, w); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("n=%d/call=WeightedSumInPlace", n), func(b *testing.B) {
			models, w := [][]T{dst, x[1]}, []float64{0.999, 0.001}
			b.SetBytes(int64(n * 3 * size))
			for b.Loop() {
				if err := modelavg.WeightedSum(dst, models, w); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
