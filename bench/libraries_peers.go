package main

import (
	tphakala16 "github.com/tphakala/simd/f16"
	tphakala32 "github.com/tphakala/simd/f32"
	tphakala64 "github.com/tphakala/simd/f64"
	"github.com/viterin/vek"
	"github.com/viterin/vek/vek32"
	"gonum.org/v1/gonum/blas/blas32"
	"gonum.org/v1/gonum/blas/blas64"
	"gorgonia.org/vecf32"
)

// Each peer does a job by the fastest combination of its own functions. The mean is a sum with weights of 1/K for those
// that scale and add in one pass: that saves them the division at the end.

func peerLibraries() []library {
	return []library{
		{name: "gonum", kind: peer, about: "gonum v0.17.0: clear, then Axpy for each model; Scal and Axpy for the EMA", prepare: prepareGonum},
		{name: "vek", kind: peer, about: "viterin/vek v0.4.3: MulNumber_Into and Add_Inplace for each model", prepare: prepareVek},
		{
			name: "tphakala", kind: peer, prepare: prepareTphakala,
			about: "tphakala/simd v1.3.0: Scale, then AddScaled for each model; float16 by way of float32, a cache's worth at a time",
		},
		{name: "vecf32", kind: peer, about: "gorgonia.org/vecf32 v0.9.0: IncrScale for each model", prepare: prepareVecf32},
	}
}

func prepareGonum(a *arena, p point) func(int) {
	switch p.dtype {
	case float32s:
		o, w := carve[float32](a, p), narrow[float32](p.weights())
		dst := blas32.Vector{N: p.n, Inc: 1, Data: o.dst}
		var x []blas32.Vector
		for _, m := range o.models {
			x = append(x, blas32.Vector{N: p.n, Inc: 1, Data: m})
		}
		if p.job == emaStep {
			return func(times int) {
				for range times {
					blas32.Scal(w[0], dst)
					blas32.Axpy(w[1], x[1], dst)
				}
			}
		}
		return func(times int) {
			for range times {
				clear(o.dst)
				for k := range x {
					blas32.Axpy(w[k], x[k], dst)
				}
			}
		}
	case float64s:
		o, w := carve[float64](a, p), p.weights()
		dst := blas64.Vector{N: p.n, Inc: 1, Data: o.dst}
		var x []blas64.Vector
		for _, m := range o.models {
			x = append(x, blas64.Vector{N: p.n, Inc: 1, Data: m})
		}
		if p.job == emaStep {
			return func(times int) {
				for range times {
					blas64.Scal(w[0], dst)
					blas64.Axpy(w[1], x[1], dst)
				}
			}
		}
		return func(times int) {
			for range times {
				clear(o.dst)
				for k := range x {
					blas64.Axpy(w[k], x[k], dst)
				}
			}
		}
	}
	return nil
}

func prepareVek(a *arena, p point) func(int) {
	switch p.dtype {
	case float32s:
		o, w := carve[float32](a, p), narrow[float32](p.weights())
		dst, x, t := o.dst, o.models, o.scratch
		switch p.job {
		case emaStep:
			return func(times int) {
				for range times {
					vek32.Sub_Into(t, x[1], dst)
					vek32.MulNumber_Inplace(t, w[1])
					vek32.Add_Inplace(dst, t)
				}
			}
		case mean:
			return func(times int) {
				for range times {
					vek32.Add_Into(dst, x[0], x[1])
					for _, m := range x[2:] {
						vek32.Add_Inplace(dst, m)
					}
					vek32.MulNumber_Inplace(dst, w[0])
				}
			}
		}
		return func(times int) {
			for range times {
				vek32.MulNumber_Into(dst, x[0], w[0])
				for k := 1; k < len(x); k++ {
					vek32.MulNumber_Into(t, x[k], w[k])
					vek32.Add_Inplace(dst, t)
				}
			}
		}
	case float64s:
		o, w := carve[float64](a, p), p.weights()
		dst, x, t := o.dst, o.models, o.scratch
		switch p.job {
		case emaStep:
			return func(times int) {
				for range times {
					vek.Sub_Into(t, x[1], dst)
					vek.MulNumber_Inplace(t, w[1])
					vek.Add_Inplace(dst, t)
				}
			}
		case mean:
			return func(times int) {
				for range times {
					vek.Add_Into(dst, x[0], x[1])
					for _, m := range x[2:] {
						vek.Add_Inplace(dst, m)
					}
					vek.MulNumber_Inplace(dst, w[0])
				}
			}
		}
		return func(times int) {
			for range times {
				vek.MulNumber_Into(dst, x[0], w[0])
				for k := 1; k < len(x); k++ {
					vek.MulNumber_Into(t, x[k], w[k])
					vek.Add_Inplace(dst, t)
				}
			}
		}
	}
	return nil
}

func prepareTphakala(a *arena, p point) func(int) {
	switch p.dtype {
	case float32s:
		o, w := carve[float32](a, p), narrow[float32](p.weights())
		dst, x := o.dst, o.models
		return func(times int) {
			for range times {
				tphakala32.Scale(dst, x[0], w[0]) // in place for the EMA, whose first model is dst
				for k := 1; k < len(x); k++ {
					tphakala32.AddScaled(dst, w[k], x[k])
				}
			}
		}
	case float64s:
		o, w := carve[float64](a, p), p.weights()
		dst, x := o.dst, o.models
		return func(times int) {
			for range times {
				tphakala64.Scale(dst, x[0], w[0])
				for k := 1; k < len(x); k++ {
					tphakala64.AddScaled(dst, w[k], x[k])
				}
			}
		}
	case float16s:
		// Its own AddScaled for float16 is a Go loop on amd64; converting is the fastest of its ways there.
		o, w := carve[uint16](a, p), narrow[float32](p.weights())
		dst, x := o.dst, o.models
		sum, wide := make([]float32, min(p.n, 2048)), make([]float32, min(p.n, 2048))
		return func(times int) {
			for range times {
				for i := 0; i < len(dst); i += len(sum) {
					j := min(i+len(sum), len(dst))
					s, t := sum[:j-i], wide[:j-i]
					tphakala16.ToFloat32Slice(t, x[0][i:j])
					tphakala32.Scale(s, t, w[0])
					for k := 1; k < len(x); k++ {
						tphakala16.ToFloat32Slice(t, x[k][i:j])
						tphakala32.AddScaled(s, w[k], t)
					}
					tphakala16.FromFloat32Slice(dst[i:j], s)
				}
			}
		}
	}
	return nil
}

func prepareVecf32(a *arena, p point) func(int) {
	if p.dtype != float32s {
		return nil
	}
	o, w := carve[float32](a, p), narrow[float32](p.weights())
	dst, x := o.dst, o.models
	switch p.job {
	case emaStep:
		return func(times int) {
			for range times {
				vecf32.Scale(dst, w[0])
				vecf32.IncrScale(x[1], w[1], dst)
			}
		}
	case mean:
		return func(times int) {
			for range times {
				copy(dst, x[0])
				for _, m := range x[1:] {
					vecf32.Add(dst, m)
				}
				vecf32.Scale(dst, w[0])
			}
		}
	}
	return func(times int) {
		for range times {
			clear(dst)
			for k := range x {
				vecf32.IncrScale(x[k], w[k], dst)
			}
		}
	}
}
