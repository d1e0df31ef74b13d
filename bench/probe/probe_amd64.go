//go:build !purego && !noasm

package probe

import (
	"unsafe"

	"golang.org/x/sys/cpu"
)

//go:noescape
func read256(p unsafe.Pointer, length, passes int)

//go:noescape
func read512(p unsafe.Pointer, length, passes int)

//go:noescape
func copy256(dst, src unsafe.Pointer, length, passes int)

//go:noescape
func copyNontemporal256(dst, src unsafe.Pointer, length, passes int)

//go:noescape
func update256(dst, src unsafe.Pointer, length, passes int)

//go:noescape
func call(dst []float32, x [][]float32, w []float64)

// Reads returns the probes that read: the faster one is the processor's rate.
func Reads() (probes []Probe) {
	if !cpu.X86.HasAVX {
		return goReads()
	}
	probes = append(probes, Probe{"read-256", 1, func(dst, _ unsafe.Pointer, length, passes int) {
		read256(dst, lines(length), passes)
	}})
	if cpu.X86.HasAVX512F {
		probes = append(probes, Probe{"read-512", 1, func(dst, _ unsafe.Pointer, length, passes int) {
			read512(dst, lines(length), passes)
		}})
	}
	return probes
}

// Copies returns the probes that read src and write dst: with ordinary stores and with stores that bypass the caches.
func Copies() []Probe {
	if !cpu.X86.HasAVX {
		return nil
	}
	return []Probe{
		{"copy-256", 2, func(dst, src unsafe.Pointer, length, passes int) { copy256(dst, src, lines(length), passes) }},
		{"copy-nontemporal-256", 2, func(dst, src unsafe.Pointer, length, passes int) {
			copyNontemporal256(dst, src, lines(length), passes)
		}},
	}
}

// Updates returns the probes that read dst and src and write dst back as it was: what a step in place moves.
func Updates() []Probe {
	if !cpu.X86.HasAVX {
		return goUpdates()
	}
	return []Probe{{"update-256", 3, func(dst, src unsafe.Pointer, length, passes int) {
		update256(dst, src, lines(length), passes)
	}}}
}

// Call takes the arguments of a weighted sum and returns: the cheapest possible call of an assembly function.
func Call(dst []float32, x [][]float32, w []float64, times int) {
	for range times {
		call(dst, x, w)
	}
}
