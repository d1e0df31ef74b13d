package checkpoint

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/maphash"
	"math/bits"
	"slices"
)

// A header may have eight million keys of metadata, and most programs ask for none of them. What is kept is a string of
// bytes, a tenth of a map, once it is known that the metadata is right: the map is made for who asks for it.

// A packedMetadata is metadata one behind the other: of every key and every value the length, as a uvarint, and the
// bytes. It takes no more room than their JSON with the shortest spelling, but for strings of megabytes.
type packedMetadata struct {
	bytes []byte // nil if there is no metadata
	keys  int
}

// parseMetadata reads the value of the metadata, an object of strings or null.
func (h *header) parseMetadata(s *headerScanner) error {
	if s.next() == 'n' {
		return s.literal("null")
	}
	if err := s.enterObject(); err != nil {
		return err
	}
	begin := *s
	keys := newKeySet(s.text)
	size, err := keys.readStrings(s)
	// What is wrong with a value, or the JSON, comes after the keys that were read before it.
	if again := keys.repeated(false); len(again) > 0 {
		return fmt.Errorf("key %s: given twice", quote(keys.at(again[0])))
	}
	if err != nil {
		return err
	}
	begin.scratch = s.scratch // which may be long
	h.metadata = packMetadata(&begin, keys.n, size)
	return nil
}

// packMetadata reads the rest of an object of strings, of so many keys and of that size as it is packed. It was read
// before, so that there are no errors.
func packMetadata(s *headerScanner, keys, size int) packedMetadata {
	packed := packedMetadata{make([]byte, 0, size), keys}
	add := func(text []byte) {
		packed.bytes = binary.AppendUvarint(packed.bytes, uint64(len(text)))
		packed.bytes = append(packed.bytes, text...)
	}
	for i := range keys {
		key, _, _ := s.nextKey(i == 0)
		add(key)
		value, _ := s.string("a string")
		add(value)
	}
	return packed
}

// packedSize returns how many bytes a string of so many takes in a packedMetadata.
func packedSize(n int) int { return (bits.Len(uint(n)|1)+6)/7 + n }

// unpack returns a new map of the metadata, or nil if there is none.
func (p packedMetadata) unpack() map[string]string {
	if p.bytes == nil {
		return nil
	}
	rest := p.bytes
	next := func() string {
		n, size := binary.Uvarint(rest)
		text := rest[size : size+int(n)]
		rest = rest[size+int(n):]
		return string(text)
	}
	metadata := make(map[string]string, p.keys)
	for range p.keys {
		key := next()
		metadata[key] = next()
	}
	return metadata
}

// A keySet finds the keys of an object that are given twice, in time and memory that nobody can drive up: by hashes
// that cannot be foreseen, which are put in groups that the caches hold before they are compared. A map of as many keys
// misses the caches with every one.
type keySet struct {
	text []byte
	seed maphash.Seed
	n    int

	// A record is the upper bits of a key's hash and, in as many bits as the text needs, where the key is.
	positionBits int
	blocks       [][]uint64
}

// firstBlock and largestBlock are how many records are allocated at a time.
const firstBlock, largestBlock = 16, 64 << 10

// groupKeys is about how many keys are in a group: the second-level cache holds a table of them.
const groupKeys = 16 << 10

// newKeySet returns a set of keys of the text.
func newKeySet(text []byte) *keySet {
	return &keySet{text: text, seed: maphash.MakeSeed(), positionBits: bits.Len(uint(len(text)))}
}

// readStrings reads the rest of an object of strings that was entered and adds its keys, up to an error. It returns the
// packed size of all.
func (k *keySet) readStrings(s *headerScanner) (size int, err error) {
	for first := true; ; first = false {
		pos := s.pos
		key, ok, err := s.nextKey(first)
		if !ok {
			return size, err
		}
		k.add(key, pos)
		size += packedSize(len(key))
		value, err := s.string("a string")
		if err != nil {
			return 0, fmt.Errorf("key %s: %w", quote(k.at(pos)), err)
		}
		size += packedSize(len(value))
	}
}

