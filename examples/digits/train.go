package main

import (
	"math"
	"math/bits"
	"math/rand/v2"

	"github.com/modelavg/modelavg"
)

// The setting was chosen by the loss on the training images alone, see README.md. The learning rate is constant and
// rather high and the batches are small, so that the last checkpoints do not settle but wander around a minimum, which is
// where averaging them is meant to help (Izmailov et al., "Averaging Weights Leads to Wider Optima and Better
// Generalization", 2018).
const (
	epochs       = 50
	checkpoints  = 8 // the last ones, one after each epoch
	batch        = 8
	learningRate = 0.2

	// The decay of the moving average is PyTorch's default, and was not tried against others: an average over about a
	// thousand updates, nine epochs.
	movingDecay = 0.999
)

// train returns the networks after each of the last 8 epochs of a run of plain stochastic gradient descent, oldest first,
// and the moving average of the network after every update of the whole run. A seed gives the same bits in every run,
// whatever the processor. It calls progress, if not nil, after each epoch.
func train(digits []digit, seed uint64, progress func(epoch int, loss float64)) (saved []*network, average *network, err error) {
	random := rand.NewPCG(seed, 0)
	n := newNetwork()
	n.initialize(random)
	moving, err := newMovingAverage(n)
	if err != nil {
		return nil, nil, err
	}
	order := make([]int, len(digits))
	for i := range order {
		order[i] = i
	}
	for epoch := 1; epoch <= epochs; epoch++ {
		shuffle(order, random)
		// What does not fill the last batch sits out: two images would make the noisiest step the one before the checkpoint.
		for first := 0; first+batch <= len(order); first += batch {
			drawn := make([]digit, batch)
			for i, image := range order[first : first+batch] {
				drawn[i] = digits[image].shifted(below(3, random)-1, below(3, random)-1)
			}
			n.step(drawn)
			if err := moving.update(n); err != nil {
				return nil, nil, err
			}
		}
		if epoch > epochs-checkpoints {
			saved = append(saved, n.clone())
		}
		if progress != nil {
			_, loss := n.evaluate(digits)
			progress(epoch, loss)
		}
	}
	average, err = moving.network(n.steps)
	return saved, average, err
}

// A movingAverage holds a moving average of each tensor of a network.
type movingAverage []*modelavg.EMA[float32]

// newMovingAverage returns the average that starts with the network as it is before training.
func newMovingAverage(n *network) (movingAverage, error) {
	var m movingAverage
	for _, p := range n.parameters() {
		e, err := modelavg.NewEMA[float32](len(p.values), movingDecay)
		if err != nil {
			return nil, err
		}
		m = append(m, e)
	}
	return m, m.update(n)
}

// update takes in the network as it is now.
func (m movingAverage) update(n *network) error {
	for i, p := range n.parameters() {
		if err := m[i].Update(p.values); err != nil {
			return err
		}
	}
	return nil
}

// network returns the average, as a network after so many steps.
func (m movingAverage) network(steps int64) (*network, error) {
	n := newNetwork()
	n.steps = steps
	for i, p := range n.parameters() {
		if err := m[i].Average(p.values); err != nil {
			return nil, err
		}
	}
	return n, nil
}

// initialize draws every parameter uniformly from ±1/√(number of inputs of its layer), as PyTorch's Linear does.
func (n *network) initialize(random *rand.PCG) {
	inputs := map[string]float64{"fc1.weight": pixels, "fc1.bias": pixels, "fc2.weight": hidden, "fc2.bias": hidden}
	for _, p := range n.parameters() {
		bound := 1 / math.Sqrt(inputs[p.name])
		for i := range p.values {
			unit := float64(random.Uint64()>>11) / (1 << 53) // in [0, 1)
			p.values[i] = float32((2*unit - 1) * bound)
		}
	}
}

// shuffle permutes order at random (Fisher and Yates).
func shuffle(order []int, random *rand.PCG) {
	for i := len(order) - 1; i > 0; i-- {
		j := below(i+1, random)
		order[i], order[j] = order[j], order[i]
	}
}

// below returns a random integer in [0, n).
func below(n int, random *rand.PCG) int {
	high, _ := bits.Mul64(random.Uint64(), uint64(n))
	return int(high)
}

// shifted returns the digit moved down and to the right by so many pixels. What leaves the image is lost.
func (d *digit) shifted(down, right int) digit {
	s := digit{label: d.label}
	for y := range side {
		for x := range side {
			if fromY, fromX := y-down, x-right; fromY >= 0 && fromY < side && fromX >= 0 && fromX < side {
				s.pixel[y*side+x] = d.pixel[fromY*side+fromX]
			}
		}
	}
	return s
}

// step moves the parameters against the gradient of the mean cross-entropy of a batch of digits.
func (n *network) step(batch []digit) {
	var (
		fc1Weight [hidden * pixels]float64
		fc1Bias   [hidden]float64
		fc2Weight [classes * hidden]float64
		fc2Bias   [classes]float64
	)
	for i := range batch {
		d := &batch[i]
		a := n.forward(&d.pixel)
		var back [hidden]float64 // gradient at the hidden layer
		for j, p := range a.probabilities() {
			if j == d.label {
				p--
			}
			g := float64(float32(p)) // short enough for exact products
			fc2Bias[j] += g
			for k, h := range a.hidden {
				fc2Weight[j*hidden+k] += g * float64(h)
				back[k] += g * float64(n.fc2Weight[j*hidden+k])
			}
		}
		for k, h := range a.hidden {
			if h == 0 {
				continue
			}
			g := float64(float32(back[k]))
			fc1Bias[k] += g
			for m, x := range d.pixel {
				fc1Weight[k*pixels+m] += g * float64(x)
			}
		}
	}
	rate := learningRate / float64(len(batch))
	for _, u := range []struct {
		values   []float32
		gradient []float64
	}{
		{n.fc1Weight, fc1Weight[:]},
		{n.fc1Bias, fc1Bias[:]},
		{n.fc2Weight, fc2Weight[:]},
		{n.fc2Bias, fc2Bias[:]},
	} {
		for i, g := range u.gradient {
			u.values[i] = float32(float64(u.values[i]) - float64(rate*g))
		}
	}
	n.steps++
}

// clone returns a copy that shares no memory with n.
func (n *network) clone() *network {
	c := newNetwork()
	from := n.parameters()
	for i, p := range c.parameters() {
		copy(p.values, from[i].values)
	}
	c.steps = n.steps
	return c
}

// evaluate returns how many digits the network recognises and its mean cross-entropy on them.
func (n *network) evaluate(digits []digit) (correct int, loss float64) {
	for i := range digits {
		a := n.forward(&digits[i].pixel)
		if a.class() == digits[i].label {
			correct++
		}
		loss += a.crossEntropy(digits[i].label)
	}
	return correct, loss / float64(len(digits))
}
