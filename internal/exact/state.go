package exact

import (
	"encoding/binary"
	"errors"
)

// The encodings are canonical: sums that are equal have the same bytes, however they came about. All numbers are
// little-endian. Digits are of radix 2³² and balanced, from −2³¹ to 2³¹−1; the first and the last row of digits that
// are given are not all zero.
//
//	Vector:  1 or, if nothing has been added, 0; then the blocks
//	block:   first digit uint16, rows uint16, 1 or 0 for flags uint8, digits int32 (a row after the other), flags uint8
//	Sum:     as a block of one element without flags

var (
	errShort     = errors.New("it ends too early")
	errDigits    = errors.New("its digits are out of range")
	errCanonical = errors.New("its digits are not in the shortest form")
	errFlags     = errors.New("it has unknown flags")
)

// SumSize is the most bytes that [Sum.Append] appends.
const SumSize = 5 + 4*sumDigits

// Append appends the encoding of s.
func (s *Sum) Append(b []byte) []byte {
	s.normalize()
	return appendDigits(b, s.digit[:], 1, 0, sumDigits, nil)
}

// Parse sets s to an encoded sum and returns what follows it.
func (s *Sum) Parse(b []byte) (rest []byte, err error) {
	digit, low, rows, flag, b, err := parseDigits(b, 1, parsedSumDigits)
	if err != nil {
		return nil, err
	}
	if flag != nil {
		return nil, errFlags
	}
	*s = Sum{pending: 1}
	copy(s.digit[low:low+rows], digit)
	return b, nil
}

// Size returns at most how many bytes [Vector.Append] appends.
func (v *Vector) Size() int {
	size := 1
	for i := range v.block {
		size += 5 + len(v.block[i].digit)*4 + 4*v.size(i) + len(v.block[i].flag)
	}
	return size
}

// Append appends the encoding of v.
func (v *Vector) Append(b []byte) []byte {
	v.normalize()
	any := byte(0)
	if v.any {
		any = 1
	}
	b = append(b, any)
	for i := range v.block {
		k := &v.block[i]
		b = appendDigits(b, k.digit, v.size(i), k.low, k.rows, k.flag)
	}
	return b
}

// Parse returns an encoded Vector of n elements and what follows it.
func Parse(b []byte, n int) (v *Vector, rest []byte, err error) {
	if len(b) < 1 || (n+BlockSize-1)/BlockSize > (len(b)-1)/5 {
		return nil, nil, errShort
	}
	if b[0] > 1 {
		return nil, nil, errFlags
	}
	v = NewVector(n)
	v.any = b[0] == 1
	v.pending = int64(b[0])
	b = b[1:]
	for i := range v.block {
		k := &v.block[i]
		if k.digit, k.low, k.rows, k.flag, b, err = parseDigits(b, v.size(i), parsedDigits); err != nil {
			return nil, nil, err
		}
		if !v.any && (k.rows > 0 || k.flag != nil) {
			return nil, nil, errFlags
		}
	}
	return v, b, nil
}

// appendDigits appends rows of n digits, without rows of zeros before and after the others, and flags unless all say
// that nothing special has been added.
func appendDigits(b []byte, digit []int64, n, low, rows int, flag []uint8) []byte {
	for rows > 0 && allZero(digit[:n]) {
		digit, low, rows = digit[n:], low+1, rows-1
	}
	for rows > 0 && allZero(digit[(rows-1)*n:rows*n]) {
		rows--
	}
	if rows == 0 {
		low = 0
	}
	plain := true
	for _, f := range flag {
		plain = plain && f == seenOther
	}
	b = binary.LittleEndian.AppendUint16(b, uint16(low))
	b = binary.LittleEndian.AppendUint16(b, uint16(rows))
	if plain {
		b = append(b, 0)
	} else {
		b = append(b, 1)
	}
	for _, d := range digit[:rows*n] {
		b = binary.LittleEndian.AppendUint32(b, uint32(d))
	}
	if !plain {
		b = append(b, flag...)
	}
	return b
}

// parseDigits is the inverse of appendDigits.
func parseDigits(b []byte, n, most int) (digit []int64, low, rows int, flag []uint8, rest []byte, err error) {
	if len(b) < 5 {
		return nil, 0, 0, nil, nil, errShort
	}
	low, rows = int(binary.LittleEndian.Uint16(b)), int(binary.LittleEndian.Uint16(b[2:]))
	flagged := b[4]
	b = b[5:]
	switch {
	case low+rows > most:
		return nil, 0, 0, nil, nil, errDigits
	case flagged > 1:
		return nil, 0, 0, nil, nil, errFlags
	case len(b) < (4*rows+int(flagged))*n:
		return nil, 0, 0, nil, nil, errShort
	}
	if rows > 0 {
		digit = make([]int64, rows*n)
		for i := range digit {
			digit[i] = int64(int32(binary.LittleEndian.Uint32(b[4*i:])))
		}
		b = b[4*len(digit):]
		if allZero(digit[:n]) || allZero(digit[len(digit)-n:]) {
			return nil, 0, 0, nil, nil, errCanonical
		}
	} else if low != 0 {
		return nil, 0, 0, nil, nil, errCanonical
	}
	if flagged == 1 {
		flag = append(flag, b[:n]...)
		for _, f := range flag {
			if f > allFlags {
				return nil, 0, 0, nil, nil, errFlags
			}
		}
		b = b[n:]
	}
	return digit, low, rows, flag, b, nil
}

func allZero(digit []int64) bool {
	for _, d := range digit {
		if d != 0 {
			return false
		}
	}
	return true
}
