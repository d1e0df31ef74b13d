package kernel

import (
	"fmt"
	"math"
	"math/big"
	"testing"

	"github.com/modelavg/modelavg/internal/implementation"
)

// The reference against exact arithmetic.

// TestExact holds the exact arithmetic itself against what the processor and the compiler do.
func TestExact(t *testing.T) {
	rng := newRand(1)
	for range thin(100_000, 3000) {
		m := mode(rng.IntN(int(modes)))
		x, y, z := binary64.random(rng, m), binary64.random(rng, m), binary64.random(rng, m)
		a, b, c := math.Float64frombits(x), math.Float64frombits(y), math.Float64frombits(z)
		if got, want := fmaExact(binary64, x, y, z), math.Float64bits(math.FMA(a, b, c)); !binary64.equal(got, want) {
			t.Fatalf("fma(%v, %v, %v) = %x, want %x", a, b, c, got, want)
		}
		got, want := binary64.encode(binary64.decode(x).over(binary64.decode(y))), math.Float64bits(a/b)
		if !binary64.equal(got, want) {
			t.Fatalf("%v/%v = %x, want %x", a, b, got, want)
		}
		if got, want := convert(binary64, binary32, x), uint64(math.Float32bits(float32(a))); !binary32.equal(got, want) {
			t.Fatalf("float32(%v) = %x, want %x", a, got, want)
		}
	}
}

func checkFMA32(t *testing.T, x, y, z uint64) {
	t.Helper()
	got := fma32(math.Float32frombits(uint32(x)), math.Float32frombits(uint32(y)), math.Float32frombits(uint32(z)))
	if got, want := uint64(math.Float32bits(got)), fmaExact(binary32, x, y, z); !binary32.equal(got, want) {
		t.Fatalf("fma32(%#08x, %#08x, %#08x) = %#08x, want %#08x", x, y, z, got, want)
	}
}

func TestFMA32(t *testing.T) {
	float := func(f float64) uint64 { return convert(binary64, binary32, math.Float64bits(f)) }
	rng := newRand(2)
	sign := func() uint64 { return rng.Uint64() & binary32.sign() }
	trials := thin(60_000, 2000)

	t.Run("known", func(t *testing.T) {
		// The product and the addend round to a float64 that is a tie in float32: rounding it again goes the wrong way.
		checkFMA32(t, 0x3fdca000, 0x3fd75c00, 0xa301e533)
		if got := fmaExact(binary32, 0x3fdca000, 0x3fd75c00, 0xa301e533); got != 0x403999a9 {
			t.Errorf("the exact multiply-add is %#08x, want 0x403999a9", got)
		}
	})
	t.Run("random", func(t *testing.T) {
		for range trials {
			x, y, z := mode(rng.IntN(int(modes))), mode(rng.IntN(int(modes))), mode(rng.IntN(int(modes)))
			checkFMA32(t, binary32.random(rng, x), binary32.random(rng, y), binary32.random(rng, z))
		}
	})
	t.Run("specials", func(t *testing.T) {
		values := []uint64{
			0, 1, 2, 1<<23 - 1, 1 << 23, 1<<23 + 1, float(0.5), float(1), float(1) + 1, float(1.5),
			float(2), 0x7f000000, 0x7f7ffffe, 0x7f7fffff, 0x7f800000, 0x7f800001, 0x7fc00000,
		}
		for _, x := range values {
			for _, y := range values {
				for _, z := range values {
					for s := range uint64(8) {
						checkFMA32(t, x|s&1<<31, y|s>>1&1<<31, z|s>>2<<31)
					}
				}
			}
		}
	})
	t.Run("product halfway", func(t *testing.T) {
		// An odd product of 25 bits is a tie; the addend, however small, decides it.
		for i := 0; i < trials; {
			a, b := 1<<11|rng.Uint64N(1<<11)|1, 1<<12|rng.Uint64N(1<<12)|1
			if p := a * b; p>>24 != 1 {
				continue
			}
			i++
			scale := rng.IntN(100) - 50
			x, y := float(math.Ldexp(float64(a), scale)), float(math.Ldexp(float64(b), -rng.IntN(60)))
			z := uint64(rng.IntN(100)) << 23 >> uint(rng.IntN(26))
			checkFMA32(t, x|sign(), y|sign(), z|sign())
			checkFMA32(t, x|sign(), y|sign(), sign())
		}
	})
	t.Run("sum halfway", func(t *testing.T) {
		// Half a unit in the last place of z, exactly and one step to either side, split into two factors.
		for range trials {
			z := uint64(25+rng.IntN(225))<<23 | rng.Uint64N(1<<23)
			half := int(z>>23) - 127 - 24
			split := rng.IntN(40) - 20
			x, y := float(math.Ldexp(1, max(-120, half/2+split))), uint64(0)
			y = float(math.Ldexp(1, half-max(-120, half/2+split)))
			s := sign()
			for d := range uint64(3) {
				checkFMA32(t, x+d-1|s, y, z)
				checkFMA32(t, x+d-1|s, y+d, z|binary32.sign())
			}
		}
	})
	t.Run("subnormal", func(t *testing.T) {
		// Products of which half a unit, or a quarter, or a little more, of the least subnormal remains.
		for range trials {
			a := rng.Uint64N(1<<24) | 1
			shift := 1 + rng.IntN(26)
			e := -149 - shift
			x, y := float(math.Ldexp(float64(a), e/2)), float(math.Ldexp(1, e-e/2))
			checkFMA32(t, x|sign(), y|sign(), rng.Uint64N(1<<uint(rng.IntN(25)))|sign())
			checkFMA32(t, x|sign(), y+1|sign(), rng.Uint64N(1<<uint(rng.IntN(25)))|sign())
		}
	})
	t.Run("cancellation", func(t *testing.T) {
		for range trials {
			x, y := binary32.random(rng, ordinary), binary32.random(rng, ordinary)
			z := binary32.encode(binary32.decode(x).times(binary32.decode(y)).negated())
			for d := range uint64(3) {
				checkFMA32(t, x, y, z+d-1)
			}
		}
	})
}

