package weighting_test

import (
	"fmt"

	"github.com/modelavg/modelavg/weighting"
)

// A moving average of a single number, by hand.
func ExampleCorrectedDecay() {
	average := 0.0
	for i, x := range []float64{10, 20, 30} {
		kept, added := weighting.CorrectedDecay(int64(i+1), 0.9)
		average = kept*average + added*x
		fmt.Printf("kept %.4f, added %.4f: average %.4f\n", kept, added, average)
	}
	// Output:
	// kept 0.0000, added 1.0000: average 10.0000
	// kept 0.4737, added 0.5263: average 15.2632
	// kept 0.6310, added 0.3690: average 20.7011
}

func ExampleInverseGammaDecay() {
	for _, t := range []int64{1, 2, 10, 100, 1000} {
		kept, _ := weighting.InverseGammaDecay(t, 1, 2.0/3)
		fmt.Printf("update %d: decay %.4f\n", t, kept)
	}
	// Output:
	// update 1: decay 0.0000
	// update 2: decay 0.3700
	// update 10: decay 0.7846
	// update 100: decay 0.9536
	// update 1000: decay 0.9900
}

func ExamplePowerDecay() {
	for _, t := range []int64{1, 2, 10, 100, 1000} {
		kept, _ := weighting.PowerDecay(t, 6.94) // a width of 0.10
		fmt.Printf("update %d: decay %.4f\n", t, kept)
	}
	// Output:
	// update 1: decay 0.0000
	// update 2: decay 0.0041
	// update 10: decay 0.4332
	// update 100: decay 0.9233
	// update 1000: decay 0.9921
}

func ExampleHalfLifeDecay() {
	decay, err := weighting.HalfLifeDecay(1000)
	fmt.Printf("%.6f %v\n", decay, err)
	// Output: 0.999307 <nil>
}

func ExamplePowerGamma() {
	gamma, err := weighting.PowerGamma(0.10)
	fmt.Printf("%.2f %v\n", gamma, err)
	// Output: 6.94 <nil>
}
