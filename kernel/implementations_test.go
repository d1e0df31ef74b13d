package kernel

import (
	"bytes"
	"math"
	"math/rand/v2"
	"testing"
	"unsafe"

	"github.com/modelavg/modelavg/internal/implementation"
)

// Every implementation against the reference, bit for bit.

// beyondBlocks is more elements than two of the largest unrolled blocks of any implementation, and a tail.
const beyondBlocks = 2*256 + 18

// A sweep makes weighted sums and means of random models and compares every implementation with the reference.
type sweep struct {
	kind    implementation.Kind
	rng     *rand.Rand
	sources [modes]*pool
	dst     buffer
}

func newSweep(kind implementation.Kind, seed uint64, n int) *sweep {
	rng := newRand(seed)
	return &sweep{kind, rng, pools(rng, kind, 2*n+4096), newBuffer((n+line)*8, 0)}
}

// check runs one case: n elements of so many models, dst offset bytes behind the beginning of a line.
func (s *sweep) check(t *testing.T, n, models, offset int) {
	t.Helper()
	m := mode(s.rng.IntN(int(modes)))
	x := s.sources[m].models(models, n)
	s.checkModels(t, x, m, offset)
}

func (s *sweep) checkModels(t *testing.T, x [][]byte, m mode, offset int) {
	t.Helper()
	var w []float64 // nil: a mean
	if s.rng.IntN(4) > 0 {
		wm := mode(s.rng.IntN(int(modes)))
		if wm != ordinary && s.rng.IntN(2) == 0 {
			wm = ordinary
		}
		w = randomWeights(s.rng, s.kind, wm, len(x))
	}
	f := elementFormat(s.kind)
	n := len(x[0]) / f.size
	want := reference(s.kind, x, w)
	onEach(t, func(impl implementation.Implementation) {
		dst := s.dst.at(n*f.size, offset)
		call(s.kind, dst.b, x, w)
		d := f.differ(dst.b, want)
		if d == "" {
			d = dst.overrun()
		}
		if d != "" {
			t.Fatalf("%v: n=%d models=%d elements=%d dst at %d weights=%v: %s", impl, n, len(x), m, offset, w, d)
		}
	})
}

// TestEveryLength runs every length beyond two of the largest blocks with every number of models up to two groups and
// one, and with one in three of those from there up to 40: all of them meet all tails.
func TestEveryLength(t *testing.T) {
	eachKind(t, allKinds, func(t *testing.T, kind implementation.Kind) {
		s := newSweep(kind, 10, beyondBlocks)
		size := elementFormat(kind).size
		step := thin(1, 13)
		for n := 0; n <= beyondBlocks; n++ {
			for models := 1 + n%step; models <= 40; models += step {
				if models <= 2*group+1 || models%3 == n%3 {
					s.check(t, n, models, s.rng.IntN(line/size)*size)
				}
			}
		}
	})
}

// TestEveryAlignment runs every length with dst at every place in a line, and the models together at every other.
func TestEveryAlignment(t *testing.T) {
	eachKind(t, allKinds, func(t *testing.T, kind implementation.Kind) {
		s := newSweep(kind, 11, beyondBlocks)
		size := elementFormat(kind).size
		places := line / size
		for n := 0; n <= beyondBlocks; n += thin(1, 11) {
			for place := range places {
				m := mode(s.rng.IntN(int(modes)))
				source := s.sources[m]
				x := [][]byte{
					source.from((n+place)%places, n), source.from((n+2*place)%places+places, n), source.cut(n),
				}
				s.checkModels(t, x[:1+n%3], m, place*size)
			}
		}
	})
}

// TestChunks runs lengths around those at which the driver cuts a call.
func TestChunks(t *testing.T) {
	eachKind(t, allKinds, func(t *testing.T, kind implementation.Kind) {
		chunk := chunkBytes / elementFormat(kind).size
		s := newSweep(kind, 12, 2*chunk+100)
		lengths := []int{
			chunkBytes/8 - 1, chunkBytes / 8, chunkBytes/8 + 1,
			chunk - 1, chunk, chunk + 1, chunk + 37, 2 * chunk, 2*chunk + 3,
		}
		if testing.Short() {
			lengths = []int{chunkBytes/8 + 1, chunk + 1}
		}
		for _, n := range lengths {
			s.check(t, n, 1, 0)
			s.check(t, n, 2, 8)
		}
		s.check(t, chunk+5, few+1, 16)
		s.check(t, chunk+5, group, 16)
	})
}

// TestTiles runs more models than are read side by side, over lengths around those of a tile of accumulators.
func TestTiles(t *testing.T) {
	eachKind(t, allKinds, func(t *testing.T, kind implementation.Kind) {
		elements := tileElements(kind)
		s := newSweep(kind, 13, 2*elements+100)
		lengths := []int{elements - 1, elements, elements + 1, elements + 31, elements + 32, 2 * elements, 2*elements + 5}
		if testing.Short() {
			lengths = []int{elements + 1}
		}
		for _, n := range lengths {
			s.check(t, n, group+1, 8)
		}
		s.check(t, elements+7, 2*tileGroup, 0)
		s.check(t, elements+33, 2*tileGroup+1, 24)
	})
}