// readObject reads the rest of an object of whatever was entered and adds its keys, up to an error.
func (k *keySet) readObject(s *headerScanner) {
	for first := true; ; first = false {
		pos := s.pos
		key, ok, _ := s.nextKey(first)
		if !ok {
			return
		}
		k.add(key, pos)
		if s.skip() != nil {
			return
		}
	}
}

// add adds a key. At pos, which is not zero, there is the comma before it, or nothing but white space.
func (k *keySet) add(key []byte, pos int) {
	last := len(k.blocks) - 1
	if last < 0 || len(k.blocks[last]) == cap(k.blocks[last]) {
		k.blocks = append(k.blocks, make([]uint64, 0, min(max(firstBlock, k.n), largestBlock)))
		last++
	}
	record := maphash.Bytes(k.seed, key)>>k.positionBits<<k.positionBits | uint64(pos)
	k.blocks[last] = append(k.blocks[last], record)
	k.n++
}

// at returns the key that was added with pos.
func (k *keySet) at(pos int) []byte {
	s := &headerScanner{text: k.text, pos: pos}
	if s.next() == ',' {
		s.pos++
	}
	key, _ := s.string("a string as key") // was read before
	return key
}

// repeated returns the positions of all keys that were added before, in rising order, or of the first of them alone.
func (k *keySet) repeated(all bool) (positions []int) {
	if k.n < 2 {
		return nil
	}
	groupBits := bits.Len(uint(k.n / groupKeys))
	records, groups := k.grouped(groupBits)
	var table []uint64 // of records, or zero; open addressing
	for _, n := range groups {
		group := records[:n]
		records = records[n:]
		tableBits := bits.Len(uint(n)) + 1
		if len(table) < 1<<tableBits {
			table = make([]uint64, 1<<tableBits)
		} else {
			clear(table[:1<<tableBits])
		}
		for _, record := range group {
			pos := k.position(record)
			if !all && len(positions) > 0 && pos > positions[0] {
				break
			}
			if !k.insert(table[:1<<tableBits], record, groupBits) {
				if !all {
					positions = positions[:0]
				}
				positions = append(positions, pos)
			}
		}
	}
	slices.Sort(positions)
	return positions
}

// grouped returns all records by their first groupBits bits, those that are equal in them in the order in which they
// were added, and how many there are of each.
func (k *keySet) grouped(groupBits int) (records []uint64, groups []int) {
	groups = make([]int, 1<<groupBits)
	for _, block := range k.blocks {
		for _, record := range block {
			groups[record>>(64-groupBits)]++
		}
	}
	next := make([]int, len(groups)) // where the next record of the group goes
	for g := 1; g < len(groups); g++ {
		next[g] = next[g-1] + groups[g-1]
	}
	records = make([]uint64, k.n)
	for _, block := range k.blocks {
		for _, record := range block {
			g := record >> (64 - groupBits)
			records[next[g]] = record
			next[g]++
		}
	}
	return records, groups
}

func (k *keySet) position(record uint64) int { return int(record & (1<<k.positionBits - 1)) }

// insert puts a record in the table of its group, whose length is a power of two and which is not full, and returns
// false if one of the same key is there.
func (k *keySet) insert(table []uint64, record uint64, groupBits int) bool {
	mask := uint64(len(table) - 1)
	hash := record >> k.positionBits << k.positionBits // the position says nothing about the key
	for i := hash << groupBits >> (64 - bits.Len64(mask)); ; i = (i + 1) & mask {
		other := table[i]
		if other == 0 {
			table[i] = record
			return true
		}
		if other>>k.positionBits == record>>k.positionBits &&
			bytes.Equal(k.at(k.position(other)), k.at(k.position(record))) {
			return false
		}
	}
}
