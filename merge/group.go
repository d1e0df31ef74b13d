package merge

import (
	"fmt"
	"strconv"

	"github.com/modelavg/modelavg/weighting"
)

// A group is the models that a tensor comes from and their weights. Most tensors of a plan have the same one.
type group struct {
	sources []int     // of all models, ascending
	shares  []float64 // the effective weight of each, to be shown
	weights []float64 // what to calculate with; nil for a mean
}

// groups makes and keeps the groups of a plan.
type groups struct {
	weights []float64 // of all models; nil for a mean
	rules   []tensorWeights
	made    map[string]*group
	key     []byte // the last one
}

// of returns the group of a tensor for which rule counts, or the weights of the plan if that is -1. It is nil if the
// tensor is in no model that has a weight.
func (g *groups) of(c *candidate, rule int) (*group, error) {
	key := strconv.AppendInt(g.key[:0], int64(rule), 10)
	for _, d := range c.dtypes {
		present := byte(1)
		if d == 0 {
			present = 0
		}
		key = append(key, present)
	}
	g.key = key
	if made, ok := g.made[string(key)]; ok {
		return made, nil
	}
	weights := g.weights
	if rule >= 0 {
		weights = g.rules[rule].weights
	}
	made, err := newGroup(c, weights)
	if err != nil {
		return nil, fmt.Errorf("tensor %q: %w", c.tensor.Name, err)
	}
	g.made[string(key)] = made
	return made, nil
}

// newGroup makes a group of the models that have the tensor and a weight.
func newGroup(c *candidate, weights []float64) (*group, error) {
	g := new(group)
	for k, d := range c.dtypes {
		if d == 0 || weights != nil && weights[k] == 0 {
			continue
		}
		g.sources = append(g.sources, k)
		if weights != nil {
			g.weights = append(g.weights, weights[k])
		}
	}
	if len(g.sources) == 0 {
		return nil, nil
	}
	if weights == nil {
		shares, err := weighting.Uniform(len(g.sources))
		g.shares = shares
		return g, err
	}
	if !c.complete() {
		if err := renormalize(g.weights); err != nil {
			return nil, err
		}
	}
	g.shares = g.weights
	return g, nil
}

// renormalize divides the weights of the models that have a tensor by their sum.
func renormalize(weights []float64) error {
	shares, err := weighting.Normalized(weights)
	if err != nil { // some are negative
		var sum float64
		for _, w := range weights {
			sum += w
		}
		if sum == 0 {
			return fmt.Errorf("the weights %v of the models that have it cannot be divided by their sum, which is 0: %w",
				weights, weighting.ErrWeightSum)
		}
		shares = make([]float64, len(weights))
		for i, w := range weights {
			shares[i] = w / sum
		}
	}
	if err := weighting.Check(shares, len(shares)); err != nil {
		return fmt.Errorf("the weights %v of the models that have it cannot be divided by their sum: %w", weights, err)
	}
	copy(weights, shares)
	return nil
}
