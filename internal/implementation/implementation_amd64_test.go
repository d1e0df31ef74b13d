//go:build !purego && !noasm

package implementation

import (
	"testing"

	"github.com/klauspost/cpuid/v2"
)

// TestPreferred: AVX-512 for every kind but on Zen 4, where it is the slower one for all but bfloat16 and double-double.
func TestPreferred(t *testing.T) {
	zen4 := all(AVX512)
	for _, k := range []Kind{Float32, Float64, Float32Native, Float16} {
		zen4[k] = AVX2
	}
	for _, c := range []struct {
		vendor cpuid.Vendor
		family int
		want   [Kinds]Implementation
	}{
		{cpuid.AMD, 0x19, zen4},
		{cpuid.AMD, 0x1a, all(AVX512)},
		{cpuid.Intel, 6, all(AVX512)},
		{cpuid.Intel, 0x19, all(AVX512)},
	} {
		if got := preferredAVX512(c.vendor, c.family); got != c.want {
			t.Errorf("%v family %#x: %v, want %v", c.vendor, c.family, got, c.want)
		}
	}
	if hasAVX512 && !hasAVX2 {
		t.Error("AVX-512 without AVX2")
	}
}
