package modelavg_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"github.com/modelavg/modelavg"
)

func newSharded[T modelavg.Element](t testing.TB, n, shards int, options ...modelavg.Option) *modelavg.Sharded[T] {
	t.Helper()
	s, err := modelavg.NewSharded[T](n, shards, options...)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Goroutines add, merge and ask at once: nothing is lost, and exact sums have the bits of one accumulator.
func TestShardedConcurrent(t *testing.T) {
	const n, goroutines, each = 2000, 8, 25
	rng := rand.New(rand.NewPCG(61, 62))
	models := randomModels[float32](rng, goroutines, n)
	for _, shards := range []int{0, 1, 3, 20} {
		for _, options := range [][]modelavg.Option{nil, {exactly}} {
			s := newSharded[float32](t, n, shards, options...)
			a := newAccumulator[float32](t, n, options...)
			var wg sync.WaitGroup
			for g, model := range models {
				for range each {
					must(t, a.Add(model, float64(g+1)))
				}
				must(t, a.Add(model, 0.25))
				wg.Go(func() {
					dst := make([]float32, n)
					part := newAccumulator[float32](t, n, options...)
					must(t, part.Add(model, 0.25))
					for i := range each {
						if err := s.Add(model, float64(g+1)); err != nil {
							t.Error(err)
						}
						switch {
						case i == each/2:
							if err := s.Merge(part); err != nil {
								t.Error(err)
							}
						case i%8 == 3:
							if err := s.Mean(dst); err != nil {
								t.Error(err)
							}
							_, _ = s.Weight(), s.Count()
						}
					}
				})
			}
			wg.Wait()
			name := fmt.Sprintf("%d shards, options %v", shards, options)
			if s.Count() != a.Count() || s.Weight() != a.Weight() {
				t.Errorf("%s: got %d models of weight %v, want %d of %v",
					name, s.Count(), s.Weight(), a.Count(), a.Weight())
			}
			got, want := make([]float32, n), meanOf(t, a)
			must(t, s.Mean(got))
			if options != nil {
				checkBits(t, name, got, want)
				if !bytes.Equal(stateOf(t, s), stateOf(t, a)) {
					t.Errorf("%s: the state is not that of one accumulator", name)
				}
			}
			for i := range got {
				if d := got[i] - want[i]; d > 0x1p-23 || d < -0x1p-23 {
					t.Fatalf("%s: element %d: got %v, want %v", name, i, got[i], want[i])
				}
			}
		}
	}
}

// One after the other, all come to the first shard.
func TestShardedSequential(t *testing.T) {
	rng := rand.New(rand.NewPCG(63, 64))
	models := randomModels[modelavg.BFloat16](rng, 9, 300)
	s := newSharded[modelavg.BFloat16](t, 300, 4)
	a := newAccumulator[modelavg.BFloat16](t, 300)
	got := make([]modelavg.BFloat16, 300)
	for round := range 2 {
		for k, m := range models {
			must(t, s.Add(m, float64(k+1)))
			must(t, a.Add(m, float64(k+1)))
			if k%4 == 0 {
				must(t, s.Mean(got))
				checkBits(t, fmt.Sprintf("round %d, %d models", round, k+1), got, meanOf(t, a))
			}
		}
		if !bytes.Equal(stateOf(t, s), stateOf(t, a)) {
			t.Error("the state is not that of one accumulator")
		}
		s.Reset()
		a.Reset()
		if s.Count() != 0 || s.Weight() != 0 || s.Len() != 300 {
			t.Errorf("after Reset: %d models of weight %v with %d elements", s.Count(), s.Weight(), s.Len())
		}
	}
}

func TestShardedErrors(t *testing.T) {
	check := func(err, target error, text string) {
		t.Helper()
		if !errors.Is(err, target) || !strings.Contains(fmt.Sprint(err), text) {
			t.Errorf("got error %v, want one that wraps %q and contains %q", err, target, text)
		}
	}
	_, err := modelavg.NewSharded[float32](1, -1)
	check(err, modelavg.ErrOption, "got -1 shards, want 0 to 1048576")
	for _, shards := range []int{1<<20 + 1, math.MaxInt/2 + 1, math.MaxInt} {
		_, err = modelavg.NewSharded[float32](1, shards)
		check(err, modelavg.ErrOption, fmt.Sprintf("got %d shards, want 0 to 1048576", shards))
	}
	_, err = modelavg.NewSharded[float32](-1, 1)
	check(err, modelavg.ErrLength, "got n = -1")
	_, err = modelavg.NewSharded[float32](1, 1, modelavg.WithAccumulation(modelavg.Native))
	check(err, modelavg.ErrOption, "got accumulation Native")
	s := newSharded[float32](t, 2, 1)
	check(s.Mean(make([]float32, 2)), modelavg.ErrNoWeight, "of 0 models")
	check(s.Add(make([]float32, 3), 1), modelavg.ErrLength, "the model has 3 elements, want 2")
	check(s.Merge(nil), modelavg.ErrMerge, "got nil")
	must(t, s.Add(make([]float32, 2), 1)) // the shard was given back
	check(s.Mean(nil), modelavg.ErrLength, "dst has 0 elements, want 2")

	var zero modelavg.Sharded[float32]
	check(zero.Add(nil, 1), modelavg.ErrOption, "that NewSharded has not made")
	check(zero.Merge(nil), modelavg.ErrOption, "that NewSharded has not made")
	check(zero.Mean(nil), modelavg.ErrOption, "that NewSharded has not made")
	_, err = zero.MarshalBinary()
	check(err, modelavg.ErrOption, "that NewSharded has not made")
	zero.Reset()
	if zero.Count() != 0 || zero.Weight() != 0 {
		t.Error("the zero Sharded has models")
	}
}