// TestPastTheCaches lowers the size from which non-temporal stores are used, and runs every place of dst in a line. In
// this build the generic implementation stores plainly; there it is the cut into a head and a body that is tested.
func TestPastTheCaches(t *testing.T) {
	former := streamThreshold
	streamThreshold = 1
	defer func() { streamThreshold = former }()
	eachKind(t, allKinds, func(t *testing.T, kind implementation.Kind) {
		size := elementFormat(kind).size
		s := newSweep(kind, 14, chunkBytes/size+2048)
		source := s.sources[ordinary]
		for place := 0; place < line; place += size {
			// More models than a group always come here, however short they are.
			for _, n := range []int{0, 1, line/size - 1, line / size, 2*line/size + 1, 257, 1031, beyondBlocks} {
				x := source.models(group+1+n%5, n)
				p := unsafe.Pointer(unsafe.SliceData(s.dst.place(n*size, place).b))
				if n > 0 && !streams(kind, p, headers(kind, x), len(x)) {
					t.Fatalf("n=%d: the call does not stream", n)
				}
				s.checkModels(t, x, ordinary, place)
			}
		}
		for _, place := range []int{0, size, line - size} {
			s.check(t, chunkBytes/8+1, 1, place)
			s.check(t, chunkBytes/size+1029, 2, place)
			s.check(t, chunkBytes/size+1029, group, place)
		}
		// A model as dst keeps its lines in the caches.
		n := chunkBytes/8 + 77
		x := source.models(3, n)
		w := []float64{0.25, 0.5, 0.25}
		want := reference(kind, x, w)
		dst := s.dst.at(n*size, 0)
		copy(dst.b, x[1])
		x[1] = dst.b
		if streams(kind, unsafe.Pointer(&dst.b[0]), headers(kind, x), len(x)) {
			t.Error("a call in place streams")
		}
		callWeightedSum(kind, dst.b, x, w)
		if d := elementFormat(kind).differ(dst.b, want); d != "" {
			t.Errorf("in place: %s", d)
		}
	})
}

// TestBlocks calls the implementations directly, with accumulators to start from, offsets into the models, divisors,
// and stores past the caches.
func TestBlocks(t *testing.T) {
	eachKind(t, allKinds, func(t *testing.T, kind implementation.Kind) {
		f, a := elementFormat(kind), accumulatorFormat(kind)
		rng := newRand(15)
		sources := pools(rng, kind, 4096)
		var accumulators [modes][]byte
		for m := range modes { // two of them, a stride apart
			accumulators[m] = a.randomElements(rng, m, widerStride/a.size+2048)
		}
		dst, want := newBuffer(2048*8, 0), make([]byte, 2048*8)
		for n := 0; n <= beyondBlocks; n++ {
			for range thin(24, 2) {
				m := mode(rng.IntN(int(modes)))
				offset := rng.IntN(40)
				models := rng.IntN(group + 1)
				var acc unsafe.Pointer
				if rng.IntN(2) == 0 {
					acc = unsafe.Pointer(&accumulators[m][rng.IntN(64)*a.size])
				} else if models == 0 {
					models = 1
				}
				x := headers(kind, sources[m].models(models, offset+n))
				w := randomWeights(rng, kind, ordinary, models)
				weights, narrow := accumulatorWeights(w, models), unsafe.Pointer(unsafe.SliceData(make([]float32, models)))
				flags, divisor, place := 0, math.NaN(), rng.IntN(line/f.size)*f.size
				factor, factorFlags := math.NaN(), 0
				switch rng.IntN(3) {
				case 0:
					flags, factorFlags = divide, divide
					divisor = rng.NormFloat64()
					factor = divisor
				case 1: // the same as a multiplication
					flags, factorFlags = divide, divide
					divisor = math.Ldexp(1, 1+rng.IntN(63))
					factor = divisor
					if kind != implementation.Float64Wider {
						factor, factorFlags = 1/divisor, scale
					}
				}
				if rng.IntN(3) == 0 {
					factorFlags |= stream
					place = 0
				}
				weightedSumGeneric(kind, unsafe.Pointer(&want[0]), x, weights, acc, n, models, offset, divisor, flags)
				onEach(t, func(impl implementation.Implementation) {
					dst := dst.at(n*f.size, place)
					p := unsafe.Pointer(unsafe.SliceData(dst.b))
					weightedSumBlock(kind, p, x, weights, narrow, acc, n, models, offset, factor, factorFlags)
					d := f.differ(dst.b, want[:n*f.size])
					if d == "" {
						d = dst.overrun()
					}
					if d != "" {
						t.Fatalf("%v: n=%d models=%d offset=%d accumulators=%t flags=%d elements=%d divisor=%v weights=%v: %s",
							impl, n, models, offset, acc != nil, factorFlags, m, divisor, w, d)
					}
				})
			}
		}
	})
}

