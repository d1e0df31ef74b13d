package checkpoint

import (
	"cmp"
	"encoding/binary"
	"iter"
	"slices"
)

// A header may have two million tensors, in any order. What sorts them here moves small keys and not entries, and looks
// at every name once and not at every comparison: a general sort would take seconds.

// byOffset goes through the entries by offset, and at one offset by size. The entries stay where they are.
func byOffset(entries []entry) iter.Seq[*entry] {
	compare := func(a, b *entry) int {
		return cmp.Or(cmp.Compare(a.offset, b.offset), cmp.Compare(a.size, b.size))
	}
	// Files mostly list the tensors in the order of their data.
	sorted := true
	for i := 1; i < len(entries) && sorted; i++ {
		sorted = compare(&entries[i-1], &entries[i]) <= 0
	}
	if sorted {
		return func(yield func(*entry) bool) {
			for i := range entries {
				if !yield(&entries[i]) {
					return
				}
			}
		}
	}

	type key struct {
		offset, size int64
		index        int
	}
	keys := make([]key, len(entries))
	for i := range entries {
		keys[i] = key{entries[i].offset, entries[i].size, i}
	}
	slices.SortFunc(keys, func(a, b key) int {
		return cmp.Or(cmp.Compare(a.offset, b.offset), cmp.Compare(a.size, b.size), cmp.Compare(a.index, b.index))
	})
	return func(yield func(*entry) bool) {
		for _, k := range keys {
			if !yield(&entries[k.index]) {
				return
			}
		}
	}
}

// sortByName returns the entries in the order of their names, bytewise.
func sortByName(entries []entry) []entry {
	sorted := true
	for i := 1; i < len(entries) && sorted; i++ {
		sorted = entries[i-1].Name <= entries[i].Name
	}
	if sorted {
		return entries
	}
	keys := make([]nameKey, len(entries))
	for i := range keys {
		keys[i].index = int32(i)
	}
	sortKeys(keys, entries, 0)
	result := make([]entry, len(entries))
	for i, k := range keys {
		result[i] = entries[k.index]
	}
	return result
}

// A nameKey is eight bytes of a name.
type nameKey struct {
	bytes uint64 // big-endian, padded with zeros at the end of the name
	index int32  // of the entry
	left  int32  // bytes of the name from here on, up to 9
}

// sortKeys sorts the keys by the names of their entries, which are equal up to depth. It sorts by eight bytes and then
// by the next eight wherever those are equal.
func sortKeys(keys []nameKey, entries []entry, depth int) {
	for ; ; depth += 8 {
		for i := range keys {
			keys[i].read(entries[keys[i].index].Name[depth:])
		}
		// A name that ends is before one that goes on with zeros.
		slices.SortFunc(keys, func(a, b nameKey) int {
			return cmp.Or(cmp.Compare(a.bytes, b.bytes), cmp.Compare(a.left, b.left))
		})
		if len(keys) > 0 && keys[0].equal(keys[len(keys)-1]) {
			if keys[0].left <= 8 {
				return // one name, several times
			}
			continue // a prefix of all, which may be long
		}
		break
	}
	for len(keys) > 0 {
		n := 1
		for n < len(keys) && keys[n].equal(keys[0]) {
			n++
		}
		if n > 1 && keys[0].left > 8 {
			sortKeys(keys[:n], entries, depth+8)
		}
		keys = keys[n:]
	}
}

// read sets the key to the beginning of what is left of the name.
func (k *nameKey) read(rest string) {
	var b [8]byte
	copy(b[:], rest)
	k.bytes = binary.BigEndian.Uint64(b[:])
	k.left = int32(min(len(rest), 9))
}

// equal reports whether the keys stand for the same bytes.
func (k nameKey) equal(other nameKey) bool { return k.bytes == other.bytes && k.left == other.left }
