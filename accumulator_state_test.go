package modelavg_test

import (
	"bytes"
	"encoding"
	"encoding/binary"
	"encoding/gob"
	"errors"
	"fmt"
	"hash/crc64"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/modelavg/modelavg"
)

var (
	_ encoding.BinaryMarshaler   = (*modelavg.Accumulator[float32])(nil)
	_ encoding.BinaryAppender    = (*modelavg.Accumulator[float32])(nil)
	_ encoding.BinaryUnmarshaler = (*modelavg.Accumulator[float32])(nil)
	_ encoding.BinaryAppender    = (*modelavg.Sharded[float32])(nil)
)

// An accumulator that was saved goes on with the same bits.
func TestAccumulatorState(t *testing.T) {
	forEveryType(t, testAccumulatorState[float32], testAccumulatorState[float64],
		testAccumulatorState[modelavg.Float16], testAccumulatorState[modelavg.BFloat16])
}

func testAccumulatorState[T modelavg.Element](t *testing.T) {
	rng := rand.New(rand.NewPCG(51, 52))
	for _, options := range [][]modelavg.Option{nil, {exactly}} {
		for _, n := range []int{0, 1, 511, 512, 1300} {
			models := randomModels[T](rng, 4, n)
			if n > 1 {
				models[1][1] = fromBits[T](0x7f<<(8*elementSize[T]()-8) | 0xff<<(8*elementSize[T]()-16)) // NaN
			}
			weights := []float64{1, 0.3, 17, 4}
			a := newAccumulator[T](t, n, options...)
			for _, added := range []int{0, 2} {
				accumulate(t, a, models[:added], weights[:added])
				state := stateOf(t, a)
				if again := stateOf(t, a); !bytes.Equal(again, state) {
					t.Fatal("two states of one accumulator differ")
				}
				appended, err := a.AppendBinary([]byte("before"))
				must(t, err)
				if !bytes.Equal(appended, append([]byte("before"), state...)) {
					t.Fatal("AppendBinary does not append the state")
				}
				b := newAccumulator[T](t, 3) // its length goes
				must(t, b.Add(make([]T, 3), 1))
				must(t, b.UnmarshalBinary(state))
				if b.Len() != n || b.Count() != a.Count() || b.Weight() != a.Weight() ||
					!bytes.Equal(stateOf(t, b), state) {
					t.Fatalf("decoded: %d elements, %d models, weight %v, want %d, %d, %v",
						b.Len(), b.Count(), b.Weight(), n, a.Count(), a.Weight())
				}
				must(t, b.UnmarshalBinary(state)) // into memory of the right size
				accumulate(t, b, models[added:], weights[added:])
				c := newAccumulator[T](t, n, options...)
				accumulate(t, c, models[:added], weights[:added])
				accumulate(t, c, models[added:], weights[added:])
				checkBits(t, fmt.Sprintf("%d elements, %d added before", n, added), meanOf(t, b), meanOf(t, c))
			}
		}
	}

	var stream bytes.Buffer // encoding/gob uses the methods
	a := newAccumulator[T](t, 2)
	must(t, a.Add(randomModel[T](rng, 2), 2))
	must(t, gob.NewEncoder(&stream).Encode(a))
	var b modelavg.Accumulator[T]
	must(t, gob.NewDecoder(&stream).Decode(&b))
	checkBits(t, "gob", meanOf(t, &b), meanOf(t, a))
}

