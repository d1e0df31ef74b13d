package kernel

import (
	"bytes"
	"testing"

	"github.com/modelavg/modelavg/internal/implementation"
)

// TestInPlace writes over each model in turn, for every number of models up to one more than a group, with lengths over
// all tails, and over the borders of chunks and tiles.
func TestInPlace(t *testing.T) {
	var lengths []int
	for n := range 300 {
		if n < 140 || n > 250 {
			lengths = append(lengths, n)
		}
	}
	if testing.Short() {
		lengths = []int{1, 2, 3, 5, 7, 8, 9, 13, 15, 16, 17, 31, 32, 33, 47, 63, 64, 65, 100, 127, 128, 129, 271}
	}
	eachKind(t, allKinds, func(t *testing.T, kind implementation.Kind) {
		f := elementFormat(kind)
		rng := newRand(20)
		long := []int{tileElements(kind) + 3, chunkBytes/f.size + 3}
		sources := pools(rng, kind, long[1]+long[0]+4096)
		room := newBuffer(max(long[0], long[1])*f.size+line, 0)
		check := func(n, models, k int) {
			t.Helper()
			x := sources[rng.IntN(int(modes))].models(models, n)
			w := randomWeights(rng, kind, ordinary, models)
			if rng.IntN(3) == 0 {
				w = nil
			}
			want := reference(kind, x, w)
			place, former := rng.IntN(line/f.size)*f.size, x[k]
			onEach(t, func(impl implementation.Implementation) {
				dst := room.at(n*f.size, place)
				copy(dst.b, former)
				x[k] = dst.b
				call(kind, dst.b, x, w)
				d := f.differ(dst.b, want)
				if d == "" {
					d = dst.overrun()
				}
				if d != "" {
					t.Fatalf("%v: n=%d models=%d, dst is model %d: %s", impl, n, models, k, d)
				}
			})
		}
		for models := 1; models <= group+1; models++ {
			for k := range models {
				for _, n := range lengths {
					check(n, models, k)
				}
			}
		}
		for _, n := range long {
			check(n, 2, 1)
			check(n, group+1, 0)
			check(n, group+1, group)
		}
	})
}

// TestInPlaceTwice writes over a model that appears more than once.
func TestInPlaceTwice(t *testing.T) {
	each(t, allKinds, func(t *testing.T, kind implementation.Kind) {
		f := elementFormat(kind)
		rng := newRand(21)
		source := newPool(rng, f, ordinary, 4096)
		for n := range 200 {
			a, b := source.cut(n), source.cut(n)
			w := []float64{0.5, -1, 0.25, 2}
			want := reference(kind, [][]byte{a, b, a, a}, w)
			dst := bytes.Clone(a)
			callWeightedSum(kind, dst, [][]byte{dst, b, dst, dst}, w)
			if d := f.differ(dst, want); d != "" {
				t.Fatalf("n=%d: %s", n, d)
			}
		}
	})
}

// TestAccumulateInPlace adds a multiple of the running sum to itself.
func TestAccumulateInPlace(t *testing.T) {
	each(t, []implementation.Kind{implementation.Float64}, func(t *testing.T, kind implementation.Kind) {
		rng := newRand(22)
		source := newPool(rng, binary64, ordinary, 2*chunkBytes/8)
		lengths := []int{chunkBytes/8 + 5}
		for n := range beyondBlocks {
			lengths = append(lengths, n)
		}
		for _, n := range lengths {
			x := source.cut(n)
			want, got := bytes.Clone(x), bytes.Clone(x)
			for i := range n {
				v := binary64.at(x, i)
				if n < 300 {
					v = fmaExact(binary64, 0x3fe8000000000000, v, v)
				} else { // ¾·x + x is exact but for the last two bits
					a := view[float64](x)[i]
					v = float64s([]float64{1.75 * a})[0]
				}
				binary64.put(want, i, v)
			}
			AccumulateFloat64(view[float64](got), view[float64](got), 0.75)
			if d := binary64.differ(got, want); d != "" {
				t.Fatalf("n=%d: %s", n, d)
			}
		}
	})
}

// TestInputsUnchanged compares models, weights and accumulators with copies made before the calls.
func TestInputsUnchanged(t *testing.T) {
	each(t, allKinds, func(t *testing.T, kind implementation.Kind) {
		f, a := elementFormat(kind), accumulatorFormat(kind)
		rng := newRand(23)
		sources := pools(rng, kind, 2048)
		for trial := range thin(300, 40) {
			m := mode(trial) % modes
			n, models := rng.IntN(beyondBlocks), 1+rng.IntN(20)
			x := sources[m].models(models, n)
			w := randomWeights(rng, kind, m, models)
			pool, weights := bytes.Clone(sources[m].b), bytes.Clone(bytesOf(w))
			acc := a.randomElements(rng, m, n)
			accumulators := bytes.Clone(acc)
			dst := make([]byte, n*f.size)
			lists := make([][]byte, models)
			copy(lists, x)

			callWeightedSum(kind, dst, x, w)
			callMean(kind, dst, x)
			if kind <= implementation.BFloat16 {
				callRound(kind, dst, acc, 3)
				if !bytes.Equal(acc, accumulators) {
					t.Fatalf("n=%d: rounding changed the accumulators", n)
				}
				callAccumulate(kind, acc, x[0], w[0])
			}
			if !bytes.Equal(sources[m].b, pool) {
				t.Fatalf("n=%d models=%d: a model changed", n, models)
			}
			if !bytes.Equal(bytesOf(w), weights) {
				t.Fatalf("n=%d models=%d: the weights changed", n, models)
			}
		}
	})
}
