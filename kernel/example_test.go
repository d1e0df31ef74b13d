package kernel_test

import (
	"fmt"
	"math"

	"github.com/modelavg/modelavg/kernel"
)

func ExampleWeightedSumFloat32() {
	dst := make([]float32, 3)
	kernel.WeightedSumFloat32(dst, [][]float32{{1, 2, 3}, {5, 6, 7}}, []float64{0.75, 0.25})
	fmt.Println(dst)
	// Output: [2 3 4]
}

// The exact sum is 1; in plain float64 it is lost.
func ExampleWeightedSumFloat64Wider() {
	x := [][]float64{{1e16}, {1}, {-1e16}}
	w := []float64{1, 1, 1}
	plain, wider := make([]float64, 1), make([]float64, 1)
	kernel.WeightedSumFloat64(plain, x, w)
	kernel.WeightedSumFloat64Wider(wider, x, w)
	fmt.Println(plain, wider)
	// Output: [0] [1]
}

func ExampleMeanBFloat16() {
	one, two := uint16(0x3f80), uint16(0x4000)
	dst := make([]uint16, 1)
	kernel.MeanBFloat16(dst, [][]uint16{{one}, {two}})
	fmt.Printf("%#04x\n", dst[0]) // 1.5
	// Output: 0x3fc0
}

func ExampleAllFiniteFloat32() {
	infinity := float32(math.Inf(1))
	fmt.Println(kernel.AllFiniteFloat32([]float32{1, -2}), kernel.AllFiniteFloat32([]float32{1, infinity}))
	// Output: true false
}

// A running weighted mean: models are added as they come, and rounded once at the end.
func ExampleAccumulateFloat32() {
	sum := make([]float64, 2)
	kernel.AccumulateFloat32(sum, []float32{1, 2}, 300) // a client with 300 samples
	kernel.AccumulateFloat32(sum, []float32{5, 6}, 100) // and one with 100
	mean := make([]float32, 2)
	kernel.RoundFloat32(mean, sum, 400)
	fmt.Println(mean)
	// Output: [2 3]
}

func ExampleAccumulateFloat64() {
	sum := make([]float64, 2)
	kernel.AccumulateFloat64(sum, []float64{1, 2}, 1)
	kernel.AccumulateFloat64(sum, []float64{2, 4}, 1)
	mean := make([]float64, 2)
	kernel.RoundFloat64(mean, sum, 2)
	fmt.Println(mean)
	// Output: [1.5 3]
}

func ExampleAccumulateFloat16() {
	one, two := uint16(0x3c00), uint16(0x4000)
	sum := make([]float32, 1)
	kernel.AccumulateFloat16(sum, []uint16{one}, 1)
	kernel.AccumulateFloat16(sum, []uint16{two}, 1)
	mean := make([]uint16, 1)
	kernel.RoundFloat16(mean, sum, 2)
	fmt.Printf("%v %#04x\n", sum, mean[0]) // 1.5
	// Output: [3] 0x3e00
}

func ExampleAccumulateBFloat16() {
	one, two := uint16(0x3f80), uint16(0x4000)
	sum := make([]float32, 1)
	kernel.AccumulateBFloat16(sum, []uint16{one}, 1)
	kernel.AccumulateBFloat16(sum, []uint16{two}, 1)
	mean := make([]uint16, 1)
	kernel.RoundBFloat16(mean, sum, 2)
	fmt.Printf("%v %#04x\n", sum, mean[0]) // 1.5
	// Output: [3] 0x3fc0
}

func ExampleImplementations() {
	names := kernel.Implementations()
	fmt.Println(names[len(names)-1])
	// Output: generic
}