// A halfFormat is a 16-bit format with the two conversions under test.
type halfFormat struct {
	kind   implementation.Kind
	format format
	widen  func(uint16) float32
	narrow func(float32) uint16
}

var halfFormats = []halfFormat{
	{implementation.Float16, binary16, float32FromFloat16, float16FromFloat32},
	{implementation.BFloat16, bfloat16, float32FromBFloat16, bfloat16FromFloat32},
}

// TestWidenAll converts all 65,536 patterns of each 16-bit format to float32 and back, by the conversions of the
// reference and, as products with one, by every implementation.
func TestWidenAll(t *testing.T) {
	for _, h := range halfFormats {
		all, rounded := make([]uint16, 1<<16), make([]uint16, 1<<16)
		wide, want := make([]float32, 1<<16), make([]float32, 1<<16)
		for i := range all {
			all[i] = uint16(i)
			want[i] = math.Float32frombits(uint32(convert(h.format, binary32, uint64(i))))
			wide[i] = h.widen(uint16(i))
			rounded[i] = h.narrow(wide[i])
			if h.format.isNaN(uint64(i)) != math.IsNaN(float64(want[i])) {
				t.Fatalf("%v: the exact conversion of %#04x is wrong", h.kind, i)
			}
		}
		if d := binary32.differ(bytesOf(wide), bytesOf(want)); d != "" {
			t.Errorf("%v: widened: %s", h.kind, d)
		}
		if d := h.format.differ(bytesOf(rounded), bytesOf(all)); d != "" {
			t.Errorf("%v: widened and rounded: %s", h.kind, d)
		}
		each(t, []implementation.Kind{h.kind}, func(t *testing.T, kind implementation.Kind) {
			clear(wide)
			callAccumulate(kind, bytesOf(wide), bytesOf(all), 1)
			for i := range wide {
				if want[i] == 0 {
					wide[i] = want[i] // 0 + −0 is +0
				}
			}
			if d := binary32.differ(bytesOf(wide), bytesOf(want)); d != "" {
				t.Errorf("accumulated: %s", d)
			}
			clear(rounded)
			callWeightedSum(kind, bytesOf(rounded), [][]byte{bytesOf(all)}, []float64{1})
			if d := h.format.differ(bytesOf(rounded), bytesOf(all)); d != "" {
				t.Errorf("sum of one: %s", d)
			}
			clear(rounded)
			callMean(kind, bytesOf(rounded), [][]byte{bytesOf(all)})
			if d := h.format.differ(bytesOf(rounded), bytesOf(all)); d != "" {
				t.Errorf("mean of one: %s", d)
			}
		})
	}
}

