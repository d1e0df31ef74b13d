// Package modelavg averages the weights of machine-learning models: several models of one shape go in, one comes out.
//
// A model, or a tensor of it, is a slice of float32, float64, [Float16] or [BFloat16]:
//
//	err := modelavg.Mean(dst, [][]float32{a, b, c})
//	err := modelavg.WeightedMean(dst, models, []float64{0.2, 0.5, 0.3})
//	err := modelavg.ExponentialMean(dst, models, 0.9) // oldest first, newest last
//	err := modelavg.WeightedSum(dst, models, []float64{1, 0.4, -0.4})
//
// All four are a weight vector applied in a single pass over the models. Package weighting makes weight vectors, package
// kernel holds the loops, and packages merge and checkpoint do the same with model files.
//
// # Models one at a time
//
// Where the models are not at hand together, an [Accumulator] takes them as they come, as in federated averaging, and
// keeps one sum; [Sharded] takes them from many goroutines. An [EMA] follows a model while it trains.
//
//	sum, err := modelavg.NewAccumulator[float32](n)
//	err = sum.Add(model, samples) // for every client
//	err = sum.Mean(global)
//
// Sums can be merged, saved and restored. With WithAccumulation([Exact]) they do not depend on the order in which
// models came, and their mean is correctly rounded. [CheckFinite] looks for NaNs and infinities before a model is added.
//
// # Exactness
//
// float32 is summed in float64, Float16 and BFloat16 are summed in float32, and every result is rounded once, to nearest
// even. float64 is summed in float64, or in double-double with WithAccumulation(Wider). Models are added in the order
// given. The result has the same bits on every processor, for any number of workers and wherever the slices lie in
// memory; only the sign and payload of a NaN may differ. Averaging a float32 or 16-bit model with itself gives the same
// model, unless the sum of a [Mean] overflows.
//
// A model of weight zero is not read, so that its NaNs and infinities cannot reach the result.
//
// # Memory
//
// dst may be one of the models, to average in place; models may be the same slice or overlap one another. dst must not
// overlap a model in any other way. On an error nothing has been written. Calls on one goroutine do not
// allocate, but for a scratch buffer of 512 KiB that calls with more than 8 models share, for the weights of
// ExponentialMean, and for leaving out some of more than 64 models.
//
// # Workers
//
// A call computes on the goroutine it is made on. [WithWorkers] divides it among several, which pays when the models
// are larger than the caches and one processor cannot use all the bandwidth of the memory.
package modelavg
