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
	"F16":  half(5, 10),
	"BF16": half(8, 7),
}

func toFloat64(x *big.Float) float64 { y, _ := x.Float64(); return y }
func toFloat32(x *big.Float) float64 { y, _ := x.Float32(); return float64(y) }

// half returns a 16-bit format. It rounds by looking for the nearest of all values.
func half(exponent, fraction int) format {
	inf := (1<<exponent - 1) << fraction
	decode := func(b uint64) float64 {
		e, f := int(b)>>fraction&(1<<exponent-1), int(b)&(1<<fraction-1)
		bias := 1<<(exponent-1) - 1
		var x float64
		switch {
		case e == 0:
			x = math.Ldexp(float64(f), 1-bias-fraction)
		case e < 1<<exponent-1:
			x = math.Ldexp(float64(f+1<<fraction), e-bias-fraction)
		case f == 0:
			x = math.Inf(1)
		default:
			x = math.NaN()
		}
		if b>>15 == 1 {
			x = -x
		}
		return x
	}
	encode := func(x float64) uint64 {
		var sign uint64
		if math.Signbit(x) {
			sign, x = 1<<15, -x
		}
		if math.IsNaN(x) {
			return uint64(inf) | 1
		}
		// above is the least pattern whose value is not below x; infinity stands for the next power of two.
		value := func(b int) float64 {
			if b == inf {
				return 2 * decode(uint64(inf-1<<fraction))
			}
			return decode(uint64(b))
		}
		above := sort.Search(inf, func(b int) bool { return value(b) >= x })
		if above == 0 || value(above) == x {
			return sign | uint64(above)
		}
		down, up := x-value(above-1), value(above)-x
		if down < up || down == up && above%2 == 1 {
			above--
		}
		return sign | uint64(above)
	}
	return format{2, decode, encode, toFloat32, func(w float64) float64 { return float64(float32(w)) }}
}

// exact returns x in a precision that holds every sum of products of the tests.
func exact(x float64) *big.Float {
	return new(big.Float).SetPrec(4000).SetFloat64(x)
}

// reference averages finite data, element by element; weights nil means the mean.
func reference(dtype string, models [][]byte, weights []float64) []byte {
	f := formats[dtype]
	out := make([]byte, len(models[0]))
	for i := 0; i < len(out); i += f.size {
		acc := exact(0)
		for k, m := range models {
			w := 1.0
			if weights != nil {
				w = f.weight(weights[k])
			}
			product := exact(0).Mul(exact(w), exact(f.decode(bitsAt(m[i:], f.size))))
			if k > 0 { // the first product stands alone, so that -0 stays
				product.Add(product, acc)
			}
			acc = exact(f.accum(product))
		}
		if weights == nil {
			acc = exact(f.accum(exact(0).Quo(acc, exact(float64(len(models))))))
		}
		result, _ := acc.Float64()
		var p [8]byte
		binary.LittleEndian.PutUint64(p[:], f.encode(result))
		copy(out[i:i+f.size], p[:])
	}
	return out
}

// bitsAt returns the first element of p.
func bitsAt(p []byte, size int) uint64 {
	var b [8]byte
	copy(b[:], p[:size])
	return binary.LittleEndian.Uint64(b[:])
}
