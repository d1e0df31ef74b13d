package kernel

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"hash"
	"math"
	"testing"

	"github.com/modelavg/modelavg/internal/implementation"
)

// wantDigest is the digest of the results over pseudo-random inputs of all kinds, on every processor.
const wantDigest = "002f197d3b3d65b71c901d768e001746466621636deaf90f32ac4cd61014ce66"

// A generator yields the numbers of SplitMix64 (Steele, Lea and Flood, 2014): the same everywhere and for ever.
type generator uint64

func (g *generator) next() uint64 {
	*g += 0x9e3779b97f4a7c15
	z := uint64(*g)
	z = (z ^ z>>30) * 0xbf58476d1ce4e5b9
	z = (z ^ z>>27) * 0x94d049bb133111eb
	return z ^ z>>31
}

// element returns the bits of a number: of ordinary magnitude, or now and then any bits.
func (g *generator) element(f format, wild bool) uint64 {
	r := g.next()
	b := g.next() & (2*f.sign() - 1)
	if wild && r%16 < 3 {
		return b
	}
	if wild && r%16 == 3 {
		return b & (f.sign() | (1<<f.fraction - 1)) // a subnormal
	}
	return b&f.sign() | f.one() + r>>32%6<<f.fraction - 3<<f.fraction | b&(1<<f.fraction-1)
}

func (g *generator) elements(f format, n int, wild bool) []byte {
	b := make([]byte, n*f.size)
	for i := range n {
		f.put(b, i, g.element(f, wild))
	}
	return b
}

// digestElements adds elements to a digest, in one byte order and with one NaN.
func digestElements(h hash.Hash, f format, b []byte) {
	out := make([]byte, 0, len(b))
	for i := range len(b) / f.size {
		v := f.at(b, i)
		if f.isNaN(v) {
			v = f.quiet()
		}
		out = binary.LittleEndian.AppendUint64(out, v)[:len(out)+f.size]
	}
	h.Write(out)
}

// digest returns the digest of what the exported functions compute.
func digest() string {
	h := sha256.New()
	g := generator(20260101)
	for _, kind := range allKinds {
		f, a := elementFormat(kind), accumulatorFormat(kind)
		one := func(n, models int, wild bool) {
			x, w := make([][]byte, models), make([]float64, models)
			for k := range x {
				x[k] = g.elements(f, n, wild)
				w[k] = math.Float64frombits(g.element(binary64, false))
			}
			dst := make([]byte, n*f.size)
			callWeightedSum(kind, dst, x, w)
			digestElements(h, f, dst)
			callMean(kind, dst, x)
			digestElements(h, f, dst)
			if kind <= implementation.BFloat16 {
				acc := g.elements(a, n, wild)
				callAccumulate(kind, acc, x[0], w[0])
				digestElements(h, a, acc)
				callRound(kind, dst, acc, w[models-1])
				digestElements(h, f, dst)
			}
		}
		for n := range 140 {
			for _, models := range []int{1, 2, 5, 8, 9, 17} {
				one(n, models, (n+models)%2 == 0)
			}
		}
		for _, n := range []int{255, 256, 257, 511, 530, 1000} {
			one(n, 3, true)
			one(n, 40, false)
		}
		one(70_001, 9, true)
		one(140_001, 2, true)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// TestDigest compares one number with that of every other processor and build.
func TestDigest(t *testing.T) {
	onEach(t, func(impl implementation.Implementation) {
		got := digest()
		t.Logf("digest %v = %s", impl, got)
		if got != wantDigest {
			t.Errorf("%v: digest %s, want %s", impl, got, wantDigest)
		}
	})
}
