//go:build !purego && !noasm

package implementation

import (
	"github.com/klauspost/cpuid/v2"
	"golang.org/x/sys/cpu"
)

// What the assembly of each implementation needs. A test in package asmgen compares this with the instructions used.
var (
	hasAVX2   = cpu.X86.HasAVX && cpu.X86.HasAVX2 && cpu.X86.HasFMA && cpu.X86.HasF16C
	hasAVX512 = hasAVX2 && cpu.X86.HasAVX512F && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512VL
)

func detected() (d []Implementation) {
	if hasAVX512 {
		d = append(d, AVX512)
	}
	if hasAVX2 {
		d = append(d, AVX2)
	}
	return d
}

// preferred returns the faster implementation of each kind on this processor, for data in the caches and past them,
// and where models are staggered; docs/performance.md has the measurements.
func preferred() (cached, past, staggered Choice) {
	switch {
	case hasAVX512:
		return preferredAVX512(cpuid.CPU.VendorID, cpuid.CPU.Family)
	case hasAVX2:
		return all(AVX2), all(AVX2), all(Generic)
	}
	return all(Generic), all(Generic), all(Generic)
}

func preferredAVX512(vendor cpuid.Vendor, family int) (cached, past, staggered Choice) {
	cached, past, staggered = all(AVX512), all(AVX512), all(Generic)
	if vendor == cpuid.AMD && family == 0x19 {
		// Zen 4 splits a 512-bit operation in two, and its conversions from 256 to 512 bits are slow. In memory that does
		// not matter: there the longer blocks of AVX-512 keep more models flowing where an element needs more than one
		// instruction, and the shorter ones of AVX2 are ahead where it does not.
		cached[Float32] = AVX2
		cached[Float16] = AVX2
		past[Float64] = AVX2
		past[Float32Native] = AVX2
		staggered[Float32] = AVX2
	}
	return cached, past, staggered
}

// LastLevelCache returns the size in bytes of the last-level cache that one core can use, or 0 where it is not known.
func LastLevelCache() int { return max(cpuid.CPU.Cache.L3, 0) }

// SecondLevelCache returns the size in bytes of the second-level cache of a core, or 0 where it is not known.
func SecondLevelCache() int { return max(cpuid.CPU.Cache.L2, 0) }
