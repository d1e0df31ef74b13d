package convert

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"math/rand/v2"
	"sort"
	"testing"

	"github.com/modelavg/modelavg/checkpoint"
)

// A format is written down again here, from the specifications, as what the tests compare with.
type format struct {
	dtype            checkpoint.DType
	size             int
	exponent         int
	fraction         int
	finite           bool // without infinities: all patterns are numbers but for that of all ones
	largest          float64
	least            float64 // subnormal
	specialAbove     uint64  // the largest finite pattern
	overflow, nanBit uint64
}

var formats = []format{
	{
		checkpoint.F64, 8, 11, 52, false, math.MaxFloat64, math.SmallestNonzeroFloat64, 1<<63 - 1<<52 - 1, 0x7ff << 52,
		1 << 51,
	},
	{checkpoint.F32, 4, 8, 23, false, math.MaxFloat32, math.SmallestNonzeroFloat32, 0x7f7fffff, 0x7f800000, 1 << 22},
	{checkpoint.F16, 2, 5, 10, false, 65504, 0x1p-24, 0x7bff, 0x7c00, 1 << 9},
	{checkpoint.BF16, 2, 8, 7, false, 0x1.fep127, 0x1p-133, 0x7f7f, 0x7f80, 1 << 6},
	{checkpoint.F8E5M2, 1, 5, 2, false, 57344, 0x1p-16, 0x7b, 0x7c, 1 << 1},
	{checkpoint.F8E4M3, 1, 4, 3, true, 448, 0x1p-9, 0x7e, 0x7f, 1},
}

// value returns the number of a pattern without sign, exactly, as if all exponents were those of numbers.
func (f format) value(bits uint64) *big.Float {
	bias := 1<<(f.exponent-1) - 1
	e, m := int(bits>>f.fraction), bits&(1<<f.fraction-1)
	x := new(big.Float).SetPrec(200)
	if e == 0 {
		return x.SetMantExp(x.SetUint64(m), 1-bias-f.fraction)
	}
	return x.SetMantExp(x.SetUint64(m|1<<f.fraction), e-bias-f.fraction)
}

// nearest returns the pattern of the number nearest to x ≥ 0, the even one of two, found by bisection.
func (f format) nearest(x float64) uint64 {
	want := new(big.Float).SetPrec(200).SetFloat64(x)
	// The pattern after the largest finite one stands for what comes after it if there were no end.
	end := f.specialAbove + 1
	above := uint64(sort.Search(int(min(end, math.MaxInt)),
		func(b int) bool { return f.value(uint64(b)).Cmp(want) >= 0 }))
	if above == 0 {
		return 0
	}
	if above < end || f.value(end).Cmp(want) >= 0 {
		down := new(big.Float).SetPrec(300).Sub(want, f.value(above-1))
		up := new(big.Float).SetPrec(300).Sub(f.value(above), want)
		if c := down.Cmp(up); c < 0 || c == 0 && above%2 == 1 {
			above--
		}
	}
	if above > f.specialAbove {
		return f.overflow
	}
	return above
}

func (f format) sign() uint64 { return 1 << (8*f.size - 1) }

// roundOne returns the bits of x as Round writes them.
func roundOne(x float64, d checkpoint.DType, size int) uint64 {
	var p [8]byte
	Round(p[:size], []float64{x}, 1, d)
	return binary.LittleEndian.Uint64(p[:])
}

func TestFormats(t *testing.T) {
	for _, f := range formats {
		if got, _ := f.value(f.specialAbove).Float64(); got != f.largest {
			t.Errorf("%v: the largest number of the test is %v, want %v", f.dtype, got, f.largest)
		}
		if got, _ := f.value(1).Float64(); got != f.least {
			t.Errorf("%v: the least number of the test is %v, want %v", f.dtype, got, f.least)
		}
	}
}

