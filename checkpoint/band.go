package checkpoint

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"
)

// Of an array in Fortran's order, what a read in the order of C asks for is spread over the whole file, in runs of a few
// bytes. Therefore a band of many rows, which are indices of the first dimension, is read at once and put in order in
// memory; the reads that follow find it there. An array that is no larger than a band is read from front to back.
const (
	maxBandBytes  = 16 << 20 // of one file
	allBandBytes  = 32 << 20 // of all open files together, as long as that leaves each of them the minimum
	minBandBytes  = 2 << 20
	bandReadBytes = 256 << 10 // what is read of a file at a time
	bandGapBytes  = 16 << 10  // a shorter gap between two runs is read too: a read takes about as long to begin
	bandTile      = 16        // columns that are put in order together: a cache line of 32-bit numbers

	// A read of less does not begin a band: it may be one of few. And runs that are long are read as they are.
	minBandRead = 16 << 10
	maxBandRun  = 64 << 10

	// maxBandWait is how long the rest of a band is kept for readers that are behind. Each of them would have to gather
	// what it wants without it, which takes about as long as a band.
	maxBandWait = 200 * time.Millisecond
)

// bandUsers is the number of open files that have arrays for a band.
var bandUsers atomic.Int64

// bandBytes returns how large a band may be.
func bandBytes() int64 {
	return min(max(allBandBytes/max(bandUsers.Load(), 1), minBandBytes), maxBandBytes)
}

// A band is consecutive rows of an array in Fortran's order, in the order of C.
type band struct {
	mu         sync.RWMutex
	array      *array // nil if it is empty
	begin, end int64  // the elements of the array that it has
	data       []byte
	window     []byte // a part of the file

	unread    atomic.Int64  // bytes of it that nobody has copied
	allRead   chan struct{} // closed when there are none
	impatient atomic.Bool   // nobody came for the rest of the last one: readers do not go from front to back
}

// release gives the memory back.
func (b *band) release() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.array, b.data, b.window = nil, nil, nil
}

// copy copies from the band what it has of the elements of a from first on, and returns the number of bytes.
func (b *band) copy(a *array, p []byte, first int64) int {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.copyLocked(a, p, first)
}

func (b *band) copyLocked(a *array, p []byte, first int64) int {
	if b.array != a || first < b.begin || first >= b.end {
		return 0
	}
	width := int64(a.width)
	n := copy(p, b.data[(first-b.begin)*width:(b.end-b.begin)*width])
	if left := b.unread.Add(-int64(n)); left <= 0 && left+int64(n) > 0 {
		b.impatient.Store(false)
		close(b.allRead)
	}
	return n
}

// wait returns when all of the band has been read, if element first is after it, or nobody has come for the rest.
func (b *band) wait(a *array, first int64) {
	b.mu.RLock()
	ahead, allRead := b.array == a && first >= b.end, b.allRead
	b.mu.RUnlock()
	if !ahead || b.impatient.Load() {
		return
	}
	select {
	case <-allRead:
	case <-a.ctx.Done():
	case <-time.After(maxBandWait):
		b.impatient.Store(true)
	}
}

// read fills p with elements of a, whole ones, and returns how many bytes are left to be read without a band.
func (b *band) read(a *array, p []byte, first int64) (int, error) {
	rows := b.rows(a, len(p))
	size := len(p)
	for len(p) > 0 {
		n := b.copy(a, p, first)
		if n == 0 {
			if rows == 0 || size < minBandRead {
				return len(p), nil
			}
			b.wait(a, first)
			var err error
			if n, err = b.fill(a, p, first, rows); n == 0 || err != nil {
				return len(p), err
			}
		}
		p = p[n:]
		first += int64(n / a.width)
	}
	return 0, nil
}

// rows returns how many rows of a a band has at most; zero if a read of so many bytes is better done without.
func (b *band) rows(a *array, size int) int64 {
	rowBytes := int64(a.width)
	for _, d := range a.shape[1:] {
		rowBytes *= d
	}
	if int64(size)/rowBytes*int64(a.width) >= maxBandRun {
		return 0
	}
	return min(bandBytes()/rowBytes, bandReadBytes/int64(a.width), a.shape[0])
}

