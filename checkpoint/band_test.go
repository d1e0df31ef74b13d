package checkpoint

import (
	"bytes"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// An array of several bands, with gaps that are read and gaps that are not, is read from several goroutines: from front to
// back, from back to front, and anywhere.
func TestBands(t *testing.T) {
	bandUsers.Add(1000) // each has the minimum
	defer bandUsers.Add(-1000)
	for _, shape := range [][]int64{{1500, 3000}, {30000, 150}, {1300, 30, 60}, {5, 3, 7, 11, 13, 17, 19}} {
		file, want := fortranFile(shape)
		path := filepath.Join(t.TempDir(), "a.npy")
		if err := os.WriteFile(path, file, 0o666); err != nil {
			t.Fatal(err)
		}
		m := open(t, path)
		r, err := m.TensorReader("array")
		if err != nil {
			t.Fatal(err)
		}
		check := func(begin, size int) {
			p := make([]byte, min(size, len(want)-begin))
			if _, err := r.ReadAt(p, int64(begin)); err != nil || !bytes.Equal(p, want[begin:begin+len(p)]) {
				t.Errorf("shape %v, %d bytes at %d: error %v or other data", shape, len(p), begin, err)
			}
		}
		const size = 100_001 // not of whole elements
		var readers sync.WaitGroup
		for k := range 3 {
			readers.Go(func() {
				for i := k * size; i < len(want); i += 3 * size {
					check(i, size)
				}
			})
		}
		readers.Wait()
		for i := (len(want) - 1) / size * size; i >= 0; i -= 20 * size {
			check(i, size)
		}
		for range 5 {
			check(rand.IntN(len(want)), rand.IntN(size))
		}
		if b := m.sources[0].band; b.data == nil || int64(len(b.data)) > minBandBytes {
			t.Errorf("shape %v: a band of %d bytes", shape, len(b.data))
		}
	}
}

// A countingReader counts reads.
type countingReader struct {
	from  fullReader
	reads atomic.Int64
}

func (r *countingReader) readFull(p []byte, off int64) (int, error) {
	r.reads.Add(1)
	return r.from.readFull(p, off)
}

// Readers that go through an array together share its bands, however they overtake each other: the file is read as often
// as one of them would. One that wants something else in between does not wait for ever.
func TestBandOfManyReaders(t *testing.T) {
	bandUsers.Add(1000) // each has the minimum
	defer bandUsers.Add(-1000)
	const rows, columns = 50_000, 300
	file, want := fortranFile([]int64{rows, columns})
	path := filepath.Join(t.TempDir(), "a.npy")
	if err := os.WriteFile(path, file, 0o666); err != nil {
		t.Fatal(err)
	}
	m := open(t, path)
	a := m.find("array").array
	counting := &countingReader{from: a.from}
	a.from = counting
	const size = 250_000 // a few to a band, and not of whole rows
	var next atomic.Int64
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			p := make([]byte, size)
			for {
				begin := int(next.Add(size) - size)
				if begin >= len(want) {
					return
				}
				time.Sleep(time.Duration(rand.IntN(5)) * time.Millisecond)
				n, err := m.ReadAt("array", p, int64(begin))
				if !bytes.Equal(p[:n], want[begin:min(begin+size, len(want))]) {
					t.Errorf("%d bytes at %d: error %v or other data", n, begin, err)
				}
			}
		})
	}
	readers.Wait()
	// A band is read column by column.
	const bands = (columns*rows*2)/minBandBytes + 1
	if got := counting.reads.Load(); got > (bands+1)*columns {
		t.Errorf("%d reads, want %d", got, bands*columns)
	}

	start := time.Now()
	p := make([]byte, size)
	for range 5 {
		for _, begin := range []int64{0, int64(len(want)) / 2} {
			if _, err := m.ReadAt("array", p, begin); err != nil || !bytes.Equal(p, want[begin:begin+size]) {
				t.Errorf("at %d: error %v or other data", begin, err)
			}
		}
	}
	if elapsed := time.Since(start); elapsed > 3*maxBandWait {
		t.Errorf("reads of other parts took %v", elapsed)
	}
}

// A file of arrays in Fortran's order is counted while it is open, once.
func TestBandUsers(t *testing.T) {
	before := bandUsers.Load()
	file, _ := fortranFile([]int64{2, 3})
	path := filepath.Join(t.TempDir(), "a.npy")
	if err := os.WriteFile(path, file, 0o666); err != nil {
		t.Fatal(err)
	}
	m, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := bandUsers.Load() - before; got != 1 {
		t.Errorf("%d users", got)
	}
	m.Close()
	m.Close()
	if got := bandUsers.Load() - before; got != 0 {
		t.Errorf("%d users after Close", got)
	}
	if bandUsers.Add(1 << 40); bandBytes() != minBandBytes {
		t.Errorf("a band of %d bytes", bandBytes())
	}
	bandUsers.Add(-1 << 40)
}
