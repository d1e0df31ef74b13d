package neon

// An encoding is an instruction word and the fields that its operands go into.
type encoding struct {
	word   uint32
	fields []field
}

// A field holds operand/scale, which is less than limit, at a bit position.
type field struct {
	shift, limit, scale int
}

var (
	rd, rn, rm = field{0, 32, 1}, field{5, 32, 1}, field{16, 32, 1}

	two   = []field{rd, rn}
	three = []field{rd, rn, rm}
)

// encodings has the ARMv8.0 instructions that the Go assembler lacks: Arm Architecture Reference Manual, C7.2.
var encodings = map[string]encoding{
	"fadd v%d.2d, v%d.2d, v%d.2d":  {0x4e60d400, three},
	"fsub v%d.2d, v%d.2d, v%d.2d":  {0x4ee0d400, three},
	"fmul v%d.4s, v%d.4s, v%d.4s":  {0x6e20dc00, three},
	"fmul v%d.2d, v%d.2d, v%d.2d":  {0x6e60dc00, three},
	"fdiv v%d.2d, v%d.2d, v%d.2d":  {0x6e60fc00, three},
	"fdiv v%d.4s, v%d.4s, v%d.4s":  {0x6e20fc00, three},
	"fcmeq v%d.4s, v%d.4s, v%d.4s": {0x4e20e400, three},

	"fmul v%d.2d, v%d.2d, v%d.d[0]": {0x4fc09000, three},
	"fmla v%d.2d, v%d.2d, v%d.d[0]": {0x4fc01000, three},
	"fmla v%d.4s, v%d.4s, v%d.s[0]": {0x4f801000, three},
	"fmls v%d.2d, v%d.2d, v%d.d[0]": {0x4fc05000, three},

	"fcvtl v%d.4s, v%d.4h":  {0x0e217800, two},
	"fcvtl2 v%d.4s, v%d.8h": {0x4e217800, two},
	"fcvtl v%d.2d, v%d.2s":  {0x0e617800, two},
	"fcvtl2 v%d.2d, v%d.4s": {0x4e617800, two},
	"fcvtn v%d.4h, v%d.4s":  {0x0e216800, two},
	"fcvtn2 v%d.8h, v%d.4s": {0x4e216800, two},
	"fcvtn v%d.2s, v%d.2d":  {0x0e616800, two},
	"fcvtn2 v%d.4s, v%d.2d": {0x4e616800, two},

	"umax v%d.8h, v%d.8h, v%d.8h": {0x6e606400, three},
	"umax v%d.4s, v%d.4s, v%d.4s": {0x6ea06400, three},
	"umaxv h%d, v%d.8h":           {0x6e70a800, two},
	"umaxv s%d, v%d.4s":           {0x6eb0a800, two},

	"stnp q%d, q%d, [x%d]":     {0xac000000, []field{rd, {10, 32, 1}, rn}},
	"stnp q%d, q%d, [x%d,#%d]": {0xac000000, []field{rd, {10, 32, 1}, rn, {15, 64, 16}}},
}