// fill reads the band that begins with the row of element first, and copies from it as copy does. It returns zero for an
// element before the band of the array that is there: the others that read have come further.
func (b *band) fill(a *array, p []byte, first, rows int64) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n := b.copyLocked(a, p, first); n > 0 {
		return n, nil
	}
	if b.array == a && first < b.begin {
		return 0, nil
	}
	columns := int64(1)
	for _, d := range a.shape[1:] {
		columns *= d
	}
	row := first / columns
	// Readers that go from front to back together do not come in order: the band begins where the last one ended.
	end := int64(0)
	if b.array == a {
		end = b.end / columns
	}
	if row > end && row < end+rows && !b.impatient.Load() {
		row = end
	}
	b.array = nil
	rows = min(rows, a.shape[0]-row)
	width := int64(a.width)
	if n := rows * columns * width; int64(cap(b.data)) < n {
		b.data = nil // before the new one is there
		b.data = make([]byte, n)
	} else {
		b.data = b.data[:n]
	}
	if b.window == nil {
		b.window = make([]byte, bandReadBytes)
	}
	if err := b.readRows(a, row, rows, columns); err != nil {
		return 0, err
	}
	b.array, b.begin, b.end = a, row*columns, (row+rows)*columns
	b.unread.Store(int64(len(b.data)))
	b.allRead = make(chan struct{})
	return b.copyLocked(a, p, first), nil
}

// readRows fills data with rows of the array, each of so many elements.
func (b *band) readRows(a *array, row, rows, columns int64) error {
	width := int64(a.width)
	// Columns of the window are this far apart: as in the file if the gaps are read, or without gaps.
	stride := a.shape[0] * width
	withGaps := stride-rows*width < bandGapBytes && stride <= bandReadBytes/4 || rows == a.shape[0]
	if !withGaps {
		stride = rows * width
	}
	c := newColumns(a.shape)
	var to [bandTile]int64
	for done := int64(0); done < columns; {
		n := min(bandReadBytes/stride, columns-done)
		if err := a.stopped(); err != nil {
			return err
		}
		at := func(column int64) int64 { return a.offset + (column*a.shape[0]+row)*width }
		if withGaps {
			// The gap after the last column may be beyond the end of the file.
			if _, err := a.from.readFull(b.window[:(n-1)*stride+rows*width], at(done)); err != nil {
				return err
			}
		} else {
			for i := range n {
				if i%256 == 255 {
					if err := a.stopped(); err != nil {
						return err
					}
				}
				if _, err := a.from.readFull(b.window[i*stride:(i+1)*stride], at(done+i)); err != nil {
					return err
				}
			}
		}
		for i := int64(0); i < n; i += bandTile {
			tile := to[:min(bandTile, n-i)]
			for k := range tile {
				tile[k] = c.next() * width
			}
			b.scatter(b.window[i*stride:], stride, tile, rows, columns*width, a.width)
		}
		done += n
	}
	return nil
}

// scatter puts columns that are stride bytes apart into the rows of data, each at its place of the row.
func (b *band) scatter(from []byte, stride int64, to []int64, rows, rowBytes int64, width int) {
	order := binary.LittleEndian // any, but the same
	for r := range rows {
		row := b.data[r*rowBytes : (r+1)*rowBytes]
		src := from[r*int64(width):]
		switch width {
		case 1:
			for k, at := range to {
				row[at] = src[int64(k)*stride]
			}
		case 2:
			for k, at := range to {
				order.PutUint16(row[at:], order.Uint16(src[int64(k)*stride:]))
			}
		case 4:
			for k, at := range to {
				order.PutUint32(row[at:], order.Uint32(src[int64(k)*stride:]))
			}
		case 8:
			for k, at := range to {
				order.PutUint64(row[at:], order.Uint64(src[int64(k)*stride:]))
			}
		default:
			for k, at := range to {
				copy(row[at:at+int64(width)], src[int64(k)*stride:])
			}
		}
	}
}

// columns goes through the columns of an array in the order of the file, in which the second dimension is the first.
type columns struct {
	shape   []int64 // without the first dimension
	index   []int64
	strides []int64 // in a row, in the order of C
	at      int64
}

func newColumns(shape []int64) *columns {
	shape = shape[1:]
	c := &columns{shape: shape, index: make([]int64, len(shape)), strides: make([]int64, len(shape))}
	stride := int64(1)
	for i := len(shape) - 1; i >= 0; i-- {
		c.strides[i] = stride
		stride *= shape[i]
	}
	return c
}

// next returns the place of the next column in a row.
func (c *columns) next() int64 {
	at := c.at
	for i := range c.shape {
		c.index[i]++
		c.at += c.strides[i]
		if c.index[i] < c.shape[i] {
			break
		}
		c.at -= c.index[i] * c.strides[i]
		c.index[i] = 0
	}
	return at
}