// TestRoundBoundaries rounds, to every 16-bit format, the float32 numbers midway between neighbours and the float32
// numbers next to those and to the neighbours, past the largest number too.
func TestRoundBoundaries(t *testing.T) {
	for _, h := range halfFormats {
		var acc []float32
		var want, got []uint16
		add := func(b uint32) {
			for _, sign := range []uint32{0, 1 << 31} {
				f := math.Float32frombits(b | sign)
				acc = append(acc, f)
				want = append(want, uint16(convert(binary32, h.format, uint64(b|sign))))
				got = append(got, h.narrow(f))
			}
		}
		for b := uint64(0); b < h.format.infinity(); b += uint64(thin(1, 13)) {
			low, high := h.format.decode(b), h.format.decode(b+1)
			if high.infinite { // the number that would follow
				high = real{m: new(big.Int).SetUint64(1 << (h.format.fraction + 1)), e: low.e}
			}
			middle := low.plus(high)
			middle.e-- // halved
			for _, x := range []real{low, middle} {
				at := uint32(binary32.encode(x))
				if binary32.decode(uint64(at)).plus(x.negated()).m.Sign() != 0 {
					t.Fatalf("%v: %v·2^%d is not in float32", h.kind, x.m, x.e)
				}
				if at > 0 {
					add(at - 1)
				}
				add(at)
				add(at + 1)
			}
		}
		ends := []uint32{
			0x7f7fffff, 0x7f800000, 0x7f800001, 0x7f80ffff, 0x7fbfffff, 0x7fc00000, 0x7fffffff, // NaN keeps being one
			0x477fefff, 0x477ff000, 0x477ff001, 0x7f7f7fff, 0x7f7f8000, 0x7f7f8001,
		}
		for _, b := range ends {
			add(b)
		}
		if d := h.format.differ(bytesOf(got), bytesOf(want)); d != "" {
			t.Errorf("%v: rounded: %s", h.kind, d)
		}
		each(t, []implementation.Kind{h.kind}, func(t *testing.T, kind implementation.Kind) {
			clear(got)
			callRound(kind, bytesOf(got), bytesOf(acc), 1)
			if d := h.format.differ(bytesOf(got), bytesOf(want)); d != "" {
				t.Error(d)
			}
			// The ends of the range at every place of blocks, vectors and tails.
			for _, n := range []int{1, 2, 5, 15, 31, 33, 63, 3*256 + 61} {
				same, rounded := make([]float32, n), make([]uint16, n)
				for _, b := range ends {
					for i := range same {
						same[i] = math.Float32frombits(b)
					}
					callRound(kind, bytesOf(rounded), bytesOf(same), 1)
					for i, r := range rounded {
						if w := convert(binary32, h.format, uint64(b)); !h.format.equal(uint64(r), w) {
							t.Fatalf("n=%d: element %d for %#08x is %#04x, want %#04x", n, i, b, r, w)
						}
					}
				}
			}
		})
	}
}

// TestRoundFloat32Boundaries is the same for the step from float64 to float32, at random places and around the ends of
// the ranges.
func TestRoundFloat32Boundaries(t *testing.T) {
	rng := newRand(3)
	var acc []float64
	var want []float32
	add := func(b uint64) {
		for _, sign := range []uint64{0, 1 << 63} {
			acc = append(acc, math.Float64frombits(b|sign))
			want = append(want, math.Float32frombits(uint32(convert(binary64, binary32, b|sign))))
		}
	}
	around := func(b uint64) { // b and the number midway to its successor
		low, high := binary32.decode(b), binary32.decode(b+1)
		if high.infinite {
			high = real{m: new(big.Int).SetUint64(1 << 24), e: low.e}
		}
		middle := low.plus(high)
		middle.e--
		for _, x := range []real{low, middle} {
			at := binary64.encode(x)
			if at > 0 {
				add(at - 1)
			}
			add(at)
			add(at + 1)
		}
	}
	for range thin(20_000, 1000) {
		around(rng.Uint64N(binary32.infinity()))
	}
	for i := range uint64(100) {
		around(i)
		around(1<<23 - 50 + i)
		around(binary32.infinity() - 1 - i)
	}
	for _, b := range []uint64{1, 1 << 52, 0x7fefffffffffffff, 0x7ff0000000000000, 0x7ff0000000000001, 0x7ff8000000000000} {
		add(b)
	}
	each(t, []implementation.Kind{implementation.Float32}, func(t *testing.T, kind implementation.Kind) {
		got := make([]float32, len(acc))
		callRound(kind, bytesOf(got), bytesOf(acc), 1)
		if d := binary32.differ(bytesOf(got), bytesOf(want)); d != "" {
			t.Error(d)
		}
	})
}

