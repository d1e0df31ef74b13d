package modelavg

import (
	"fmt"
	"math"
	"sync"
	"unsafe"

	"github.com/modelavg/modelavg/kernel"
	"github.com/modelavg/modelavg/weighting"
)

// An EMA is the exponential moving average of a model while it trains. Each Update takes in the model as it is then,
//
//	a ← decay·a + (1−decay)·model
//
// and Average gives a. The first Update copies the model, so that the average starts where the training starts; from
// then on it has the weights of [weighting.EMA]. Options change the start, other constructors the rule.
//
// # Exactness
//
// The state is float64 for float32 and float64 elements. For 16-bit elements it is float32 up to a decay of 1−2⁻¹⁴ for
// BFloat16 and 1−2⁻¹¹ for Float16, where the roundings of all updates together stay below about a quarter of an ulp of
// the models' size; it is float64 above, and always with [NewEMAPower], and then rounded to float32 before T. So the
// average moves however close to one the decay is, where one that is held in 16 bits stands still.
//
// What is kept is not a but the sum s = Σ w·model and its weight W = Σ w, with weights that grow by 1/decay from update
// to update, and a = s/W. An update so is a single fused multiply-add for every element, which rounds once, and does
// not stall at small differences. Where W has grown enough, both are multiplied by a power of two, which is exact. With
// u = 2⁻⁵³ for a float64 state and 2⁻²⁴ for a float32 one, the average before its rounding to T is within
//
//	u · Σ (5·age + 8) · ω · |model|
//
// of the exact one, in which ω are the exact weights and age is the number of updates since; for models of ordinary
// size about 5u/(1−decay). Numbers that are hardly above zero are rounded to multiples of the smallest one: that adds
// less than 2⁻¹³¹/(1−decay) to the bound of a float32 state, and less than 2⁻¹⁰¹²/(1−decay) to that of a float64 one,
// whatever the elements are; or 2⁻¹³¹ and 2⁻¹⁰¹² for each update where these are fewer than 1/(1−decay). The result has
// the same bits on every processor and for any number of workers, but for the sign and payload of a NaN.
//
// The sum of finite models does not overflow, as its weight is at most one. The average does where it is nearer to the
// greatest number of T than the bound: that of models with the element [math.MaxFloat64] may come out as an infinity,
// as it does at the second update with a decay of 0.9999. The next average that is smaller is finite again.
//
// A NaN or an infinity in a model stays in the average of its element until [EMA.Reset], as in every moving average. An
// update to which the rule gives no weight (a decay of 1) does not read the model, and one that keeps nothing (a decay
// of 0, the first update) does not read the old average.
//
// # Use by several goroutines
//
// All methods may be called at the same time. They follow one another: an Average that runs while the training goes on
// holds the next Update up, and contains each update wholly or not at all. The model is the caller's: nobody may write
// to it during Update.
//
// The zero EMA has no elements; [EMA.UnmarshalBinary] gives it some. An EMA must not be copied.
type EMA[T Element] struct {
	mu      sync.RWMutex
	rule    rule
	n       int
	wide    []float64 // the sum s, or
	narrow  []float32 // the sum s
	total   float64   // the weight W of the sum, at most 1 and 0 only before the first update
	updates int64
}

// An EMAOption changes how an [EMA] starts. It is a plain value; the zero EMAOption changes nothing, and of several
// the last one holds.
type EMAOption struct {
	kind                   ruleKind
	inverseGamma, exponent float64
}

// WithBiasCorrection makes the average start from nothing instead of from a copy of the first model, and divides it by
// the weight that it has:
//
//	m ← decay·m + (1−decay)·model from m = 0,   average = m / (1 − decay^t) after t updates
//
// Every model then has decay^age as its relative weight, the first one as well: the weights of [weighting.Geometric].
// It is the rule of Adam (Kingma and Ba, 2015, section 3) and of optax.ema with debias.
func WithBiasCorrection() EMAOption { return EMAOption{kind: correctedRule} }

