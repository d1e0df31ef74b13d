package checkpoint

import (
	"cmp"
	"fmt"
	"hash/crc32"
	"slices"
)

// castagnoli is the polynomial of CRC-32C, for which processors have an instruction.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum returns the CRC-32C of p.
func checksum(p []byte) uint32 { return crc32.Checksum(p, castagnoli) }

// combine returns the checksum of a and b one after the other, from the checksums of both, where b has n bytes.
//
// A checksum is a polynomial modulo that of the CRC. Bytes that follow multiply it by x⁸ each, and what the CRC does
// before and after is the same for all and cancels out.
func combine(a, b uint32, n int64) uint32 {
	shift, square := uint32(1)<<31, uint32(1)<<23 // x⁰ and x⁸: the bit of the highest power is the lowest
	for ; n > 0; n >>= 1 {
		if n&1 != 0 {
			shift = multiply(shift, square)
		}
		square = multiply(square, square)
	}
	return multiply(shift, a) ^ b
}

// multiply returns the product of two polynomials modulo that of CRC-32C.
func multiply(a, b uint32) uint32 {
	var product uint32
	for bit := uint32(1) << 31; bit != 0; bit >>= 1 {
		if a&bit != 0 {
			product ^= b
		}
		carry := b & 1
		b >>= 1
		if carry != 0 {
			b ^= crc32.Castagnoli
		}
	}
	return product
}

// A summedSpan is a range of bytes of a file and their checksum.
type summedSpan struct {
	begin, end int64
	sum        uint32
}

// summedSpans are ranges that were written, in any order: disjoint, sorted, and joined where they touch.
type summedSpans []summedSpan

// add adds a range. One that has bytes which are there already is an error: their checksum would be lost.
func (s *summedSpans) add(x summedSpan) error {
	if x.begin == x.end {
		return nil
	}
	i, _ := slices.BinarySearchFunc(*s, x, func(y, x summedSpan) int { return cmp.Compare(y.begin, x.begin) })
	if i > 0 && (*s)[i-1].end > x.begin || i < len(*s) && (*s)[i].begin < x.end {
		return fmt.Errorf("bytes %d to %d were written before, at least in part", x.begin, x.end)
	}
	*s = slices.Insert(*s, i, x)
	if i+1 < len(*s) && (*s)[i].end == (*s)[i+1].begin {
		s.join(i)
	}
	if i > 0 && (*s)[i-1].end == (*s)[i].begin {
		s.join(i - 1)
	}
	return nil
}

// join makes one of the range i and the next one.
func (s *summedSpans) join(i int) {
	a, b := (*s)[i], (*s)[i+1]
	(*s)[i] = summedSpan{a.begin, b.end, combine(a.sum, b.sum, b.end-b.begin)}
	*s = slices.Delete(*s, i+1, i+2)
}
