//go:build !purego && !noasm

package implementation

import (
	"testing"

	"github.com/klauspost/cpuid/v2"
)

// TestPreferred: AVX-512 for every kind but on Zen 4, where it is the slower one for float32 and float16 in the caches,
// and for float64 and native float32 in memory.
func TestPreferred(t *testing.T) {
	zen4, zen4Past := all(AVX512), all(AVX512)
	for _, k := range []Kind{Float32, Float16} {
		zen4[k] = AVX2
	}
	zen4Past[Float64], zen4Past[Float32Native] = AVX2, AVX2
	for _, c := range []struct {
		vendor    cpuid.Vendor
		family    int
		cached    Choice
		past      Choice
		staggered Choice
	}{
		{cpuid.AMD, 0x19, zen4, zen4Past, Choice{Float32: AVX2}},
		{cpuid.AMD, 0x1a, all(AVX512), all(AVX512), Choice{}},
		{cpuid.Intel, 6, all(AVX512), all(AVX512), Choice{}},
		{cpuid.Intel, 0x19, all(AVX512), all(AVX512), Choice{}},
	} {
		cached, past, staggered := preferredAVX512(c.vendor, c.family)
		if cached != c.cached || past != c.past || staggered != c.staggered {
			t.Errorf("%v family %#x: %v, %v and %v, want %v, %v and %v", c.vendor, c.family, cached, past, staggered,
				c.cached, c.past, c.staggered)
		}
	}
	if hasAVX512 && !hasAVX2 {
		t.Error("AVX-512 without AVX2")
	}
}
