// Package weighting makes weight vectors: one number per model, for a weighted sum of models.
//
// Every vector is ordered oldest model first, newest last, as a list of checkpoints is written, and sums to one. The
// functions differ only in who gets the larger share:
//
//	Uniform            every model the same
//	Normalized         numbers of any scale, such as validation scores
//	Counts             models trained on different numbers of samples (federated averaging)
//	Geometric          decay^age: the exponentially weighted mean of a list of files
//	HalfLife           the same, given by the age at which the weight has halved
//	EMA                what a training loop's moving average leaves, which starts from a copy of the first model
//	Linear             1, 2, 3, …, n
//	Power, PowerSigma  the power-function moving average of EDM2
//	ArticleRecurrence  a published recurrence, kept for reproduction; it favours the oldest model when decay > ½
//
// Those that take a number of models n take at most 2³⁰ (2²⁵ where int has 32 bits); a greater one is an error that wraps [ErrTooMany].
//
// # Exactness
//
// Formulas are evaluated in double-double arithmetic (at least 95 bits) and rounded once, so each weight is the float64
// nearest to the exact value, but for ties too close to call. Two properties follow. The exact sum of a vector differs
// from one by at most 2⁻⁵³ in relative terms, whatever its length, so no correction of one weight at the expense of
// the others is needed. And a vector has the same bits on every processor. Only weights near the least normal float64,
// 2⁻¹⁰²², have fewer bits; smaller ones end in zero.
package weighting
