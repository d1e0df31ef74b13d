package modelavg_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/modelavg/modelavg"
)

// Bytes are those of the models, the sums and dst, each as often as it is read or written. For an Add to sums of
// float64 that are one model of float32 read, and the sums read and written: 20 bytes for an element. A WeightedSum of
// two models reads and writes 12.
//
//	go test -run - -bench Accumulator -count 6 . | tee new.txt
//	benchstat -col /op -row /dtype,/n new.txt

var accumulatorLengths = []int{4096, 65536, 16 << 20}

func BenchmarkAccumulatorAdd(b *testing.B) {
	benchmarkAdd[float32](b, "float32", 8)
	benchmarkAdd[float64](b, "float64", 8)
	benchmarkAdd[modelavg.Float16](b, "float16", 4)
	benchmarkAdd[modelavg.BFloat16](b, "bfloat16", 4)
	benchArena = nil
}

func benchmarkAdd[T modelavg.Element](b *testing.B, dtype string, sumBytes int) {
	size := elementSize[T]()
	for _, n := range accumulatorLengths {
		dst, x := benchInputs[T](n, 2)
		run := func(op string, bytes int, f func() error) {
			b.Run(fmt.Sprintf("dtype=%s/n=%d/op=%s", dtype, n, op), func(b *testing.B) {
				b.SetBytes(int64(n) * int64(bytes))
				b.ReportAllocs()
				for b.Loop() {
					if err := f(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
		a, other := newAccumulator[T](b, n), newAccumulator[T](b, n)
		accumulate(b, other, x, []float64{1, 2})
		run("Add", size+2*sumBytes, func() error { return a.Add(x[0], 3) })
		run("WeightedSum2", 3*size, func() error { return modelavg.WeightedSum(dst, x, []float64{0.25, 0.75}) })
		run("Merge", 3*sumBytes, func() error { return a.Merge(other) })
		run("Mean", size+sumBytes, func() error { return a.Mean(dst) })
		run("CheckFinite", size, func() error { return modelavg.CheckFinite(x[0]) })
		runtime.GC()
	}
}

// The bytes are those of the model alone: exact sums have as many digits as it takes. The elements are of both signs
// and ten binades.
func BenchmarkAccumulatorExact(b *testing.B) {
	benchmarkExact[float32](b, "float32")
	benchmarkExact[float64](b, "float64")
	benchmarkExact[modelavg.BFloat16](b, "bfloat16")
}

func benchmarkExact[T modelavg.Element](b *testing.B, dtype string) {
	const n = 1 << 20
	model := randomModel[T](rand.New(rand.NewPCG(1, 2)), n)
	dst := make([]T, n)
	for _, w := range []float64{1, 1001, 0.3} {
		a := newAccumulator[T](b, n, exactly)
		run := func(op string, f func() error) {
			b.Run(fmt.Sprintf("dtype=%s/weight=%v/op=%s", dtype, w, op), func(b *testing.B) {
				b.SetBytes(int64(n * elementSize[T]()))
				b.ReportAllocs()
				for b.Loop() {
					if err := f(); err != nil {
						b.Fatal(err)
					}
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/n, "ns/element")
			})
		}
		run("Add", func() error { return a.Add(model, w) })
		run("Mean", func() error { return a.Mean(dst) })
		b.Logf("%s, weight %v: the state has %.1f bytes for an element", dtype, w, float64(len(stateOf(b, a)))/n)
	}
}