// WithWarmup makes the average follow the training closely at first. After the first update, which copies, update t =
// 2, 3, … has the decay
//
//	min(decay, t/(9+t))
//
// With the number of updates before this one for n, t−1, this is min(decay, (1+n)/(10+n)), as of
// tf.train.ExponentialMovingAverage with num_updates, and of diffusers' EMAModel. torch_ema counts alike if the model
// that it is made with is the first update here. A decay of 0.999 is reached at t = 8991.
func WithWarmup() EMAOption { return EMAOption{kind: warmupRule} }

// WithInverseGammaWarmup makes the average follow the training closely at first, for longer than [WithWarmup] does.
// Update t = 1, 2, … has the decay
//
//	min(decay, 1 − (1 + (t−1)/inverseGamma)^−exponent)
//
// which is 0 for the first update: it copies. Diffusers (use_ema_warmup), timm (use_warmup) and ema-pytorch know the
// rule, with defaults of 1 and 2/3 for inverseGamma and the exponent, which they call power: a decay of 0.999 is then
// reached after 31,600 updates, and one of 0.9999 after a million. With 3/4 it is 10,000 and 215,400. With 1 and 1 the
// average is the plain mean until the decay is reached.
//
// With a decay of 1, or nearly 1, the share of a new model becomes as small as the warm-up makes it, far below half an
// ulp of one too. A share below 2⁻⁹⁶⁰ loses bits or is taken for zero.
//
// Unless both are positive and finite the constructor returns an error that wraps [ErrOption].
func WithInverseGammaWarmup(inverseGamma, exponent float64) EMAOption {
	return EMAOption{kind: inverseGammaRule, inverseGamma: inverseGamma, exponent: exponent}
}

// NewEMA returns the moving average of a model of n elements. decay, from 0 to 1, is what the past keeps at an update:
// usual values run from 0.9, an average over about ten updates, to 0.9999, over about ten thousand. At 0 the average is
// the newest model and at 1 the first one.
//
// NewEMA allocates all the memory that the average ever needs: 8 bytes for every element, or 4 (see [EMA]). The error
// wraps [ErrDecay], [ErrLength] unless n is at least 0, or [ErrOption].
func NewEMA[T Element](n int, decay float64, options ...EMAOption) (*EMA[T], error) {
	r := rule{kind: constantRule, decay: decay}
	for _, o := range options {
		if o.kind != noRule {
			r.kind, r.inverseGamma, r.exponent = o.kind, o.inverseGamma, o.exponent
		}
	}
	return newEMA[T](n, r)
}

// NewEMAHalfLife returns the moving average of a model of n elements in which the weight of a model halves in halfLife
// updates: [NewEMA] with a decay of 2^(−1/halfLife). For an average that is updated every k steps of training, halfLife
// is the steps divided by k. The error wraps [ErrHalfLife] unless halfLife is positive and finite, [ErrLength] or
// [ErrOption].
func NewEMAHalfLife[T Element](n int, halfLife float64, options ...EMAOption) (*EMA[T], error) {
	decay, err := weighting.HalfLifeDecay(halfLife)
	if err != nil {
		return nil, fmt.Errorf("modelavg: %w", err)
	}
	return NewEMA[T](n, decay, options...)
}

// NewEMAPower returns the power-function moving average of a model of n elements. Update t = 1, 2, … has the decay
//
//	(1 − 1/t)^(gamma+1)
//
// so that the average looks back over a fixed fraction of the training, not over a fixed number of updates; it needs no
// warm-up. It has the weights of [weighting.Power]: gamma 0 is the plain mean of all models, and a greater gamma looks
// less far back. The rule is equation 127 of Karras et al., "Analyzing and Improving the Training Dynamics of Diffusion
// Models" (EDM2, 2024). The error wraps [ErrGamma] unless gamma is finite and at least 0, or [ErrLength].
func NewEMAPower[T Element](n int, gamma float64) (*EMA[T], error) {
	return newEMA[T](n, rule{kind: powerRule, exponent: gamma})
}

// NewEMAPowerSigma is [NewEMAPower] for an average of the relative width sigma, which [weighting.PowerSigma] defines.
// EDM2 tracks 0.05 and 0.10. The error wraps [ErrSigma] unless 0 < sigma ≤ 1/√12, or [ErrLength].
func NewEMAPowerSigma[T Element](n int, sigma float64) (*EMA[T], error) {
	gamma, err := weighting.PowerGamma(sigma)
	if err != nil {
		return nil, fmt.Errorf("modelavg: %w", err)
	}
	return NewEMAPower[T](n, gamma)
}