// Numbers as the specifications and tables of the formats have them.
func TestRoundKnown(t *testing.T) {
	for _, test := range []struct {
		dtype checkpoint.DType
		x     float64
		want  uint64
	}{
		{checkpoint.F8E4M3, 448, 0x7e},
		{checkpoint.F8E4M3, 464, 0x7e}, // the middle between 448 and 480, of which the even one is a number
		{checkpoint.F8E4M3, math.Nextafter(464, 500), 0x7f},
		{checkpoint.F8E4M3, -1e300, 0xff},
		{checkpoint.F8E4M3, math.Inf(-1), 0xff},
		{checkpoint.F8E4M3, 0x1p-6, 0x08},
		{checkpoint.F8E4M3, 0x1p-9, 0x01},
		{checkpoint.F8E4M3, 0x1p-10, 0x00},
		{checkpoint.F8E4M3, math.Nextafter(0x1p-10, 1), 0x01},
		{checkpoint.F8E4M3, -1, 0xb8},
		{checkpoint.F8E5M2, 57344, 0x7b},
		{checkpoint.F8E5M2, 61440, 0x7c}, // the middle between 57344 and infinity, which counts as even
		{checkpoint.F8E5M2, math.Nextafter(61440, 0), 0x7b},
		{checkpoint.F8E5M2, math.Inf(1), 0x7c},
		{checkpoint.F8E5M2, 1, 0x3c},
		{checkpoint.F8E5M2, 0x1p-17, 0x00},
		{checkpoint.F8E5M2, 0x1.8p-16, 0x02},
		{checkpoint.F16, 65519.99, 0x7bff},
		{checkpoint.F16, 65520, 0x7c00},
		{checkpoint.F16, 1, 0x3c00},
		{checkpoint.BF16, 1, 0x3f80},
		{checkpoint.BF16, 3.4e38, 0x7f80},
		{checkpoint.BF16, 3.38e38, 0x7f7e},
		{checkpoint.F32, 1, 0x3f800000},
		{checkpoint.F64, -2, 0xc000000000000000},
	} {
		if got := roundOne(test.x, test.dtype, test.dtype.Bits()/8); got != test.want {
			t.Errorf("%v(%v) = %#x, want %#x", test.dtype, test.x, got, test.want)
		}
	}
}

// Every number of the narrow formats, every middle between two neighbours, and the float64 just beside each.
func TestRoundEveryNumberAndMiddle(t *testing.T) {
	for _, f := range formats[2:] {
		for b := range f.specialAbove + 1 {
			low, _ := f.value(b).Float64()
			high, _ := f.value(b + 1).Float64()
			middle := (low + high) / 2 // exact: the formats are narrow
			for _, x := range []float64{
				low, middle, math.Nextafter(middle, 0), math.Nextafter(middle, math.Inf(1)),
				math.Nextafter(low, 0), math.Nextafter(low, math.Inf(1)),
			} {
				want := f.nearest(x)
				if got := roundOne(x, f.dtype, f.size); got != want {
					t.Fatalf("%v(%v) = %#x, want %#x", f.dtype, x, got, want)
				}
				if got := roundOne(-x, f.dtype, f.size); got != want|f.sign() {
					t.Fatalf("%v(%v) = %#x, want %#x", f.dtype, -x, got, want|f.sign())
				}
			}
		}
	}
}

func TestRoundRandom(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for _, f := range formats[1:] {
		for range 20_000 {
			x := math.Abs(r.NormFloat64()) * math.Ldexp(1, r.IntN(2<<f.exponent)-1<<f.exponent)
			if math.IsInf(x, 0) {
				continue
			}
			if got, want := roundOne(x, f.dtype, f.size), f.nearest(x); got != want {
				t.Fatalf("%v(%v) = %#x, want %#x", f.dtype, x, got, want)
			}
		}
	}
}

// A number just above the middle between two neighbours goes up. By way of float32 it would be the middle itself, and
// go to the even one below.
func TestRoundOnce(t *testing.T) {
	for _, f := range formats[2:] {
		x := 1 + math.Ldexp(1, -f.fraction-1) + 0x1p-40
		one := roundOne(1, f.dtype, f.size)
		if got := roundOne(x, f.dtype, f.size); got != one+1 {
			t.Errorf("%v(%v) = %#x, want %#x", f.dtype, x, got, one+1)
		}
		if got := roundOne(float64(float32(x)), f.dtype, f.size); got != one {
			t.Errorf("%v(%v) = %#x, want %#x: the test shows nothing", f.dtype, float32(x), got, one)
		}
	}
}

