package partial_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/modelavg/modelavg"
	"github.com/modelavg/modelavg/beam/partial"
	"github.com/modelavg/modelavg/checkpoint"
)

// The formats as the tests need them, written apart from package convert: bits of the exponent and of the fraction.
var formats = map[checkpoint.DType]struct{ exponent, fraction int }{
	checkpoint.F64:    {11, 52},
	checkpoint.F32:    {8, 23},
	checkpoint.F16:    {5, 10},
	checkpoint.BF16:   {8, 7},
	checkpoint.F8E5M2: {5, 2},
	checkpoint.F8E4M3: {4, 3},
}

// number returns the finite number that the little-endian bytes of an element stand for.
func number(p []byte, d checkpoint.DType) float64 {
	var u uint64
	for i := len(p) - 1; i >= 0; i-- {
		u = u<<8 | uint64(p[i])
	}
	f := formats[d]
	bias := 1<<(f.exponent-1) - 1
	fraction := u & (1<<f.fraction - 1)
	exponent := int(u >> f.fraction & (1<<f.exponent - 1))
	x := math.Ldexp(float64(fraction), 1-bias-f.fraction)
	if exponent > 0 {
		x = math.Ldexp(float64(fraction|1<<f.fraction), exponent-bias-f.fraction)
	}
	if u>>(f.exponent+f.fraction) != 0 {
		x = -x
	}
	return x
}

