package merge

import (
	"github.com/modelavg/modelavg/checkpoint"
	"github.com/modelavg/modelavg/internal/convert"
	"github.com/modelavg/modelavg/kernel"
)

// allFinite reports whether all elements of p, which is aligned and in the byte order of files, are finite.
func allFinite(p []byte, d checkpoint.DType) bool {
	n := len(p) * 8 / d.Bits()
	if littleEndian {
		switch d {
		case checkpoint.F64:
			return kernel.AllFiniteFloat64(elements[float64](p, n))
		case checkpoint.F32:
			return kernel.AllFiniteFloat32(elements[float32](p, n))
		case checkpoint.F16:
			return kernel.AllFiniteFloat16(elements[uint16](p, n))
		case checkpoint.BF16:
			return kernel.AllFiniteBFloat16(elements[uint16](p, n))
		}
	}
	return convert.AllFinite(p, d)
}
