package main

import (
	"fmt"
	"math"
	"math/big"
	"unsafe"

	"github.com/x448/float16"
)

// precision is enough for the sum of products of any of the types to be exact in effect.
const precision = 300

// checkSeed makes the numbers of a check differ from those of a measurement, so that it cannot pass on what is left of one.
const checkSeed = 2

// checkLibrary runs l at p on fresh numbers and compares every element with what expect returned for p. done reports
// whether the library does the job of p at all.
func checkLibrary(a *arena, l library, p point, want []expectation) (done bool, err error) {
	if l.kind == mover || l.prepare(a, p) == nil {
		return false, nil
	}
	a.refill(p.dtype, checkSeed)
	l.prepare(a, p)(1)
	for i, w := range want {
		got := element(a, p, 0, i)
		if distance := math.Abs(got - w.value); !(distance <= w.tolerance) {
			return true, fmt.Errorf("%s, %v, element %d: got %v, want %v within %.3g", l.name, p, i, got, w.value, w.tolerance)
		}
	}
	return true, nil
}

type expectation struct{ value, tolerance float64 }

// expect returns the exact results of p on the numbers of a check. The tolerance is that of K+2 roundings of sums no larger
// than the sum of the magnitudes, and for 16-bit types one rounding of the result more.
func expect(a *arena, p point) []expectation {
	epsilon, result := 0x1p-24, 0.0
	switch p.dtype {
	case float64s:
		epsilon = 0x1p-53
	case float16s:
		result = 0x1p-11
	case bfloat16s:
		result = 0x1p-8
	}
	first := 1
	if p.job == emaStep {
		first = 0
	}
	a.refill(p.dtype, checkSeed)
	w := p.weights()
	want := make([]expectation, p.n)
	sum := new(big.Float).SetPrec(precision)
	var term, x big.Float
	for i := range want {
		sum.SetInt64(0)
		magnitude := 0.0
		for k := range p.models {
			v := element(a, p, first+k, i)
			term.SetPrec(precision).SetFloat64(w[k])
			sum.Add(sum, term.Mul(&term, x.SetFloat64(v)))
			magnitude += math.Abs(w[k] * v)
		}
		value, _ := sum.Float64()
		// 2⁻²⁵ is half of the least float16.
		want[i] = expectation{value, epsilon*float64(p.models+2)*magnitude + result*math.Abs(value)}
		if p.dtype == float16s {
			want[i].tolerance += 0x1p-25
		}
	}
	return want
}

// element returns element i of a stream of p: stream 0 is dst.
func element(a *arena, p point, stream, i int) float64 {
	at := unsafe.Pointer(&a.memory[stream*stride(p)+i*p.dtype.size()])
	switch p.dtype {
	case float64s:
		return *(*float64)(at)
	case float32s:
		return float64(*(*float32)(at))
	case float16s:
		return float64(float16.Frombits(*(*uint16)(at)).Float32())
	}
	return float64(float32FromBFloat16(*(*uint16)(at)))
}

// checkAll checks every library at every point, with lengths reduced to a limit, and returns how many comparisons were
// made.
func checkAll(list []library, points []point, limit int) (count int, err error) {
	seen := map[point]bool{}
	var small []point
	for _, p := range points {
		p.n = min(p.n, limit)
		if !seen[p] {
			seen[p] = true
			small = append(small, p)
		}
	}
	a, err := newArena(small, "system")
	if err != nil {
		return 0, err
	}
	for _, p := range small {
		want := expect(a, p)
		for _, l := range list {
			done, err := checkLibrary(a, l, p, want)
			if err != nil {
				return count, err
			}
			if done {
				count++
			}
		}
	}
	return count, nil
}
