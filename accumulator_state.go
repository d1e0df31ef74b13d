package modelavg

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc64"
	"math"
	"slices"

	"github.com/modelavg/modelavg/internal/exact"
)

// The binary form of an accumulator is little-endian:
//
//	offset  bytes
//	0       8     "modelSUM"
//	8       1     version, 1
//	9       1     element: 1 float32, 2 float64, 3 Float16, 4 BFloat16
//	10      1     sums: 1 float32, 2 float64, 3 exact
//	11      5     0
//	16      8     number of elements n, uint64
//	24      8     number of models, uint64
//	32            sum of the weights, exact
//	              n sums of float32 or float64, or exact ones
//	              CRC-64 (ECMA-182) of all bytes before, 8 bytes
//
// Exact sums are written as internal/exact says.
const (
	sumMagic    = "modelSUM"
	sumVersion  = 1
	sumHeader   = 32
	sumChecksum = 8
)

const (
	sumsOfFloat32 = 1 + iota
	sumsOfFloat64
	sumsExact
)

var ecma = crc64.MakeTable(crc64.ECMA)

// MarshalBinary returns the whole state of the accumulator: the sums as they are, unrounded, the sum of the weights and
// the number of models. An accumulator that [Accumulator.UnmarshalBinary] makes of it goes on with the same bits, on
// any processor. It has 4 or 8 bytes for every element and less than 350 more, with [Exact] about 4 for each digit. The
// error is always nil.
//
// The bytes of an Exact accumulator depend on nothing but the exact sums: they are the same for any order of the
// models.
func (a *Accumulator[T]) MarshalBinary() ([]byte, error) { return a.AppendBinary(nil) }

// AppendBinary appends what [Accumulator.MarshalBinary] returns to b and returns the result. It does not allocate if b
// has the capacity.
func (a *Accumulator[T]) AppendBinary(b []byte) ([]byte, error) {
	begin := len(b)
	size := sumHeader + exact.SumSize + 4*len(a.narrow) + 8*len(a.wide) + sumChecksum
	if a.exact != nil {
		size += a.exact.Size()
	}
	b = slices.Grow(b, size)
	little := binary.LittleEndian
	b = append(b, sumMagic...)
	b = append(b, sumVersion, elementCode[T](), a.sumsCode(), 0, 0, 0, 0, 0)
	b = little.AppendUint64(b, uint64(a.n))
	b = little.AppendUint64(b, uint64(a.count))
	b = a.weights.Append(b)
	for _, x := range a.narrow {
		b = little.AppendUint32(b, math.Float32bits(x))
	}
	for _, x := range a.wide {
		b = little.AppendUint64(b, math.Float64bits(x))
	}
	if a.exact != nil {
		b = a.exact.Append(b)
	}
	return little.AppendUint64(b, crc64.Checksum(b[begin:], ecma)), nil
}

// UnmarshalBinary replaces what has been added, the number of elements and whether the sums are [Exact], by the state
// that [Accumulator.MarshalBinary] wrote to data, of the same element type. The number of workers stays. It copies what
// it needs of data.
//
// The error wraps [ErrState] and says what is wrong with data: too short or too long, a version or an element type that
// is not wanted, a checksum or a value that cannot be. The accumulator is then as it was. The checksum finds damage,
// not forgery: a state from elsewhere can hold any sums.
func (a *Accumulator[T]) UnmarshalBinary(data []byte) error {
	if err := a.parse(data); err != nil {
		return fmt.Errorf("modelavg: %w: %w", ErrState, err)
	}
	return nil
}

func (a *Accumulator[T]) sumsCode() byte {
	switch {
	case a.exact != nil:
		return sumsExact
	case a.inFloat32():
		return sumsOfFloat32
	}
	return sumsOfFloat64
}

// parse is UnmarshalBinary. It changes the accumulator only after all of data has been checked.
func (a *Accumulator[T]) parse(data []byte) error {
	if len(data) < sumHeader+sumChecksum {
		return fmt.Errorf("%d bytes, want at least %d", len(data), sumHeader+sumChecksum)
	}
	if got := data[:len(sumMagic)]; string(got) != sumMagic {
		return fmt.Errorf("it begins with %q, want %q", got, sumMagic)
	}
	if got := data[8]; got != sumVersion {
		return fmt.Errorf("version %d, want %d", got, sumVersion)
	}
	little := binary.LittleEndian
	body, written := data[:len(data)-sumChecksum], little.Uint64(data[len(data)-sumChecksum:])
	if got := crc64.Checksum(body, ecma); got != written {
		return fmt.Errorf("checksum %#016x, want %#016x: the bytes are damaged or incomplete", got, written)
	}
	if got, want := data[9], elementCode[T](); got != want {
		return fmt.Errorf("element type %s, want %s", elementName(got), elementName(want))
	}
	bytes := 8 // of a sum
	code, want := data[10], byte(sumsOfFloat64)
	if accumulatesInFloat32[T](DefaultAccumulation) {
		bytes, want = 4, sumsOfFloat32
	}
	if code != want && code != sumsExact {
		return fmt.Errorf("sums of kind %d, want %d or %d", code, want, sumsExact)
	}
	if string(data[11:16]) != "\x00\x00\x00\x00\x00" {
		return fmt.Errorf("%#x at offset 11, want zeros", data[11:16])
	}
	n, count := little.Uint64(data[16:]), little.Uint64(data[24:])
	if n > maxElements {
		return fmt.Errorf("%d elements, want at most %d", n, int64(maxElements))
	}
	if count > math.MaxInt/2 { // so many that it can go on
		return fmt.Errorf("%d models, want at most %d", count, math.MaxInt/2)
	}
	var weights exact.Sum
	rest, err := weights.Parse(body[sumHeader:])
	if err != nil {
		return fmt.Errorf("the sum of the weights: %w", err)
	}
	// Equal sums have equal bytes, so that bytes that would be written otherwise were not written here.
	if !slices.Equal(weights.Append(nil), body[sumHeader:len(body)-len(rest)]) {
		return errors.New("the sum of the weights is not in the form in which it is written")
	}
	if count == 0 && weights.Sign() != 0 {
		return fmt.Errorf("a sum of weights of %v for no models, want 0", weights.Round(exact.Binary64))
	}
	var vector *exact.Vector
	if code == sumsExact {
		sums := rest
		if vector, rest, err = exact.Parse(rest, int(n)); err != nil {
			return fmt.Errorf("the sums: %w", err)
		}
		if !slices.Equal(vector.Append(nil), sums[:len(sums)-len(rest)]) {
			return errors.New("the sums are not in the form in which they are written")
		}
		if len(rest) > 0 {
			return fmt.Errorf("%d bytes after the last sum", len(rest))
		}
		if vector.Empty() != (count == 0) {
			return fmt.Errorf("sums of no models, or none of %d models", count)
		}
	} else if uint64(len(rest)) != n*uint64(bytes) {
		return fmt.Errorf("%d bytes for %d sums, want %d for each", len(rest), n, bytes)
	}

	a.n, a.count, a.weights, a.exact = int(n), int(count), weights, vector
	switch code {
	case sumsExact:
		a.narrow, a.wide = nil, nil
	case sumsOfFloat32:
		a.narrow = resized(a.narrow, a.n)
		for i := range a.narrow {
			a.narrow[i] = math.Float32frombits(little.Uint32(rest[4*i:]))
		}
	default:
		a.wide = resized(a.wide, a.n)
		for i := range a.wide {
			a.wide[i] = math.Float64frombits(little.Uint64(rest[8*i:]))
		}
	}
	return nil
}