// maxElements is the greatest length of an average: 128 TiB of state. Memory for more would end the process.
const maxElements = min(1<<44, math.MaxInt/64)

func newEMA[T Element](n int, r rule) (*EMA[T], error) {
	if n < 0 || n > maxElements {
		return nil, fmt.Errorf("modelavg: %w: got n = %d, want 0 to %d", ErrLength, n, int64(maxElements))
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	e := &EMA[T]{rule: r, n: n}
	if narrowState[T](r) {
		e.narrow = make([]float32, n)
	} else {
		e.wide = make([]float64, n)
	}
	return e, nil
}

// narrowState reports whether the sum is held in float32. The rounding of each of its steps is at most 2⁻²⁴ of it, and
// they add up to 2⁻²⁴/added. A quarter of an ulp of a number of p bits is at least 2^−(p+2) of it.
func narrowState[T Element](r rule) bool {
	precision := 0
	switch any(*new(T)).(type) {
	case Float16:
		precision = 11
	case BFloat16:
		precision = 8
	default:
		return false
	}
	return r.leastAdded() >= math.Ldexp(1, precision-22)
}

// spanOf returns the span of the sum's weight, and whether the sum is held in float32.
func spanOf[T Element](r rule) (span int, narrow bool) {
	if narrowState[T](r) {
		return narrowSpan, true
	}
	return wideSpan, false
}

// Update takes in the model as it is now. The decay is that of the rule for update number [EMA.Updates]+1; the first
// update copies the model.
//
// model must have as many elements as the average, is only read, and may change after the call. Without [WithWorkers]
// the call does not allocate. The error wraps [ErrLength], or [ErrOption], also for [WithAccumulation]; the average is
// then as it was.
func (e *EMA[T]) Update(model []T, options ...Option) error {
	workers, err := emaWorkers(options)
	if err != nil {
		return err
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(model) != e.n {
		return fmt.Errorf("modelavg: %w: the model has %d elements, want %d as in the average",
			ErrLength, len(model), e.n)
	}
	s := e.next()
	if s.added != 0 {
		if workers = e.parts(workers); workers > 1 {
			e.updateParallel(model, s, workers)
		} else {
			e.update(model, s, 0, e.n)
		}
	}
	e.total = s.total
	e.updates++
	return nil
}

// Average sets dst to the average, rounded to T. The moving average goes on as if it had not been asked.
//
// dst must have as many elements as the average. Without [WithWorkers] the call does not allocate. The error wraps
// [ErrLength], [ErrNoModels] before the first update, or [ErrOption], also for [WithAccumulation]; dst is then as it
// was.
func (e *EMA[T]) Average(dst []T, options ...Option) error {
	workers, err := emaWorkers(options)
	if err != nil {
		return err
	}
	e.mu.RLock()
	defer e.mu.RUnlock()
	if len(dst) != e.n {
		return fmt.Errorf("modelavg: %w: dst has %d elements, want %d as in the average", ErrLength, len(dst), e.n)
	}
	if e.updates == 0 {
		return fmt.Errorf("modelavg: %w: the average has had no update, want at least one", ErrNoModels)
	}
	if workers = e.parts(workers); workers > 1 {
		e.averageParallel(dst, workers)
	} else {
		e.average(dst, 0, e.n)
	}
	return nil
}

// Len returns the number of elements.
func (e *EMA[T]) Len() int {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.n
}

// Updates returns the number of updates since the beginning or the last Reset.
func (e *EMA[T]) Updates() int64 {
	e.mu.RLock()
	defer e.mu.RUnlock()
	return e.updates
}

// Decay returns what the next update will keep of the average: the decay, or what the warm-up or the rule has for
// update number [EMA.Updates]+1. Before the first update it is 0.
func (e *EMA[T]) Decay() float64 {
	e.mu.RLock()
	defer e.mu.RUnlock()
	kept, _ := e.rule.step(e.updates + 1)
	return kept
}

// Reset makes the average one that has had no update. It keeps the rule and the memory.
func (e *EMA[T]) Reset() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.total, e.updates = 0, 0
}

// emaWorkers returns the number of workers that the options ask for.
func emaWorkers(options []Option) (int, error) {
	accumulation := DefaultAccumulation
	for _, o := range options {
		if o.kind == accumulationOption {
			accumulation = Accumulation(o.value)
		}
	}
	if accumulation != DefaultAccumulation { // before gather, which would say that there are others to choose from
		got := fmt.Sprint(uint8(accumulation))
		if names := [...]string{Wider: "Wider", Native: "Native", Exact: "Exact"}; int(accumulation) < len(names) {
			got = names[accumulation]
		}
		return 0, fmt.Errorf("modelavg: %w: got accumulation %s, want DefaultAccumulation: "+
			"the format of a moving average is fixed", ErrOption, got)
	}
	s, err := gather(options)
	return s.workers, err
}

// ---- the rules

// A rule says what each update keeps and adds.
type rule struct {
	kind                          ruleKind
	decay, inverseGamma, exponent float64
}

// The values are part of the binary format.
type ruleKind uint8

const (
	noRule ruleKind = iota
	constantRule
	correctedRule
	warmupRule
	inverseGammaRule
	powerRule
	endOfRules
)

// check reports parameters that are out of range, and ones that the rule does not use and that are not 0.
func (r rule) check() error {
	positive := func(x float64) bool { return x > 0 && !math.IsInf(x, 1) }
	switch r.kind {
	case constantRule, correctedRule, warmupRule:
		if r.inverseGamma != 0 || r.exponent != 0 {
			return fmt.Errorf("modelavg: %w: got inverse gamma %v and exponent %v, want 0 in a rule that has neither",
				ErrOption, r.inverseGamma, r.exponent)
		}
	case inverseGammaRule:
		if !positive(r.inverseGamma) || !positive(r.exponent) {
			return fmt.Errorf("modelavg: %w: got inverse gamma %v and exponent %v, want positive finite numbers",
				ErrOption, r.inverseGamma, r.exponent)
		}
	case powerRule:
		if !(r.exponent >= 0) || math.IsInf(r.exponent, 1) {
			return fmt.Errorf("modelavg: %w: got %v, want a finite number of at least 0", ErrGamma, r.exponent)
		}
	}
	if !(r.decay >= 0 && r.decay <= 1) { // so put, NaN fails
		return fmt.Errorf("modelavg: %w: got %v, want 0 to 1", ErrDecay, r.decay)
	}
	return nil
}

// leastAdded returns the least share, if not zero, that the rule ever gives to a new model.
func (r rule) leastAdded() float64 {
	if r.kind == powerRule {
		return 0
	}
	return 1 - r.decay
}

// step returns what update t = 1, 2, … keeps and adds.
func (r rule) step(t int64) (kept, added float64) {
	kept, added = r.decay, 1-r.decay
	switch {
	case r.kind == powerRule:
		return weighting.PowerDecay(t, r.exponent)
	case r.kind == correctedRule:
		return weighting.CorrectedDecay(t, r.decay)
	case t == 1:
		return 0, 1
	case r.kind == warmupRule:
		if k := float64(t) / float64(t+9); k < kept {
			return k, 9 / float64(t+9)
		}
	case r.kind == inverseGammaRule:
		// Close to one only what is added tells which is less, and close to zero only what is kept.
		if k, a := weighting.InverseGammaDecay(t, r.inverseGamma, r.exponent); k < kept || a > added {
			return k, a
		}
	}
	return kept, added
}

// ---- an update

// A sumStep is one update of the sum: it is multiplied by 2^−shift, or forgotten, and then the model times added is
// added.
type sumStep struct {
	forget       bool
	shift        int
	added, total float64
}

const (
	// A sum is scaled down when its weight passes one half, so that it stays below the greatest number in the models
	// and cannot overflow. The less it is scaled down, the nearer to zero are the numbers that lose bits to underflow,
	// and the more often it is done.
	//
	// After it has been scaled its weight is at least 2^−(span+1). Below the normal numbers each rounding is at most half
	// the smallest one, 2⁻¹⁵⁰ or 2⁻¹⁰⁷⁵. Such an update has at most one and a half such errors from the scaling, which
	// may have several steps, and one from the multiply-add, and Average has one from its division: divided by the
	// weight, with room for its own rounding, less than 2⁻¹³¹ or 2⁻¹⁰¹².
	mostTotal  = 0.5
	wideSpan   = 60
	narrowSpan = 16
)

// next returns the update that the rule has for the next model. It changes nothing.
func (e *EMA[T]) next() sumStep {
	span, narrow := spanOf[T](e.rule)
	kept, added := e.rule.step(e.updates + 1)
	switch {
	case kept == 0 || e.updates == 0:
		return sumStep{forget: true, added: 1, total: 1} // a copy has every bit of the model
	case added == 0:
		return sumStep{total: e.total}
	}
	// The weight that the sum has after the update is e.total/kept. It may be out of range, as kept may be close to
	// zero.
	fraction, exponent := math.Frexp(kept)
	grown := e.total / fraction
	var s sumStep
	if math.Ldexp(grown, -exponent) > mostTotal {
		_, size := math.Frexp(grown)
		s.shift = size - exponent + span
	}
	s.added = float64(math.Ldexp(grown, -exponent-s.shift) * added) // the conversion keeps the compiler from fusing
	if narrow {
		s.added = float64(float32(s.added)) // as the kernel will take it
	}
	if s.added == 0 { // by underflow; Update then leaves the sum as it is, and so unscaled
		return sumStep{total: e.total}
	}
	s.total = math.Ldexp(e.total, -s.shift) + s.added
	return s
}

// emaBlock is the elements of a block that is passed over more than once while it is in the first-level cache.
const emaBlock = 1024

// update is sum[i] = sum[i]·2^−shift + added·model[i] for low ≤ i < high. NaNs and infinities that are forgotten leave
// no trace.
func (e *EMA[T]) update(model []T, s sumStep, low, high int) {
	if e.narrow != nil {
		updateNarrow(e.narrow[low:high], model[low:high], s)
		return
	}
	sum, model := e.wide[low:high], model[low:high]
	switch any(*new(T)).(type) {
	case float32:
		x := cast[float32](model)
		if s.shift == 0 && !s.forget {
			kernel.AccumulateFloat32(sum, x, s.added)
			return
		}
		for i := 0; i < len(sum); i += emaBlock {
			end := min(i+emaBlock, len(sum))
			scaleWide(sum[i:end], s)
			kernel.AccumulateFloat32(sum[i:end], x[i:end], s.added)
		}
	case float64:
		x := cast[float64](model)
		if s.shift == 0 && !s.forget {
			kernel.AccumulateFloat64(sum, x, s.added)
			return
		}
		for i := 0; i < len(sum); i += emaBlock {
			end := min(i+emaBlock, len(sum))
			scaleWide(sum[i:end], s)
			kernel.AccumulateFloat64(sum[i:end], x[i:end], s.added)
		}
	default:
		var values [emaBlock]float32
		for i := 0; i < len(sum); i += emaBlock {
			end := min(i+emaBlock, len(sum))
			scaleWide(sum[i:end], s)
			widenHalves(values[:end-i], model[i:end])
			kernel.AccumulateFloat32(sum[i:end], values[:end-i], s.added)
		}
	}
}

func updateNarrow[T Element](sum []float32, model []T, s sumStep) {
	x := cast[uint16](model)
	bfloat := isBFloat16[T]()
	block := len(sum)
	if s.shift != 0 || s.forget {
		block = 2 * emaBlock
	}
	for i := 0; i < len(sum); i += block {
		end := min(i+block, len(sum))
		scaleNarrow(sum[i:end], s)
		if bfloat {
			kernel.AccumulateBFloat16(sum[i:end], x[i:end], s.added)
		} else {
			kernel.AccumulateFloat16(sum[i:end], x[i:end], s.added)
		}
	}
}

// scaleWide multiplies the sum by 2^−shift, or makes it −0, to which adding a product gives the product, sign of zero
// included.
func scaleWide(sum []float64, s sumStep) {
	if s.forget {
		fillSums(sum, math.Copysign(0, -1))
		return
	}
	for shift := s.shift; shift > 0; {
		step := min(shift, 1000) // a normal factor
		kernel.WeightedSumFloat64(sum, [][]float64{sum}, []float64{math.Ldexp(1, -step)})
		shift -= step
	}
}

// scaleNarrow is scaleWide in float32.
func scaleNarrow(sum []float32, s sumStep) {
	if s.forget {
		fillSums(sum, float32(math.Copysign(0, -1)))
		return
	}
	for shift := s.shift; shift > 0; {
		step := min(shift, 100)
		kernel.WeightedSumFloat32Native(sum, [][]float32{sum}, []float64{math.Ldexp(1, -step)})
		shift -= step
	}
}

// negativeZeros is what values are added to where only they are wanted: a copy of it is faster than a loop.
var negativeZeros = func() (zeros [emaBlock]float32) {
	fillSums(zeros[:], float32(math.Copysign(0, -1)))
	return zeros
}()

// widenHalves sets values to those of the 16-bit model, exactly.
func widenHalves[T Element](values []float32, model []T) {
	copy(values, negativeZeros[:])
	if x := cast[uint16](model); isBFloat16[T]() {
		kernel.AccumulateBFloat16(values, x, 1)
	} else {
		kernel.AccumulateFloat16(values, x, 1)
	}
}

// average is dst[i] = sum[i] / total, for low ≤ i < high.
func (e *EMA[T]) average(dst []T, low, high int) {
	dst = dst[low:high]
	if e.narrow != nil {
		roundHalves(dst, e.narrow[low:high], e.total)
		return
	}
	sum := e.wide[low:high]
	switch any(*new(T)).(type) {
	case float32:
		kernel.RoundFloat32(cast[float32](dst), sum, e.total)
	case float64:
		kernel.RoundFloat64(cast[float64](dst), sum, e.total)
	default:
		var values [emaBlock]float32
		for i := 0; i < len(sum); i += emaBlock {
			end := min(i+emaBlock, len(sum))
			kernel.RoundFloat32(values[:end-i], sum[i:end], e.total)
			roundHalves(dst[i:end], values[:end-i], 1)
		}
	}
}

// roundHalves is dst[i] = sum[i] / divisor for 16-bit elements.
func roundHalves[T Element](dst []T, sum []float32, divisor float64) {
	if x := cast[uint16](dst); isBFloat16[T]() {
		kernel.RoundBFloat16(x, sum, divisor)
	} else {
		kernel.RoundFloat16(x, sum, divisor)
	}
}

func isBFloat16[T Element]() bool {
	_, ok := any(*new(T)).(BFloat16)
	return ok
}

// ---- workers

// parts returns how many of the workers have enough to do.
func (e *EMA[T]) parts(workers int) int {
	if workers > 1 {
		workers = min(workers, e.n/(workerBytes/int(unsafe.Sizeof(*new(T)))))
	}
	return workers
}

// updateParallel is update on several goroutines; as in divide, what they share is on no stack of other calls.
func (e *EMA[T]) updateParallel(model []T, s sumStep, workers int) {
	lead, line := e.lines()
	parallel(workers, func(i int) {
		e.update(model, s, boundary(i, workers, e.n, lead, line), boundary(i+1, workers, e.n, lead, line))
	})
}

// averageParallel is average on several goroutines.
func (e *EMA[T]) averageParallel(dst []T, workers int) {
	size := int(unsafe.Sizeof(*new(T)))
	lead, line := int(-uintptr(unsafe.Pointer(unsafe.SliceData(dst)))%lineBytes)/size, lineBytes/size
	parallel(workers, func(i int) {
		e.average(dst, boundary(i, workers, e.n, lead, line), boundary(i+1, workers, e.n, lead, line))
	})
}

// lines returns where the lines of memory of the sum begin and how many elements one has.
func (e *EMA[T]) lines() (lead, line int) {
	address, size := uintptr(unsafe.Pointer(unsafe.SliceData(e.wide))), 8
	if e.narrow != nil {
		address, size = uintptr(unsafe.Pointer(unsafe.SliceData(e.narrow))), 4
	}
	return int(-address%lineBytes) / size, lineBytes / size
}