// exactKinds are those whose result the contract fixes step by step. For Float64Wider it fixes the accuracy.
var exactKinds = []implementation.Kind{
	implementation.Float32, implementation.Float64, implementation.Float16, implementation.BFloat16,
	implementation.Float32Native,
}

// column returns the i-th element of every model.
func column(f format, x [][]byte, i int) []uint64 {
	c := make([]uint64, len(x))
	for k := range x {
		c[k] = f.at(x[k], i)
	}
	return c
}

func float64s(w []float64) []uint64 {
	b := make([]uint64, len(w))
	for k := range w {
		b[k] = math.Float64bits(w[k])
	}
	return b
}

// TestAgainstExact holds weighted sum, mean, accumulate and round on every implementation against exact arithmetic.
func TestAgainstExact(t *testing.T) {
	rng := newRand(4)
	for _, kind := range exactKinds {
		f, a := elementFormat(kind), accumulatorFormat(kind)
		sources := pools(rng, kind, 4096)
		for trial := range thin(150, 24) {
			m, wm := mode(trial)%modes, mode(trial/3)%modes
			n, models := rng.IntN(40)+1, rng.IntN(12)+1
			x := sources[m].models(models, n)
			w := randomWeights(rng, kind, wm, models)
			wantSum, wantMean := make([]byte, n*f.size), make([]byte, n*f.size)
			ones := float64s(make([]float64, models))
			for k := range ones {
				ones[k] = binary64.one()
			}
			count := math.Float64bits(float64(models))
			acc := a.randomElements(rng, m, n)
			divisor := w[0]
			wantAcc, wantRound := make([]byte, n*a.size), make([]byte, n*f.size)
			for i := range n {
				c := column(f, x, i)
				f.put(wantSum, i, finishExact(kind, firstExact(kind, float64s(w), c), binary64.one()))
				f.put(wantMean, i, finishExact(kind, firstExact(kind, ones, c), count))
				a.put(wantAcc, i, sumExact(kind, a.at(acc, i), float64s(w[:1]), c[:1]))
				f.put(wantRound, i, finishExact(kind, a.at(acc, i), math.Float64bits(divisor)))
			}
			for _, impl := range implementation.Available() {
				restore, err := implementation.Force(impl.String())
				if err != nil {
					t.Fatal(err)
				}
				at := func(what string) string {
					return fmt.Sprintf("%v on %v: %s: n=%d models=%d elements=%d weights=%d", kind, impl, what, n, models, m, wm)
				}
				got := make([]byte, n*f.size)
				callWeightedSum(kind, got, x, w)
				if d := f.differ(got, wantSum); d != "" {
					t.Errorf("%s: %s", at("weighted sum"), d)
				}
				callMean(kind, got, x)
				if d := f.differ(got, wantMean); d != "" {
					t.Errorf("%s: %s", at("mean"), d)
				}
				if kind != implementation.Float32Native {
					gotAcc := append([]byte(nil), acc...)
					callAccumulate(kind, gotAcc, x[0], w[0])
					if d := a.differ(gotAcc, wantAcc); d != "" {
						t.Errorf("%s: %s", at("accumulate"), d)
					}
					callRound(kind, got, acc, divisor)
					if d := f.differ(got, wantRound); d != "" {
						t.Errorf("%s: %s", at(fmt.Sprintf("round by %v", divisor)), d)
					}
				}
				restore()
				if t.Failed() {
					return
				}
			}
		}
	}
}

