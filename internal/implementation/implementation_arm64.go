//go:build !purego && !noasm

package implementation

// Every instruction that the NEON kernels use belongs to ARMv8.0, which is the baseline of arm64: nothing to detect.
func detected() []Implementation { return []Implementation{NEON} }

func preferred() (cached, past, staggered Choice) { return all(NEON), all(NEON), all(Generic) }

// LastLevelCache returns 0: the size is not to be had without privileges.
func LastLevelCache() int { return 0 }

// SecondLevelCache returns 0, for the same reason.
func SecondLevelCache() int { return 0 }
