package probe

import "unsafe"

// keep uses a value, so that the compiler cannot drop what made it.
//
//go:noinline
func keep(uint64) {}

func goReads() []Probe {
	return []Probe{{"read-go", 1, func(dst, _ unsafe.Pointer, length, passes int) {
		p := unsafe.Slice((*uint64)(dst), lines(length)/8)
		for range passes {
			var a, b, c, d uint64
			for i := 0; i+8 <= len(p); i += 8 {
				q := (*[8]uint64)(p[i:])
				a |= q[0] | q[4]
				b |= q[1] | q[5]
				c |= q[2] | q[6]
				d |= q[3] | q[7]
			}
			keep(a | b | c | d)
		}
	}}}
}

func goUpdates() []Probe {
	return []Probe{{"update-go", 3, func(dst, src unsafe.Pointer, length, passes int) {
		p := unsafe.Slice((*uint64)(dst), lines(length)/8)
		q := unsafe.Slice((*uint64)(src), lines(length)/8)
		for range passes {
			// The zero is a variable so that the compiler cannot know that nothing changes.
			for i := range p {
				p[i] |= q[i] & zero
			}
		}
	}}}
}

var zero uint64
