// Package kernel holds the loops that average models: numbers in, numbers out.
//
// Every linear average is a weight vector applied to models, and every function here applies one in a single pass over
// all of them:
//
//	dst[i] = Σ_k w[k]·x[k][i]
//
// # The numeric contract
//
//  1. A sum is accumulated one format wider than its elements (the table below) and rounded once, to nearest even, when it
//     is stored.
//
//  2. The order is the caller's: acc = w[0]·x[0], then acc = fma(w[k], x[k], acc) for k = 1, 2, …, where fma rounds once
//     in the accumulator format. A float32 accumulator takes its weights rounded to float32. A mean has weights of one and
//     divides once by the number of models, in the accumulator format, before it is rounded. Elements never meet.
//
//  3. Every implementation gives the same bits for every input, whatever the processor, the alignment, the length, the
//     element's place in the slice and the number of models. Only the sign and the payload of a NaN are free; that it is
//     a NaN is not. −0, infinities and subnormals are exact.
//
//  4. dst may be exactly one of the models. Slices that overlap in any other way give undefined results; package modelavg
//     refuses them.
//
//  5. Lengths may be anything from 0. A mismatch panics, and so does a call without models; nothing has been written then.
//
// The accumulators:
//
//	function        element           accumulator
//	…Float16        IEEE binary16     float32
//	…BFloat16       bfloat16          float32
//	…Float32        float32           float64
//	…Float64        float64           float64
//	…Float64Wider   float64           double-double: an unevaluated sum of two float64
//	…Float32Native  float32           float32
//
// The Wider form splits every product and every sum into its rounded value and its exact error and adds the errors to a
// second float64: the result is as good as one computed with twice the precision and rounded once, as long as no product
// underflows. Where the sum overflows or meets an infinity it is the float64 sum of the products, each rounded to float64.
//
// No function starts a goroutine, and none allocates in steady state: calls with more than 8 models share 512 KiB tiles
// of accumulators, which live until the garbage collector finds them idle. They run in chunks, so that a long call delays
// neither the garbage collector nor the scheduler.
//
// # Implementations
//
// On amd64 there is assembly for AVX2 (with FMA and F16C) and AVX-512, on arm64 for NEON; everywhere else, and under the
// build tags purego and noasm, the same loops run in pure Go. The environment variable MODELAVG_KERNEL forces one of
// avx512, avx2, neon and generic for the whole process.
package kernel

import "github.com/modelavg/modelavg/internal/implementation"

//go:generate go run -C ../asmgen . -out ../kernel

// Implementation returns the name of the widest implementation in use now: "avx512", "avx2", "neon" or "generic".
func Implementation() string { return implementation.Widest().String() }

// Implementations returns the names of all implementations that this machine can run, widest first. The last is always
// "generic".
func Implementations() []string {
	var names []string
	for _, i := range implementation.Available() {
		names = append(names, i.String())
	}
	return names
}