// random returns n elements of moderate size: exponents near that of one.
func random(r *rand.Rand, d checkpoint.DType, n int) []byte {
	f := formats[d]
	bias := 1<<(f.exponent-1) - 1
	size := d.Bits() / 8
	p := make([]byte, n*size)
	for i := range n {
		u := uint64(r.IntN(2))<<(f.exponent+f.fraction) | uint64(bias-2+r.IntN(4))<<f.fraction |
			r.Uint64()&(1<<f.fraction-1)
		for j := range size {
			p[i*size+j] = byte(u >> (8 * j))
		}
	}
	return p
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func newSum(t testing.TB, dtype, accumulator checkpoint.DType, n int) *partial.Sum {
	t.Helper()
	s, err := partial.New(dtype, accumulator, n)
	must(t, err)
	return s
}

// Sums that are merged in any order stay within the bound of the package's comment, measured with numbers of any
// precision.
func TestAnyOrderStaysWithinTheBound(t *testing.T) {
	const models, n = 37, 4096 + 131
	for dtype, format := range formats {
		r := rand.New(rand.NewPCG(1, uint64(dtype)))
		accumulator := partial.Accumulator(dtype)
		u := 0x1p-53
		if accumulator == checkpoint.F32 {
			u = 0x1p-24
		}
		gamma := models * u / (1 - models*u)

		exact := make([]*big.Float, n)
		size := make([]float64, n) // Σ|w·x|
		for i := range exact {
			exact[i] = new(big.Float).SetPrec(2000)
		}
		sums := make([]*partial.Sum, models)
		for k := range sums {
			data, w := random(r, dtype, n), float64(float32(r.Float64()*2-0.5))
			sums[k] = newSum(t, dtype, accumulator, n)
			must(t, sums[k].Add(data, dtype, w))
			for i := range n {
				x := number(data[i*dtype.Bits()/8:][:dtype.Bits()/8], dtype)
				product := new(big.Float).SetPrec(2000).Mul(big.NewFloat(x), big.NewFloat(w))
				exact[i].Add(exact[i], product)
				size[i] += math.Abs(x * w)
			}
		}
		for range 3 {
			all := make([]*partial.Sum, models)
			for k, at := range r.Perm(models) {
				all[k] = new(partial.Sum)
				must(t, all[k].Merge(sums[at]))
			}
			for len(all) > 1 { // any tree
				a, b := r.IntN(len(all)), r.IntN(len(all))
				if a == b {
					continue
				}
				must(t, all[a].Merge(all[b]))
				all[b] = all[len(all)-1]
				all = all[:len(all)-1]
			}
			if got := all[0].Models(); got != models {
				t.Fatalf("%v: got %d models, want %d", dtype, got, models)
			}
			out, err := all[0].Round(1)
			must(t, err)
			for i := range n {
				got := number(out[i*dtype.Bits()/8:][:dtype.Bits()/8], dtype)
				diff, _ := new(big.Float).Sub(big.NewFloat(got), exact[i]).Float64()
				// Half a unit in the last place of the result, and the smallest number of the format.
				half := math.Abs(got)*math.Ldexp(1, -format.fraction-1) +
					math.Ldexp(1, 2-1<<(format.exponent-1)-format.fraction)
				if limit := gamma*size[i]*(1+1e-9) + half*(1+gamma); math.Abs(diff) > limit {
					t.Fatalf("%v: element %d: got %v, off by %v, want at most %v", dtype, i, got, diff, limit)
				}
			}
		}
	}
}

// The bound is no empty one: orders do differ.
func TestOrderMatters(t *testing.T) {
	var sums [3]*partial.Sum
	for k, x := range []float64{1, 0x1p-53, 0x1p-53} {
		sums[k] = newSum(t, checkpoint.F64, checkpoint.F64, 1)
		must(t, sums[k].Add(binary.LittleEndian.AppendUint64(nil, math.Float64bits(x)), checkpoint.F64, 1))
	}
	for _, order := range [][]int{{0, 1, 2}, {2, 1, 0}} {
		s := new(partial.Sum)
		for _, k := range order {
			must(t, s.Merge(sums[k]))
		}
		out, err := s.Round(1)
		must(t, err)
		want := 1.0
		if order[0] != 0 {
			want = 1 + 0x1p-52
		}
		if got := number(out, checkpoint.F64); got != want {
			t.Errorf("order %v: got %v, want %v", order, got, want)
		}
	}
}

// One sum of all models, in their order, has the bits of package modelavg.
func TestOneSumIsTheAverageOfModelavg(t *testing.T) {
	const models, n = 11, 5000
	r := rand.New(rand.NewPCG(2, 2))
	weights := make([]float64, models)
	for k := range weights {
		weights[k] = r.Float64()
	}
	oneSum[float64](t, r, checkpoint.F64, weights, n)
	oneSum[float32](t, r, checkpoint.F32, weights, n)
	oneSum[modelavg.Float16](t, r, checkpoint.F16, weights, n)
	oneSum[modelavg.BFloat16](t, r, checkpoint.BF16, weights, n)
}

func oneSum[T modelavg.Element](t *testing.T, r *rand.Rand, d checkpoint.DType, weights []float64, n int) {
	t.Helper()
	models := make([][]T, len(weights))
	weighted, mean := newSum(t, d, partial.Accumulator(d), n), newSum(t, d, partial.Accumulator(d), n)
	for k := range models {
		// One byte too early, so that nothing is aligned.
		data := append(make([]byte, 1, 1+n*d.Bits()/8), random(r, d, n)...)[1:]
		models[k] = make([]T, n)
		_, err := binary.Decode(data, binary.LittleEndian, models[k])
		must(t, err)
		must(t, weighted.Add(data, d, weights[k]))
		must(t, mean.Add(data, d, 1))
	}
	dst := make([]T, n)
	must(t, modelavg.WeightedSum(dst, models, weights))
	got, err := weighted.Round(1)
	must(t, err)
	equalBytes(t, d.String()+" weighted sum", got, dst)

	must(t, modelavg.Mean(dst, models))
	got, err = mean.Mean()
	must(t, err)
	equalBytes(t, d.String()+" mean", got, dst)
}

func equalBytes[T any](t *testing.T, what string, got []byte, dst []T) {
	t.Helper()
	want, err := binary.Append(nil, binary.LittleEndian, dst)
	must(t, err)
	if string(got) != string(want) {
		t.Errorf("%s: the bits are not those of package modelavg", what)
	}
}

// Models of several dtypes are summed without a rounding in between.
func TestMixedDTypes(t *testing.T) {
	s := newSum(t, checkpoint.F16, checkpoint.F64, 2)
	must(t, s.Add([]byte{0x38, 0x40}, checkpoint.F8E4M3, 0.5))                                // 1, 2
	must(t, s.Add([]byte{0x80, 0x3f, 0x00, 0x40}, checkpoint.BF16, 0.25))                     // 1, 2
	must(t, s.Add([]byte{0x00, 0x00, 0x80, 0x3f, 0x00, 0x00, 0x00, 0x40}, checkpoint.F32, 1)) // 1, 2
	out, err := s.Mean()
	must(t, err)
	for i, want := range []float64{1, 2} {
		if got := number(out[2*i:][:2], checkpoint.F16); got != want {
			t.Errorf("element %d: got %v, want %v", i, got, want)
		}
	}
	if got, want := s.Weight(), 1.75; got != want {
		t.Errorf("weight: got %v, want %v", got, want)
	}
}

// A negative zero stays one: the empty sum is −0.
func TestNegativeZero(t *testing.T) {
	s := newSum(t, checkpoint.F16, checkpoint.F32, 1)
	must(t, s.Add([]byte{0x00, 0x80}, checkpoint.F16, 1))
	all := newSum(t, checkpoint.F16, checkpoint.F32, 1)
	must(t, all.Merge(s))
	out, err := all.Round(1)
	must(t, err)
	if got := binary.LittleEndian.Uint16(out); got != 0x8000 {
		t.Errorf("got %#04x, want 0x8000", got)
	}
}

func TestRefusals(t *testing.T) {
	nan := math.NaN()
	for what, check := range map[string]func() error{
		"want a float of 8 bits or more": func() error {
			_, err := partial.New(checkpoint.I64, checkpoint.F64, 1)
			return err
		},
		"want F64": func() error {
			_, err := partial.New(checkpoint.F32, checkpoint.F32, 1)
			return err
		},
		"-1 elements, want 0 or more": func() error {
			_, err := partial.New(checkpoint.F32, checkpoint.F64, -1)
			return err
		},
		"the zero Sum": func() error { return new(partial.Sum).Add(nil, checkpoint.F32, 1) },
		"the weight of a model is NaN": func() error {
			return newSum(t, checkpoint.F32, checkpoint.F64, 1).Add(make([]byte, 4), checkpoint.F32, nan)
		},
		"the weight of a model is 1e+300, want a number that is finite in F32": func() error {
			return newSum(t, checkpoint.BF16, checkpoint.F32, 1).Add(make([]byte, 2), checkpoint.BF16, 1e300)
		},
		"merge of nil": func() error { return newSum(t, checkpoint.F32, checkpoint.F64, 1).Merge(nil) },
		"the weights of 2 models have the sum 6.0": func() error { // beyond float32
			s := newSum(t, checkpoint.BF16, checkpoint.F32, 1)
			must(t, s.Add(make([]byte, 2), checkpoint.BF16, 3e38))
			must(t, s.Merge(s))
			_, err := s.Mean()
			return err
		},
		"divided by 1e-60, want a number that is finite in F32": func() error {
			s := newSum(t, checkpoint.BF16, checkpoint.F32, 1)
			must(t, s.Add(make([]byte, 2), checkpoint.BF16, 1))
			_, err := s.Round(1e-60)
			return err
		},
		"divided by NaN": func() error {
			s := newSum(t, checkpoint.F32, checkpoint.F64, 1)
			must(t, s.Add(make([]byte, 4), checkpoint.F32, 1))
			_, err := s.Round(nan)
			return err
		},
		"merge of 9223372036854775807 and 9223372036854775807 models": func() error {
			s := newSum(t, checkpoint.F32, checkpoint.F64, 0)
			must(t, s.Add(nil, checkpoint.F32, 1))
			p, err := s.MarshalBinary()
			must(t, err)
			binary.LittleEndian.PutUint64(p[16:], math.MaxInt64)
			binary.LittleEndian.PutUint32(p[len(p)-4:], crc32c(p[:len(p)-4]))
			must(t, s.UnmarshalBinary(p))
			return s.Merge(s)
		},
		"want 4: 1 elements of F32": func() error {
			return newSum(t, checkpoint.F32, checkpoint.F64, 1).Add(make([]byte, 5), checkpoint.F32, 1)
		},
		"want them to be F64": func() error {
			return newSum(t, checkpoint.F16, checkpoint.F32, 1).Add(make([]byte, 4), checkpoint.F32, 1)
		},
		"a model of dtype U8": func() error {
			return newSum(t, checkpoint.F16, checkpoint.F32, 1).Add(make([]byte, 1), checkpoint.U8, 1)
		},
		"merge of 2 elements of F16 in F32, want 1 of F16 in F32": func() error {
			return newSum(t, checkpoint.F16, checkpoint.F32, 1).Merge(newSum(t, checkpoint.F16, checkpoint.F32, 2))
		},
		"merge of 1 elements of F16 in F64, want 1 of F16 in F32": func() error {
			return newSum(t, checkpoint.F16, checkpoint.F32, 1).Merge(newSum(t, checkpoint.F16, checkpoint.F64, 1))
		},
		"no models": func() error {
			_, err := newSum(t, checkpoint.F16, checkpoint.F32, 1).Round(1)
			return err
		},
		"the weights of 0 models have the sum 0": func() error {
			_, err := newSum(t, checkpoint.F16, checkpoint.F32, 1).Mean()
			return err
		},
	} {
		if err := check(); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("got error %v, want one with %q", err, what)
		}
	}
}