// TestFloat32CorrectlyRounded shows that one rounding from float64 is as good as the exact sum: every result is the
// float32 nearest to Σ w[k]·x[k] in unlimited precision.
func TestFloat32CorrectlyRounded(t *testing.T) {
	const n, models = 4096, 6
	rng := newRand(5)
	source := newPool(rng, binary32, ordinary, 1<<15)
	x := source.models(models, n)
	w := make([]float64, models)
	total := 0.0
	for k := range w {
		w[k] = rng.Float64()
		total += w[k]
	}
	for k := range w {
		w[k] /= total
	}
	want := make([]byte, n*4)
	for i := range n {
		sum, _ := exactSum(binary32, float64s(w), column(binary32, x, i))
		binary32.put(want, i, binary32.encode(sum))
	}
	each(t, []implementation.Kind{implementation.Float32}, func(t *testing.T, kind implementation.Kind) {
		got := make([]byte, n*4)
		callWeightedSum(kind, got, x, w)
		if d := binary32.differ(got, want); d != "" {
			t.Error(d)
		}
	})
}

// ordered maps the bits of a binary64 number to integers in the order of the numbers.
func ordered(b uint64) int64 {
	if b&binary64.sign() != 0 {
		return -int64(b &^ binary64.sign())
	}
	return int64(b)
}

// TestWiderAccuracy asserts the contract of the double-double sum, that of Dot2 of Ogita, Rump and Oishi (2005): the
// result is a number s̃ rounded to nearest, with
//
//	|s̃ − Σ w·x| ≤ γ²·Σ |w·x|,   γ = m·u/(1 − m·u),   u = 2^−53, m the number of models,
//
// so it lies between the roundings of Σ w·x − γ²·Σ|w·x| and of Σ w·x + γ²·Σ|w·x|. Where these two agree it is the exact
// sum correctly rounded; the test counts that this decides almost all well-conditioned cases. A mean is allowed γ with
// four operations more, for the division of the pair.
func TestWiderAccuracy(t *testing.T) {
	rng := newRand(6)
	const kind = implementation.Float64Wider
	u := real{m: big.NewInt(1), e: -53}
	number := func(i int) real { return real{m: big.NewInt(int64(i))} }
	bounds := func(sum, magnitudes, divisor real, m int) (low, high uint64) {
		gamma := number(m).times(u).over(real{m: big.NewInt(1<<53 - int64(m)), e: -53})
		gamma.m.Add(gamma.m, big.NewInt(1)) // the quotient was cut off
		e := gamma.times(gamma).times(magnitudes).over(divisor)
		e.m.Add(e.m, big.NewInt(1))
		sum = sum.over(divisor)
		return binary64.encode(sum.plus(e.negated())), binary64.encode(sum.plus(e))
	}
	type condition struct {
		name  string
		cases int
		make  func(w, x []uint64)
		exact float64 // the share of cases, at least, that the bound decides
	}
	ordinaryCase := func(w, x []uint64) {
		for k := range x {
			w[k], x[k] = binary64.random(rng, ordinary), binary64.random(rng, ordinary)
		}
	}
	conditions := []condition{
		{"ordinary", thin(1500, 60), ordinaryCase, 0.99},
		{"wide", thin(600, 30), func(w, x []uint64) { // magnitudes over 2^±60
			ordinaryCase(w, x)
			for k := range x {
				x[k] += uint64(int64(rng.IntN(120)-60) << 52)
			}
		}, 0.9},
		{"cancelling", thin(1500, 60), func(w, x []uint64) {
			// The last product cancels the sum of the others, to its rounding: a condition of about 2^53.
			ordinaryCase(w, x)
			last := len(x) - 1
			sum, _ := exactSum(binary64, w[:last], x[:last])
			w[last] = binary64.one()
			x[last] = binary64.encode(sum.negated())
		}, 0},
		{"ill-conditioned", thin(1500, 60), func(w, x []uint64) {
			// Cancelled twice: the sum of the condition's inverse square is left.
			ordinaryCase(w, x)
			for _, last := range []int{len(x) - 2, len(x) - 1} {
				if last < 1 {
					continue
				}
				sum, _ := exactSum(binary64, w[:last], x[:last])
				w[last] = binary64.one()
				x[last] = binary64.encode(sum.negated())
			}
		}, 0},
	}
	for _, c := range conditions {
		var weights, inputs [][]uint64
		for range c.cases {
			models := 1 + rng.IntN(24)
			w, x := make([]uint64, models), make([]uint64, models)
			c.make(w, x)
			weights, inputs = append(weights, w), append(inputs, x)
		}
		for _, impl := range implementation.Available() {
			t.Run(fmt.Sprintf("%s/%v", c.name, impl), func(t *testing.T) {
				force(t, impl.String())
				decided := 0
				for i := range weights {
					models := len(inputs[i])
					w := make([]float64, models)
					const n = 37 // body and tail
					x, got := make([][]byte, models), make([]byte, n*8)
					for k := range x {
						w[k] = math.Float64frombits(weights[i][k])
						x[k] = make([]byte, n*8)
						for j := range n {
							binary64.put(x[k], j, inputs[i][k])
						}
					}
					check := func(what string, low, high uint64) {
						for j, g := range view[float64](got) {
							if o := ordered(math.Float64bits(g)); o < ordered(low) || o > ordered(high) {
								t.Fatalf("%s %d, element %d: %v, want within [%v, %v]", what, i, j,
									g, math.Float64frombits(low), math.Float64frombits(high))
							}
						}
					}
					sum, magnitudes := exactSum(binary64, weights[i], inputs[i])
					low, high := bounds(sum, magnitudes, number(1), models)
					if low == high {
						decided++
					}
					callWeightedSum(kind, got, x, w)
					check("sum", low, high)

					ones := make([]uint64, models)
					for k := range ones {
						ones[k] = binary64.one()
					}
					sum, magnitudes = exactSum(binary64, ones, inputs[i])
					low, high = bounds(sum, magnitudes, number(models), models+4)
					callMean(kind, got, x)
					check("mean", low, high)
				}
				if share := float64(decided) / float64(c.cases); share < c.exact {
					t.Errorf("only %.3f of the cases have one admissible result, want %v", share, c.exact)
				}
			})
		}
	}
}

