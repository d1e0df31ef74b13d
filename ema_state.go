package modelavg

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
)

// The binary form of a moving average is little-endian:
//
//	offset  bytes
//	0       8     "modelEMA"
//	8       1     version, 1
//	9       1     element: 1 float32, 2 float64, 3 Float16, 4 BFloat16
//	10      1     rule: 1 constant decay, 2 bias correction, 3 warm-up, 4 inverse-gamma warm-up, 5 power function
//	11      1     bytes of each number of the sum, 4 or 8
//	12      4     0
//	16      8     decay, float64
//	24      8     inverse gamma, float64
//	32      8     exponent of the inverse gamma or power function, float64
//	40      8     number of updates, int64
//	48      8     weight of the sum, float64
//	56      8     number of elements n, int64
//	64            the sum, n numbers of float32 or float64
//	              CRC-32C (Castagnoli) of all bytes before, 4 bytes
const (
	emaMagic    = "modelEMA"
	emaVersion  = 1
	emaHeader   = 64
	emaChecksum = 4

	maxUpdates = math.MaxInt64 / 2 // in a state, so that as many may follow
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// MarshalBinary returns the whole state of the moving average: the rule, the number of updates and the sum as it is,
// unrounded. An EMA that [EMA.UnmarshalBinary] makes of it goes on with the same bits. It has 68 bytes and 4 or 8 for
// every element. The error is always nil.
func (e *EMA[T]) MarshalBinary() ([]byte, error) { return e.AppendBinary(nil) }

// AppendBinary appends what [EMA.MarshalBinary] returns to b and returns the result. It does not allocate if b has the
// capacity.
func (e *EMA[T]) AppendBinary(b []byte) ([]byte, error) {
	e.mu.RLock()
	defer e.mu.RUnlock()
	begin := len(b)
	size := emaHeader + e.n*e.sumBytes() + emaChecksum
	if cap(b)-begin < size {
		grown := make([]byte, begin, begin+size)
		copy(grown, b)
		b = grown
	}
	kind := e.rule.kind
	if kind == noRule {
		kind = constantRule // the zero EMA
	}
	little := binary.LittleEndian
	b = append(b, emaMagic...)
	b = append(b, emaVersion, elementCode[T](), byte(kind), byte(e.sumBytes()), 0, 0, 0, 0)
	for _, x := range []float64{e.rule.decay, e.rule.inverseGamma, e.rule.exponent} {
		b = little.AppendUint64(b, math.Float64bits(x))
	}
	b = little.AppendUint64(b, uint64(e.updates))
	b = little.AppendUint64(b, math.Float64bits(e.total))
	b = little.AppendUint64(b, uint64(e.n))
	for _, x := range e.wide {
		b = little.AppendUint64(b, math.Float64bits(x))
	}
	for _, x := range e.narrow {
		b = little.AppendUint32(b, math.Float32bits(x))
	}
	return little.AppendUint32(b, crc32.Checksum(b[begin:], castagnoli)), nil
}

// UnmarshalBinary replaces the moving average, its rule and its length included, by the one that [EMA.MarshalBinary]
// wrote to data, of the same element type. It copies what it needs of data; the memory is allocated anew unless the
// length and the format of the sum are as before.
//
// The error wraps [ErrState] and says what is wrong with data: too short or too long, a version or a type that is not
// wanted, a checksum or a value that cannot be. The average is then as it was.
func (e *EMA[T]) UnmarshalBinary(data []byte) error {
	r, updates, total, n, err := parseEMA[T](data)
	if err != nil {
		return fmt.Errorf("modelavg: %w: %w", ErrState, err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.rule, e.updates, e.total, e.n = r, updates, total, n
	sum := data[emaHeader:]
	if narrowState[T](r) {
		e.wide, e.narrow = nil, resized(e.narrow, n)
		for i := range e.narrow {
			e.narrow[i] = math.Float32frombits(binary.LittleEndian.Uint32(sum[4*i:]))
		}
	} else {
		e.wide, e.narrow = resized(e.wide, n), nil
		for i := range e.wide {
			e.wide[i] = math.Float64frombits(binary.LittleEndian.Uint64(sum[8*i:]))
		}
	}
	return nil
}

// resized returns s if it has n elements, and else as many new ones.
func resized[A any](s []A, n int) []A {
	if s == nil || len(s) != n {
		return make([]A, n)
	}
	return s
}

// sumBytes returns the bytes of each number of the sum.
func (e *EMA[T]) sumBytes() int {
	if narrowState[T](e.rule) {
		return 4
	}
	return 8
}

// parseEMA reads and checks all of data but the numbers of the sum, which may be any.
func parseEMA[T Element](data []byte) (r rule, updates int64, total float64, n int, err error) {
	fail := func(format string, arguments ...any) (rule, int64, float64, int, error) {
		return rule{}, 0, 0, 0, fmt.Errorf(format, arguments...)
	}
	if len(data) < emaHeader+emaChecksum {
		return fail("%d bytes, want at least %d", len(data), emaHeader+emaChecksum)
	}
	if got := data[:len(emaMagic)]; string(got) != emaMagic {
		return fail("it begins with %q, want %q", got, emaMagic)
	}
	if got := data[8]; got != emaVersion {
		return fail("version %d, want %d", got, emaVersion)
	}
	little := binary.LittleEndian
	body, sum := data[:len(data)-emaChecksum], little.Uint32(data[len(data)-emaChecksum:])
	if got := crc32.Checksum(body, castagnoli); got != sum {
		return fail("checksum %#08x, want %#08x: the bytes are damaged or incomplete", got, sum)
	}
	if got, want := data[9], elementCode[T](); got != want {
		return fail("element type %s, want %s", elementName(got), elementName(want))
	}
	r.kind = ruleKind(data[10])
	if r.kind == noRule || r.kind >= endOfRules {
		return fail("rule %d, want 1 to %d", data[10], endOfRules-1)
	}
	if got := little.Uint32(data[12:]); got != 0 {
		return fail("%#x at offset 12, want 0", got)
	}
	float := func(offset int) float64 { return math.Float64frombits(little.Uint64(data[offset:])) }
	r.decay, r.inverseGamma, r.exponent = float(16), float(24), float(32)
	if err := r.check(); err != nil {
		return rule{}, 0, 0, 0, err
	}
	span, narrow := spanOf[T](r)
	size := 8
	if narrow {
		size = 4
	}
	if got := int(data[11]); got != size {
		return fail("a sum with numbers of %d bytes, want %d", got, size)
	}
	updates = int64(little.Uint64(data[40:]))
	total = float(48)
	least := math.Ldexp(1, -span-2)
	switch {
	case updates < 0 || updates > maxUpdates:
		return fail("%d updates, want 0 to %d", updates, int64(maxUpdates))
	case updates == 0 && math.Float64bits(total) != 0:
		return fail("a weight of %v before the first update, want 0", total)
	case updates > 0 && !(total >= least && total <= 1):
		return fail("a weight of %v after %d updates, want %v to 1", total, updates, least)
	}
	count := little.Uint64(data[56:])
	if space := len(body) - emaHeader; count != uint64(space/size) || space%size != 0 {
		return fail("%d elements in %d bytes, want %d bytes for each", count, space, size)
	}
	return r, updates, total, int(count), nil
}

func elementCode[T Element]() byte {
	switch any(*new(T)).(type) {
	case float32:
		return 1
	case float64:
		return 2
	case Float16:
		return 3
	}
	return 4
}

func elementName(code byte) string {
	names := [...]string{1: "float32", 2: "float64", 3: "Float16", 4: "BFloat16"}
	if code == 0 || int(code) >= len(names) {
		return fmt.Sprintf("%d", code)
	}
	return names[code]
}
