package partial

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"math"
	"strings"

	"github.com/modelavg/modelavg/checkpoint"
)

// ErrEncoding reports bytes that are no encoded [Sum]: damaged, cut short, or of another version.
var ErrEncoding = errors.New("no encoded partial sum")

// The encoding, version 1, little-endian throughout:
//
//	offset  bytes
//	     0      4  "MAPS"
//	     4      1  version
//	     5      1  bytes of an accumulator: 8, 4, or 0 in the zero Sum
//	     6      2  zero
//	     8      8  name of the dtype of the average, padded with zeros; all zeros in the zero Sum
//	    16      8  number of models
//	    24      8  sum of their weights, float64
//	    32      8  number n of elements
//	    40         n accumulators
//	  then      4  CRC-32C of all bytes before
const (
	magic         = "MAPS"
	version       = 1
	headerBytes   = 40
	checksumBytes = 4
	nameBytes     = 8
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// MarshalBinary returns the sum as bytes: 44 and the accumulators as they are. It never fails.
func (s *Sum) MarshalBinary() ([]byte, error) { return s.AppendBinary(nil) }

// AppendBinary appends what MarshalBinary returns to p. It never fails.
func (s *Sum) AppendBinary(p []byte) ([]byte, error) {
	begin := len(p)
	size := s.Accumulator().Bits() / 8
	values := s.Len() * size
	if cap(p)-begin < headerBytes+values+checksumBytes {
		p = append(make([]byte, 0, begin+headerBytes+values+checksumBytes), p...)
	}
	p = append(p, magic...)
	p = append(p, version, byte(size), 0, 0)
	var name [nameBytes]byte
	if s.dtype != 0 {
		copy(name[:], s.dtype.String())
	}
	p = append(p, name[:]...)
	p = binary.LittleEndian.AppendUint64(p, uint64(s.models))
	p = binary.LittleEndian.AppendUint64(p, math.Float64bits(s.weight))
	p = binary.LittleEndian.AppendUint64(p, uint64(s.Len()))
	p = p[:len(p)+values]
	if s.wide != nil {
		store(p[len(p)-values:], s.wide)
	} else {
		store(p[len(p)-values:], s.narrow)
	}
	return binary.LittleEndian.AppendUint32(p, crc32.Checksum(p[begin:], castagnoli)), nil
}

// UnmarshalBinary sets the sum to what [Sum.MarshalBinary] has encoded. The bytes are not kept. The error wraps
// [ErrEncoding], and the sum is as it was.
func (s *Sum) UnmarshalBinary(p []byte) error {
	d, err := decode(p)
	if err != nil {
		return fmt.Errorf("partial: %w: %w", ErrEncoding, err)
	}
	*s = *d
	return nil
}

func decode(p []byte) (*Sum, error) {
	if len(p) < headerBytes+checksumBytes {
		return nil, fmt.Errorf("%d bytes, want %d or more", len(p), headerBytes+checksumBytes)
	}
	if got := string(p[:len(magic)]); got != magic {
		return nil, fmt.Errorf("begins with %q, want %q", got, magic)
	}
	if p[4] != version {
		return nil, fmt.Errorf("version %d, want %d", p[4], version)
	}
	body, end := p[:len(p)-checksumBytes], p[len(p)-checksumBytes:]
	if got, want := crc32.Checksum(body, castagnoli), binary.LittleEndian.Uint32(end); got != want {
		return nil, fmt.Errorf("the checksum of %d bytes is %08x, want %08x", len(body), got, want)
	}
	if p[6] != 0 || p[7] != 0 {
		return nil, fmt.Errorf("bytes %d and %d where there is nothing yet, want 0", p[6], p[7])
	}
	size, name := int(p[5]), strings.TrimRight(string(p[8:8+nameBytes]), "\x00")
	models, n := binary.LittleEndian.Uint64(p[16:]), binary.LittleEndian.Uint64(p[32:])
	values := body[headerBytes:]
	if name == "" {
		if size != 0 || models != 0 || n != 0 || len(values) != 0 {
			return nil, fmt.Errorf("%d elements of %d bytes without a dtype", n, size)
		}
		return new(Sum), nil
	}
	dtype, err := checkpoint.ParseDType(name)
	if err != nil {
		return nil, err
	}
	accumulator := checkpoint.F32
	switch size {
	case 4:
	case 8:
		accumulator = checkpoint.F64
	default:
		return nil, fmt.Errorf("accumulators of %d bytes, want 4 or 8", size)
	}
	if models > math.MaxInt64 || n != uint64(len(values)/size) || len(values)%size != 0 {
		return nil, fmt.Errorf("%d models and %d elements in %d bytes", models, n, len(values))
	}
	s, err := New(dtype, accumulator, int(n))
	if err != nil {
		return nil, err
	}
	s.models, s.weight = int64(models), math.Float64frombits(binary.LittleEndian.Uint64(p[24:]))
	if s.wide != nil {
		load(s.wide, values)
	} else {
		load(s.narrow, values)
	}
	return s, nil
}