// TestWiderSpecials: where a double-double sum is not finite it is the float64 sum of the rounded products, and a zero
// sum has the sign that it has in float64.
func TestWiderSpecials(t *testing.T) {
	rng := newRand(7)
	const n, kind = 64, implementation.Float64Wider
	for _, impl := range implementation.Available() {
		t.Run(impl.String(), func(t *testing.T) {
			force(t, impl.String())
			checked := 0
			for range thin(400, 60) {
				models := 1 + rng.IntN(5)
				x, w := make([][]byte, models), make([]float64, models)
				for k := range x {
					x[k] = binary64.randomElements(rng, special, n)
					w[k] = []float64{1, -1, 2, 0, 0.5, math.Inf(1), 0x1p1000}[rng.IntN(7)]
				}
				got := make([]float64, n)
				callWeightedSum(kind, bytesOf(got), x, w)
				for i := range n {
					want, zero := math.Copysign(0, -1), true
					for k := range x {
						product := float64(w[k] * view[float64](x[k])[i])
						zero = zero && product == 0
						want += product
					}
					finite := want-want == 0
					if finite && !zero {
						continue
					}
					checked++
					if !binary64.equal(math.Float64bits(got[i]), math.Float64bits(want)) {
						t.Fatalf("models=%d weights=%v elements=%x: %v, want %v", models, w, column(binary64, x, i), got[i], want)
					}
				}
			}
			if checked < 1000 {
				t.Errorf("only %d cases checked", checked)
			}
		})
	}
}

// FuzzFMA32 holds the float32 multiply-add of the reference against exact arithmetic.
func FuzzFMA32(f *testing.F) {
	f.Add(uint32(0x3fdca000), uint32(0x3fd75c00), uint32(0xa301e533))
	f.Add(uint32(0x00000001), uint32(0x3f000000), uint32(0x80000000))
	f.Add(uint32(0x7f7fffff), uint32(0x40000000), uint32(0xff7fffff))
	f.Fuzz(func(t *testing.T, x, y, z uint32) { checkFMA32(t, uint64(x), uint64(y), uint64(z)) })
}
