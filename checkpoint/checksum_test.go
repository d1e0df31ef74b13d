package checkpoint

import (
	"hash/crc32"
	"math/rand/v2"
	"testing"
)

// Ranges of random bytes that are added in random order have, joined, the checksum of all bytes in a row.
func TestSummedSpans(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for _, size := range []int{0, 1, 2, 9, 1000, 1 << 20} {
		p := make([]byte, size)
		for i := range p {
			p[i] = byte(random.Uint32())
		}
		var cuts []int
		for begin := 0; begin < size; begin = cuts[len(cuts)-1] {
			cuts = append(cuts, begin+1+random.IntN(max(size/7, 1)))
		}
		if size > 0 {
			cuts[len(cuts)-1] = size
		}
		var spans summedSpans
		for _, i := range random.Perm(len(cuts)) {
			begin := 0
			if i > 0 {
				begin = cuts[i-1]
			}
			x := summedSpan{int64(begin), int64(cuts[i]), checksum(p[begin:cuts[i]])}
			if err := spans.add(x); err != nil {
				t.Fatal(err)
			}
			if err := spans.add(x); err == nil {
				t.Fatalf("bytes %d to %d could be added twice", x.begin, x.end)
			}
		}
		want := crc32.Checksum(p, crc32.MakeTable(crc32.Castagnoli))
		if size == 0 && len(spans) == 0 {
			continue
		}
		if len(spans) != 1 || spans[0] != (summedSpan{0, int64(size), want}) {
			t.Errorf("%d bytes: spans %v, want one with checksum %08x", size, spans, want)
		}
	}
}

// Ranges that overlap others at either side, or lie in them or around them, are refused and change nothing.
func TestSummedSpansOverlap(t *testing.T) {
	spans := summedSpans{{10, 20, 1}, {30, 40, 2}}
	for _, x := range []summedSpan{{9, 11, 0}, {19, 30, 0}, {20, 31, 0}, {39, 50, 0}, {12, 15, 0}, {0, 100, 0}, {10, 20, 0}} {
		if err := spans.add(x); err == nil {
			t.Errorf("bytes %d to %d could be added", x.begin, x.end)
		}
	}
	if len(spans) != 2 {
		t.Errorf("spans %v", spans)
	}
}
