package kernel

import (
	"bytes"
	"fmt"
	"math"
	"runtime"
	"slices"
	"testing"

	"github.com/modelavg/modelavg/internal/implementation"
)

// The lines of the contract that are not about single numbers.

// TestIdentity averages a model with itself, with weights that sum to one, and wants the model back bit for bit.
func TestIdentity(t *testing.T) {
	vectors := [][]float64{
		{1},
		{0.5, 0.5},
		{0.9, 0.1},
		{1.0 / 3, 1.0 / 3, 1.0 / 3},
		{0.2, 0.5, 0.3},
		{0.64, 0.288, 0.072},
		{0x1p-60, 1 - 0x1p-53},
		{1e-6, 0.25, 0.25, 0.499999},
	}
	for _, n := range []int{7, 9, 10, 33}[:thin(4, 2)] {
		uniform, decay, total := make([]float64, n), make([]float64, n), 0.0
		for k := range n {
			uniform[k] = 1 / float64(n)
			decay[k] = math.Pow(0.8, float64(n-1-k))
			total += decay[k]
		}
		for k := range n {
			decay[k] /= total
		}
		vectors = append(vectors, uniform, decay)
	}
	rng := newRand(40)
	models := map[implementation.Kind][]byte{}
	all := make([]uint16, 1<<16)
	for i := range all {
		all[i] = uint16(i)
	}
	models[implementation.Float16], models[implementation.BFloat16] = bytesOf(all), bytesOf(all)
	for m := range modes {
		elements := binary32.randomElements(rng, m, thin(20_000, 2000))
		models[implementation.Float32] = append(models[implementation.Float32], elements...)
	}
	kinds := []implementation.Kind{implementation.Float32, implementation.Float16, implementation.BFloat16}
	each(t, kinds, func(t *testing.T, kind implementation.Kind) {
		f, model := elementFormat(kind), models[kind]
		got := make([]byte, len(model))
		for _, w := range vectors {
			x := make([][]byte, len(w))
			for k := range x {
				x[k] = model
			}
			callWeightedSum(kind, got, x, w)
			if d := f.differ(got, model); d != "" {
				t.Errorf("weights %v: %s", w, d)
			}
		}
		// A sum of copies, before it is divided, must fit the accumulator: the largest bfloat16 numbers are left out.
		if kind == implementation.BFloat16 {
			model = bytes.Clone(model)
			for i := range len(model) / f.size {
				if b := f.at(model, i); b&0x7fff >= 0x7c80 && b&0x7fff < 0x7f80 {
					f.put(model, i, 0)
				}
			}
		}
		for _, n := range []int{2, 3, 9, 1, 6, 7, 10, 31}[:thin(8, 3)] {
			x := make([][]byte, n)
			for k := range x {
				x[k] = model
			}
			callMean(kind, got, x)
			if d := f.differ(got, model); d != "" {
				t.Errorf("mean of %d: %s", n, d)
			}
		}
	})
}

func repeat(n int, v float64) []float64 {
	s := make([]float64, n)
	for i := range s {
		s[i] = v
	}
	return s
}

