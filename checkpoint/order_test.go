package checkpoint

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// The names have few letters, zero bytes among them, and long common beginnings.
func TestSortByName(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		prefix := strings.Repeat("abcdefgh", r.IntN(4)) + strings.Repeat("x", r.IntN(9))
		var entries []entry
		for i := range r.IntN(60) {
			var b strings.Builder
			if r.IntN(10) > 0 {
				b.WriteString(prefix)
			}
			for range r.IntN(20) {
				b.WriteByte("\x00ab\xff"[r.IntN(4)])
			}
			entries = append(entries, entry{Tensor: Tensor{Name: b.String()}, offset: int64(i)})
		}
		want := make([]string, len(entries))
		for i, e := range entries {
			want[i] = e.Name
		}
		slices.Sort(want)
		seen := make([]bool, len(entries))
		for i, e := range sortByName(slices.Clone(entries)) {
			if e.Name != want[i] {
				t.Fatalf("name %d is %q, want %q of %q", i, e.Name, want[i], want)
			}
			if seen[e.offset] || entries[e.offset].Name != e.Name {
				t.Fatalf("entry %d is lost or changed", e.offset)
			}
			seen[e.offset] = true
		}
	}
}

func TestSortLongNames(t *testing.T) {
	long := strings.Repeat("x", 1<<20)
	got := sortByName([]entry{
		{Tensor: Tensor{Name: long + "b"}}, {Tensor: Tensor{Name: long}}, {Tensor: Tensor{Name: long + "a"}},
	})
	if got[0].Name != long || got[1].Name != long+"a" || got[2].Name != long+"b" {
		t.Error("wrong order")
	}
}

func TestByOffset(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 500 {
		entries := make([]entry, r.IntN(30))
		for i := range entries {
			entries[i].offset, entries[i].size = r.Int64N(8), r.Int64N(3)
		}
		n := 0
		var last *entry
		for e := range byOffset(entries) {
			if last != nil && (e.offset < last.offset || e.offset == last.offset && e.size < last.size) {
				t.Fatalf("[%d,+%d] after [%d,+%d]", e.offset, e.size, last.offset, last.size)
			}
			last = e
			n++
		}
		if n != len(entries) {
			t.Fatalf("%d entries, want %d", n, len(entries))
		}
		for range byOffset(entries) {
			break // a loop may end early
		}
	}
}