// A mean of any weights whose sum is exact in float64 has the bits of the accumulator of modelavg, and a weight that is
// zero in the accumulators reads nothing.
func TestMeanOfWeights(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 9))
	const n = 500
	for range 20 {
		narrow, wide := newSum(t, checkpoint.BF16, checkpoint.F32, n), newSum(t, checkpoint.F32, checkpoint.F64, n)
		wantNarrow, err := modelavg.NewAccumulator[modelavg.BFloat16](n)
		must(t, err)
		wantWide, err := modelavg.NewAccumulator[float32](n)
		must(t, err)
		for range 5 {
			// A weight that float32 rounds, and so does not have in the sum of the weights either.
			w := 1<<26 + float64(r.IntN(1<<26))
			p, q := random(r, checkpoint.BF16, n), random(r, checkpoint.F32, n)
			x, y := make([]modelavg.BFloat16, n), make([]float32, n)
			must(t, binary.Read(bytes.NewReader(p), binary.LittleEndian, x))
			must(t, binary.Read(bytes.NewReader(q), binary.LittleEndian, y))
			must(t, errors.Join(narrow.Add(p, checkpoint.BF16, w), wide.Add(q, checkpoint.F32, w)))
			must(t, errors.Join(wantNarrow.Add(x, w), wantWide.Add(y, w)))
		}
		must(t, narrow.Add(bytes.Repeat([]byte{0xc0, 0x7f}, n), checkpoint.BF16, 1e-60)) // NaN
		must(t, wide.Add(bytes.Repeat([]byte{0, 0, 0xc0, 0x7f}, n), checkpoint.F32, 0))
		if narrow.Models() != 5 || narrow.Weight() != wantNarrow.Weight() {
			t.Errorf("%d models of weight %v, want 5 of %v", narrow.Models(), narrow.Weight(), wantNarrow.Weight())
		}
		x, y := make([]modelavg.BFloat16, n), make([]float32, n)
		must(t, errors.Join(wantNarrow.Mean(x), wantWide.Mean(y)))
		got, err := narrow.Mean()
		must(t, err)
		equalBytes(t, "BF16", got, x)
		got, err = wide.Mean()
		must(t, err)
		equalBytes(t, "F32", got, y)
	}
}

