//go:build (!amd64 && !arm64) || purego || noasm

package implementation

func detected() []Implementation { return nil }

func preferred() (cached, past, staggered Choice) { return all(Generic), all(Generic), all(Generic) }

// LastLevelCache returns 0: without assembly there is no use for it.
func LastLevelCache() int { return 0 }

// SecondLevelCache returns 0, for the same reason.
func SecondLevelCache() int { return 0 }
