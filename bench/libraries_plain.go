package main

import "github.com/x448/float16"

// The loops in this file are what anyone would write, with the slices' lengths made equal so that the compiler drops its
// checks. 16-bit elements are summed in float32 and rounded once.

func plainLibraries() []library {
	return []library{
		{name: "go-passes", kind: plainGo, about: "Go loop, one pass for each model", prepare: preparePasses},
		{name: "go-onepass", kind: plainGo, about: "Go loop, one pass with a loop over the models inside", prepare: prepareOnePass},
		{name: "go-written-out", kind: plainGo, about: "Go loop, one pass with 2 or 4 models written out", prepare: prepareWrittenOut},
	}
}

type float interface{ float32 | float64 }

func preparePasses(a *arena, p point) func(int) {
	switch p.dtype {
	case float32s:
		return passes[float32](a, p)
	case float64s:
		return passes[float64](a, p)
	}
	return nil
}

func passes[T float](a *arena, p point) func(int) {
	o, w := carve[T](a, p), narrow[T](p.weights())
	if p.job == emaStep {
		return func(times int) {
			for range times {
				goScale(o.dst, o.dst, w[0])
				goAddScaled(o.dst, o.models[1], w[1])
			}
		}
	}
	return func(times int) {
		for range times {
			goScale(o.dst, o.models[0], w[0])
			for k, x := range o.models[1:] {
				goAddScaled(o.dst, x, w[k+1])
			}
		}
	}
}

func goScale[T float](dst, x []T, w T) {
	x = x[:len(dst)]
	for i := range dst {
		dst[i] = w * x[i]
	}
}

func goAddScaled[T float](dst, x []T, w T) {
	x = x[:len(dst)]
	for i := range dst {
		dst[i] += w * x[i]
	}
}

func prepareOnePass(a *arena, p point) func(int) {
	switch p.dtype {
	case float32s:
		return onePass[float32](a, p)
	case float64s:
		return onePass[float64](a, p)
	case float16s:
		o, w := carve[uint16](a, p), narrow[float32](p.weights())
		return func(times int) {
			for range times {
				goSumFloat16(o.dst, o.models, w)
			}
		}
	case bfloat16s:
		o, w := carve[uint16](a, p), narrow[float32](p.weights())
		return func(times int) {
			for range times {
				goSumBFloat16(o.dst, o.models, w)
			}
		}
	}
	return nil
}

func onePass[T float](a *arena, p point) func(int) {
	o, w := carve[T](a, p), narrow[T](p.weights())
	switch p.job {
	case emaStep:
		return func(times int) {
			for range times {
				goEMAStep(o.dst, o.models[1], w[1])
			}
		}
	case mean:
		return func(times int) {
			for range times {
				goMean(o.dst, o.models)
			}
		}
	}
	return func(times int) {
		for range times {
			goSum(o.dst, o.models, w)
		}
	}
}

func goEMAStep[T float](average, x []T, w T) {
	x = x[:len(average)]
	for i := range average {
		average[i] += w * (x[i] - average[i])
	}
}

func goMean[T float](dst []T, x [][]T) {
	for i := range dst {
		var sum T
		for k := range x {
			sum += x[k][i]
		}
		dst[i] = sum / T(len(x))
	}
}

func goSum[T float](dst []T, x [][]T, w []T) {
	x = x[:len(w)]
	for i := range dst {
		var sum T
		for k := range w {
			sum += w[k] * x[k][i]
		}
		dst[i] = sum
	}
}

func goSumFloat16(dst []uint16, x [][]uint16, w []float32) {
	x = x[:len(w)]
	for i := range dst {
		var sum float32
		for k := range w {
			sum += w[k] * float16.Frombits(x[k][i]).Float32()
		}
		dst[i] = float16.Fromfloat32(sum).Bits()
	}
}

func goSumBFloat16(dst []uint16, x [][]uint16, w []float32) {
	x = x[:len(w)]
	for i := range dst {
		var sum float32
		for k := range w {
			sum += w[k] * float32FromBFloat16(x[k][i])
		}
		dst[i] = bfloat16FromFloat32(sum)
	}
}

func prepareWrittenOut(a *arena, p point) func(int) {
	switch p.dtype {
	case float32s:
		return writtenOut[float32](a, p)
	case float64s:
		return writtenOut[float64](a, p)
	}
	return nil
}

func writtenOut[T float](a *arena, p point) func(int) {
	if p.job == emaStep || p.models != 2 && p.models != 4 {
		return nil
	}
	o, w := carve[T](a, p), narrow[T](p.weights())
	x := o.models
	if p.models == 2 {
		return func(times int) {
			for range times {
				goSum2(o.dst, x[0], x[1], w[0], w[1])
			}
		}
	}
	return func(times int) {
		for range times {
			goSum4(o.dst, x[0], x[1], x[2], x[3], w[0], w[1], w[2], w[3])
		}
	}
}

func goSum2[T float](dst, x0, x1 []T, w0, w1 T) {
	x0, x1 = x0[:len(dst)], x1[:len(dst)]
	for i := range dst {
		dst[i] = w0*x0[i] + w1*x1[i]
	}
}

func goSum4[T float](dst, x0, x1, x2, x3 []T, w0, w1, w2, w3 T) {
	x0, x1, x2, x3 = x0[:len(dst)], x1[:len(dst)], x2[:len(dst)], x3[:len(dst)]
	for i := range dst {
		dst[i] = w0*x0[i] + w1*x1[i] + w2*x2[i] + w3*x3[i]
	}
}

// narrow returns weights as T.
func narrow[T float](weights []float64) []T {
	w := make([]T, len(weights))
	for k, v := range weights {
		w[k] = T(v)
	}
	return w
}
