package main

import (
	"github.com/modelavg/modelavg"
	"github.com/modelavg/modelavg/kernel"
)

// The names of our own libraries; report compares the others with the first.
const (
	ourName       = "modelavg"
	ourNativeName = "modelavg-native"
	ourWiderName  = "modelavg-wider"
)

// workersName is the library that runs on all processors.
const workersName = "modelavg-workers"

func ourLibraries() []library {
	return []library{
		{name: ourName, about: "kernels that the API uses by default", prepare: prepareOurs},
		{name: ourNativeName, about: "kernels that accumulate float32 in float32", prepare: prepareNative},
		{name: ourWiderName, about: "kernels that accumulate float64 in double-double", prepare: prepareWider},
		{name: "modelavg-api", about: "package modelavg, which checks its arguments", prepare: prepareAPI(), optional: true},
		{
			name: workersName, about: "package modelavg on all processors; its limit is not measured",
			prepare: prepareAPI(modelavg.WithWorkers(0)), optional: true,
		},
	}
}

func prepareOurs(a *arena, p point) func(int) {
	w := p.weights()
	switch p.dtype {
	case float32s:
		o := carve[float32](a, p)
		dst, x := o.dst, o.models
		if p.job == mean {
			return func(times int) {
				for range times {
					kernel.MeanFloat32(dst, x)
				}
			}
		}
		return func(times int) {
			for range times {
				kernel.WeightedSumFloat32(dst, x, w)
			}
		}
	case float64s:
		o := carve[float64](a, p)
		dst, x := o.dst, o.models
		if p.job == mean {
			return func(times int) {
				for range times {
					kernel.MeanFloat64(dst, x)
				}
			}
		}
		return func(times int) {
			for range times {
				kernel.WeightedSumFloat64(dst, x, w)
			}
		}
	case float16s:
		o := carve[uint16](a, p)
		dst, x := o.dst, o.models
		if p.job == mean {
			return func(times int) {
				for range times {
					kernel.MeanFloat16(dst, x)
				}
			}
		}
		return func(times int) {
			for range times {
				kernel.WeightedSumFloat16(dst, x, w)
			}
		}
	case bfloat16s:
		o := carve[uint16](a, p)
		dst, x := o.dst, o.models
		if p.job == mean {
			return func(times int) {
				for range times {
					kernel.MeanBFloat16(dst, x)
				}
			}
		}
		return func(times int) {
			for range times {
				kernel.WeightedSumBFloat16(dst, x, w)
			}
		}
	}
	return nil
}

func prepareNative(a *arena, p point) func(int) {
	if p.dtype != float32s {
		return nil
	}
	o, w := carve[float32](a, p), p.weights()
	dst, x := o.dst, o.models
	if p.job == mean {
		return func(times int) {
			for range times {
				kernel.MeanFloat32Native(dst, x)
			}
		}
	}
	return func(times int) {
		for range times {
			kernel.WeightedSumFloat32Native(dst, x, w)
		}
	}
}

func prepareWider(a *arena, p point) func(int) {
	if p.dtype != float64s {
		return nil
	}
	o, w := carve[float64](a, p), p.weights()
	dst, x := o.dst, o.models
	if p.job == mean {
		return func(times int) {
			for range times {
				kernel.MeanFloat64Wider(dst, x)
			}
		}
	}
	return func(times int) {
		for range times {
			kernel.WeightedSumFloat64Wider(dst, x, w)
		}
	}
}

func prepareAPI(options ...modelavg.Option) func(*arena, point) func(int) {
	return func(a *arena, p point) func(int) {
		switch p.dtype {
		case float32s:
			return callAPI[float32](a, p, options)
		case float64s:
			return callAPI[float64](a, p, options)
		case float16s:
			return callAPI[modelavg.Float16](a, p, options)
		case bfloat16s:
			return callAPI[modelavg.BFloat16](a, p, options)
		}
		return nil
	}
}

func callAPI[T modelavg.Element](a *arena, p point, options []modelavg.Option) func(int) {
	o, w := carve[T](a, p), p.weights()
	dst, x := o.dst, o.models
	if p.job == mean {
		return func(times int) {
			for range times {
				if err := modelavg.Mean(dst, x, options...); err != nil {
					panic(err)
				}
			}
		}
	}
	return func(times int) {
		for range times {
			if err := modelavg.WeightedSum(dst, x, w, options...); err != nil {
				panic(err)
			}
		}
	}
}
