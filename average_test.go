package modelavg_test

import (
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/modelavg/modelavg"
	"github.com/modelavg/modelavg/weighting"
)

// ---- numbers of every element type

func elementSize[T modelavg.Element]() int { return int(unsafe.Sizeof(*new(T))) }

func fromBits[T modelavg.Element](b uint64) T {
	switch p := any(new(T)).(type) {
	case *float32:
		*p = math.Float32frombits(uint32(b))
		return any(*p).(T)
	case *float64:
		*p = math.Float64frombits(b)
		return any(*p).(T)
	}
	return T(b)
}

func bits[T modelavg.Element](x T) uint64 {
	switch x := any(x).(type) {
	case float32:
		return uint64(math.Float32bits(x))
	case float64:
		return math.Float64bits(x)
	case modelavg.Float16:
		return uint64(x)
	case modelavg.BFloat16:
		return uint64(x)
	}
	panic("unreachable")
}

// A format is a binary floating-point format: bits of significand, the implied one included, and the range of the
// exponent of numbers 1.f·2^e.
type format struct{ precision, least, most int }

var (
	binary64 = format{53, -1022, 1023}
	binary32 = format{24, -126, 127}
	binary16 = format{11, -14, 15}
	bfloat16 = format{8, -126, 127}
)

func formatOf[T modelavg.Element]() format {
	switch any(*new(T)).(type) {
	case float64:
		return binary64
	case float32:
		return binary32
	case modelavg.Float16:
		return binary16
	}
	return bfloat16
}

// unitRoundoff returns half an ulp of one and half the least subnormal number.
func unitRoundoff[T modelavg.Element]() (unit, least float64) {
	f := formatOf[T]()
	return math.Ldexp(1, -f.precision), math.Ldexp(1, max(f.least-f.precision, -1074))
}

// number returns the value of x, which every element type has in float64.
func number[T modelavg.Element](x T) float64 {
	f, b := formatOf[T](), bits(x)
	width := 8 * elementSize[T]()
	fraction := b & (1<<(f.precision-1) - 1)
	exponent := int(b>>(f.precision-1)) & (1<<(width-f.precision) - 1)
	var v float64
	switch exponent {
	case 0:
		v = math.Ldexp(float64(fraction), f.least-f.precision+1)
	case 1<<(width-f.precision) - 1:
		v = math.Inf(1)
		if fraction != 0 {
			return math.NaN()
		}
	default:
		v = math.Ldexp(float64(fraction|1<<(f.precision-1)), exponent-1+f.least-f.precision+1)
	}
	if b>>(width-1) != 0 {
		v = math.Copysign(v, -1)
	}
	return v
}

// round returns x rounded to the format, to nearest even, in exact arithmetic. x must be in the range of the format.
func (f format) round(x *big.Rat) *big.Rat {
	if x.Sign() == 0 {
		return x
	}
	magnitude := new(big.Rat).Abs(x)
	exponent := magnitude.Num().BitLen() - magnitude.Denom().BitLen()
	if magnitude.Cmp(powerOfTwo(exponent)) < 0 {
		exponent--
	}
	quantum := powerOfTwo(max(exponent, f.least) - f.precision + 1)
	ratio := new(big.Rat).Quo(x, quantum)
	// floor(ratio + ½), and back by one when that was a tie that went to an odd number.
	shifted := new(big.Rat).Add(ratio, big.NewRat(1, 2))
	n := new(big.Int).Div(shifted.Num(), shifted.Denom()) // Euclidean: floor for a positive denominator
	if shifted.IsInt() && n.Bit(0) == 1 {
		n.Sub(n, big.NewInt(1))
	}
	rounded := new(big.Rat).Mul(new(big.Rat).SetInt(n), quantum)
	if rounded.Cmp(powerOfTwo(f.most+1)) >= 0 {
		panic("out of range")
	}
	return rounded
}

func powerOfTwo(e int) *big.Rat {
	p := new(big.Rat).SetInt(new(big.Int).Lsh(big.NewInt(1), uint(max(e, -e))))
	if e < 0 {
		p.Inv(p)
	}
	return p
}

