package modelavg_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"sync"

	"github.com/modelavg/modelavg"
)

// A round of federated averaging: the clients' models come one at a time, with the number of samples that each was
// trained on, and none of them is kept.
func ExampleAccumulator() {
	sum, err := modelavg.NewAccumulator[float32](2)
	if err != nil {
		fmt.Println(err)
	}
	global := make([]float32, sum.Len())
	for round := range 2 {
		sum.Reset()
		shift := float32(round)
		for _, client := range []struct {
			model   []float32
			samples float64
		}{
			{[]float32{1 + shift, 0}, 1000},
			{[]float32{2 + shift, 0}, 500},
			{[]float32{float32(math.NaN()), 9}, 0}, // a client without samples is not read
			{[]float32{5 + shift, 4}, 500},
		} {
			if err := sum.Add(client.model, client.samples); err != nil {
				fmt.Println(err)
			}
		}
		if err := sum.Mean(global); err != nil {
			fmt.Println(err)
		}
		fmt.Println(global, "of", sum.Count(), "clients with", sum.Weight(), "samples")
	}
	// Output:
	// [2.25 1] of 3 clients with 2000 samples
	// [3.25 1] of 3 clients with 2000 samples
}

// When nobody had samples there is no mean, and the global model stays as it is.
func ExampleAccumulator_Mean() {
	sum, err := modelavg.NewAccumulator[float64](2)
	if err != nil {
		fmt.Println(err)
	}
	global := []float64{1, 2}
	err = sum.Mean(global)
	fmt.Println(errors.Is(err, modelavg.ErrNoWeight), global)
	// Output: true [1 2]
}

// Two servers add up their clients, and one of them averages all.
func ExampleAccumulator_Merge() {
	var servers [2]*modelavg.Accumulator[float32]
	for i := range servers {
		var err error
		if servers[i], err = modelavg.NewAccumulator[float32](1); err != nil {
			fmt.Println(err)
		}
	}
	clients := []float32{1, 2, 3, 6}
	for i, x := range clients {
		if err := servers[i%2].Add([]float32{x}, 1); err != nil {
			fmt.Println(err)
		}
	}
	if err := servers[0].Merge(servers[1]); err != nil {
		fmt.Println(err)
	}
	mean := make([]float32, 1)
	if err := servers[0].Mean(mean); err != nil {
		fmt.Println(err)
	}
	fmt.Println(mean, servers[0].Count())
	// Output: [3] 4
}

// A server that is stopped in the middle of a round goes on where it was.
func ExampleAccumulator_MarshalBinary() {
	sum, err := modelavg.NewAccumulator[float32](2)
	if err != nil {
		fmt.Println(err)
	}
	if err := sum.Add([]float32{1, 2}, 10); err != nil {
		fmt.Println(err)
	}
	state, err := sum.MarshalBinary()
	if err != nil {
		fmt.Println(err)
	}

	var restored modelavg.Accumulator[float32]
	if err := restored.UnmarshalBinary(state); err != nil {
		fmt.Println(err)
	}
	if err := restored.Add([]float32{4, 5}, 20); err != nil {
		fmt.Println(err)
	}
	mean := make([]float32, restored.Len())
	if err := restored.Mean(mean); err != nil {
		fmt.Println(err)
	}
	fmt.Println(mean)

	state[50] ^= 1 // a bit is damaged
	err = restored.UnmarshalBinary(state)
	fmt.Println(errors.Is(err, modelavg.ErrState), restored.Count())
	// Output:
	// [3 4]
	// true 2
}

// One buffer serves for every state that is saved.
func ExampleAccumulator_AppendBinary() {
	sum, err := modelavg.NewAccumulator[float64](1)
	if err != nil {
		fmt.Println(err)
	}
	var buffer []byte
	for range 3 {
		if err := sum.Add([]float64{1}, 1); err != nil {
			fmt.Println(err)
		}
		if buffer, err = sum.AppendBinary(buffer[:0]); err != nil {
			fmt.Println(err)
		}
	}
	var restored modelavg.Accumulator[float64]
	fmt.Println(restored.UnmarshalBinary(buffer), restored.Count())
	// Output: <nil> 3
}

// Sums that are rounded depend on the order; exact ones do not, nor do the bytes of their state.
func ExampleAccumulator_exact() {
	models := [][]float64{{1e16}, {1}, {-1e16}}
	for _, accumulation := range []modelavg.Accumulation{modelavg.DefaultAccumulation, modelavg.Exact} {
		var means []float64
		var states [][]byte
		for _, order := range [][]int{{0, 1, 2}, {0, 2, 1}} {
			sum, err := modelavg.NewAccumulator[float64](1, modelavg.WithAccumulation(accumulation))
			if err != nil {
				fmt.Println(err)
			}
			for _, k := range order {
				if err := sum.Add(models[k], 1); err != nil {
					fmt.Println(err)
				}
			}
			mean := make([]float64, 1)
			if err := sum.Mean(mean); err != nil {
				fmt.Println(err)
			}
			state, err := sum.MarshalBinary()
			if err != nil {
				fmt.Println(err)
			}
			means, states = append(means, mean...), append(states, state)
		}
		fmt.Printf("%.3f, the same state: %v\n", means, bytes.Equal(states[0], states[1]))
	}
	// Output:
	// [0.000 0.333], the same state: false
	// [0.333 0.333], the same state: true
}

// Clients are served by goroutines. With exact sums it cannot be seen which came first.
func ExampleSharded() {
	sum, err := modelavg.NewSharded[float32](1, 0, modelavg.WithAccumulation(modelavg.Exact))
	if err != nil {
		fmt.Println(err)
	}
	var clients sync.WaitGroup
	for i := range 100 {
		clients.Go(func() {
			model := []float32{1 / float32(1+i)}
			if err := sum.Add(model, float64(1+i)); err != nil {
				fmt.Println(err)
			}
		})
	}
	clients.Wait()
	mean := make([]float32, sum.Len())
	if err := sum.Mean(mean); err != nil {
		fmt.Println(err)
	}
	fmt.Println(mean, sum.Count(), sum.Weight())
	sum.Reset()
	fmt.Println(sum.Count())
	// Output:
	// [0.01980198] 100 5050
	// 0
}

// A Sharded takes over the state of an Accumulator, and its own state is that of one.
func ExampleSharded_Merge() {
	saved, err := modelavg.NewAccumulator[float32](1)
	if err != nil {
		fmt.Println(err)
	}
	if err := saved.Add([]float32{1}, 1); err != nil {
		fmt.Println(err)
	}
	sum, err := modelavg.NewSharded[float32](1, 4)
	if err != nil {
		fmt.Println(err)
	}
	if err := sum.Merge(saved); err != nil {
		fmt.Println(err)
	}
	if err := sum.Add([]float32{4}, 2); err != nil {
		fmt.Println(err)
	}
	state, err := sum.MarshalBinary()
	if err != nil {
		fmt.Println(err)
	}
	if err := saved.UnmarshalBinary(state); err != nil {
		fmt.Println(err)
	}
	mean := make([]float32, 1)
	if err := saved.Mean(mean); err != nil {
		fmt.Println(err)
	}
	fmt.Println(mean)
	// Output: [3]
}

// A client's model is refused before it can spoil the sum.
func ExampleCheckFinite() {
	model := []float32{1, 2, float32(math.Inf(1)), 4}
	err := modelavg.CheckFinite(model)
	fmt.Println(err)
	fmt.Println(errors.Is(err, modelavg.ErrNotFinite))
	// Output:
	// modelavg: not finite: element 2 of 4 is +Inf, want a finite number
	// true
}
