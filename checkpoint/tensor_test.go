package checkpoint

import (
	"math"
	"strings"
	"testing"
)

func TestTensorSize(t *testing.T) {
	for _, test := range []struct {
		dtype    DType
		shape    []int64
		elements int64
		bytes    int64
		err      string
	}{
		{F32, nil, 1, 4, ""},
		{F32, []int64{}, 1, 4, ""},
		{F64, []int64{2, 3}, 6, 48, ""},
		{BF16, []int64{5, 0, 7}, 0, 0, ""},
		{C64, []int64{3}, 3, 24, ""},
		{F4, []int64{2}, 2, 1, ""},
		{F4, []int64{3}, -1, -1, "shape [3]: 12 bits of F4 are no whole number of bytes"},
		{F6E2M3, []int64{4}, 4, 3, ""},
		{F6E3M2, []int64{2}, -1, -1, "shape [2]: 12 bits of F6_E3M2 are no whole number of bytes"},
		{U8, []int64{1 << 60}, 1 << 60, 1 << 60, ""},
		{U8, []int64{1 << 61}, -1, -1, "shape [2305843009213693952]: the number of bits overflows 64 bits in U8"},
		{F4, []int64{1 << 61}, 1 << 61, 1 << 60, ""},
		{
			F64,
			[]int64{1 << 32, 1 << 32},
			-1, -1,
			"shape [4294967296 4294967296]: the number of elements overflows 64 bits",
		},
		// A product that needs all 64 bits is none of the format's overflows; a later zero makes it none at all.
		{F32, []int64{math.MaxInt64, 2, 0}, 0, 0, ""},
		{
			F32,
			[]int64{math.MaxInt64, 4, 0},
			-1, -1,
			"shape [9223372036854775807 4 0]: the number of elements overflows 64 bits",
		},
		{F32, []int64{0, math.MaxInt64, math.MaxInt64}, 0, 0, ""},
		{F32, []int64{2, -1}, -1, -1, "shape [2 -1]: dimension 1 is negative"},
		{0, []int64{2}, -1, -1, "dtype: DType(0) is no dtype"},
		{23, nil, -1, -1, "dtype: DType(23) is no dtype"},
	} {
		tensor := Tensor{"w", test.dtype, test.shape}
		if n := tensor.Elements(); n != test.elements {
			t.Errorf("%v has %d elements, want %d", tensor, n, test.elements)
		}
		if n := tensor.Bytes(); n != test.bytes {
			t.Errorf("%v has %d bytes, want %d", tensor, n, test.bytes)
		}
		err := tensor.Validate()
		if test.err == "" && err != nil || test.err != "" && (err == nil || err.Error() != test.err) {
			t.Errorf("%v: error %v, want %q", tensor, err, test.err)
		}
	}
}

func TestTensorText(t *testing.T) {
	for _, test := range []struct {
		tensor       Tensor
		shape, whole string
	}{
		{Tensor{"w", F32, []int64{2, 3}}, "[2 3]", `"w" F32 [2 3]`},
		{Tensor{"", Bool, nil}, "[]", `"" BOOL []`},
		{Tensor{"a\n", F8E4M3, []int64{0}}, "[0]", `"a\n" F8_E4M3 [0]`},
	} {
		if got := test.tensor.ShapeString(); got != test.shape {
			t.Errorf("shape %s, want %s", got, test.shape)
		}
		if got := test.tensor.String(); got != test.whole {
			t.Errorf("got %s, want %s", got, test.whole)
		}
	}
	// Names and shapes of any length are shortened where errors show them.
	long := Tensor{strings.Repeat("ä", 1<<20), U8, make([]int64, 1<<20)}.String()
	if len(long) > 300 || !strings.HasSuffix(long, `ä"… U8 [0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 …]`) {
		t.Errorf("%d bytes: %.400s", len(long), long)
	}
}
