package main

import (
	"fmt"
	"math"
	"math/rand/v2"
	"unsafe"

	"github.com/x448/float16"
)

const (
	// gapBytes lies between two streams. Streams that are a large power of two apart meet in the same banks of the
	// memory and lose half their speed.
	gapBytes = 4096

	// badStride is such a power of two.
	badStride = 1 << 28

	// blockElements is how many random numbers fill the arena, again and again. It is odd so that streams differ.
	blockElements = 1<<18 + 3
)

// An arena is the one piece of memory that all measurements use: memory that is touched for the first time is slow, and
// so are the caches after another piece has been used.
type arena struct {
	memory []byte
	holds  dtype               // the type of the numbers in it
	blocks map[blockKey][]byte // made so far
}

type blockKey struct {
	dtype dtype
	seed  uint64
}

// stride returns the bytes from one stream of p to the next.
func stride(p point) int {
	s := (p.n*p.dtype.size() + gapBytes + 63) / 64 * 64
	if s%badStride == 0 {
		s += gapBytes
	}
	return s
}

// arenaBytes returns the size of the arena for p: dst, the models and a scratch stream, and enough for the probes' least
// length.
func arenaBytes(p point) int { return (p.models+2)*stride(p) + 2*gapBytes }

// newArena returns an arena for all the points, touched, with transparent huge pages as asked: "system", "on" or "off".
func newArena(points []point, pages string) (*arena, error) {
	size := 0
	for _, p := range points {
		size = max(size, arenaBytes(p))
	}
	memory, err := allocate(size, pages)
	if err != nil {
		return nil, fmt.Errorf("%d bytes of memory: %w", size, err)
	}
	for i := 0; i < len(memory); i += 4096 {
		memory[i] = 1
	}
	return &arena{memory: memory}, nil
}

// fill puts random numbers between −1 and 1 everywhere in the arena.
func (a *arena) fill(d dtype) {
	if a.holds == d {
		return
	}
	a.refill(d, 1)
}

func (a *arena) refill(d dtype, seed uint64) {
	key := blockKey{d, seed}
	block := a.blocks[key]
	if block == nil {
		block = randomBlock(d, seed)
		if a.blocks == nil {
			a.blocks = map[blockKey][]byte{}
		}
		a.blocks[key] = block
	}
	for rest := a.memory; len(rest) > 0; {
		rest = rest[copy(rest, block):]
	}
	a.holds = d
}

// randomBlock returns blockElements numbers of type d.
func randomBlock(d dtype, seed uint64) []byte {
	random := rand.New(rand.NewPCG(seed, 0))
	block := make([]byte, blockElements*d.size())
	p := unsafe.Pointer(unsafe.SliceData(block))
	for i := range blockElements {
		v := 2*random.Float64() - 1
		switch d {
		case float64s:
			unsafe.Slice((*float64)(p), blockElements)[i] = v
		case float32s:
			unsafe.Slice((*float32)(p), blockElements)[i] = float32(v)
		case float16s:
			unsafe.Slice((*uint16)(p), blockElements)[i] = float16.Fromfloat32(float32(v)).Bits()
		case bfloat16s:
			unsafe.Slice((*uint16)(p), blockElements)[i] = bfloat16FromFloat32(float32(v))
		}
	}
	return block
}

// operands are the slices of one job.
type operands[T any] struct {
	dst     []T
	models  [][]T
	scratch []T // as long as dst, for those libraries that need it
}

// carve returns the slices of p in the arena. The streams are dst, the models, and the scratch stream, one stride apart;
// the first model of an EMA step is dst.
func carve[T any](a *arena, p point) operands[T] {
	size := int(unsafe.Sizeof(*new(T)))
	if size != p.dtype.size() {
		panic("bench: carve: wrong type")
	}
	stream := func(i int) []T {
		b := a.memory[i*stride(p):][:p.n*size]
		return unsafe.Slice((*T)(unsafe.Pointer(unsafe.SliceData(b))), p.n)
	}
	o := operands[T]{dst: stream(0)}
	first := 1
	if p.job == emaStep {
		first = 0
	}
	for k := range p.models {
		o.models = append(o.models, stream(first+k))
	}
	o.scratch = stream(p.models + 1)
	return o
}

// decay is d in the EMA step avg = d·avg + (1−d)·x.
const decay = 0.999

// weights returns the weights of p, which sum to one: growing ones for the weighted sum, equal ones for the mean.
func (p point) weights() []float64 {
	w := make([]float64, p.models)
	for k := range w {
		switch p.job {
		case weightedSum:
			w[k] = 2 * float64(k+1) / float64(p.models*(p.models+1))
		case mean:
			w[k] = 1 / float64(p.models)
		}
	}
	if p.job == emaStep {
		w[0], w[1] = decay, 1-decay
	}
	return w
}

// bfloat16FromFloat32 rounds a finite number to nearest even.
func bfloat16FromFloat32(v float32) uint16 {
	bits := math.Float32bits(v)
	return uint16((bits + 0x7fff + bits>>16&1) >> 16)
}

func float32FromBFloat16(v uint16) float32 { return math.Float32frombits(uint32(v) << 16) }