// TestSpecials states, number by number, what becomes of zeros, infinities, NaNs, subnormals and overflow. Every case
// is run for lengths that end in blocks, in vectors and in tails.
func TestSpecials(t *testing.T) {
	inf, nan, negativeZero := math.Inf(1), math.NaN(), math.Copysign(0, -1)
	longNaN := math.Float64frombits(0x7fff_ffff_ffff_ffff) // if its end is added to, it stops being one
	type specialCase struct {
		what  string
		kinds []implementation.Kind
		x, w  []float64
		want  float64
	}
	const (
		f32, f64, f16  = implementation.Float32, implementation.Float64, implementation.Float16
		bf16, f32n, dd = implementation.BFloat16, implementation.Float32Native, implementation.Float64Wider

		largest32, largest = math.MaxFloat32, math.MaxFloat64
	)
	type list = []float64
	only := func(kinds ...implementation.Kind) []implementation.Kind { return kinds }
	cases := []specialCase{
		{"sum of +0", allKinds, list{0, 0}, list{1, 1}, 0},
		{"sum of −0", allKinds, list{negativeZero, negativeZero}, list{1, 1}, negativeZero},
		{"nine −0", allKinds, repeat(9, negativeZero), repeat(9, 0.125), negativeZero},
		{"17 −0", allKinds, repeat(17, negativeZero), repeat(17, 0.125), negativeZero},
		{"one −0", allKinds, list{negativeZero}, list{0.5}, negativeZero},
		{"−0 and +0", allKinds, list{negativeZero, 0}, list{1, 1}, 0},
		{"cancellation", allKinds, list{1.5, 1.5}, list{1, -1}, 0},
		{"negative times zero", allKinds, list{0, 0}, list{-1, -1}, negativeZero},
		{"zero weight", allKinds, list{2, 3}, list{0, 1}, 3},
		{"negative zero weight", allKinds, list{2}, list{negativeZero}, negativeZero},
		{"zero weight times Inf", allKinds, list{inf, 3}, list{0, 1}, nan},
		{"zero weight times NaN", allKinds, list{nan, 3}, list{0, 1}, nan},
		{"Inf", allKinds, list{inf, 3}, list{0.5, 0.5}, inf},
		{"−Inf", allKinds, list{3, inf}, list{0.5, -0.5}, -inf},
		{"Inf − Inf", allKinds, list{inf, inf}, list{1, -1}, nan},
		{"Inf weight", allKinds, list{2, 1}, list{inf, 1}, inf},
		{"Inf weight times zero", allKinds, list{0, 1}, list{inf, 1}, nan},
		{"NaN weight", allKinds, list{0, 1}, list{1, nan}, nan},
		{"long NaN weight of 2", allKinds, list{0, 1}, list{1, longNaN}, nan},
		{"long NaN weight of 3", allKinds, list{1, 0, 1}, list{longNaN, 1, -longNaN}, nan},
		{"long NaN weight of 4", allKinds, list{1, 0, 1, 1}, list{1, 1, longNaN, 1}, nan},
		{"long NaN weights of 8", allKinds, repeat(8, 1), repeat(8, longNaN), nan},
		{"NaN", allKinds, list{1, nan, 1}, list{1, 1, 1}, nan},

		{"least float16", only(f16), list{0x1p-24, 0x1p-24}, list{0.5, 0.5}, 0x1p-24},
		{"half the least float16", only(f16), list{0x1p-24}, list{0.5}, 0},
		{"more than half the least float16", only(f16), list{0x1p-24}, list{0.5000001}, 0x1p-24},
		{"minus half the least float16", only(f16), list{0x1p-24}, list{-0.5}, negativeZero},
		{"below float16's overflow", only(f16), list{65504, 15.99}, list{1, 1}, 65504},
		{"float16 overflow", only(f16), list{65504, 16}, list{1, 1}, inf},
		{"float16 overflow, negative", only(f16), list{65504}, list{-2}, -inf},
		{"beyond float16 between", only(f16), list{65504, 65504}, list{16, -15}, 65504},

		{"least bfloat16", only(bf16), list{0x1p-133, 0x1p-133}, list{0.5, 0.5}, 0x1p-133},
		{"half the least bfloat16", only(bf16), list{0x1p-133}, list{0.5}, 0},
		{"subnormal bfloat16", only(bf16), list{0x7fp-133}, list{1}, 0x7fp-133},
		{"bfloat16 overflow", only(bf16), list{0xffp120}, list{1.002}, inf},
		{"below bfloat16's overflow", only(bf16), list{0xffp120}, list{1.0019}, 0xffp120},
		{"overflow between in float32", only(bf16, f32n), list{0x1p127, 0x1p127, 0x1p127}, list{1, 1, -1}, inf},

		{"least float32", only(f32), list{0x1p-149, 0x1p-149}, list{0.5, 0.5}, 0x1p-149},
		{"half the least float32", only(f32, f32n), list{0x1p-149}, list{0.5}, 0},
		{"quarters of the least float32", only(f32), list{0x1p-149, 0x1p-149, 0x1p-149}, list{0.25, 0.25, 0.25}, 0x1p-149},
		{"quarters of the least float32, native", only(f32n), list{0x1p-149, 0x1p-149, 0x1p-149}, list{0.25, 0.25, 0.25}, 0},
		{"float32 overflow", only(f32, f32n), list{largest32, largest32}, list{1, 1}, inf},
		{"beyond float32 between", only(f32), list{largest32, largest32}, list{2, -1}, largest32},

		{"least float64", only(f64, dd), list{0x1p-1074, 0x1p-1074}, list{1, 1}, 0x1p-1073},
		{"float64 overflow", only(f64, dd), list{largest, largest}, list{1, 1}, inf},
		{"float64 overflow and back", only(f64, dd), list{largest, largest, largest}, list{1, 1, -1}, inf},
		{"lost in float64", only(f64), list{1, 0x1p-60, 1}, list{1, 1, -1}, 0},
		{"kept in double-double", only(dd), list{1, 0x1p-60, 1}, list{1, 1, -1}, 0x1p-60},
		{"low half of a product", only(dd), list{1 + 0x1p-52, 1}, list{1 + 0x1p-52, -(1 + 0x1p-51)}, 0x1p-104},
		{"weight beyond float32", only(f16, bf16, f32n), list{1}, list{1e39}, inf},
		{"weight below float32", only(f16, bf16, f32n), list{1}, list{1e-46}, 0},
	}
	each(t, allKinds, func(t *testing.T, kind implementation.Kind) {
		f := elementFormat(kind)
		for _, c := range cases {
			applies := false
			for _, k := range c.kinds {
				applies = applies || k == kind
			}
			if !applies {
				continue
			}
			want := convert(binary64, f, math.Float64bits(c.want))
			for _, n := range []int{1, 2, 3, 7, 9, 17, 40, 129, 300} {
				x, got := make([][]byte, len(c.x)), make([]byte, n*f.size)
				for k := range x {
					x[k] = make([]byte, n*f.size)
					for i := range n {
						f.put(x[k], i, convert(binary64, f, math.Float64bits(c.x[k])))
					}
				}
				callWeightedSum(kind, got, x, c.w)
				for i := range n {
					if g := f.at(got, i); !f.equal(g, want) {
						t.Errorf("%s: n=%d: element %d is %#x, want %#x", c.what, n, i, g, want)
						break
					}
				}
			}
		}
	})
}

