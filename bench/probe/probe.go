// Package probe measures what memory can do: loops that move bytes and compute nothing, one stream after the other. The
// benchmarks divide by these. A job that reads several streams at once can be somewhat faster.
//
// On amd64 the loops are assembly; elsewhere, and under the build tags purego and noasm, they are Go's copy and a Go loop
// that reads, which a processor's limit may well exceed.
package probe

import "unsafe"

// Line is the granule of all probes in bytes: lengths are rounded down to it, and are at least one.
const Line = 512

// A Probe passes over memory several times and changes no value in it, except that a copy makes dst equal to src.
type Probe struct {
	// Name says what moves: "read-256", "copy-nontemporal-256" and so on, with the width of the registers in bits.
	Name string

	// BytesPerByte is how many bytes a pass moves, reads and writes together, for each byte of its length.
	BytesPerByte int

	// Run makes the given number of passes over length bytes at dst and, for the probes that use it, at src. The
	// ranges must not overlap.
	Run func(dst, src unsafe.Pointer, length, passes int)
}

// lines rounds a length to what the loops take.
func lines(length int) int { return max(length/Line, 1) * Line }
