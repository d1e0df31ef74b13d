package modelavg_test

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"runtime/debug"
	"testing"
	"unsafe"

	"github.com/modelavg/modelavg"
	"github.com/modelavg/modelavg/internal/implementation"
	"github.com/modelavg/modelavg/weighting"
)

// The benchmarks are named so that benchstat can set one thing against another:
//
//	go test -run - -bench 'WeightedSum/dtype=float32$/' -count 10 . | tee new.txt
//	benchstat -col /impl new.txt
//
// impl=loop is the plain Go loop, a pass over dst for every model, in the element type. Bytes are those of the models and
// of dst, each counted once. All of them take 10 GiB.

var (
	benchLengths = []int{8, 64, 256, 4096, 65536, 1048576, 64_000_000}
	benchModels  = []int{2, 4, 8, 12, 32}
)

const (
	benchLimit = 10 << 30 // bytes of models and dst
	benchDecay = 0.9
)

// A benchOperation is one function of the package, and the loop that it replaces.
type benchOperation int

const (
	benchWeightedSum benchOperation = iota
	benchMean
	benchExponentialMean
)

func BenchmarkWeightedSum(b *testing.B)     { benchAll(b, benchWeightedSum) }
func BenchmarkMean(b *testing.B)            { benchAll(b, benchMean) }
func BenchmarkExponentialMean(b *testing.B) { benchAll(b, benchExponentialMean) }

var benchTypes = []struct {
	name string
	size int
	run  func(b *testing.B, op benchOperation, n, models int)
	loop func(b *testing.B, op benchOperation, n, models int) // or nil
}{
	{"float32", 4, benchCall[float32](), benchLoop[float32]},
	{"float32native", 4, benchCall[float32](modelavg.WithAccumulation(modelavg.Native)), benchLoop[float32]},
	{"float64", 8, benchCall[float64](), benchLoop[float64]},
	{"float64wider", 8, benchCall[float64](modelavg.WithAccumulation(modelavg.Wider)), nil},
	{"float16", 2, benchCall[modelavg.Float16](), nil},
	{"bfloat16", 2, benchCall[modelavg.BFloat16](), nil},
}

func benchAll(b *testing.B, op benchOperation) {
	names := []string{"default"} // what the type runs on, which may depend on the call
	for _, impl := range implementation.Available() {
		names = append(names, impl.String())
	}
	names = append(names, "loop")
	for _, dtype := range benchTypes {
		for _, impl := range names {
			run := dtype.run
			if impl == "loop" {
				run = dtype.loop
			}
			if run == nil {
				continue
			}
			for _, models := range benchModels {
				for _, n := range benchLengths {
					if int64(models+1)*int64(n)*int64(dtype.size) > benchLimit {
						continue
					}
					if (impl == "loop" || impl == "generic") && n > 65536 && models != 8 {
						continue // bound by the processor: the longer the less there is to learn
					}
					b.Run(fmt.Sprintf("dtype=%s/impl=%s/models=%d/n=%d", dtype.name, impl, models, n), func(b *testing.B) {
						if impl != "loop" && impl != "default" {
							restore, err := implementation.Force(impl)
							if err != nil {
								b.Fatal(err)
							}
							defer restore()
						}
						b.SetBytes(int64((models + 1) * n * dtype.size))
						b.ReportAllocs()
						run(b, op, n, models)
					})
				}
			}
		}
	}
	benchArena = nil
}

// benchArena holds dst and the models, for all benchmarks: memory costs most when it is new.
var benchArena [][]byte

// benchGap sets the beginnings of two models apart, whose distance would else be a power of two: such streams meet in
// the same banks of memory.
const benchGap = 4096

// benchMemory returns memory for dst (k = 0) or a model, written to. Its elements are numbers of ordinary magnitude in
// every type, because each byte is 0x3e or 0x3f.
func benchMemory[T any](k, n int) []T {
	size := n * int(unsafe.Sizeof(*new(T)))
	for k >= len(benchArena) {
		benchArena = append(benchArena, nil)
	}
	if need := size + (k+1)*benchGap; len(benchArena[k]) < need {
		total := need
		for _, m := range benchArena {
			total += len(m)
		}
		benchArena[k] = nil
		if int64(total) > benchLimit+benchLimit/8 { // left from models that were fewer and longer
			for i := k; i < len(benchArena); i++ {
				benchArena[i] = nil
			}
			debug.FreeOSMemory()
		}
		m := make([]byte, need)
		pattern := m[:min(need, 1<<16)]
		rng := rand.New(rand.NewPCG(uint64(k), 1))
		for i := range pattern {
			pattern[i] = 0x3e | byte(rng.Uint32()&1)
		}
		for i := len(pattern); i < need; i += copy(m[i:], pattern) {
		}
		benchArena[k] = m
	}
	m := benchArena[k][k*benchGap:]
	lead := int(-uintptr(unsafe.Pointer(unsafe.SliceData(m))) & 63)
	return unsafe.Slice((*T)(unsafe.Pointer(&m[lead])), n)
}

func benchInputs[T any](n, models int) (dst []T, x [][]T) {
	x = make([][]T, models)
	for k := range x {
		x[k] = benchMemory[T](k+1, n)
	}
	return benchMemory[T](0, n), x
}

func benchWeights(b *testing.B, models int) []float64 {
	w, err := weighting.Geometric(models, benchDecay)
	if err != nil {
		b.Fatal(err)
	}
	return w
}

// benchCall returns a benchmark of the package's functions.
func benchCall[T modelavg.Element](options ...modelavg.Option) func(b *testing.B, op benchOperation, n, models int) {
	return func(b *testing.B, op benchOperation, n, models int) {
		dst, x := benchInputs[T](n, models)
		w := benchWeights(b, models)
		var err error
		switch op {
		case benchWeightedSum:
			for b.Loop() {
				err = modelavg.WeightedSum(dst, x, w, options...)
			}
		case benchMean:
			for b.Loop() {
				err = modelavg.Mean(dst, x, options...)
			}
		case benchExponentialMean:
			for b.Loop() {
				err = modelavg.ExponentialMean(dst, x, benchDecay, options...)
			}
		}
		if err != nil {
			b.Fatal(err)
		}
		runtime.KeepAlive(dst)
	}
}

// benchLoop is a benchmark of what is written without the package.
func benchLoop[T float32 | float64](b *testing.B, op benchOperation, n, models int) {
	dst, x := benchInputs[T](n, models)
	w := make([]T, models)
	for k, v := range benchWeights(b, models) {
		w[k] = T(v)
	}
	for b.Loop() {
		if op == benchMean {
			benchLoopMean(dst, x)
		} else {
			benchLoopWeightedSum(dst, x, w)
		}
	}
	runtime.KeepAlive(dst)
}

//go:noinline
func benchLoopWeightedSum[T float32 | float64](dst []T, x [][]T, w []T) {
	clear(dst)
	for k := range x {
		w, x := w[k], x[k][:len(dst)]
		for i := range dst {
			dst[i] += w * x[i]
		}
	}
}

//go:noinline
func benchLoopMean[T float32 | float64](dst []T, x [][]T) {
	clear(dst)
	for k := range x {
		x := x[k][:len(dst)]
		for i := range dst {
			dst[i] += x[i]
		}
	}
	n := T(len(x))
	for i := range dst {
		dst[i] /= n
	}
}
