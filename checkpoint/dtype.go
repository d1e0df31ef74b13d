package checkpoint

import "fmt"

// A DType is the type of a tensor's elements, named as the safetensors format names it. The zero value is no dtype.
type DType uint8

// The element types of the safetensors format, in the order of its writer: a file begins with the tensors of the last.
const (
	Bool       DType = iota + 1 // one byte, 0 or 1
	F4                          // float of 4 bits, E2M1; two elements in a byte
	F6E2M3                      // float of 6 bits, 2 of them exponent; four elements in three bytes
	F6E3M2                      // float of 6 bits, 3 of them exponent
	U8                          // unsigned integer of 8 bits
	I8                          // signed integer of 8 bits
	F8E5M2                      // float of 8 bits, 5 of them exponent
	F8E4M3                      // float of 8 bits, 4 of them exponent, without infinities
	F8E8M0                      // a power of two: 8 bits of exponent and nothing else
	F8E4M3FNUZ                  // as F8E4M3, with one zero and another bias
	F8E5M2FNUZ                  // as F8E5M2, with one zero and another bias, without infinities
	I16                         // signed integer of 16 bits
	U16                         // unsigned integer of 16 bits
	F16                         // IEEE 754 binary16
	BF16                        // bfloat16: the upper half of a binary32
	I32                         // signed integer of 32 bits
	U32                         // unsigned integer of 32 bits
	F32                         // IEEE 754 binary32
	C64                         // complex number: two binary32, real part first
	F64                         // IEEE 754 binary64
	I64                         // signed integer of 64 bits
	U64                         // unsigned integer of 64 bits
)

// lastDType is the greatest dtype.
const lastDType = U64

// dtypes holds what is known about every dtype.
var dtypes = [lastDType + 1]struct {
	name string
	bits int
}{
	Bool:       {"BOOL", 8},
	F4:         {"F4", 4},
	F6E2M3:     {"F6_E2M3", 6},
	F6E3M2:     {"F6_E3M2", 6},
	U8:         {"U8", 8},
	I8:         {"I8", 8},
	F8E5M2:     {"F8_E5M2", 8},
	F8E4M3:     {"F8_E4M3", 8},
	F8E8M0:     {"F8_E8M0", 8},
	F8E4M3FNUZ: {"F8_E4M3FNUZ", 8},
	F8E5M2FNUZ: {"F8_E5M2FNUZ", 8},
	I16:        {"I16", 16},
	U16:        {"U16", 16},
	F16:        {"F16", 16},
	BF16:       {"BF16", 16},
	I32:        {"I32", 32},
	U32:        {"U32", 32},
	F32:        {"F32", 32},
	C64:        {"C64", 64},
	F64:        {"F64", 64},
	I64:        {"I64", 64},
	U64:        {"U64", 64},
}

// dtypeByName maps the names of the format to dtypes.
var dtypeByName = func() map[string]DType {
	m := make(map[string]DType, lastDType)
	for d := Bool; d <= lastDType; d++ {
		m[dtypes[d].name] = d
	}
	return m
}()

// ParseDType returns the dtype that the safetensors format calls name, such as "BF16" or "F8_E4M3". Upper and lower
// case matter.
func ParseDType(name string) (DType, error) {
	d, ok := dtypeByName[name]
	if !ok {
		return 0, fmt.Errorf("unknown dtype %s", quote(name))
	}
	return d, nil
}

// Valid reports whether d is one of the dtypes above.
func (d DType) Valid() bool { return d >= Bool && d <= lastDType }

// String returns the name in the safetensors format, such as "BF16" or "F8_E4M3", and "DType(n)" for a value that is no
// dtype.
func (d DType) String() string {
	if !d.Valid() {
		return fmt.Sprintf("DType(%d)", uint8(d))
	}
	return dtypes[d].name
}

// Bits returns the size of one element in bits, zero if d is no dtype.
func (d DType) Bits() int {
	if !d.Valid() {
		return 0
	}
	return dtypes[d].bits
}

// IsFloat reports whether d is an IEEE 754 format or bfloat16: F64, F32, F16 or BF16. The floats of 8 bits and less,
// which need their own tables, are not among them; neither is C64.
func (d DType) IsFloat() bool { return d == F64 || d == F32 || d == F16 || d == BF16 }

// IsInteger reports whether d is an integer type of any size, or Bool.
func (d DType) IsInteger() bool {
	switch d {
	case Bool, U8, I8, U16, I16, U32, I32, U64, I64:
		return true
	}
	return false
}

// MarshalText returns the name, as String does; a value that is no dtype is an error.
func (d DType) MarshalText() ([]byte, error) {
	if !d.Valid() {
		return nil, fmt.Errorf("%v is no dtype", d)
	}
	return []byte(d.String()), nil
}

// UnmarshalText sets d to the dtype that [ParseDType] finds.
func (d *DType) UnmarshalText(text []byte) error {
	parsed, err := ParseDType(string(text))
	if err != nil {
		return err
	}
	*d = parsed
	return nil
}
