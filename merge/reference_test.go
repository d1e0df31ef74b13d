package merge_test

// The reference: averages by exact arithmetic, rounded after every step as the numeric contract says.

import (
	"encoding/binary"
	"math"
	"math/big"
	"sort"
)

// A format is an element type: bits to numbers and back.
type format struct {
	size   int
	decode func(bits uint64) float64
	encode func(x float64) (bits uint64)     // to nearest even
	accum  func(x *big.Float) (y float64)    // rounds to the accumulator format
	weight func(w float64) (rounded float64) // the weight in the accumulator format
}

var formats = map[string]format{
	"F64": {
		8, math.Float64frombits, math.Float64bits,
		toFloat64, func(w float64) float64 { return w },
	},
	"F32": {
		4,
		func(b uint64) float64 { return float64(math.Float32frombits(uint32(b))) },
		func(x float64) uint64 { return uint64(math.Float32bits(float32(x))) },
		toFloat64, func(w float64) float64 { return w },
	},
	"F16":     narrow(2, 5, 10, 0x7c00, true),
	"BF16":    narrow(2, 8, 7, 0x7f80, true),
	"F8_E5M2": narrow(1, 5, 2, 0x7c, true),
	"F8_E4M3": narrow(1, 4, 3, 0x7f, false),
}

func toFloat64(x *big.Float) float64 { y, _ := x.Float64(); return y }
func toFloat32(x *big.Float) float64 { y, _ := x.Float32(); return float64(y) }

// narrow returns a format of 8 or 16 bits, of which end is the first pattern that is no finite number: infinity, if the
// format has one. It rounds by looking for the nearest of all values.
func narrow(size, exponent, fraction, end int, hasInf bool) format {
	signBit := uint64(1) << (8*size - 1)
	// number is the value of a pattern without sign, as if all exponents were those of numbers.
	number := func(b int) float64 {
		e, f := b>>fraction, b&(1<<fraction-1)
		bias := 1<<(exponent-1) - 1
		if e == 0 {
			return math.Ldexp(float64(f), 1-bias-fraction)
		}
		return math.Ldexp(float64(f+1<<fraction), e-bias-fraction)
	}
	decode := func(b uint64) float64 {
		x := number(int(b &^ signBit))
		switch magnitude := int(b &^ signBit); {
		case magnitude == end && hasInf:
			x = math.Inf(1)
		case magnitude >= end:
			x = math.NaN()
		}
		if b&signBit != 0 {
			x = -x
		}
		return x
	}
	encode := func(x float64) uint64 {
		var sign uint64
		if math.Signbit(x) {
			sign, x = signBit, -x
		}
		if math.IsNaN(x) {
			return sign | (signBit - 1)
		}
		// above is the least pattern whose value is not below x; the last stands for all that is too large.
		above := sort.Search(end, func(b int) bool { return number(b) >= x })
		if above == 0 || number(above) <= x {
			return sign | uint64(above)
		}
		down, up := x-number(above-1), number(above)-x
		if down < up || down == up && above%2 == 1 {
			above--
		}
		return sign | uint64(above)
	}
	return format{size, decode, encode, toFloat32, func(w float64) float64 { return float64(float32(w)) }}
}

// exact returns x in a precision that holds every sum of products of the tests.
func exact(x float64) *big.Float {
	return new(big.Float).SetPrec(4000).SetFloat64(x)
}

// reference averages finite data, element by element; weights nil means the mean.
func reference(dtype string, models [][]byte, weights []float64) []byte {
	dtypes := make([]string, len(models))
	for k := range dtypes {
		dtypes[k] = dtype
	}
	return mixedReference(dtype, dtypes, models, weights)
}

// mixedReference averages finite data of several dtypes into data of the dtype to.
func mixedReference(to string, dtypes []string, models [][]byte, weights []float64) []byte {
	widest := formats[to]
	for _, d := range dtypes {
		if f := formats[d]; f.size > widest.size {
			widest = f
		}
	}
	n := len(models[0]) / formats[dtypes[0]].size
	size := formats[to].size
	out := make([]byte, n*size)
	for i := range n {
		acc := exact(0)
		for k, m := range models {
			w := 1.0
			if weights != nil {
				w = widest.weight(weights[k])
			}
			f := formats[dtypes[k]]
			product := exact(0).Mul(exact(w), exact(f.decode(bitsAt(m[i*f.size:], f.size))))
			if k > 0 { // the first product stands alone, so that -0 stays
				product.Add(product, acc)
			}
			acc = exact(widest.accum(product))
		}
		if weights == nil {
			acc = exact(widest.accum(exact(0).Quo(acc, exact(float64(len(models))))))
		}
		result, _ := acc.Float64()
		var p [8]byte
		binary.LittleEndian.PutUint64(p[:], formats[to].encode(result))
		copy(out[i*size:], p[:size])
	}
	return out
}

// bitsAt returns the first element of p.
func bitsAt(p []byte, size int) uint64 {
	var b [8]byte
	copy(b[:], p[:size])
	return binary.LittleEndian.Uint64(b[:])
}