func TestRoundSpecial(t *testing.T) {
	for _, f := range formats {
		if got := roundOne(math.Inf(1), f.dtype, f.size); got != f.overflow {
			t.Errorf("%v(+Inf) = %#x, want %#x", f.dtype, got, f.overflow)
		}
		if got := roundOne(math.Inf(-1), f.dtype, f.size); got != f.overflow|f.sign() {
			t.Errorf("%v(-Inf) = %#x, want %#x", f.dtype, got, f.overflow|f.sign())
		}
		if got := roundOne(math.NaN(), f.dtype, f.size) &^ f.sign(); got <= f.specialAbove || got&f.nanBit == 0 {
			t.Errorf("%v(NaN) = %#x, want a quiet NaN", f.dtype, got)
		}
		if got := roundOne(math.Copysign(0, -1), f.dtype, f.size); got != f.sign() {
			t.Errorf("%v(-0) = %#x, want %#x", f.dtype, got, f.sign())
		}
	}
}

// The division is one of the accumulator: in float32 a third is another number than in float64.
func TestRoundDivides(t *testing.T) {
	var p [8]byte
	Round(p[:], []float32{1}, 3, checkpoint.F64)
	if got := math.Float64frombits(binary.LittleEndian.Uint64(p[:])); got != float64(float32(1)/3) {
		t.Errorf("float32: 1/3 is %v", got)
	}
	Round(p[:], []float64{1}, 3, checkpoint.F64)
	if got := math.Float64frombits(binary.LittleEndian.Uint64(p[:])); got != 1.0/3 {
		t.Errorf("float64: 1/3 is %v", got)
	}
	var q [6]byte
	Round(q[:], []float32{3, -6, 9}, 3, checkpoint.BF16)
	if got := fmt.Sprintf("%x", q); got != "803f00c04040" {
		t.Errorf("bfloat16 of 1 -2 3 is %s", got)
	}
}

// Every pattern of 8 and 16 bits is read as its number.
func TestFloat64s(t *testing.T) {
	for _, f := range formats[2:] {
		n := 1 << (8 * f.size)
		data := make([]byte, n*f.size)
		for b := range n {
			for k := range f.size {
				data[b*f.size+k] = byte(b >> (8 * k))
			}
		}
		got := make([]float64, n)
		Float64s(got, data, f.dtype)
		for b, x := range got {
			bits := uint64(b) &^ f.sign()
			want, _ := f.value(bits).Float64()
			switch {
			case bits == f.overflow && !f.finite:
				want = math.Inf(1)
			case bits > f.specialAbove:
				want = math.NaN()
			}
			if uint64(b)&f.sign() != 0 {
				want = -want
			}
			if x != want && !(math.IsNaN(x) && math.IsNaN(want)) || x == 0 && math.Signbit(x) != math.Signbit(want) {
				t.Fatalf("%v: %#x is %v, want %v", f.dtype, b, x, want)
			}
		}
	}
	for _, test := range []struct {
		dtype checkpoint.DType
		data  any
		want  float64
	}{
		{checkpoint.F64, 1.5, 1.5},
		{checkpoint.F32, float32(-0.1), float64(float32(-0.1))},
		{checkpoint.I64, int64(math.MinInt64), -0x1p63},
		{checkpoint.U64, uint64(math.MaxUint64), 0x1p64},
		{checkpoint.I32, int32(-7), -7},
		{checkpoint.U32, uint32(math.MaxUint32), 1<<32 - 1},
		{checkpoint.I16, int16(-7), -7},
		{checkpoint.U16, uint16(65535), 65535},
		{checkpoint.I8, int8(-7), -7},
		{checkpoint.U8, uint8(255), 255},
		{checkpoint.Bool, true, 1},
	} {
		data, err := binary.Append(nil, binary.LittleEndian, test.data)
		if err != nil {
			t.Fatal(err)
		}
		var got [1]float64
		Float64s(got[:], data, test.dtype)
		if got[0] != test.want || !IsNumber(test.dtype) {
			t.Errorf("%v: got %v, want %v", test.dtype, got[0], test.want)
		}
	}
}