// TestNoTiles proves that up to a few models need no tile, which the pool may have to allocate, whatever their length.
func TestNoTiles(t *testing.T) {
	former := tiles.New
	defer func() { tiles.New = former }()
	taken := false
	tiles.New = func() any { taken = true; return new(tile) }
	for range 2 {
		runtime.GC() // a pool keeps what it has for two of them
	}
	for kind := range implementation.Kind(implementation.Kinds) {
		for _, n := range []int{1, 8192, chunkBytes / 8, chunkBytes/8 + 1, 40_000, 70_000, chunkBytes + 1} {
			for _, models := range []int{1, 2, 3, few} {
				dst := make([]byte, n*elementSize(kind))
				x := make([][]byte, models)
				for k := range x {
					x[k] = dst
				}
				w := slices.Repeat([]float64{0.5}, models)
				for _, w := range [][]float64{nil, w} {
					taken = false
					if call(kind, dst, x, w); taken {
						t.Errorf("%v, %d elements of %d models, weights %v: takes a tile", kind, n, models, w)
					}
					if taken {
						runtime.GC()
						runtime.GC()
					}
				}
			}
		}
	}
	taken = false
	n := chunkBytes
	dst := make([]byte, n*2)
	if call(implementation.BFloat16, dst, slices.Repeat([][]byte{dst}, group+1), nil); !taken {
		t.Errorf("%d models take no tile: the test proves nothing", group+1)
	}
}

