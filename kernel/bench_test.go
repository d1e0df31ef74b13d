package kernel

import (
	"fmt"
	"testing"

	"github.com/modelavg/modelavg/internal/implementation"
)

// BenchmarkWeightedSum measures the calls of this package by themselves, on slices that stay in the innermost caches.
// Those of package modelavg run from there to memory, and check their arguments.
func BenchmarkWeightedSum(b *testing.B) {
	const longest, most = 4096, 32
	var (
		single, double, half = make([][]float32, most), make([][]float64, most), make([][]uint16, most)
		dst32, dst64, dst16  = make([]float32, longest), make([]float64, longest), make([]uint16, longest)
		w                    = make([]float64, most)
	)
	for k := range most {
		single[k], double[k], half[k] = make([]float32, longest), make([]float64, longest), make([]uint16, longest)
		for i := range longest {
			single[k][i], double[k][i], half[k][i] = 0.75, 0.75, 0x3f3f
		}
		w[k] = 1.0 / most
	}
	bench := func(b *testing.B, kind implementation.Kind, models, n int) {
		x32, x64, x16, w := make([][]float32, models), make([][]float64, models), make([][]uint16, models), w[:models]
		for k := range models {
			x32[k], x64[k], x16[k] = single[k][:n], double[k][:n], half[k][:n]
		}
		dst32, dst64, dst16 := dst32[:n], dst64[:n], dst16[:n]
		b.ReportAllocs()
		b.SetBytes(int64((models + 1) * n * elementFormat(kind).size))
		switch kind { // outside the loop, and no closure in it: the calls are what is measured
		case implementation.Float32:
			for b.Loop() {
				WeightedSumFloat32(dst32, x32, w)
			}
		case implementation.Float64:
			for b.Loop() {
				WeightedSumFloat64(dst64, x64, w)
			}
		case implementation.Float16:
			for b.Loop() {
				WeightedSumFloat16(dst16, x16, w)
			}
		case implementation.BFloat16:
			for b.Loop() {
				WeightedSumBFloat16(dst16, x16, w)
			}
		case implementation.Float32Native:
			for b.Loop() {
				WeightedSumFloat32Native(dst32, x32, w)
			}
		case implementation.Float64Wider:
			for b.Loop() {
				WeightedSumFloat64Wider(dst64, x64, w)
			}
		}
	}
	const byDefault = "default" // what the kind runs on, which may depend on the call
	impls := []string{byDefault}
	for _, impl := range available {
		impls = append(impls, impl.String())
	}
	for _, kind := range allKinds {
		for _, impl := range impls {
			for _, models := range []int{2, 8, 12, most} {
				for _, n := range []int{8, 64, 256, longest} {
					b.Run(fmt.Sprintf("dtype=%v/impl=%v/models=%d/n=%d", kind, impl, models, n), func(b *testing.B) {
						if impl != byDefault {
							restore, err := implementation.Force(impl)
							if err != nil {
								b.Fatal(err)
							}
							defer restore()
						}
						bench(b, kind, models, n)
					})
				}
			}
		}
	}
}
