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
		vendor cpuid.Vendor
		family int
		cached Choice
		past   Choice
	}{
		{cpuid.AMD, 0x19, zen4, zen4Past},
		{cpuid.AMD, 0x1a, all(AVX512), all(AVX512)},
		{cpuid.Intel, 6, all(AVX512), all(AVX512)},
		{cpuid.Intel, 0x19, all(AVX512), all(AVX512)},
	} {
		if cached, past := preferredAVX512(c.vendor, c.family); cached != c.cached || past != c.past {
			t.Errorf("%v family %#x: %v and %v, want %v and %v", c.vendor, c.family, cached, past, c.cached, c.past)
		}
	}
	if hasAVX512 && !hasAVX2 {
		t.Error("AVX-512 without AVX2")
	}
}
