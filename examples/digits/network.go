package main

import "math"

const hidden = 32

// A network is a classifier with one hidden layer: logits = fc2·max(0, fc1·x + bias) + bias.
//
// Parameters and activations are float32, sums run in float64 and are rounded once. A product of two float32 values is
// exact in float64, so a compiler that fuses the multiplication with the addition, as Go's does on arm64, cannot change a
// bit. Where a product is not exact, an explicit conversion keeps it from being fused.
type network struct {
	fc1Weight, fc1Bias []float32 // [hidden, pixels], [hidden]
	fc2Weight, fc2Bias []float32 // [classes, hidden], [classes]
	steps              int64     // updates made so far
}

func newNetwork() *network {
	return &network{
		fc1Weight: make([]float32, hidden*pixels),
		fc1Bias:   make([]float32, hidden),
		fc2Weight: make([]float32, classes*hidden),
		fc2Bias:   make([]float32, classes),
	}
}

// A parameter is one tensor of a network under the name that it has in a checkpoint.
type parameter struct {
	name   string
	shape  []int64
	values []float32
}

// parameters returns the network's tensors, always in the same order. The values are the network's own, not copies.
func (n *network) parameters() []parameter {
	return []parameter{
		{"fc1.weight", []int64{hidden, pixels}, n.fc1Weight},
		{"fc1.bias", []int64{hidden}, n.fc1Bias},
		{"fc2.weight", []int64{classes, hidden}, n.fc2Weight},
		{"fc2.bias", []int64{classes}, n.fc2Bias},
	}
}

// activations are what the network computes for one image.
type activations struct {
	hidden [hidden]float32
	logits [classes]float32
}

// forward runs the network on an image.
func (n *network) forward(image *[pixels]float32) (a activations) {
	for j := range a.hidden {
		a.hidden[j] = max(0, affine(n.fc1Weight[j*pixels:(j+1)*pixels], image[:], n.fc1Bias[j]))
	}
	for j := range a.logits {
		a.logits[j] = affine(n.fc2Weight[j*hidden:(j+1)*hidden], a.hidden[:], n.fc2Bias[j])
	}
	return a
}

// affine returns bias + Σ weight[i]·x[i], summed from left to right and rounded once.
func affine(weight, x []float32, bias float32) float32 {
	sum := float64(bias)
	for i, w := range weight {
		sum += float64(w) * float64(x[i])
	}
	return float32(sum)
}

// class returns the most probable digit, the smaller one of two equals.
func (a *activations) class() int {
	best := 0
	for j, logit := range a.logits {
		if logit > a.logits[best] {
			best = j
		}
	}
	return best
}

// probabilities returns the softmax of the logits.
func (a *activations) probabilities() (p [classes]float64) {
	largest := float64(a.logits[a.class()])
	sum := 0.0
	for j, logit := range a.logits {
		p[j] = exp(float64(logit) - largest)
		sum += p[j]
	}
	for j := range p {
		p[j] /= sum
	}
	return p
}

// crossEntropy returns −log of the probability of the label.
func (a *activations) crossEntropy(label int) float64 {
	largest := float64(a.logits[a.class()])
	sum := 0.0
	for _, logit := range a.logits {
		sum += exp(float64(logit) - largest)
	}
	return math.Log(sum) + largest - float64(a.logits[label])
}

// exp returns e**x for x ≤ 0. [math.Exp] is written in assembly for some processors and may differ in the last bit from
// one to the next; training repeats byte for byte only with a function that does not.
func exp(x float64) float64 {
	const (
		log2e = 1.44269504088896338700e+00
		// ln 2 in two parts, of which the first has so many trailing zeros that k times it is exact.
		ln2Hi = 6.93147180369123816490e-01
		ln2Lo = 1.90821492927058770002e-10
	)
	if x < -708 { // the result would be subnormal or zero; as a probability it is zero
		return 0
	}
	k := math.Floor(float64(x*log2e) + 0.5)
	r := x - float64(k*ln2Hi) - float64(k*ln2Lo) // |r| ≤ ln(2)/2
	// The Taylor series, 1 + r(1 + r/2(1 + r/3(…))): the first term left out is below 2e-17.
	sum := 1.0
	for i := 13.0; i > 0; i-- {
		sum = 1 + float64(r*sum)/i
	}
	return math.Ldexp(sum, int(k))
}
