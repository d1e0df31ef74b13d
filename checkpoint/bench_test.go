package checkpoint

import (
	"context"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"time"
)

// largeHeader returns a header of at least so many bytes as large language models have them: names of layers in the
// order of the data, or in none if shuffled. It returns the size of the data too.
func largeHeader(size int, shuffled bool) (header []byte, data int64) {
	var lines []string
	for n, i := 0, 0; n < size; i++ {
		const bytes = 2 * 4096 * 4096
		line := fmt.Sprintf(`"model.layers.%07d.self_attn.q_proj.weight":{"dtype":"BF16","shape":[4096,4096],`+
			`"data_offsets":[%d,%d]}`, i, data, data+bytes)
		lines = append(lines, line)
		data += bytes
		n += len(line) + 1
	}
	if shuffled {
		r := rand.New(rand.NewPCG(1, 2))
		r.Shuffle(len(lines), func(i, j int) { lines[i], lines[j] = lines[j], lines[i] })
	}
	return []byte("{" + strings.Join(lines, ",") + "}"), data
}

// smallestEntries returns a header of as many tensors as so many bytes can hold, almost.
func smallestEntries(size int) []byte {
	var b strings.Builder
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, `,"%x":{"dtype":"U8","shape":[0],"data_offsets":[0,0]}`, i)
	}
	return []byte("{" + b.String()[1:] + "}")
}

// manyDimensions returns a header of one tensor with as many dimensions as so many bytes can hold.
func manyDimensions(size int) []byte {
	return []byte(`{"a":{"dtype":"U8","shape":[0` + strings.Repeat(",0", size/2) + `],"data_offsets":[0,0]}}`)
}

// manyKeys returns a header of as many keys of metadata as so many bytes can hold, almost.
func manyKeys(size int) []byte {
	var b strings.Builder
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, `,"%x":""`, i)
	}
	return []byte(`{"__metadata__":{` + b.String()[1:] + `}}`)
}

func BenchmarkHeader(b *testing.B) {
	const size = 99_000_000
	small, smallData := largeHeader(100_000, false)
	ordered, orderedData := largeHeader(size, false)
	shuffled, shuffledData := largeHeader(size, true)
	for _, bench := range []struct {
		name string
		text []byte
		data int64
	}{
		{"tensors=1000", small, smallData},
		{"bytes=99M/order=data", ordered, orderedData},
		{"bytes=99M/order=none", shuffled, shuffledData},
		{"bytes=99M/smallest", smallestEntries(size), 0},
		{"bytes=99M/dimensions", manyDimensions(size), 0},
		{"bytes=99M/metadata", manyKeys(size), 0},
	} {
		b.Run(bench.name, func(b *testing.B) {
			b.SetBytes(int64(len(bench.text)))
			b.ReportAllocs()
			for b.Loop() {
				h, err := parseHeader(context.Background(), bench.text)
				if err == nil {
					err = h.check(bench.data)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// maxCost is how many times its length a header may take in memory beside itself; WithHeaderLimit says one more.
const maxCost = 9

// A header is read in memory bounded by its length, whatever is in it. The time is not checked, since machines differ;
// the log has it.
func TestHeaderCost(t *testing.T) {
	if testing.Short() {
		t.Skip("parses headers of 10 MB")
	}
	const size = 10_000_000
	ordered, orderedData := largeHeader(size, false)
	for _, test := range []struct {
		name string
		text []byte
		data int64
	}{
		{"ordered", ordered, orderedData},
		{"smallest", smallestEntries(size), 0},
		{"dimensions", manyDimensions(size), 0},
		{"metadata", manyKeys(size), 0},
		{"metadata of one key", []byte(`{"__metadata__":{"":""` + strings.Repeat(`,"":""`, size/6) + `}}`), 0},
		{"metadata of one key and others", []byte(strings.Replace(string(manyKeys(size)), "}}", `,"1":""}}`, 1)), 0},
		{"metadata of escapes", []byte(`{"__metadata__":{"` + strings.Repeat(`\u00e4`, size/6) + `":""}}`), 0},
	} {
		var before, after runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&before)
		start := time.Now()
		h, err := parseHeader(context.Background(), test.text)
		if err == nil {
			err = h.check(test.data)
		}
		elapsed := time.Since(start)
		runtime.GC()
		runtime.ReadMemStats(&after)
		if twice := strings.Contains(test.name, "one key"); (err != nil) != twice ||
			twice && !strings.HasSuffix(err.Error(), ": given twice") {
			t.Errorf("%s: error %v", test.name, err)
		}
		total := float64(after.TotalAlloc-before.TotalAlloc) / float64(len(test.text))
		kept := (float64(after.HeapAlloc) - float64(before.HeapAlloc)) / float64(len(test.text))
		t.Logf("%s: %.0f MB/s, allocates %.1f times and keeps %.1f times the header's length",
			test.name, float64(len(test.text))/1e6/elapsed.Seconds(), total, kept)
		if total > maxCost || kept > maxCost {
			t.Errorf("%s: allocates %.1f times and keeps %.1f times the header's length, want at most %d",
				test.name, total, kept, maxCost)
		}
		runtime.KeepAlive(h)
	}
}

func BenchmarkReadAt(b *testing.B) {
	m := open(b, "testdata/reference.safetensors")
	r, err := m.TensorReader("F32")
	if err != nil {
		b.Fatal(err)
	}
	p := make([]byte, 16)
	b.Run("by=name", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			m.ReadAt("F32", p, 0)
		}
	})
	b.Run("by=reader", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r.ReadAt(p, 0)
		}
	})
}