func TestEncoding(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	for dtype := range formats {
		for _, accumulator := range []checkpoint.DType{checkpoint.F32, checkpoint.F64} {
			for _, n := range []int{0, 1, 5000} {
				if accumulator == checkpoint.F32 && partial.Accumulator(dtype) != accumulator {
					continue
				}
				s := newSum(t, dtype, accumulator, n)
				must(t, s.Add(random(r, dtype, n), dtype, 0.375))
				must(t, s.Add(random(r, dtype, n), dtype, 2))
				encoded, err := s.MarshalBinary()
				must(t, err)
				if got, want := len(encoded), 44+n*accumulator.Bits()/8; got != want {
					t.Errorf("%v in %v, %d elements: got %d bytes, want %d", dtype, accumulator, n, got, want)
				}
				d := new(partial.Sum)
				must(t, d.UnmarshalBinary(encoded))
				if d.DType() != dtype || d.Accumulator() != accumulator || d.Len() != n || d.Models() != 2 ||
					d.Weight() != 2.375 {
					t.Errorf("got %v in %v, %d elements, %d models, weight %v, want %v, %v, %d, 2, 2.375", d.DType(),
						d.Accumulator(), d.Len(), d.Models(), d.Weight(), dtype, accumulator, n)
				}
				want, err := s.Round(1)
				must(t, err)
				got, err := d.Round(1)
				must(t, err)
				if string(got) != string(want) {
					t.Errorf("%v in %v, %d elements: the average is another one", dtype, accumulator, n)
				}
				must(t, d.Merge(s)) // still of the same format
			}
		}
	}
	encoded, err := new(partial.Sum).AppendBinary([]byte("before"))
	must(t, err)
	zero := newSum(t, checkpoint.F16, checkpoint.F32, 1)
	must(t, zero.UnmarshalBinary(encoded[len("before"):]))
	if zero.DType() != 0 || zero.Accumulator() != 0 || zero.Len() != 0 {
		t.Errorf("the zero Sum came back as %v", zero)
	}
}