// TestZeroAllocations counts allocations of every exported function: in calls whose arguments are on the caller's stack,
// where nothing may escape, and for more models than a group, which need a tile.
func TestZeroAllocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector makes sync.Pool drop what is put into it")
	}
	check := func(t *testing.T, what string, f func()) {
		t.Helper()
		f()
		if a := testing.AllocsPerRun(20, f); a != 0 {
			t.Errorf("%s allocates %v times", what, a)
		}
	}
	onEach(t, func(impl implementation.Implementation) {
		t.Run(impl.String(), func(t *testing.T) {
			check(t, "WeightedSumFloat32", func() {
				var dst, a [9]float32
				WeightedSumFloat32(dst[:], [][]float32{a[:], dst[:]}, []float64{0.5, 0.5})
			})
			check(t, "WeightedSumFloat64", func() {
				var dst, a [9]float64
				WeightedSumFloat64(dst[:], [][]float64{a[:], dst[:]}, []float64{0.5, 0.5})
			})
			check(t, "WeightedSumFloat16", func() {
				var dst, a [9]uint16
				WeightedSumFloat16(dst[:], [][]uint16{a[:], dst[:]}, []float64{0.5, 0.5})
			})
			check(t, "WeightedSumBFloat16", func() {
				var dst, a [9]uint16
				WeightedSumBFloat16(dst[:], [][]uint16{a[:], dst[:]}, []float64{0.5, 0.5})
			})
			check(t, "WeightedSumFloat32Native", func() {
				var dst, a [9]float32
				WeightedSumFloat32Native(dst[:], [][]float32{a[:], dst[:]}, []float64{0.5, 0.5})
			})
			check(t, "WeightedSumFloat64Wider", func() {
				var dst, a [9]float64
				WeightedSumFloat64Wider(dst[:], [][]float64{a[:], dst[:]}, []float64{0.5, 0.5})
			})
			check(t, "MeanFloat32", func() {
				var dst, a [9]float32
				MeanFloat32(dst[:], [][]float32{a[:], dst[:]})
			})
			check(t, "MeanFloat64", func() {
				var dst, a [9]float64
				MeanFloat64(dst[:], [][]float64{a[:], dst[:]})
			})
			check(t, "MeanFloat16", func() {
				var dst, a [9]uint16
				MeanFloat16(dst[:], [][]uint16{a[:], dst[:]})
			})
			check(t, "MeanBFloat16", func() {
				var dst, a [9]uint16
				MeanBFloat16(dst[:], [][]uint16{a[:], dst[:]})
			})
			check(t, "MeanFloat32Native", func() {
				var dst, a [9]float32
				MeanFloat32Native(dst[:], [][]float32{a[:], dst[:]})
			})
			check(t, "MeanFloat64Wider", func() {
				var dst, a [9]float64
				MeanFloat64Wider(dst[:], [][]float64{a[:], dst[:]})
			})
			check(t, "AccumulateFloat32 and RoundFloat32", func() {
				var acc [9]float64
				var x [9]float32
				AccumulateFloat32(acc[:], x[:], 0.5)
				RoundFloat32(x[:], acc[:], 3)
			})
			check(t, "AccumulateFloat64 and RoundFloat64", func() {
				var acc, x [9]float64
				AccumulateFloat64(acc[:], x[:], 0.5)
				RoundFloat64(x[:], acc[:], 3)
			})
			check(t, "AccumulateFloat16 and RoundFloat16", func() {
				var acc [9]float32
				var x [9]uint16
				AccumulateFloat16(acc[:], x[:], 0.5)
				RoundFloat16(x[:], acc[:], 3)
			})
			check(t, "AccumulateBFloat16 and RoundBFloat16", func() {
				var acc [9]float32
				var x [9]uint16
				AccumulateBFloat16(acc[:], x[:], 0.5)
				RoundBFloat16(x[:], acc[:], 3)
			})
			for _, models := range []int{1, 8, 9, 40} {
				const n = 300
				w := make([]float64, models)
				single, double, half := make([][]float32, models), make([][]float64, models), make([][]uint16, models)
				for k := range w {
					single[k], double[k], half[k] = make([]float32, n), make([]float64, n), make([]uint16, n)
				}
				dst32, dst64, dst16 := make([]float32, n), make([]float64, n), make([]uint16, n)
				check(t, fmt.Sprintf("%d models", models), func() {
					WeightedSumFloat32(dst32, single, w)
					WeightedSumFloat32Native(dst32, single, w)
					WeightedSumFloat64(dst64, double, w)
					WeightedSumFloat64Wider(dst64, double, w)
					WeightedSumFloat16(dst16, half, w)
					WeightedSumBFloat16(dst16, half, w)
					MeanFloat32(dst32, single)
					MeanFloat32Native(dst32, single)
					MeanFloat64(dst64, double)
					MeanFloat64Wider(dst64, double)
					MeanFloat16(dst16, half)
					MeanBFloat16(dst16, half)
				})
			}
		})
	})
}

