package modelavg_test

import (
	"fmt"

	"github.com/modelavg/modelavg"
)

// The model is averaged while it trains; at the end the average is what is evaluated and saved.
func ExampleEMA() {
	weights := []float32{0, 0} // of the model in training
	ema, err := modelavg.NewEMA[float32](len(weights), 0.9)
	if err != nil {
		fmt.Println(err)
		return
	}
	for step := range 5 {
		weights[0] = float32(step)
		weights[1] = float32(step % 2) // a weight that wanders around a half
		if err := ema.Update(weights); err != nil {
			fmt.Println(err)
		}
	}
	average := make([]float32, len(weights))
	if err := ema.Average(average); err != nil {
		fmt.Println(err)
	}
	fmt.Printf("%.4f after %d updates of %d weights\n", average, ema.Updates(), ema.Len())
	// Output: [0.9049 0.1629] after 5 updates of 2 weights
}

// What decay 0.9 does in three updates: the first model is copied.
func ExampleNewEMA() {
	ema, err := modelavg.NewEMA[float64](1, 0.9)
	if err != nil {
		fmt.Println(err)
		return
	}
	average := make([]float64, 1)
	for _, model := range [][]float64{{10}, {20}, {30}} {
		if err := ema.Update(model); err != nil {
			fmt.Println(err)
		}
		if err := ema.Average(average); err != nil {
			fmt.Println(err)
		}
		fmt.Printf("%.2f\n", average[0])
	}
	_, err = modelavg.NewEMA[float64](1, 1.5)
	fmt.Println(err)
	// Output:
	// 10.00
	// 11.00
	// 12.90
	// modelavg: decay out of range: got 1.5, want 0 to 1
}

func ExampleNewEMAHalfLife() {
	ema, err := modelavg.NewEMAHalfLife[float32](1, 2) // after two updates a model has half of its weight
	if err != nil {
		fmt.Println(err)
		return
	}
	average := make([]float32, 1)
	for _, model := range [][]float32{{1}, {0}, {0}, {0}, {0}} {
		if err := ema.Update(model); err != nil {
			fmt.Println(err)
		}
	}
	if err := ema.Average(average); err != nil {
		fmt.Println(err)
	}
	fmt.Println(average)
	// Output: [0.25]
}

func ExampleNewEMAPower() {
	for _, gamma := range []float64{0, 1} {
		ema, err := modelavg.NewEMAPower[float32](1, gamma)
		if err != nil {
			fmt.Println(err)
			return
		}
		average := make([]float32, 1)
		for _, model := range [][]float32{{1}, {2}, {3}, {4}} {
			if err := ema.Update(model); err != nil {
				fmt.Println(err)
			}
		}
		if err := ema.Average(average); err != nil {
			fmt.Println(err)
		}
		fmt.Println("gamma", gamma, "average", average)
	}
	// Output:
	// gamma 0 average [2.5]
	// gamma 1 average [3.125]
}

func ExampleNewEMAPowerSigma() {
	ema, err := modelavg.NewEMAPowerSigma[float32](1000, 0.05)
	if err != nil {
		fmt.Println(err)
		return
	}
	model := make([]float32, 1000)
	for range 99 {
		if err := ema.Update(model); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Printf("update 100 has decay %.4f\n", ema.Decay())
	// Output: update 100 has decay 0.8347
}

// The same models with and without the correction: without it the first one has the weight of all that came before.
func ExampleWithBiasCorrection() {
	for _, options := range [][]modelavg.EMAOption{nil, {modelavg.WithBiasCorrection()}} {
		ema, err := modelavg.NewEMA[float64](1, 0.8, options...)
		if err != nil {
			fmt.Println(err)
			return
		}
		for _, model := range [][]float64{{1}, {2}, {3}} {
			if err := ema.Update(model); err != nil {
				fmt.Println(err)
			}
		}
		average := make([]float64, 1)
		if err := ema.Average(average); err != nil {
			fmt.Println(err)
		}
		fmt.Printf("%.4f\n", average[0])
	}
	// Output:
	// 1.5600
	// 2.1475
}

func printDecays(ema *modelavg.EMA[float32], err error) {
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, t := range []int64{1, 2, 3, 10, 100} {
		for ema.Updates()+1 < t {
			if err := ema.Update([]float32{1}); err != nil {
				fmt.Println(err)
			}
		}
		fmt.Printf("update %d: decay %.4f\n", t, ema.Decay())
	}
}

func ExampleWithWarmup() {
	printDecays(modelavg.NewEMA[float32](1, 0.9, modelavg.WithWarmup()))
	// Output:
	// update 1: decay 0.0000
	// update 2: decay 0.1818
	// update 3: decay 0.2500
	// update 10: decay 0.5263
	// update 100: decay 0.9000
}

func ExampleWithInverseGammaWarmup() {
	printDecays(modelavg.NewEMA[float32](1, 0.999, modelavg.WithInverseGammaWarmup(1, 2.0/3)))
	// Output:
	// update 1: decay 0.0000
	// update 2: decay 0.3700
	// update 3: decay 0.5193
	// update 10: decay 0.7846
	// update 100: decay 0.9536
}

// A training run that is interrupted goes on with the same average, bit for bit.
func ExampleEMA_MarshalBinary() {
	ema, err := modelavg.NewEMA[modelavg.BFloat16](1, 0.999)
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := ema.Update([]modelavg.BFloat16{modelavg.NewBFloat16(1.5)}); err != nil {
		fmt.Println(err)
	}
	state, err := ema.MarshalBinary()
	if err != nil {
		fmt.Println(err)
	}

	var restored modelavg.EMA[modelavg.BFloat16]
	if err := restored.UnmarshalBinary(state); err != nil {
		fmt.Println(err)
	}
	average := make([]modelavg.BFloat16, restored.Len())
	if err := restored.Average(average); err != nil {
		fmt.Println(err)
	}
	fmt.Println(average, "after", restored.Updates(), "update, next decay", restored.Decay())

	state[len(state)-8] ^= 1
	fmt.Println(restored.UnmarshalBinary(state) != nil)
	// Output:
	// [1.5] after 1 update, next decay 0.999
	// true
}

// A buffer that is used again spares the allocation.
func ExampleEMA_AppendBinary() {
	ema, err := modelavg.NewEMA[float32](2, 0.999)
	if err != nil {
		fmt.Println(err)
		return
	}
	buffer, err := ema.AppendBinary(nil)
	if err != nil {
		fmt.Println(err)
	}
	buffer, err = ema.AppendBinary(buffer[:0])
	fmt.Println(len(buffer), err)
	// Output: 84 <nil>
}

func ExampleEMA_Reset() {
	ema, err := modelavg.NewEMA[float32](1, 0.5)
	if err != nil {
		fmt.Println(err)
		return
	}
	average := make([]float32, 1)
	for _, model := range [][]float32{{100}, {200}} {
		ema.Reset()
		if err := ema.Update(model); err != nil {
			fmt.Println(err)
		}
	}
	if err := ema.Average(average); err != nil {
		fmt.Println(err)
	}
	fmt.Println(average, ema.Updates())
	// Output: [200] 1
}