// The format is fixed: these are the bytes, by hand.
func TestAccumulatorStateBytes(t *testing.T) {
	little := binary.LittleEndian
	checked := func(b []byte) []byte {
		return little.AppendUint64(b, crc64.Checksum(b, crc64.MakeTable(crc64.ECMA)))
	}
	header := func(element, sums byte, n, count uint64, weight int32) []byte {
		b := append([]byte("modelSUM"), 1, element, sums, 0, 0, 0, 0, 0)
		b = little.AppendUint64(little.AppendUint64(b, n), count)
		// The weight is an integer: 1074 = 33·32 + 18 bits above the first digit.
		v := int64(weight) << 18
		digit := int64(int32(v))
		b = append(b, 33, 0, 1, 0, 0)
		if v != digit {
			b[len(b)-3]++
		}
		b = little.AppendUint32(b, uint32(digit))
		if v != digit {
			b = little.AppendUint32(b, uint32((v-digit)>>32))
		}
		return b
	}

	a := newAccumulator[float64](t, 2)
	must(t, a.Add([]float64{0.5, math.Copysign(0, -1)}, 3))
	want := header(2, 2, 2, 1, 3)
	want = little.AppendUint64(want, math.Float64bits(1.5))
	want = little.AppendUint64(want, 1<<63)
	if got := stateOf(t, a); !bytes.Equal(got, checked(want)) {
		t.Errorf("float64: got\n%x, want\n%x", got, checked(want))
	}

	h := newAccumulator[modelavg.Float16](t, 1)
	must(t, h.Add([]modelavg.Float16{0x4000}, -100_000))
	want = little.AppendUint32(header(3, 1, 1, 1, -100_000), math.Float32bits(-200_000))
	if got := stateOf(t, h); !bytes.Equal(got, checked(want)) {
		t.Errorf("Float16: got\n%x, want\n%x", got, checked(want))
	}

	e := newAccumulator[float32](t, 2, exactly)
	must(t, e.Add([]float32{3, float32(math.Inf(-1))}, 5))
	// 2148 = 67·32 + 4.
	want = append(header(1, 3, 2, 1, 5), 1, 67, 0, 1, 0, 1)
	want = little.AppendUint32(little.AppendUint32(want, 15<<4), 0)
	want = append(want, 8, 4)
	if got := stateOf(t, e); !bytes.Equal(got, checked(want)) {
		t.Errorf("exact: got\n%x, want\n%x", got, checked(want))
	}
}

// Whatever is wrong with a state, it is refused, and the accumulator stays.
func TestAccumulatorStateRefused(t *testing.T) {
	plain := newAccumulator[float32](t, 3)
	must(t, plain.Add([]float32{1, 2, 3}, 2))
	ex := newAccumulator[float32](t, 3, exactly)
	must(t, ex.Add([]float32{1, 0, 3}, 2))
	empty := newAccumulator[float32](t, 3)
	other := newAccumulator[modelavg.BFloat16](t, 3)

	receiver := newAccumulator[float32](t, 1)
	must(t, receiver.Add([]float32{7}, 1))
	before := stateOf(t, receiver)
	refused := func(name string, state []byte, text string) {
		t.Helper()
		err := receiver.UnmarshalBinary(state)
		if !errors.Is(err, modelavg.ErrState) || !strings.Contains(fmt.Sprint(err), text) {
			t.Errorf("%s: got %v, want an error that wraps %q and contains %q", name, err, modelavg.ErrState, text)
		}
		if !bytes.Equal(stateOf(t, receiver), before) {
			t.Fatalf("%s: the receiver changed", name)
		}
	}
	for name, a := range map[string]*modelavg.Accumulator[float32]{"rounded": plain, "exact": ex, "empty": empty} {
		state := stateOf(t, a)
		for n := range state {
			refused(fmt.Sprintf("%s, %d of %d bytes", name, n, len(state)), state[:n], "")
		}
		refused(name+" and a byte more", append(slices.Clone(state), 0), "checksum")
		for i := range 8 * len(state) {
			damaged := slices.Clone(state)
			damaged[i/8] ^= 1 << (i % 8)
			refused(fmt.Sprintf("%s, bit %d is wrong", name, i), damaged, "")
		}
	}
	refused("nothing", nil, "0 bytes, want at least 40")
	refused("another file", bytes.Repeat([]byte("{\"a\": 1}"), 9), `it begins with "{\"a\": 1}", want "modelSUM"`)
	refused("another element type", stateOf(t, other), "element type BFloat16, want float32")

	// The checksum is right, and something else is wrong.
	change := func(a *modelavg.Accumulator[float32], f func(b []byte) []byte) []byte {
		b := stateOf(t, a)
		return sealed(f(b[:len(b)-8]))
	}
	set := func(at int, v byte) func(b []byte) []byte {
		return func(b []byte) []byte { b[at] = v; return b }
	}
	refused("version", change(plain, set(8, 2)), "version 2, want 1")
	refused("kind of sums", change(plain, set(10, 1)), "sums of kind 1, want 2 or 3")
	refused("reserved bytes", change(plain, set(15, 1)), "0x0000000001 at offset 11, want zeros")
	refused("more elements", change(plain, set(16, 4)), "24 bytes for 4 sums, want 8 for each")
	refused("far more elements", change(plain, set(23, 0x7f)), "elements, want at most")
	refused("elements that wrap", change(plain, set(23, 0x20)), "")
	refused("exact, more elements", change(ex, set(19, 4)), "it ends too early")
	refused("too many models", change(plain, set(31, 0xff)), "models, want at most")
	refused("weight of no models", change(plain, set(24, 0)), "a sum of weights of 2 for no models, want 0")
	refused("sums of no models", change(ex, func(b []byte) []byte {
		return append(append(b[:24:24], make([]byte, 8+5)...), b[32+9:]...)
	}), "sums of no models")
	refused("trailing bytes", change(ex, func(b []byte) []byte { return append(b, 0, 0) }),
		"2 bytes after the last sum")
	refused("the weight's digits", change(plain, set(32, 200)), "the sum of the weights: its digits are out of range")
}

