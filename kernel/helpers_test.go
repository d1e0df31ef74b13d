package kernel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/modelavg/modelavg/internal/implementation"
)

// The tests hold elements as bytes, so that one loop covers all kinds and every place in memory, and reach the
// exported functions through the four call… functions below.

var allKinds = []implementation.Kind{
	implementation.Float32, implementation.Float64, implementation.Float16, implementation.BFloat16,
	implementation.Float32Native, implementation.Float64Wider,
}

// streamingKinds have exported Accumulate and Round functions.
var streamingKinds = allKinds[:4]

// each runs f as a subtest for every kind on every implementation that this machine has.
func each(t *testing.T, kinds []implementation.Kind, f func(t *testing.T, kind implementation.Kind)) {
	t.Helper()
	for _, kind := range kinds {
		for _, impl := range implementation.Available() {
			t.Run(fmt.Sprintf("%v/%v", kind, impl), func(t *testing.T) {
				force(t, impl.String())
				f(t, kind)
			})
		}
	}
}

// eachKind runs f as a subtest for every kind. It is for tests that compute what they want once for all implementations.
func eachKind(t *testing.T, kinds []implementation.Kind, f func(t *testing.T, kind implementation.Kind)) {
	t.Helper()
	for _, kind := range kinds {
		t.Run(kind.String(), func(t *testing.T) { f(t, kind) })
	}
}

var available = implementation.Available()

// onEach runs f on every implementation that this machine has.
func onEach(t testing.TB, f func(impl implementation.Implementation)) {
	t.Helper()
	for _, impl := range available {
		restore, err := implementation.Force(impl.String())
		if err != nil {
			t.Fatal(err)
		}
		f(impl)
		restore()
	}
}

// force makes all kinds run on one implementation until the test ends.
func force(t testing.TB, name string) {
	t.Helper()
	restore, err := implementation.Force(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(restore)
}

// at returns the bits of the i-th element of b.
func (f format) at(b []byte, i int) uint64 {
	b = b[i*f.size:]
	switch f.size {
	case 2:
		return uint64(binary.NativeEndian.Uint16(b))
	case 4:
		return uint64(binary.NativeEndian.Uint32(b))
	}
	return binary.NativeEndian.Uint64(b)
}

// put sets the i-th element of b.
func (f format) put(b []byte, i int, v uint64) {
	b = b[i*f.size:]
	switch f.size {
	case 2:
		binary.NativeEndian.PutUint16(b, uint16(v))
	case 4:
		binary.NativeEndian.PutUint32(b, uint32(v))
	default:
		binary.NativeEndian.PutUint64(b, v)
	}
}

// differ describes the first element in which got is not want, or returns "".
func (f format) differ(got, want []byte) string {
	if bytes.Equal(got, want) {
		return ""
	}
	for i := range len(want) / f.size {
		if g, w := f.at(got, i), f.at(want, i); !f.equal(g, w) {
			return fmt.Sprintf("element %d is %#0*x, want %#0*x", i, 2*f.size, g, 2*f.size, w)
		}
	}
	return ""
}

// view returns the elements that the bytes hold.
func view[T any](b []byte) []T {
	return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), len(b)/int(unsafe.Sizeof(*new(T))))
}

func views[T any](x [][]byte) [][]T {
	v := make([][]T, len(x))
	for k := range x {
		v[k] = view[T](x[k])
	}
	return v
}

// bytesOf is the reverse of view.
func bytesOf[T any](s []T) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(s))), len(s)*int(unsafe.Sizeof(*new(T))))
}

func callWeightedSum(kind implementation.Kind, dst []byte, x [][]byte, w []float64) {
	switch kind {
	case implementation.Float32:
		WeightedSumFloat32(view[float32](dst), views[float32](x), w)
	case implementation.Float64:
		WeightedSumFloat64(view[float64](dst), views[float64](x), w)
	case implementation.Float16:
		WeightedSumFloat16(view[uint16](dst), views[uint16](x), w)
	case implementation.BFloat16:
		WeightedSumBFloat16(view[uint16](dst), views[uint16](x), w)
	case implementation.Float32Native:
		WeightedSumFloat32Native(view[float32](dst), views[float32](x), w)
	case implementation.Float64Wider:
		WeightedSumFloat64Wider(view[float64](dst), views[float64](x), w)
	}
}