// The encoding is fixed: what one worker writes, another reads, whatever its processor and its version.
func TestEncodingGolden(t *testing.T) {
	const want = "MAPS\x01\x04\x00\x00F16\x00\x00\x00\x00\x00" +
		"\x02\x00\x00\x00\x00\x00\x00\x00" + "\x00\x00\x00\x00\x00\x00\xf8\x3f" + "\x02\x00\x00\x00\x00\x00\x00\x00" +
		"\x00\x00\xc0\x3f" + "\x00\x00\x40\x40" // 1.5, 3
	s := newSum(t, checkpoint.F16, checkpoint.F32, 2)
	must(t, s.Add([]byte{0x00, 0x3c, 0x00, 0x40}, checkpoint.F16, 1))
	must(t, s.Add([]byte{0x00, 0x3c, 0x00, 0x40}, checkpoint.F16, 0.5))
	got, err := s.MarshalBinary()
	must(t, err)
	if string(got[:len(got)-4]) != want {
		t.Errorf("got %q, want %q", got[:len(got)-4], want)
	}
	if got, want := binary.LittleEndian.Uint32(got[len(got)-4:]), crc32c([]byte(want)); got != want {
		t.Errorf("checksum: got %08x, want %08x", got, want)
	}
}

// crc32c returns the CRC-32C of p, bit by bit.
func crc32c(p []byte) uint32 {
	c := ^uint32(0)
	for _, b := range p {
		c ^= uint32(b)
		for range 8 {
			c = c>>1 ^ 0x82f63b78&-(c&1)
		}
	}
	return ^c
}

// Whatever happens to an encoded sum on its way is seen.
func TestDamage(t *testing.T) {
	s := newSum(t, checkpoint.BF16, checkpoint.F32, 3)
	must(t, s.Add(random(rand.New(rand.NewPCG(4, 4)), checkpoint.BF16, 3), checkpoint.BF16, 1))
	encoded, err := s.MarshalBinary()
	must(t, err)
	check := func(what string, p []byte) {
		t.Helper()
		d := newSum(t, checkpoint.F16, checkpoint.F32, 7)
		if err := d.UnmarshalBinary(p); !errors.Is(err, partial.ErrEncoding) {
			t.Errorf("%s: got error %v, want one that wraps ErrEncoding", what, err)
		}
		if d.Len() != 7 || d.DType() != checkpoint.F16 {
			t.Errorf("%s: the sum has changed", what)
		}
	}
	for i := range encoded {
		for bit := range 8 {
			damaged := append([]byte(nil), encoded...)
			damaged[i] ^= 1 << bit
			check("a bit", damaged)
		}
		check("cut", encoded[:i])
	}
	check("longer", append(append([]byte(nil), encoded...), 0))

	// Nonsense with the right checksum.
	for what, change := range map[string]func(p []byte){
		"version":     func(p []byte) { p[4] = 2 },
		"accumulator": func(p []byte) { p[5] = 2 },
		"wider":       func(p []byte) { p[5] = 8 },
		"dtype":       func(p []byte) { copy(p[8:], "F128\x00\x00\x00\x00") },
		"integer":     func(p []byte) { copy(p[8:], "I16\x00\x00\x00\x00\x00") },
		"narrow F32":  func(p []byte) { copy(p[8:], "F32\x00\x00\x00\x00\x00") },
		"no dtype":    func(p []byte) { copy(p[8:], make([]byte, 8)) },
		"elements":    func(p []byte) { p[39] = 0xff },
		"models":      func(p []byte) { p[23] = 0xff },
		"after size":  func(p []byte) { p[6] = 1 },
		"before name": func(p []byte) { p[7] = 0x80 },
	} {
		p := append([]byte(nil), encoded...)
		change(p)
		binary.LittleEndian.PutUint32(p[len(p)-4:], crc32c(p[:len(p)-4]))
		check(what, p)
	}
}