// sealed returns b with the right checksum.
func sealed(b []byte) []byte {
	return binary.LittleEndian.AppendUint64(b, crc64.Checksum(b, crc64.MakeTable(crc64.ECMA)))
}

// Bytes of any kind are refused, or are a state that works and is written again as it was read.
func FuzzAccumulatorState(f *testing.F) {
	for _, options := range [][]modelavg.Option{nil, {exactly}} {
		a := newAccumulator[float32](f, 2, options...)
		for range 2 {
			state := stateOf(f, a)
			f.Add(state[:len(state)-8], true)
			f.Add(state, false)
			accumulate(f, a, [][]float32{{1, float32(math.Inf(1))}, {-0x1p-140, 3}}, []float64{0.1, 1e300})
		}
		h := newAccumulator[modelavg.Float16](f, 1, options...)
		accumulate(f, h, [][]modelavg.Float16{{0x3c00}}, []float64{3})
		f.Add(stateOf(f, h), false)
	}
	f.Fuzz(func(t *testing.T, data []byte, seal bool) {
		if seal {
			data = sealed(slices.Clip(data))
		}
		fuzzState[float32](t, data)
		fuzzState[modelavg.Float16](t, data)
	})
}

func fuzzState[T modelavg.Element](t *testing.T, data []byte) {
	a := newAccumulator[T](t, 1)
	must(t, a.Add([]T{fromBits[T](1)}, 1))
	before := stateOf(t, a)
	if err := a.UnmarshalBinary(data); err != nil {
		if !errors.Is(err, modelavg.ErrState) {
			t.Errorf("%v does not wrap %q", err, modelavg.ErrState)
		}
		if !bytes.Equal(stateOf(t, a), before) {
			t.Errorf("the receiver changed: %v", err)
		}
		return
	}
	if got := stateOf(t, a); !bytes.Equal(got, data) {
		t.Errorf("read from\n%x, written as\n%x", data, got)
	}
	dst := make([]T, a.Len())
	_ = a.Mean(dst)
	must(t, a.Add(dst, 1.5))
	b := newAccumulator[T](t, 0)
	must(t, b.UnmarshalBinary(stateOf(t, a)))
	must(t, b.Merge(a))
	_ = b.Mean(dst)
}