func TestFloat16From8(t *testing.T) {
	for _, d := range []checkpoint.DType{checkpoint.F8E4M3, checkpoint.F8E5M2} {
		data := make([]byte, 256)
		for i := range data {
			data[i] = byte(i)
		}
		want := make([]float64, 256)
		Float64s(want, data, d)
		bits := make([]uint16, 256)
		Float16From8(bits, data, d)
		for i, b := range bits {
			p := binary.LittleEndian.AppendUint16(nil, b)
			var got [1]float64
			Float64s(got[:], p, checkpoint.F16)
			if got[0] != want[i] && !(math.IsNaN(got[0]) && math.IsNaN(want[i])) {
				t.Errorf("%v: %#x is %v in float16, want %v", d, i, got[0], want[i])
			}
		}
	}
	// In F8_E5M2 every pattern is the upper half of the same number in float16; NaNs are quiet.
	var got [1]uint16
	if Float16From8(got[:], []byte{0xc1}, checkpoint.F8E5M2); got[0] != 0xc100 {
		t.Errorf("F8_E5M2 0xc1 is %#x, want 0xc100", got[0])
	}
}

// One special element is found at every place of slices of all lengths.
func TestSpecial(t *testing.T) {
	for _, f := range formats {
		finite := make([]byte, f.size)
		for k := range finite {
			finite[k] = byte((f.specialAbove | f.sign()) >> (8 * k)) // the most negative number
		}
		for n := range 70 {
			p := make([]byte, 0, n*f.size)
			for range n {
				p = append(p, finite...)
			}
			if !AllFinite(p, f.dtype) {
				t.Fatalf("%v: %d times the largest number is not all finite", f.dtype, n)
			}
			if nan, inf, first := CountSpecial(p, f.dtype); nan != 0 || inf != 0 || first != -1 {
				t.Fatalf("%v: %d times the largest number: %d NaN, %d Inf, first %d", f.dtype, n, nan, inf, first)
			}
			for i := range n {
				for _, bits := range []uint64{f.overflow, f.overflow | f.sign(), f.sign() - 1, 2*f.sign() - 1} {
					q := append([]byte(nil), p...)
					for k := range f.size {
						q[i*f.size+k] = byte(bits >> (8 * k))
					}
					isInf := bits&^f.sign() == f.overflow && !f.finite
					nan, inf, first := CountSpecial(q, f.dtype)
					if AllFinite(q, f.dtype) || nan+inf != 1 || (inf == 1) != isInf || first != i {
						t.Fatalf("%v: %#x at %d of %d: %d NaN, %d Inf, first %d", f.dtype, bits, i, n, nan, inf, first)
					}
				}
			}
		}
	}
}

func TestOverflows(t *testing.T) {
	for _, f := range formats {
		element := func(bits uint64) []byte {
			var p [8]byte
			binary.LittleEndian.PutUint64(p[:], bits)
			return p[:f.size]
		}
		var out, a, b []byte
		// Finite result; overflow; NaN from the first; Inf from the second; overflow with sign.
		for _, x := range [][3]uint64{
			{1, 1, 1},
			{f.overflow, 1, f.specialAbove},
			{f.sign() - 1, f.sign() - 1, 1},
			{f.overflow, 1, f.overflow},
			{f.overflow | f.sign(), f.specialAbove, 0},
		} {
			out, a, b = append(out, element(x[0])...), append(a, element(x[1])...), append(b, element(x[2])...)
		}
		var got []int
		Overflows(out, f.dtype, [][]byte{a, b}, []checkpoint.DType{f.dtype, f.dtype}, func(i int) {
			got = append(got, i)
			Saturate(out, i, f.dtype)
		})
		if fmt.Sprint(got) != "[1 4]" {
			t.Errorf("%v: overflows at %v, want [1 4]", f.dtype, got)
		}
		numbers := make([]float64, 5)
		Float64s(numbers, out, f.dtype)
		if numbers[1] != f.largest || numbers[4] != -f.largest || numbers[0] != f.least {
			t.Errorf("%v: saturated to %v, want %v", f.dtype, numbers, f.largest)
		}
	}
}

func TestNotAFloat(t *testing.T) {
	for _, d := range []checkpoint.DType{
		checkpoint.I64, checkpoint.C64, checkpoint.F8E8M0, checkpoint.F4,
		checkpoint.F8E4M3FNUZ,
	} {
		if IsFloat(d) {
			t.Errorf("%v is no float of this package", d)
		}
	}
	defer func() {
		if got, want := fmt.Sprint(recover()), "convert: dtype I64 is no float that is averaged"; got != want {
			t.Errorf("panic %q, want %q", got, want)
		}
	}()
	AllFinite(nil, checkpoint.I64)
}

func BenchmarkAllFinite(b *testing.B) {
	p := make([]byte, 1<<20)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		AllFinite(p, checkpoint.BF16)
	}
}