func rational(x float64) *big.Rat { return new(big.Rat).SetFloat64(x) }

// randomModel returns n random numbers over ten binary orders of magnitude.
func randomModel[T modelavg.Element](rng *rand.Rand, n int) []T {
	f := formatOf[T]()
	width := 8 * elementSize[T]()
	m := make([]T, n)
	for i := range m {
		b := rng.Uint64() & (1<<(f.precision-1) - 1)
		b |= uint64(-f.least+1-rng.IntN(10)) << (f.precision - 1) // exponents 2⁻⁹ to 2⁰
		b |= rng.Uint64() >> 63 << (width - 1)
		m[i] = fromBits[T](b)
	}
	return m
}

func randomModels[T modelavg.Element](rng *rand.Rand, k, n int) [][]T {
	models := make([][]T, k)
	for i := range models {
		models[i] = randomModel[T](rng, n)
	}
	return models
}

func randomWeights(rng *rand.Rand, k int) []float64 {
	w := make([]float64, k)
	for i := range w {
		w[i] = 0.01 + rng.Float64()
	}
	w, err := weighting.Normalized(w)
	if err != nil {
		panic(err)
	}
	return w
}

// canary returns n elements that no average here produces.
func canary[T modelavg.Element](n int) []T {
	return slices.Repeat([]T{fromBits[T](0x7e5a<<(8*elementSize[T]()-16) | 0x7e5a)}, n)
}

func sameBits[T modelavg.Element](a, b []T) bool {
	return slices.EqualFunc(a, b, func(x, y T) bool { return bits(x) == bits(y) })
}

