package weighting_test

import (
	"fmt"

	"github.com/modelavg/modelavg/weighting"
)

func show(w []float64, err error) {
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%.4f\n", w)
}

func ExampleUniform() {
	show(weighting.Uniform(4))
	// Output: [0.2500 0.2500 0.2500 0.2500]
}

func ExampleNormalized() {
	show(weighting.Normalized([]float64{71.5, 74.0, 72.5})) // validation accuracies
	show(weighting.Normalized([]float64{71.5, -1}))
	// Output:
	// [0.3280 0.3394 0.3326]
	// weighting: invalid weight: weight 1 is -1, want a finite number, not negative
}

func ExampleCounts() {
	show(weighting.Counts([]int64{600, 0, 1400})) // samples seen by three clients
	// Output: [0.3000 0.0000 0.7000]
}

func ExampleGeometric() {
	show(weighting.Geometric(3, 0.8))
	show(weighting.Geometric(3, 0)) // the newest only
	show(weighting.Geometric(3, 1)) // the plain mean
	// Output:
	// [0.2623 0.3279 0.4098]
	// [0.0000 0.0000 1.0000]
	// [0.3333 0.3333 0.3333]
}

func ExampleHalfLife() {
	show(weighting.HalfLife(3, 1)) // every step back halves the weight
	// Output: [0.1429 0.2857 0.5714]
}

func ExampleEMA() {
	show(weighting.EMA(3, 0.8))
	// Output: [0.6400 0.1600 0.2000]
}

func ExampleLinear() {
	show(weighting.Linear(4))
	// Output: [0.1000 0.2000 0.3000 0.4000]
}

func ExamplePower() {
	show(weighting.Power(4, 0)) // the plain mean
	show(weighting.Power(4, 1))
	// Output:
	// [0.2500 0.2500 0.2500 0.2500]
	// [0.0625 0.1875 0.3125 0.4375]
}

func ExamplePowerSigma() {
	show(weighting.PowerSigma(5, 0.2))
	// Output: [0.0106 0.0645 0.1610 0.2962 0.4678]
}

func ExampleArticleRecurrence() {
	show(weighting.ArticleRecurrence(3, 0.8)) // the oldest has the most
	show(weighting.ArticleRecurrence(3, 0.4))
	// Output:
	// [0.6400 0.2880 0.0720]
	// [0.1600 0.3360 0.5040]
}

func ExampleCheck() {
	fmt.Println(weighting.Check([]float64{0.2, 0.5, 0.3}, 3))
	fmt.Println(weighting.Check([]float64{0.2, 0.5, 0.4}, 3))
	fmt.Println(weighting.Check([]float64{0.5, 0.5}, 3))
	// Output:
	// <nil>
	// weighting: weights do not sum to one: got a sum of 1.1, want 1 ± 1.001e-05
	// weighting: wrong number of weights: got 2 weights for 3 models, want one per model
}
