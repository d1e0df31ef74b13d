package neon

import "fmt"

// magnitudeBlock is how many bytes the magnitude functions take at a time.
const magnitudeBlock = 128

// magnitude writes, for words of 16 or 32 bits:
//
//	m := 0
//	for each word of the n bytes at x { m = max(m, word&mask) }
//	return m
func (e *emitter) magnitude(wordBits int) {
	name, arrangement := fmt.Sprintf("magnitude%dNEON", wordBits), "4s"
	if wordBits == 16 {
		arrangement = "8h"
	}
	e.function(name, "(x unsafe.Pointer, n int, mask uint64) (m uint64)", 32,
		fmt.Sprintf("m := 0; for each word of %d bits of the n bytes at x, which are whole blocks { m = max(m, word&mask) }",
			wordBits))
	const (
		x, n, bits = 0, 1, 2
		vectors    = magnitudeBlock / vectorBytes
		largest    = 8 // to 15; the elements are in 0 to 7
		mask       = 16
	)
	greater := func(a, b int) {
		e.word(fmt.Sprintf("umax v%%d.%[1]s, v%%d.%[1]s, v%%d.%[1]s", arrangement), a, a, b)
	}
	e.op("MOVD", "x+0(FP), R%d", x)
	e.op("MOVD", "n+8(FP), R%d", n)
	e.op("MOVD", "mask+16(FP), R%d", bits)
	e.op("VDUP", "R%d, V%d.D2", bits, mask)
	for v := range vectors {
		e.op("VEOR", "V%[1]d.B16, V%[1]d.B16, V%[1]d.B16", largest+v)
	}
	e.label("magnitudes")
	for v := 0; v < vectors; v += 4 {
		e.op("VLD1.P", "%d(R%d), [V%d.B16, V%d.B16, V%d.B16, V%d.B16]", 4*vectorBytes, x, v, v+1, v+2, v+3)
	}
	for v := range vectors {
		e.op("VAND", "V%d.B16, V%d.B16, V%[2]d.B16", mask, v)
	}
	for v := range vectors {
		greater(largest+v, v)
	}
	e.op("SUBS", "$%d, R%d, R%[2]d", magnitudeBlock, n)
	e.op("BNE", "magnitudes")
	e.comment("The largest of one vector, then of its words.")
	for v := 1; v < vectors; v++ {
		greater(largest, largest+v)
	}
	if wordBits == 16 {
		e.word("umaxv h%d, v%d.8h", largest, largest)
		e.op("VMOV", "V%d.H[0], R%d", largest, bits)
	} else {
		e.word("umaxv s%d, v%d.4s", largest, largest)
		e.op("VMOV", "V%d.S[0], R%d", largest, bits)
	}
	e.op("MOVD", "R%d, m+24(FP)", bits)
	e.op("RET", "")
}