// TestAccumulateBlocks does so for the sums into a tile. Those of Float64Wider are two halves of a tile.
func TestAccumulateBlocks(t *testing.T) {
	eachKind(t, allKinds, func(t *testing.T, kind implementation.Kind) {
		a := accumulatorFormat(kind)
		rng := newRand(16)
		sources := pools(rng, kind, 4096)
		halves := 1
		if kind == implementation.Float64Wider {
			halves = 2
		}
		memory := newBuffer(widerStride+8192, 0)
		for n := 0; n <= beyondBlocks; n++ {
			for range thin(12, 1) {
				m := mode(rng.IntN(int(modes)))
				offset, models := rng.IntN(40), rng.IntN(group)+1
				x := headers(kind, sources[m].models(models, offset+n))
				weights := accumulatorWeights(randomWeights(rng, kind, ordinary, models), models)
				narrow := unsafe.Pointer(unsafe.SliceData(make([]float32, models)))
				place := rng.IntN(line/a.size) * a.size
				start := a.randomElements(rng, m, halves*n)
				part := func(h int) buffer { return memory.place(n*a.size, place+h*widerStride) }
				fill := func() {
					for h := range halves {
						b := memory.at(n*a.size, place+h*widerStride)
						copy(b.b, start[h*n*a.size:])
					}
				}
				fill()
				acc := unsafe.Pointer(unsafe.SliceData(part(0).b))
				accumulateGeneric(kind, acc, x, weights, n, models, offset)
				var want [2][]byte
				for h := range halves {
					want[h] = bytes.Clone(part(h).b)
				}
				onEach(t, func(impl implementation.Implementation) {
					fill()
					accumulateBlock(kind, acc, x, weights, narrow, n, models, offset, 0)
					for h := range halves {
						d := a.differ(part(h).b, want[h])
						if d == "" {
							d = part(h).overrun()
						}
						if d != "" {
							t.Fatalf("%v: n=%d models=%d offset=%d elements=%d place=%d half=%d: %s",
								impl, n, models, offset, m, place, h, d)
						}
					}
				})
			}
		}
	})
}

// TestStreaming accumulates model after model and rounds once, as a running mean does.
func TestStreaming(t *testing.T) {
	eachKind(t, streamingKinds, func(t *testing.T, kind implementation.Kind) {
		f, a := elementFormat(kind), accumulatorFormat(kind)
		rng := newRand(17)
		lengths := []int{chunkBytes/8 + 1, chunkBytes/4 + 33}
		sources := pools(rng, kind, chunkBytes/4+4096)
		accBuffer, dstBuffer := newBuffer((chunkBytes/4+64)*8, 0), newBuffer((chunkBytes/4+64)*8, 0)
		for n := 0; n <= beyondBlocks; n += thin(1, 5) {
			lengths = append(lengths, n)
		}
		for _, n := range lengths {
			m := mode(rng.IntN(int(modes)))
			models := 1 + rng.IntN(4)
			x := sources[m].models(models, n)
			w := randomWeights(rng, kind, ordinary, models)
			divisor := []float64{1, 3, 0.7, -1, float64(models)}[rng.IntN(5)]
			flags := 0
			if divisor != 1 {
				flags = divide
			}
			start, wantAcc := make([]byte, n*a.size), make([]byte, n*a.size)
			for i := range n {
				a.put(start, i, a.sign()) // −0, as a sum begins
			}
			copy(wantAcc, start)
			accumulateGeneric(kind, unsafe.Pointer(unsafe.SliceData(wantAcc)), headers(kind, x),
				accumulatorWeights(w, models), n, models, 0)
			want := make([]byte, n*f.size)
			weightedSumGeneric(kind, unsafe.Pointer(unsafe.SliceData(want)), nil, nil, unsafe.Pointer(unsafe.SliceData(wantAcc)),
				n, 0, 0, divisor, flags)
			accPlace, dstPlace := rng.IntN(line/a.size)*a.size, rng.IntN(line/f.size)*f.size
			onEach(t, func(impl implementation.Implementation) {
				acc, dst := accBuffer.at(n*a.size, accPlace), dstBuffer.at(n*f.size, dstPlace)
				copy(acc.b, start)
				for k := range x {
					callAccumulate(kind, acc.b, x[k], w[k])
				}
				fail := func(what, d string) {
					if d != "" {
						t.Fatalf("%v: n=%d models=%d elements=%d divisor=%v weights=%v: %s: %s",
							impl, n, models, m, divisor, w, what, d)
					}
				}
				fail("accumulated", a.differ(acc.b, wantAcc))
				fail("acc", acc.overrun())
				callRound(kind, dst.b, acc.b, divisor)
				fail("rounded", f.differ(dst.b, want))
				fail("dst", dst.overrun())
				fail("accumulators after rounding", a.differ(acc.b, wantAcc))
				if divisor == 1 {
					call(kind, dst.b, x, w)
					fail("in one call", f.differ(dst.b, want))
				}
			})
		}
	})
}