func callMean(kind implementation.Kind, dst []byte, x [][]byte) {
	switch kind {
	case implementation.Float32:
		MeanFloat32(view[float32](dst), views[float32](x))
	case implementation.Float64:
		MeanFloat64(view[float64](dst), views[float64](x))
	case implementation.Float16:
		MeanFloat16(view[uint16](dst), views[uint16](x))
	case implementation.BFloat16:
		MeanBFloat16(view[uint16](dst), views[uint16](x))
	case implementation.Float32Native:
		MeanFloat32Native(view[float32](dst), views[float32](x))
	case implementation.Float64Wider:
		MeanFloat64Wider(view[float64](dst), views[float64](x))
	}
}

func callAccumulate(kind implementation.Kind, acc, x []byte, w float64) {
	switch kind {
	case implementation.Float32:
		AccumulateFloat32(view[float64](acc), view[float32](x), w)
	case implementation.Float64:
		AccumulateFloat64(view[float64](acc), view[float64](x), w)
	case implementation.Float16:
		AccumulateFloat16(view[float32](acc), view[uint16](x), w)
	case implementation.BFloat16:
		AccumulateBFloat16(view[float32](acc), view[uint16](x), w)
	}
}

func callRound(kind implementation.Kind, dst, acc []byte, divisor float64) {
	switch kind {
	case implementation.Float32:
		RoundFloat32(view[float32](dst), view[float64](acc), divisor)
	case implementation.Float64:
		RoundFloat64(view[float64](dst), view[float64](acc), divisor)
	case implementation.Float16:
		RoundFloat16(view[uint16](dst), view[float32](acc), divisor)
	case implementation.BFloat16:
		RoundBFloat16(view[uint16](dst), view[float32](acc), divisor)
	}
}

// accumulatorWeights returns the weights as the implementations take them; w == nil stands for ones.
func accumulatorWeights(w []float64, models int) unsafe.Pointer {
	if w == nil {
		w = make([]float64, models)
		for k := range w {
			w[k] = 1
		}
	}
	return unsafe.Pointer(unsafe.SliceData(w))
}

// headers returns the models as a pointer to slice headers, whose lengths are in elements.
func headers(kind implementation.Kind, x [][]byte) unsafe.Pointer {
	size := elementFormat(kind).size
	h := make([][]byte, len(x))
	for k := range x {
		h[k] = unsafe.Slice(unsafe.SliceData(x[k]), len(x[k])/size)
	}
	return unsafe.Pointer(unsafe.SliceData(h))
}

// reference computes a weighted sum, or for w == nil a mean, by one call of the reference loop: without chunks, without
// groups of models, without non-temporal stores.
func reference(kind implementation.Kind, x [][]byte, w []float64) []byte {
	n := len(x[0]) / elementFormat(kind).size
	dst := make([]byte, len(x[0]))
	flags, divisor := 0, 1.0
	if w == nil && len(x) > 1 {
		flags, divisor = divide, float64(len(x))
	}
	weightedSumGeneric(kind, unsafe.Pointer(unsafe.SliceData(dst)), headers(kind, x), accumulatorWeights(w, len(x)),
		nil, n, len(x), 0, divisor, flags)
	return dst
}

// call runs the exported function that reference stands for.
func call(kind implementation.Kind, dst []byte, x [][]byte, w []float64) {
	if w == nil {
		callMean(kind, dst, x)
	} else {
		callWeightedSum(kind, dst, x, w)
	}
}

// A buffer is memory at a chosen distance from a cache line's beginning, with canaries on both sides.
type buffer struct {
	whole []byte
	begin int
	b     []byte
}

const (
	line   = 64
	margin = 8 * line
)

var canaries = bytes.Repeat([]byte{0xa5}, margin)

// newBuffer returns size bytes that begin offset bytes behind the beginning of a line.
func newBuffer(size, offset int) buffer {
	return buffer{whole: make([]byte, size+offset+line+2*margin)}.at(size, offset)
}

// at returns another part of the buffer, all of it overwritten: what a call leaves out shows.
func (b buffer) at(size, offset int) buffer {
	b = b.place(size, offset)
	for rest := b.whole[b.begin-margin : b.begin+size+margin]; len(rest) > 0; {
		rest = rest[copy(rest, canaries):]
	}
	return b
}