func checkBits[T modelavg.Element](t *testing.T, name string, got, want []T) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%s: got %d elements, want %d", name, len(got), len(want))
	}
	for i := range got {
		if bits(got[i]) != bits(want[i]) {
			t.Errorf("%s: element %d: got %v (%#x), want %v (%#x)",
				name, i, number(got[i]), bits(got[i]), number(want[i]), bits(want[i]))
			return
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ---- the reference: the contract in exact arithmetic

// reference returns Σ w·x / divisor, every step rounded to the accumulator and the result rounded to the element; a nil
// accumulator is exact.
func reference(accumulator *format, element format, w, x []float64, divisor int64) float64 {
	round := func(r *big.Rat) *big.Rat {
		if accumulator == nil {
			return r
		}
		return accumulator.round(r)
	}
	acc := new(big.Rat)
	for k := range x {
		weight := rational(w[k])
		if accumulator != nil {
			weight = accumulator.round(weight)
		}
		product := new(big.Rat).Mul(weight, rational(x[k]))
		acc = round(acc.Add(acc, product))
	}
	acc = round(new(big.Rat).Quo(acc, big.NewRat(divisor, 1)))
	v, _ := element.round(acc).Float64()
	return v
}

func TestReference(t *testing.T) {
	t.Run("float32", func(t *testing.T) {
		testReference[float32](t, &binary64)
		testReference[float32](t, &binary64, modelavg.WithAccumulation(modelavg.DefaultAccumulation))
		testReference[float32](t, &binary64, modelavg.WithAccumulation(modelavg.Wider))
		testReference[float32](t, &binary32, modelavg.WithAccumulation(modelavg.Native))
	})
	t.Run("float64", func(t *testing.T) {
		testReference[float64](t, &binary64)
		testReference[float64](t, &binary64, modelavg.WithAccumulation(modelavg.DefaultAccumulation))
		testReference[float64](t, &binary64, modelavg.WithAccumulation(modelavg.Native))
		testReference[float64](t, nil, modelavg.WithAccumulation(modelavg.Wider)) // exact, but for ties too close to call
	})
	t.Run("Float16", func(t *testing.T) {
		testReference[modelavg.Float16](t, &binary32)
		testReference[modelavg.Float16](t, &binary32, modelavg.WithAccumulation(modelavg.Wider))
		testReference[modelavg.Float16](t, &binary32, modelavg.WithAccumulation(modelavg.Native))
	})
	t.Run("BFloat16", func(t *testing.T) {
		testReference[modelavg.BFloat16](t, &binary32)
		testReference[modelavg.BFloat16](t, &binary32, modelavg.WithAccumulation(modelavg.Wider))
		testReference[modelavg.BFloat16](t, &binary32, modelavg.WithAccumulation(modelavg.Native))
	})
}

func testReference[T modelavg.Element](t *testing.T, accumulator *format, options ...modelavg.Option) {
	t.Helper()
	const n = 37
	rng := rand.New(rand.NewPCG(3, 4))
	for _, k := range []int{1, 2, 3, 7, 8, 9, 17, 40} {
		models := randomModels[T](rng, k, n)
		weights := randomWeights(rng, k)
		coefficients := make([]float64, k)
		ones := make([]float64, k)
		for i := range k {
			coefficients[i], ones[i] = 4*rng.Float64()-2, 1
		}
		geometric, err := weighting.Geometric(k, 0.9)
		must(t, err)
		for _, test := range []struct {
			name    string
			call    func(dst []T) error
			weights []float64
			divisor int64
		}{
			{"Mean", func(dst []T) error { return modelavg.Mean(dst, models, options...) }, ones, int64(k)},
			{"WeightedMean", func(dst []T) error { return modelavg.WeightedMean(dst, models, weights, options...) }, weights, 1},
			{"ExponentialMean", func(dst []T) error { return modelavg.ExponentialMean(dst, models, 0.9, options...) }, geometric, 1},
			{"WeightedSum", func(dst []T) error { return modelavg.WeightedSum(dst, models, coefficients, options...) }, coefficients, 1},
		} {
			dst := canary[T](n)
			must(t, test.call(dst))
			x := make([]float64, k)
			for i := range n {
				for j := range x {
					x[j] = number(models[j][i])
				}
				want := reference(accumulator, formatOf[T](), test.weights, x, test.divisor)
				if got := number(dst[i]); got != want {
					t.Errorf("%s, %d models, options %v: element %d: got %v, want %v", test.name, k, options, i, got, want)
					break
				}
			}
		}
	}
}

// A float32 result is the exact sum, rounded once.
func TestFloat32CorrectlyRounded(t *testing.T) {
	const n, k = 4096, 6
	rng := rand.New(rand.NewPCG(5, 6))
	models := randomModels[float32](rng, k, n)
	weights := randomWeights(rng, k)
	dst := make([]float32, n)
	must(t, modelavg.WeightedMean(dst, models, weights))
	for i := range dst {
		exact := new(big.Rat)
		for j := range models {
			exact.Add(exact, new(big.Rat).Mul(rational(weights[j]), rational(float64(models[j][i]))))
		}
		if want, _ := exact.Float32(); dst[i] != want {
			t.Errorf("element %d: got %v, want %v", i, dst[i], want)
		}
	}
}

// ---- errors

func TestErrors(t *testing.T) {
	t.Run("float32", testErrors[float32])
	t.Run("float64", testErrors[float64])
	t.Run("Float16", testErrors[modelavg.Float16])
	t.Run("BFloat16", testErrors[modelavg.BFloat16])
}

func testErrors[T modelavg.Element](t *testing.T) {
	nan, inf := math.NaN(), math.Inf(1)
	size := elementSize[T]()
	memory := canary[T](8)
	before := slices.Clone(memory)
	dst := memory[2:6]
	rng := rand.New(rand.NewPCG(7, 8))
	a, b, c, short := randomModel[T](rng, 4), randomModel[T](rng, 4), randomModel[T](rng, 4), randomModel[T](rng, 3)
	long := randomModel[T](rng, 5)
	good := [][]T{a, b, c}
	third := []float64{0.25, 0.5, 0.25}

	type call struct {
		name string
		f    func(models [][]T, options ...modelavg.Option) error
	}
	calls := []call{
		{"Mean", func(x [][]T, o ...modelavg.Option) error { return modelavg.Mean(dst, x, o...) }},
		{"WeightedMean", func(x [][]T, o ...modelavg.Option) error { return modelavg.WeightedMean(dst, x, third, o...) }},
		{"ExponentialMean", func(x [][]T, o ...modelavg.Option) error { return modelavg.ExponentialMean(dst, x, 0.9, o...) }},
		{"WeightedSum", func(x [][]T, o ...modelavg.Option) error { return modelavg.WeightedSum(dst, x, third, o...) }},
	}
	check := func(name string, err, target error, text string) {
		t.Helper()
		if s := fmt.Sprint(err); !errors.Is(err, target) || !strings.HasPrefix(s, "modelavg: ") || !strings.Contains(s, text) {
			t.Errorf("%s: got error %q, want one of modelavg that wraps %q and contains %q", name, err, target, text)
		}
		if !sameBits(memory, before) {
			t.Fatalf("%s: dst or its surroundings changed although there was an error", name)
		}
	}
	for _, c := range calls {
		check(c.name, c.f(nil), modelavg.ErrNoModels, "got an empty list, want at least one model")
		check(c.name, c.f([][]T{}), modelavg.ErrNoModels, "no models")
		check(c.name, c.f([][]T{a, b, short}), modelavg.ErrLength, "lengths differ: model 2 has 3 elements, want 4 as in dst")
		check(c.name, c.f([][]T{a, long, b}), modelavg.ErrLength, "model 1 has 5 elements, want 4")
		check(c.name, c.f([][]T{a, nil, b}), modelavg.ErrLength, "model 1 has 0 elements, want 4")
		check(c.name, c.f([][]T{a, b, memory[3:7]}), modelavg.ErrOverlap,
			fmt.Sprintf("dst overlaps a model: model 2 begins +%d bytes from dst, want the same address or separate memory", size))
		check(c.name, c.f([][]T{memory[:4], a, b}), modelavg.ErrOverlap, fmt.Sprintf("model 0 begins -%d bytes from dst", 2*size))
		check(c.name, c.f(good, modelavg.WithWorkers(-1)), modelavg.ErrOption, "got -1 workers, want 0 or more")
		check(c.name, c.f(good, modelavg.WithAccumulation(9)), modelavg.ErrOption, "got accumulation 9")
	}

	for _, w := range [][]float64{nil, {}, {1}, {0.5, 0.5}, {0.25, 0.25, 0.25, 0.25}} {
		text := fmt.Sprintf("got %d weights for 3 models, want one per model", len(w))
		check("WeightedMean", modelavg.WeightedMean(dst, good, w), modelavg.ErrWeightCount, text)
		text = fmt.Sprintf("got %d coefficients for 3 models, want one per model", len(w))
		check("WeightedSum", modelavg.WeightedSum(dst, good, w), modelavg.ErrWeightCount, text)
	}
	for _, bad := range []float64{nan, inf, -inf} {
		text := fmt.Sprintf("weight 1 is %v, want a finite number", bad)
		check("WeightedMean", modelavg.WeightedMean(dst, good, []float64{0.5, bad, 0.5}), modelavg.ErrWeight, text)
		check("WeightedSum", modelavg.WeightedSum(dst, good, []float64{0.5, bad, 0.5}), modelavg.ErrWeight, text)
	}
	check("WeightedMean", modelavg.WeightedMean(dst, good, []float64{0.5, 0.5, 0.5}), modelavg.ErrWeightSum,
		"got a sum of 1.5, want 1 ± 1.001e-05")
	check("WeightedMean", modelavg.WeightedMean(dst, good, []float64{0, 0, 0}), modelavg.ErrWeightSum, "got a sum of 0")
	for _, bad := range []float64{-0.1, 1.1, nan, inf} {
		check("ExponentialMean", modelavg.ExponentialMean(dst, good, bad), modelavg.ErrDecay,
			fmt.Sprintf("decay out of range: got %v, want 0 to 1", bad))
	}

	// Too large for a float32 accumulator, where there is one.
	large := []float64{1, 1e39, 1}
	native := modelavg.WithAccumulation(modelavg.Native)
	if size < 8 {
		check("WeightedSum", modelavg.WeightedSum(dst, good, large, native), modelavg.ErrWeight,
			"weight 1 is 1e+39, want at most 3.4028234663852886e+38, for sums in float32")
	} else if err := modelavg.WeightedSum(make([]T, 4), good, large, native); err != nil {
		t.Errorf("WeightedSum of float64 with weight 1e39: %v", err)
	}
}

func TestEmpty(t *testing.T) {
	t.Run("float32", testEmpty[float32])
	t.Run("Float16", testEmpty[modelavg.Float16])
}

func testEmpty[T modelavg.Element](t *testing.T) {
	for _, dst := range [][]T{nil, {}} {
		models := [][]T{nil, {}, dst}
		must(t, modelavg.Mean(dst, models))
		must(t, modelavg.WeightedMean(dst, models, []float64{0.5, 0, 0.5}))
		must(t, modelavg.ExponentialMean(dst, models, 0.5))
		must(t, modelavg.WeightedSum(dst, models, []float64{0, 0, 0}, modelavg.WithWorkers(4)))
		if err := modelavg.Mean(dst, nil); !errors.Is(err, modelavg.ErrNoModels) {
			t.Errorf("Mean of no models: got %v, want ErrNoModels", err)
		}
	}
}

// ---- memory

func TestAliasing(t *testing.T) {
	t.Run("float32", testAliasing[float32])
	t.Run("float64", testAliasing[float64])
	t.Run("Float16", testAliasing[modelavg.Float16])
	t.Run("BFloat16", testAliasing[modelavg.BFloat16])
}

func testAliasing[T modelavg.Element](t *testing.T) {
	const k, n = 11, 131
	rng := rand.New(rand.NewPCG(9, 10))
	original := randomModels[T](rng, k, n)
	weights := randomWeights(rng, k)
	mean, weighted := make([]T, n), make([]T, n)
	must(t, modelavg.Mean(mean, original))
	must(t, modelavg.WeightedMean(weighted, original, weights))
	for j := range k {
		models := make([][]T, k)
		for i := range models {
			models[i] = slices.Clone(original[i])
		}
		must(t, modelavg.Mean(models[j], models))
		checkBits(t, fmt.Sprintf("Mean into model %d", j), models[j], mean)
		for i := range models {
			if i != j {
				checkBits(t, fmt.Sprintf("model %d after Mean into model %d", i, j), models[i], original[i])
			}
		}
		copy(models[j], original[j])
		must(t, modelavg.WeightedMean(models[j], models, weights))
		checkBits(t, fmt.Sprintf("WeightedMean into model %d", j), models[j], weighted)
	}

	// Neighbours in one piece of memory do not overlap; models may overlap one another, and dst be several of them.
	memory := randomModel[T](rng, 3*n)
	x, y, dst := slices.Clone(memory[:n]), slices.Clone(memory[5:n+5]), memory[2*n:]
	want := make([]T, n)
	must(t, modelavg.Mean(want, [][]T{x, y}))
	must(t, modelavg.Mean(memory[n+5:2*n+5], [][]T{memory[:n], memory[5 : n+5]}))
	checkBits(t, "overlapping models", memory[n+5:2*n+5], want)
	copy(dst, x)
	must(t, modelavg.WeightedSum(dst, [][]T{dst, dst, dst}, []float64{2, -2, 1}))
	checkBits(t, "dst as every model", dst, x)
}

// No call writes outside dst or changes a model.
func TestSurroundings(t *testing.T) {
	t.Run("float32", testSurroundings[float32])
	t.Run("float64", testSurroundings[float64])
	t.Run("Float16", testSurroundings[modelavg.Float16])
	t.Run("BFloat16", testSurroundings[modelavg.BFloat16])
}

func testSurroundings[T modelavg.Element](t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	for n := range 70 {
		memory := canary[T](n + 10)
		models := randomModels[T](rng, 3, n)
		copies := [][]T{slices.Clone(models[0]), slices.Clone(models[1]), slices.Clone(models[2])}
		must(t, modelavg.WeightedSum(memory[5:5+n], models, []float64{1, 0, -1}))
		must(t, modelavg.Mean(memory[5:5+n], models))
		checkBits(t, "before dst", memory[:5], canary[T](5))
		checkBits(t, "behind dst", memory[5+n:], canary[T](5))
		for k := range models {
			checkBits(t, "model", models[k], copies[k])
		}
	}
}

// ---- zero weights

func TestZeroWeight(t *testing.T) {
	t.Run("float32", testZeroWeight[float32])
	t.Run("float64", testZeroWeight[float64])
	t.Run("Float16", testZeroWeight[modelavg.Float16])
	t.Run("BFloat16", testZeroWeight[modelavg.BFloat16])
}

func testZeroWeight[T modelavg.Element](t *testing.T) {
	const n = 19
	rng := rand.New(rand.NewPCG(13, 14))
	poison := make([]T, n) // NaN and infinity, turn by turn
	f := formatOf[T]()
	for i := range poison {
		infinity := uint64(f.most-f.least+2) << (f.precision - 1)
		poison[i] = fromBits[T](infinity | uint64(i%2)<<(f.precision-2))
		if v := number(poison[i]); !math.IsNaN(v) && !math.IsInf(v, 1) {
			t.Fatalf("%v is neither NaN nor infinite", v)
		}
	}
	// 150 zero weights among 1, 64, 65 and 100 others.
	for _, k := range []int{1, 64, 65, 100} {
		some := randomModels[T](rng, k, n)
		weights := randomWeights(rng, k)
		want, got := make([]T, n), canary[T](n)
		must(t, modelavg.WeightedSum(want, some, weights))
		models, padded := slices.Clone(some), slices.Clone(weights)
		for i := range 150 {
			at := rng.IntN(len(models) + 1)
			models = slices.Insert(models, at, poison)
			padded = slices.Insert(padded, at, math.Copysign(0, float64(1-i%2*2)))
		}
		must(t, modelavg.WeightedSum(got, models, padded))
		checkBits(t, fmt.Sprintf("WeightedSum, %d models", k), got, want)
		got = canary[T](n)
		must(t, modelavg.WeightedMean(got, models, padded))
		checkBits(t, fmt.Sprintf("WeightedMean, %d models", k), got, want)
	}

	x := randomModel[T](rng, n)
	got := canary[T](n)
	must(t, modelavg.ExponentialMean(got, [][]T{poison, poison, x}, 0))
	checkBits(t, "ExponentialMean with decay 0", got, x)

	// All zero: +0, also in place and for −0.
	got = canary[T](n)
	must(t, modelavg.WeightedSum(got, [][]T{poison, x, got}, []float64{0, math.Copysign(0, -1), 0}))
	checkBits(t, "all coefficients zero", got, make([]T, n))

	// A weight that is zero in the accumulator counts as zero; in a wider one it does not.
	got = canary[T](n)
	must(t, modelavg.WeightedSum(got, [][]T{poison, x}, []float64{1e-60, 1}, modelavg.WithAccumulation(modelavg.Native)))
	if _, isFloat64 := any(*new(T)).(float64); !isFloat64 {
		checkBits(t, "a weight of 1e-60", got, x)
	} else if v := number(got[1]); !math.IsNaN(v) {
		t.Errorf("a weight of 1e-60 on NaN in float64: got %v, want NaN", v)
	}
}

// Weight zero aside, NaN and infinity propagate.
func TestNonFinitePropagates(t *testing.T) {
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	dst := make([]float32, 4)
	must(t, modelavg.Mean(dst, [][]float32{{nan, inf, inf, 1}, {1, 1, -inf, 1}}))
	if !(math.IsNaN(float64(dst[0])) && dst[1] == inf && math.IsNaN(float64(dst[2])) && dst[3] == 1) {
		t.Errorf("got %v, want NaN, +Inf, NaN, 1", dst)
	}
}

// ---- identity

func TestIdentity(t *testing.T) {
	t.Run("float32", testIdentity[float32])
	t.Run("Float16", testIdentity[modelavg.Float16])
	t.Run("BFloat16", testIdentity[modelavg.BFloat16])
}

func testIdentity[T modelavg.Element](t *testing.T) {
	rng := rand.New(rand.NewPCG(15, 16))
	const n = 1000
	for k := 1; k <= 12; k++ {
		x := randomModel[T](rng, n)
		models := slices.Repeat([][]T{x}, k)
		dst := make([]T, n)
		must(t, modelavg.Mean(dst, models))
		checkBits(t, fmt.Sprintf("Mean of %d", k), dst, x)
		must(t, modelavg.WeightedMean(dst, models, randomWeights(rng, k)))
		checkBits(t, fmt.Sprintf("WeightedMean of %d", k), dst, x)
		must(t, modelavg.ExponentialMean(dst, models, 0.8))
		checkBits(t, fmt.Sprintf("ExponentialMean of %d", k), dst, x)
	}
}

// ---- workers

func TestWorkers(t *testing.T) {
	t.Run("float32", testWorkers[float32])
	t.Run("float64", testWorkers[float64])
	t.Run("Float16", testWorkers[modelavg.Float16])
	t.Run("BFloat16", testWorkers[modelavg.BFloat16])
}

func testWorkers[T modelavg.Element](t *testing.T) {
	const k = 3
	n := 7*(64<<10)/elementSize[T]() + 13 // enough for seven
	rng := rand.New(rand.NewPCG(17, 18))
	models := randomModels[T](rng, k, n)
	memory := canary[T](n + 11)
	weights := randomWeights(rng, k)
	calls := map[string]func(dst []T, o ...modelavg.Option) error{
		"Mean":         func(dst []T, o ...modelavg.Option) error { return modelavg.Mean(dst, models, o...) },
		"WeightedMean": func(dst []T, o ...modelavg.Option) error { return modelavg.WeightedMean(dst, models, weights, o...) },
		"ExponentialMean": func(dst []T, o ...modelavg.Option) error {
			return modelavg.ExponentialMean(dst, models, 0.9, o...)
		},
		"WeightedSum": func(dst []T, o ...modelavg.Option) error {
			return modelavg.WeightedSum(dst, models, []float64{2, 0, -1}, o...)
		},
	}
	for name, call := range calls {
		want := make([]T, n)
		must(t, call(want))
		for _, workers := range []int{0, 1, 2, 3, 7, 1000} {
			for _, offset := range []int{0, 5} { // dst on different places of a cache line
				dst := memory[offset : offset+n]
				copy(dst, canary[T](n))
				must(t, call(dst, modelavg.WithWorkers(workers)))
				checkBits(t, fmt.Sprintf("%s with %d workers", name, workers), dst, want)
			}
		}
	}
	// In place.
	want, x := make([]T, n), slices.Clone(models[0])
	must(t, modelavg.Mean(want, models))
	must(t, modelavg.Mean(x, [][]T{x, models[1], models[2]}, modelavg.WithWorkers(7)))
	checkBits(t, "in place with 7 workers", x, want)
}

// ---- allocations

func TestAllocations(t *testing.T) {
	t.Run("float32", testAllocations[float32])
	t.Run("float64", testAllocations[float64])
	t.Run("Float16", testAllocations[modelavg.Float16])
	t.Run("BFloat16", testAllocations[modelavg.BFloat16])
}

func testAllocations[T modelavg.Element](t *testing.T) {
	const n = 100
	rng := rand.New(rand.NewPCG(19, 20))
	dst := make([]T, n)
	check := func(name string, f func() error) {
		t.Helper()
		must(t, f())
		if got := testing.AllocsPerRun(20, func() { _ = f() }); got != 0 {
			t.Errorf("%s: got %v allocations, want 0", name, got)
		}
	}
	for _, k := range []int{1, 2, 8, 9, 40} {
		models := randomModels[T](rng, k, n)
		weights := randomWeights(rng, k)
		coefficients := slices.Clone(weights)
		coefficients[k/2] = 0 // all of them where k is 1
		certain := make([]float64, k)
		certain[k-1] = 1
		for _, a := range []modelavg.Accumulation{modelavg.DefaultAccumulation, modelavg.Wider, modelavg.Native} {
			name := fmt.Sprintf("%d models, accumulation %d", k, a)
			check("Mean, "+name, func() error {
				return modelavg.Mean(dst, models, modelavg.WithAccumulation(a), modelavg.WithWorkers(1))
			})
			check("WeightedMean, "+name, func() error {
				return modelavg.WeightedMean(dst, models, weights, modelavg.WithAccumulation(a))
			})
			check("WeightedMean with zeros, "+name, func() error {
				return modelavg.WeightedMean(dst, models, certain, modelavg.WithAccumulation(a))
			})
			check("WeightedSum, "+name, func() error {
				return modelavg.WeightedSum(dst, models, weights, modelavg.WithAccumulation(a))
			})
			check("WeightedSum with a zero, "+name, func() error {
				return modelavg.WeightedSum(dst, models, coefficients, modelavg.WithAccumulation(a))
			})
		}
	}
	// Lists written in the call stay on the caller's stack; a short dst is not worth the workers asked for.
	a, b := randomModel[T](rng, n), randomModel[T](rng, n)
	check("Mean of a literal", func() error { return modelavg.Mean(dst, [][]T{a, b}, modelavg.WithWorkers(8)) })
	check("WeightedMean of a literal", func() error {
		return modelavg.WeightedMean(dst, [][]T{a, b}, []float64{0.25, 0.75})
	})
	check("WeightedSum of a literal", func() error {
		return modelavg.WeightedSum(dst, [][]T{a, b, dst}, []float64{0.25, 0, 0.75})
	})
}

// ---- the article

// The article's three functions on its own example, and the cases in which it returns None.
func TestArticle(t *testing.T) {
	models := [][]float64{{1, 2, 3, 4}, {2, 3, 4, 5}, {3, 4, 5, 6}}
	dst := make([]float64, 4)
	near := func(name string, want ...float64) {
		t.Helper()
		for i := range want {
			if math.Abs(dst[i]-want[i]) > 1e-14 {
				t.Errorf("%s: got %v, want %v", name, dst, want)
				return
			}
		}
	}
	must(t, modelavg.Mean(dst, models))
	near("simple mean", 2, 3, 4, 5)
	must(t, modelavg.WeightedMean(dst, models, []float64{0.2, 0.5, 0.3}))
	near("weighted mean", 2.1, 3.1, 4.1, 5.1)
	w, err := weighting.ArticleRecurrence(3, 0.8)
	must(t, err)
	must(t, modelavg.WeightedSum(dst, models, w))
	near("exponential, as the article computes it", 1.432, 2.432, 3.432, 4.432)
	must(t, modelavg.ExponentialMean(dst, models, 0.8))
	corner := (0.64*1 + 0.8*2 + 3) / 2.44
	near("exponential, as the article describes it", corner, corner+1, corner+2, corner+3)

	for _, test := range []struct {
		name   string
		err    error
		target error
	}{
		{"mean of an empty list", modelavg.Mean(dst, nil), modelavg.ErrNoModels},
		{"weighted mean of an empty list", modelavg.WeightedMean(dst, nil, nil), modelavg.ErrNoModels},
		{"no weights", modelavg.WeightedMean(dst, models, nil), modelavg.ErrWeightCount},
		{"weights that sum to 1.1", modelavg.WeightedMean(dst, models, []float64{0.3, 0.5, 0.3}), modelavg.ErrWeightSum},
		{"two weights for three models", modelavg.WeightedMean(dst, models, []float64{0.5, 0.5}), modelavg.ErrWeightCount},
		{"exponential mean of an empty list", modelavg.ExponentialMean(dst, nil, 0.9), modelavg.ErrNoModels},
		{"decay above one", modelavg.ExponentialMean(dst, models, 1.01), modelavg.ErrDecay},
		{"decay below zero", modelavg.ExponentialMean(dst, models, -0.01), modelavg.ErrDecay},
	} {
		if !errors.Is(test.err, test.target) {
			t.Errorf("%s: got error %v, want one that wraps %q", test.name, test.err, test.target)
		}
	}
	must(t, modelavg.WeightedMean(dst, models, []float64{0.33333, 0.33333, 0.33333})) // np.isclose accepts it
}
