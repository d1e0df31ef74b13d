package checkpoint

// A DType is the type of a tensor's elements, named as the safetensors format names it.
type DType uint8

// The element types of the safetensors format, in the order in which its writer sorts tensors
// (alignment ascending); zero is no dtype.
const (
	Bool DType = iota + 1
	F4
	F6E2M3
	F6E3M2
	U8
	I8
	F8E5M2
	F8E4M3
	F8E8M0
	F8E4M3FNUZ
	F8E5M2FNUZ
	I16
	U16
	F16
	BF16
	I32
	U32
	F32
	C64
	F64
	I64
	U64
)