// place returns another part of the buffer as it is.
func (b buffer) place(size, offset int) buffer {
	b.begin = int(-uintptr(unsafe.Pointer(unsafe.SliceData(b.whole)))&(line-1)) + margin + offset
	b.b = b.whole[b.begin : b.begin+size : b.begin+size]
	return b
}

// overrun describes a change in the canaries, or returns "".
func (b buffer) overrun() string {
	end := b.begin + len(b.b)
	if !bytes.Equal(b.whole[b.begin-margin:b.begin], canaries) {
		return "wrote before the first element"
	}
	if !bytes.Equal(b.whole[end:end+margin], canaries) {
		return "wrote behind the last element"
	}
	return ""
}

// What random elements are.
type mode int

const (
	ordinary mode = iota // magnitudes about one
	raw                  // any bits
	special              // zeros, subnormals, the largest numbers; rarely an infinity or a NaN
	modes
)

func newRand(seed uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, 0x9e3779b97f4a7c15)) }

// random returns the bits of a random number.
func (f format) random(rng *rand.Rand, m mode) uint64 {
	b := rng.Uint64() & (2*f.sign() - 1)
	switch m {
	case ordinary:
		return b&f.sign() | f.one() + uint64(int64(rng.IntN(6)-4)<<f.fraction) | b&(1<<f.fraction-1)
	case special:
		fraction := b & (1<<f.fraction - 1)
		magnitude := f.one()
		switch rng.IntN(80) {
		case 0:
			magnitude = f.infinity()
		case 1:
			magnitude = f.infinity() | max(fraction, 1)
		default:
			switch rng.IntN(10) {
			case 0, 1:
				magnitude = 0
			case 2:
				magnitude = 1
			case 3:
				magnitude = fraction // subnormal
			case 4:
				magnitude = 1<<f.fraction - 1 // the largest subnormal
			case 5:
				magnitude = 1 << f.fraction // the least normal
			case 6:
				magnitude = f.infinity() - 1 // the largest
			case 7:
				magnitude = f.infinity() - 1<<f.fraction | fraction // at most a factor of two below
			case 8:
				magnitude = f.one() + 1
			}
		}
		return b&f.sign() | magnitude
	}
	return b
}

// randomElements returns n elements in fresh memory that begins at a line.
func (f format) randomElements(rng *rand.Rand, m mode, n int) []byte {
	b := newBuffer(n*f.size, 0).b
	for i := range n {
		f.put(b, i, f.random(rng, m))
	}
	return b
}

// randomWeights returns weights for a kind: those of an accumulator in float32 are mostly numbers that it can hold.
func randomWeights(rng *rand.Rand, kind implementation.Kind, m mode, models int) []float64 {
	w := make([]float64, models)
	f := accumulatorFormat(kind)
	for k := range w {
		switch {
		case m == ordinary:
			w[k] = rng.NormFloat64()
		case f == binary64 || rng.IntN(4) == 0:
			w[k] = math.Float64frombits(binary64.random(rng, m))
		default:
			w[k] = math.Float64frombits(convert(f, binary64, f.random(rng, m)))
		}
	}
	return w
}

// A pool is random elements of which models are cut: the cuts begin anywhere, so that their alignments differ, and no
// element has to be made or copied for a test case.
type pool struct {
	format
	b   []byte
	rng *rand.Rand
}

func newPool(rng *rand.Rand, f format, m mode, n int) *pool {
	return &pool{f, f.randomElements(rng, m, n), rng}
}

// cut returns n elements from a random place on.
func (p *pool) cut(n int) []byte {
	return p.from(p.rng.IntN(len(p.b)/p.size-n+1), n)
}

func (p *pool) from(i, n int) []byte { return p.b[i*p.size : (i+n)*p.size : (i+n)*p.size] }

func (p *pool) models(models, n int) [][]byte {
	x := make([][]byte, models)
	for k := range x {
		x[k] = p.cut(n)
	}
	return x
}

// pools returns one pool for each mode.
func pools(rng *rand.Rand, kind implementation.Kind, n int) (p [modes]*pool) {
	for m := range modes {
		p[m] = newPool(rng, elementFormat(kind), m, n)
	}
	return p
}

// thin returns n, or less of it in a short test.
func thin(n, short int) int {
	if testing.Short() {
		return short
	}
	return n
}
