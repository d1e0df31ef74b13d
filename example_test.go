package modelavg_test

import (
	"errors"
	"fmt"

	"github.com/modelavg/modelavg"
	"github.com/modelavg/modelavg/weighting"
)

func ExampleMean() {
	a := []float32{1, 2, 3}
	b := []float32{2, 4, 6}
	c := []float32{6, 6, 6}
	mean := make([]float32, 3)
	if err := modelavg.Mean(mean, [][]float32{a, b, c}); err != nil {
		fmt.Println(err)
	}
	fmt.Println(mean)
	// Output: [3 4 5]
}

// A mean in place: the first model is replaced.
func ExampleMean_inPlace() {
	a := []float64{1, 2}
	b := []float64{3, 6}
	if err := modelavg.Mean(a, [][]float64{a, b}); err != nil {
		fmt.Println(err)
	}
	fmt.Println(a)
	// Output: [2 4]
}

func ExampleWeightedMean() {
	models := [][]float32{{1, 2}, {2, 3}, {4, 8}}
	mean := make([]float32, 2)
	if err := modelavg.WeightedMean(mean, models, []float64{0.25, 0.5, 0.25}); err != nil {
		fmt.Println(err)
	}
	fmt.Println(mean)

	err := modelavg.WeightedMean(mean, models, []float64{0.2, 0.5, 0.2})
	fmt.Println(errors.Is(err, modelavg.ErrWeightSum))
	err = modelavg.WeightedMean(mean, models, []float64{0.5, 0.5})
	fmt.Println(err)
	// Output:
	// [2.25 4]
	// true
	// modelavg: weighting: wrong number of weights: got 2 weights for 3 models, want one per model
}

// Three clients have trained on different numbers of samples.
func ExampleWeightedMean_federated() {
	clients := [][]float32{{1, 0}, {2, 0}, {5, 4}}
	weights, err := weighting.Counts([]int64{1000, 500, 500})
	if err != nil {
		fmt.Println(err)
	}
	global := make([]float32, 2)
	if err := modelavg.WeightedMean(global, clients, weights); err != nil {
		fmt.Println(err)
	}
	fmt.Println(global)
	// Output: [2.25 1]
}

func ExampleExponentialMean() {
	checkpoints := [][]float64{{1, 2}, {2, 3}, {3, 4}} // oldest first
	mean := make([]float64, 2)
	for _, decay := range []float64{0, 0.5, 0.8, 1} {
		if err := modelavg.ExponentialMean(mean, checkpoints, decay); err != nil {
			fmt.Println(err)
		}
		fmt.Printf("decay %.1f: %.4f\n", decay, mean)
	}
	// Output:
	// decay 0.0: [3.0000 4.0000]
	// decay 0.5: [2.4286 3.4286]
	// decay 0.8: [2.1475 3.1475]
	// decay 1.0: [2.0000 3.0000]
}

// What fine-tuning has changed, added to another model at half its strength.
func ExampleWeightedSum() {
	base := []float32{1, 1, 1}
	tuned := []float32{1, 2, 3}
	other := []float32{5, 5, 5}
	sum := make([]float32, 3)
	err := modelavg.WeightedSum(sum, [][]float32{other, tuned, base}, []float64{1, 0.5, -0.5})
	if err != nil {
		fmt.Println(err)
	}
	fmt.Println(sum)
	// Output: [5 5.5 6]
}

func ExampleWithWorkers() {
	models := [][]float32{make([]float32, 1<<16), make([]float32, 1<<16)}
	models[0][0], models[1][0] = 1, 2
	mean := make([]float32, 1<<16)
	if err := modelavg.Mean(mean, models, modelavg.WithWorkers(0)); err != nil { // one per processor
		fmt.Println(err)
	}
	fmt.Println(mean[0])
	// Output: 1.5
}

// A sum in double-double keeps what float64 loses on the way.
func ExampleWithAccumulation() {
	models := [][]float64{{1e16}, {1}, {-1e16}}
	sum := make([]float64, 1)
	coefficients := []float64{1, 1, 1}
	if err := modelavg.WeightedSum(sum, models, coefficients); err != nil {
		fmt.Println(err)
	}
	fmt.Println("native:", sum[0])
	if err := modelavg.WeightedSum(sum, models, coefficients, modelavg.WithAccumulation(modelavg.Wider)); err != nil {
		fmt.Println(err)
	}
	fmt.Println("wider: ", sum[0])
	// Output:
	// native: 0
	// wider:  1
}

// 16-bit models are slices of bit patterns: 0x3f80 is 1 and 0x4000 is 2 in bfloat16.
func ExampleBFloat16() {
	models := [][]modelavg.BFloat16{{0x3f80, 0x4000}, {0x4000, 0x4000}}
	mean := make([]modelavg.BFloat16, 2)
	if err := modelavg.Mean(mean, models); err != nil {
		fmt.Println(err)
	}
	fmt.Printf("%v %#x\n", mean, uint16(mean[0]))
	// Output: [1.5 2] 0x3fc0
}

// 0x3c00 is 1 and 0x4000 is 2 in float16.
func ExampleFloat16() {
	models := [][]modelavg.Float16{{0x3c00, 0x4000}, {0x4000, 0x4000}}
	mean := make([]modelavg.Float16, 2)
	if err := modelavg.Mean(mean, models); err != nil {
		fmt.Println(err)
	}
	fmt.Printf("%v %#x\n", mean, uint16(mean[0]))
	// Output: [1.5 2] 0x3e00
}
