package modelavg_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/modelavg/modelavg"
	"github.com/modelavg/modelavg/internal/implementation"
)

var exactly = modelavg.WithAccumulation(modelavg.Exact)

func newAccumulator[T modelavg.Element](t testing.TB, n int, options ...modelavg.Option) *modelavg.Accumulator[T] {
	t.Helper()
	a, err := modelavg.NewAccumulator[T](n, options...)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func accumulate[T modelavg.Element](t testing.TB, a *modelavg.Accumulator[T], models [][]T, weights []float64) {
	t.Helper()
	for k, m := range models {
		if err := a.Add(m, weights[k]); err != nil {
			t.Fatal(err)
		}
	}
}

func meanOf[T modelavg.Element](t testing.TB, a *modelavg.Accumulator[T]) []T {
	t.Helper()
	dst := canary[T](a.Len())
	if err := a.Mean(dst); err != nil {
		t.Fatal(err)
	}
	return dst
}

func stateOf(t testing.TB, a interface{ MarshalBinary() ([]byte, error) }) []byte {
	t.Helper()
	b, err := a.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func accumulatorFormat[T modelavg.Element]() format {
	if elementSize[T]() == 2 {
		return binary32
	}
	return binary64
}

// forEveryType runs a generic test for every element type.
func forEveryType(t *testing.T, float32s, float64s, float16s, bfloat16s func(t *testing.T)) {
	t.Run("float32", float32s)
	t.Run("float64", float64s)
	t.Run("Float16", float16s)
	t.Run("BFloat16", bfloat16s)
}

// ---- sums that are rounded

// The accumulator gives the bits of the functions on slices, from every implementation.
func TestAccumulatorIsWeightedSum(t *testing.T) {
	forEveryType(t, testIsWeightedSum[float32], testIsWeightedSum[float64], testIsWeightedSum[modelavg.Float16],
		testIsWeightedSum[modelavg.BFloat16])
}

func testIsWeightedSum[T modelavg.Element](t *testing.T) {
	rng := rand.New(rand.NewPCG(31, 32))
	for _, impl := range implementation.Available() {
		restore, err := implementation.Force(impl.String())
		must(t, err)
		for _, n := range []int{0, 1, 37, 1000, 70_001} {
			for _, k := range []int{1, 2, 3, 11} {
				models := randomModels[T](rng, k, n)
				ones := slices.Repeat([]float64{1}, k)
				weights := make([]float64, k) // multiples of 1/64 that sum to one
				left := 64
				for i := range k - 1 {
					share := rng.IntN(left)
					weights[i], left = float64(share)/64, left-share
				}
				weights[k-1] = float64(left) / 64
				for _, options := range [][]modelavg.Option{nil, {modelavg.WithWorkers(3)}} {
					want := canary[T](n)
					a := newAccumulator[T](t, n, options...)
					accumulate(t, a, models, ones)
					must(t, modelavg.Mean(want, models))
					checkBits(t, fmt.Sprintf("%v, %d models of %d, weights of one", impl, k, n), meanOf(t, a), want)

					a.Reset()
					accumulate(t, a, models, weights)
					must(t, modelavg.WeightedSum(want, models, weights))
					checkBits(t, fmt.Sprintf("%v, %d models of %d, weights that sum to one", impl, k, n),
						meanOf(t, a), want)
				}
			}
		}
		restore()
	}
}

// The contract in exact arithmetic, for any weights and a merge.
func TestAccumulatorReference(t *testing.T) {
	forEveryType(t, testAccumulatorReference[float32], testAccumulatorReference[float64],
		testAccumulatorReference[modelavg.Float16], testAccumulatorReference[modelavg.BFloat16])
}

func testAccumulatorReference[T modelavg.Element](t *testing.T) {
	const n = 37
	rng := rand.New(rand.NewPCG(33, 34))
	f := accumulatorFormat[T]()
	for _, k := range []int{1, 2, 5, 20} {
		models := randomModels[T](rng, k, n)
		weights := make([]float64, k)
		for i := range weights {
			weights[i] = 1000 * rng.Float64()
		}
		split := rng.IntN(k + 1)
		a, b := newAccumulator[T](t, n), newAccumulator[T](t, n)
		accumulate(t, a, models[:split], weights[:split])
		accumulate(t, b, models[split:], weights[split:])
		must(t, a.Merge(b))
		if a.Count() != k || b.Count() != k-split {
			t.Errorf("got %d models, and %d in the part, want %d and %d", a.Count(), b.Count(), k, k-split)
		}
		total := new(big.Rat)
		for _, w := range weights {
			total.Add(total, f.round(rational(w)))
		}
		if got, want := a.Weight(), first(binary64.round(total).Float64()); got != want {
			t.Errorf("weight %v, want %v", got, want)
		}
		divisor := f.round(total)
		sum := func(models [][]T, weights []float64, i int) *big.Rat {
			s := new(big.Rat)
			for j := range models {
				product := new(big.Rat).Mul(f.round(rational(weights[j])), rational(number(models[j][i])))
				s = f.round(s.Add(s, product))
			}
			return s
		}
		got := meanOf(t, a)
		for i := range got {
			s := sum(models[:split], weights[:split], i)
			s = f.round(s.Add(s, sum(models[split:], weights[split:], i)))
			want := first(formatOf[T]().round(f.round(s.Quo(s, divisor))).Float64())
			if number(got[i]) != want {
				t.Fatalf("%d models, element %d: got %v, want %v", k, i, number(got[i]), want)
			}
		}
	}
}

func first[A, B any](a A, _ B) A { return a }

// Workers do not show in a merge.
func TestAccumulatorMergeWorkers(t *testing.T) {
	rng := rand.New(rand.NewPCG(47, 48))
	models := randomModels[modelavg.BFloat16](rng, 2, 100_003)
	var means [2][]modelavg.BFloat16
	for i := range means {
		a := newAccumulator[modelavg.BFloat16](t, len(models[0]), modelavg.WithWorkers(1+2*i))
		b := newAccumulator[modelavg.BFloat16](t, len(models[0]))
		must(t, a.Add(models[0], 0.7))
		must(t, b.Add(models[1], 3))
		must(t, a.Merge(b))
		means[i] = meanOf(t, a)
	}
	checkBits(t, "three workers", means[1], means[0])
}

// Averaging a model with itself gives the model.
func TestAccumulatorIdentity(t *testing.T) {
	forEveryType(t, testAccumulatorIdentity[float32], func(*testing.T) {}, testAccumulatorIdentity[modelavg.Float16],
		testAccumulatorIdentity[modelavg.BFloat16])
}

func testAccumulatorIdentity[T modelavg.Element](t *testing.T) {
	rng := rand.New(rand.NewPCG(35, 36))
	model := append(randomModel[T](rng, 500), fromBits[T](0), fromBits[T](1<<(8*elementSize[T]()-1)))
	a := newAccumulator[T](t, len(model))
	for k := range 4000 {
		must(t, a.Add(model, 0.5+1000*rng.Float64()))
		if k < 3 || k == 3999 {
			checkBits(t, fmt.Sprintf("%d times", k+1), meanOf(t, a), model)
		}
	}
}

func TestAccumulatorZeroWeight(t *testing.T) {
	a := newAccumulator[float32](t, 2)
	nan := float32(math.NaN())
	must(t, a.Add([]float32{1, 2}, 2))
	must(t, a.Add([]float32{nan, nan}, 0))
	must(t, a.Add([]float32{nan, nan}, math.Copysign(0, -1)))
	if got := meanOf(t, a); !slices.Equal(got, []float32{1, 2}) || a.Count() != 1 || a.Weight() != 2 {
		t.Errorf("got %v of %d models, weight %v, want [1 2] of 1, weight 2", got, a.Count(), a.Weight())
	}
	h := newAccumulator[modelavg.Float16](t, 1)
	must(t, h.Add([]modelavg.Float16{0x7e00}, 1e-50)) // zero in float32
	if h.Count() != 0 || h.Weight() != 0 {
		t.Errorf("got %d models, weight %v, want none", h.Count(), h.Weight())
	}
	must(t, a.Add([]float32{nan, 1}, 1))
	if got := meanOf(t, a); got[0] == got[0] {
		t.Errorf("NaN is not added: got %v", got)
	}
}

// ---- errors

func TestAccumulatorErrors(t *testing.T) {
	for _, options := range [][]modelavg.Option{nil, {exactly}} {
		name := fmt.Sprintf("options %v", options)
		a := newAccumulator[float32](t, 3, options...)
		check := func(err, target error, text string) {
			t.Helper()
			s := fmt.Sprint(err)
			if !errors.Is(err, target) || !strings.HasPrefix(s, "modelavg: ") || !strings.Contains(s, text) {
				t.Errorf("%s: got error %q, want one that wraps %q and contains %q", name, err, target, text)
			}
		}
		check(a.Mean(make([]float32, 3)), modelavg.ErrNoWeight, "got a sum of weights of zero, of 0 models")
		must(t, a.Add([]float32{1, 2, 3}, 1))
		before := stateOf(t, a)
		check(a.Add([]float32{1, 2}, 1), modelavg.ErrLength, "the model has 2 elements, want 3 as in the accumulator")
		check(a.Add(nil, 0), modelavg.ErrLength, "the model has 0 elements, want 3")
		for _, w := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
			check(a.Add([]float32{1, 2, 3}, w), modelavg.ErrWeight, fmt.Sprintf("got %v, want a finite number", w))
		}
		check(a.Merge(nil), modelavg.ErrMerge, "got nil or the accumulator itself")
		check(a.Merge(a), modelavg.ErrMerge, "got nil or the accumulator itself")
		check(a.Merge(newAccumulator[float32](t, 4, options...)), modelavg.ErrLength,
			"the other accumulator has 4 elements, want 3")
		other := newAccumulator[float32](t, 3)
		if options == nil {
			other = newAccumulator[float32](t, 3, exactly)
		}
		check(a.Merge(other), modelavg.ErrMerge, "got one that is exact and one that is not")
		dst := canary[float32](4)
		check(a.Mean(dst), modelavg.ErrLength, "dst has 4 elements, want 3 as in the accumulator")
		if !bytes.Equal(stateOf(t, a), before) {
			t.Errorf("%s: the state changed although there was an error", name)
		}
		must(t, a.Add([]float32{5, 6, 7}, -1))
		check(a.Mean(dst[:3]), modelavg.ErrNoWeight, "got a sum of weights of zero, of 2 models")
		if !sameBits(dst, canary[float32](4)) {
			t.Errorf("%s: dst changed although there was an error", name)
		}
		for _, n := range []int{-1, math.MinInt, math.MaxInt} {
			_, err := modelavg.NewAccumulator[float32](n, options...)
			check(err, modelavg.ErrLength, fmt.Sprintf("got n = %d, want 0 to ", n))
		}
		_, err := modelavg.NewAccumulator[float32](1, modelavg.WithWorkers(-1))
		check(err, modelavg.ErrOption, "got -1 workers")
		_, err = modelavg.NewAccumulator[float32](1, modelavg.WithAccumulation(9))
		check(err, modelavg.ErrOption, "got accumulation 9, want one of the constants")
		_, err = modelavg.NewAccumulator[float32](1, modelavg.WithAccumulation(modelavg.Native))
		check(err, modelavg.ErrOption, "got accumulation Native, want Wider or Exact for running sums of float32")
		_, err = modelavg.NewAccumulator[float64](1, modelavg.WithAccumulation(modelavg.Wider))
		check(err, modelavg.ErrOption, "got accumulation Wider, want Native or Exact for running sums of float64")
		check(modelavg.Mean(dst, [][]float32{dst}, exactly), modelavg.ErrOption, "got accumulation Exact")

		// A sum of weights beyond the accumulator.
		if options == nil {
			h := newAccumulator[modelavg.BFloat16](t, 1)
			check(h.Add([]modelavg.BFloat16{1}, 1e39), modelavg.ErrWeight,
				"got 1e+39, want at most 3.4028234663852886e+38")
			must(t, h.Add([]modelavg.BFloat16{1}, 3e38))
			must(t, h.Add([]modelavg.BFloat16{1}, 3e38))
			check(h.Mean([]modelavg.BFloat16{0}), modelavg.ErrWeight, "got a sum of 2 weights beyond ±2^128")
		}
	}
	for w := range modelavg.Exact + 1 {
		newAccumulator[modelavg.Float16](t, 1, modelavg.WithAccumulation(w))
	}
}

func TestZeroAccumulator(t *testing.T) {
	var a modelavg.Accumulator[modelavg.BFloat16]
	must(t, a.Add(nil, 1))
	must(t, a.Mean(nil))
	a.Reset()
	if a.Len() != 0 || a.Count() != 0 || a.Weight() != 0 {
		t.Errorf("got %d elements, %d models, weight %v, want none", a.Len(), a.Count(), a.Weight())
	}
	full := newAccumulator[modelavg.BFloat16](t, 2)
	must(t, full.Add([]modelavg.BFloat16{0x3f80, 0x4000}, 2))
	must(t, a.UnmarshalBinary(stateOf(t, full)))
	checkBits(t, "decoded", meanOf(t, &a), meanOf(t, full))
}

// ---- exact sums

// wildModel returns n finite numbers of any exponent, with some zeros.
func wildModel[T modelavg.Element](rng *rand.Rand, n int) []T {
	m := make([]T, n)
	for i := range m {
		for {
			m[i] = fromBits[T](rng.Uint64() >> (64 - 8*elementSize[T]()))
			if rng.IntN(12) == 0 {
				m[i] = fromBits[T](uint64(rng.IntN(2)) << (8*elementSize[T]() - 1))
			}
			if f := number(m[i]); f-f == 0 {
				break
			}
		}
	}
	return m
}

// correctlyRounded returns the number of T nearest to x.
func correctlyRounded[T modelavg.Element](x *big.Rat) float64 {
	f := formatOf[T]()
	limit := new(big.Rat).Sub(powerOfTwo(f.most+1), powerOfTwo(f.most-f.precision))
	if new(big.Rat).Abs(x).Cmp(limit) >= 0 {
		return math.Inf(x.Sign())
	}
	return first(f.round(x).Float64())
}

// A thousand orders and trees of merges give one result, that of exact arithmetic, and one state.
func TestExactOrders(t *testing.T) {
	forEveryType(t, testExactOrders[float32], testExactOrders[float64], testExactOrders[modelavg.Float16],
		testExactOrders[modelavg.BFloat16])
}

func testExactOrders[T modelavg.Element](t *testing.T) {
	rng := rand.New(rand.NewPCG(39, 40))
	const n, k = 600, 9
	for _, kind := range []string{"counts", "fractions", "any"} {
		models := randomModels[T](rng, k, n)
		weights := make([]float64, k)
		for i := range weights {
			switch kind {
			case "counts":
				weights[i] = float64(1 + rng.IntN(1_000_000))
			case "fractions":
				weights[i] = rng.Float64() - 0.25
			default:
				models[i] = wildModel[T](rng, n)
				weights[i] = math.Ldexp(rng.Float64()-0.5, rng.IntN(2000)-1000)
			}
		}
		total := new(big.Rat)
		for _, w := range weights {
			total.Add(total, rational(w))
		}
		want := make([]float64, n)
		for i := range want {
			s := new(big.Rat)
			for j := range models {
				s.Add(s, new(big.Rat).Mul(rational(weights[j]), rational(number(models[j][i]))))
			}
			want[i] = correctlyRounded[T](s.Quo(s, total))
		}
		rounds := 1000
		if testing.Short() {
			rounds = 60
		}
		var wantState []byte
		var wantBits []T
		for round := range rounds {
			// Every model begins as an accumulator or is added to one; then two of them are merged until one is left.
			var forest []*modelavg.Accumulator[T]
			for _, j := range rng.Perm(k) {
				if len(forest) == 0 || rng.IntN(2) == 0 {
					forest = append(forest, newAccumulator[T](t, n, exactly))
				}
				must(t, forest[rng.IntN(len(forest))].Add(models[j], weights[j]))
			}
			for len(forest) > 1 {
				i := rng.IntN(len(forest))
				a := forest[i]
				forest = slices.Delete(forest, i, i+1)
				if rng.IntN(8) == 0 { // by way of its bytes
					b := newAccumulator[T](t, 0)
					must(t, b.UnmarshalBinary(stateOf(t, a)))
					a = b
				}
				must(t, forest[rng.IntN(len(forest))].Merge(a))
			}
			a := forest[0]
			got := meanOf(t, a)
			if round == 0 {
				wantState, wantBits = stateOf(t, a), got
				for i := range got {
					if number(got[i]) != want[i] {
						t.Fatalf("%s: element %d: got %v, want %v", kind, i, number(got[i]), want[i])
					}
				}
			}
			if !sameBits(got, wantBits) || !bytes.Equal(stateOf(t, a), wantState) {
				t.Fatalf("%s: the result or the state depends on the order", kind)
			}
			if a.Weight() != first(total.Float64()) || a.Count() != k {
				t.Fatalf("%s: weight %v of %d models, want %v of %d", kind, a.Weight(), a.Count(),
					first(total.Float64()), k)
			}
		}
	}
}

// Workers divide the elements between blocks, and do not show.
func TestExactWorkers(t *testing.T) {
	rng := rand.New(rand.NewPCG(41, 42))
	models := randomModels[float32](rng, 3, 20_011)
	weights := []float64{3, 0.1, 7}
	a := newAccumulator[float32](t, len(models[0]), exactly)
	b := newAccumulator[float32](t, len(models[0]), exactly, modelavg.WithWorkers(3))
	accumulate(t, a, models, weights)
	accumulate(t, b, models, weights)
	checkBits(t, "three workers", meanOf(t, b), meanOf(t, a))
}

func TestExactSpecialValues(t *testing.T) {
	forEveryType(t, testExactSpecialValues[float32], testExactSpecialValues[float64],
		testExactSpecialValues[modelavg.Float16], testExactSpecialValues[modelavg.BFloat16])
}

func testExactSpecialValues[T modelavg.Element](t *testing.T) {
	f := formatOf[T]()
	width := 8 * elementSize[T]()
	sign := uint64(1) << (width - 1)
	inf := (sign - 1) &^ (1<<(f.precision-1) - 1)
	nan, largest, one := inf|1<<(f.precision-2), inf-1, uint64(-f.least+1)<<(f.precision-1)
	least := uint64(1)
	for _, test := range []struct {
		elements []uint64
		weights  []float64
		want     uint64
	}{
		{[]uint64{0}, []float64{1}, 0},
		{[]uint64{sign}, []float64{1}, sign},
		{[]uint64{sign}, []float64{-1}, sign}, // the product is +0, and the quotient of +0 and −1 is −0
		{[]uint64{0}, []float64{-1}, 0},
		{[]uint64{sign, sign}, []float64{1, 2}, sign},
		{[]uint64{sign, 0}, []float64{1, 2}, 0},
		{[]uint64{0, sign}, []float64{1, 2}, 0},
		{[]uint64{one, one | sign}, []float64{1, 1}, 0},
		{[]uint64{one, one | sign, sign}, []float64{1, 1, 1}, 0},
		{[]uint64{sign, one, one | sign}, []float64{1, 1, 1}, 0},
		{[]uint64{inf, one}, []float64{1, 1}, inf},
		{[]uint64{one, inf | sign}, []float64{1, 1}, inf | sign},
		{[]uint64{one, inf}, []float64{2, -1}, inf | sign},
		{[]uint64{inf, one}, []float64{1, -3}, inf | sign},
		{[]uint64{inf, inf | sign}, []float64{1, 1}, nan},
		{[]uint64{inf, inf}, []float64{3, -1}, nan},
		{[]uint64{one, nan, inf}, []float64{1, 1, 1}, nan},
		{[]uint64{largest, largest, largest}, []float64{1, 1, 1}, largest}, // no overflow on the way
		{[]uint64{largest, largest}, []float64{2, -1}, largest},
		{[]uint64{largest, one | sign}, []float64{4, -2}, inf}, // (4·largest + 2)/2
		{[]uint64{least, 0}, []float64{1, 1}, 0},               // half of the least number goes to the even one
		{[]uint64{least, 0}, []float64{1 + 0x1p-52, 1}, least},
		{[]uint64{least, least * 2}, []float64{1, 1}, least * 2}, // 1½ too
		{[]uint64{least | sign, 0}, []float64{1, 1}, sign},       // the quotient is negative
		{[]uint64{largest, largest}, []float64{0x1p1023, 0x1p1023}, largest},
		{[]uint64{least, least}, []float64{0x1p-1074, 0x1p-1074}, least},
	} {
		orders := [][]int{nil, nil}
		for k := range test.elements {
			orders[0] = append(orders[0], k)
			orders[1] = append([]int{k}, orders[1]...)
		}
		for _, order := range orders {
			a, merged := newAccumulator[T](t, 2, exactly), newAccumulator[T](t, 2, exactly)
			for _, k := range order {
				model := []T{fromBits[T](one), fromBits[T](test.elements[k])}
				must(t, a.Add(model, test.weights[k]))
				part := newAccumulator[T](t, 2, exactly)
				must(t, part.Add(model, test.weights[k]))
				must(t, merged.Merge(part))
			}
			decoded := newAccumulator[T](t, 0)
			must(t, decoded.UnmarshalBinary(stateOf(t, a)))
			for name, a := range map[string]*modelavg.Accumulator[T]{"added": a, "merged": merged, "decoded": decoded} {
				got := bits(meanOf(t, a)[1])
				if got != test.want && (test.want != nan || got&^sign <= inf) {
					t.Errorf("%s, order %v: %#x with weights %v: got %#x, want %#x",
						name, order, test.elements, test.weights, got, test.want)
				}
			}
			if !bytes.Equal(stateOf(t, a), stateOf(t, merged)) {
				t.Errorf("%#x with weights %v: merging shows in the state", test.elements, test.weights)
			}
		}
	}
}

// What is added again with its weight negated leaves the mean of the others, but for a −0, which becomes +0, and is
// counted.
func TestExactRemoval(t *testing.T) {
	rng := rand.New(rand.NewPCG(43, 44))
	models := [][]float64{randomModel[float64](rng, 700), wildModel[float64](rng, 700), randomModel[float64](rng, 700)}
	a, b := newAccumulator[float64](t, 700, exactly), newAccumulator[float64](t, 700, exactly)
	accumulate(t, a, [][]float64{models[0], models[1], models[2], models[1]}, []float64{0.1, 1e9, 3, -1e9})
	accumulate(t, b, [][]float64{models[2], models[0]}, []float64{3, 0.1})
	checkBits(t, "one taken out", meanOf(t, a), meanOf(t, b))
	if a.Count() != 4 || a.Weight() != b.Weight() {
		t.Errorf("got %d models of weight %v, want 4 of %v", a.Count(), a.Weight(), b.Weight())
	}

	negativeZero := math.Copysign(0, -1)
	for _, x := range []float64{0, negativeZero, 1} {
		c := newAccumulator[float64](t, 2, exactly)
		accumulate(t, c, [][]float64{{negativeZero, 1}, {x, x}, {x, x}}, []float64{1, 5, -5})
		checkBits(t, fmt.Sprintf("%v taken out", x), meanOf(t, c), []float64{0, 1})
	}
}

// ---- CheckFinite

func TestCheckFinite(t *testing.T) {
	forEveryType(t, testCheckFinite[float32], testCheckFinite[float64], testCheckFinite[modelavg.Float16],
		testCheckFinite[modelavg.BFloat16])
}

func testCheckFinite[T modelavg.Element](t *testing.T) {
	rng := rand.New(rand.NewPCG(45, 46))
	f := formatOf[T]()
	sign := uint64(1) << (8*elementSize[T]() - 1)
	inf := (sign - 1) &^ (1<<(f.precision-1) - 1)
	for _, n := range []int{0, 1, 2, 3, 4, 5, 6, 7, 15, 1023, 1025, 16384, 16385, 40_000} {
		model := wildModel[T](rng, n+4)[rng.IntN(4):][:n] // begins anywhere in a word
		if n > 3 {
			model[1], model[2] = fromBits[T](inf-1), fromBits[T](inf-1|sign)
		}
		must(t, modelavg.CheckFinite(model))
		for range 20 {
			if n == 0 {
				break
			}
			i := rng.IntN(n)
			if rng.IntN(3) == 0 {
				i = n - 1
			}
			for _, bad := range []uint64{inf, inf | sign, inf + 1, inf | 1<<(f.precision-2) | sign} {
				was := model[i]
				model[i] = fromBits[T](bad)
				err := modelavg.CheckFinite(model)
				want := fmt.Sprintf("element %d of %d is ", i, n)
				if !errors.Is(err, modelavg.ErrNotFinite) || !strings.Contains(err.Error(), want) {
					t.Fatalf("%#x: got %v, want one that wraps %v and contains %q",
						bad, err, modelavg.ErrNotFinite, want)
				}
				model[i] = was
			}
		}
	}
}
