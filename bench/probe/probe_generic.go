//go:build !amd64 || purego || noasm

package probe

// Reads returns the probes that read.
func Reads() []Probe { return goReads() }

// Copies returns the probes that read src and write dst; there is none here beside Go's own copy.
func Copies() []Probe { return nil }

// Updates returns the probes that read dst and src and write dst back as it was.
func Updates() []Probe { return goUpdates() }

// Call takes the arguments of a weighted sum and returns: the cheapest possible call of a function.
func Call(dst []float32, x [][]float32, w []float64, times int) {
	for range times {
		call(dst, x, w)
	}
}

//go:noinline
func call([]float32, [][]float32, []float64) {}