// TestPanics: a call that does not fit panics with a message that says what is wrong, and has written nothing.
func TestPanics(t *testing.T) {
	const n = 5
	refused := func(t *testing.T, want string, f func()) {
		t.Helper()
		defer func() {
			t.Helper()
			if got := recover(); got != want {
				t.Errorf("panic %v, want %q", got, want)
			}
		}()
		f()
	}
	each(t, allKinds, func(t *testing.T, kind implementation.Kind) {
		f, a := elementFormat(kind), accumulatorFormat(kind)
		dst := bytes.Repeat([]byte{0x5a}, n*f.size)
		short, model, long := make([]byte, (n-1)*f.size), make([]byte, n*f.size), make([]byte, (n+1)*f.size)

		sum := func(want string, x [][]byte, w ...float64) {
			t.Helper()
			refused(t, "kernel: "+want, func() { callWeightedSum(kind, dst, x, w) })
		}
		sum("no models", nil)
		sum("len(w) is 1, want len(x) = 2", [][]byte{model, model}, 1)
		sum("len(w) is 0, want len(x) = 1", [][]byte{model})
		sum("len(w) is 3, want len(x) = 2", [][]byte{model, model}, 1, 2, 3)
		sum("len(x[1]) is 4, want len(dst) = 5", [][]byte{model, short}, 1, 1)
		sum("len(x[0]) is 6, want len(dst) = 5", [][]byte{long, model}, 1, 1)
		refused(t, "kernel: no models", func() { callMean(kind, dst, [][]byte{}) })
		refused(t, "kernel: no models", func() { callMean(kind, nil, nil) })
		refused(t, "kernel: len(x[2]) is 0, want len(dst) = 5", func() { callMean(kind, dst, [][]byte{model, model, nil}) })
		refused(t, "kernel: len(x[0]) is 5, want len(dst) = 0", func() { callMean(kind, nil, [][]byte{model}) })
		if kind <= implementation.BFloat16 {
			acc := bytes.Repeat([]byte{0x5a}, n*a.size)
			refused(t, "kernel: len(x) is 4, want len(acc) = 5", func() { callAccumulate(kind, acc, short, 1) })
			refused(t, "kernel: len(x) is 6, want len(acc) = 5", func() { callAccumulate(kind, acc, long, 1) })
			refused(t, "kernel: len(acc) is 5, want len(dst) = 4", func() { callRound(kind, short, acc, 1) })
			refused(t, "kernel: len(acc) is 0, want len(dst) = 5", func() { callRound(kind, dst, nil, 1) })
			if !bytes.Equal(acc, bytes.Repeat([]byte{0x5a}, n*a.size)) {
				t.Error("a refused call changed acc")
			}
		}
		if !bytes.Equal(dst, bytes.Repeat([]byte{0x5a}, n*f.size)) {
			t.Error("a refused call changed dst")
		}
		if !bytes.Equal(short, make([]byte, len(short))) {
			t.Error("a refused call changed dst")
		}
		// Nothing is a legal length.
		callWeightedSum(kind, nil, [][]byte{nil, {}}, []float64{1, 2})
		callMean(kind, []byte{}, [][]byte{nil})
	})
}
