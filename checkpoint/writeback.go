package checkpoint

import (
	"context"
	"os"
	"sync"
	"sync/atomic"
)

const (
	// A file that is written goes to the disk in blocks of this size, each as soon as it is full.
	writebackBlock = 32 << 20

	// A cancellation is seen after every slice of this size.
	writebackSlice = 4 << 20

	// So many slices are on their way to the disk at once, so that it always has something to do.
	writebackAhead = 4
)

// A writeback brings a file to the disk while the rest of it is still being written. What is left to be flushed at the
// end is little then, and so is what the system has to throw away if that end does not come.
type writeback struct {
	file    *os.File
	size    int64
	written []atomic.Int64 // bytes written in each block
	full    chan int       // blocks; has room for all
	quit    chan struct{}  // closed to stop
	stopped atomic.Bool
	once    sync.Once // starts the goroutine
	running sync.WaitGroup
}

// newWriteback returns the writeback of a file, or nil if there is nothing to gain.
func newWriteback(f *os.File, size int64) *writeback {
	if !hasWriteback || size < writebackBlock {
		return nil
	}
	n := int((size-1)/writebackBlock + 1)
	return &writeback{
		file:    f,
		size:    size,
		written: make([]atomic.Int64, n),
		full:    make(chan int, n),
		quit:    make(chan struct{}),
	}
}

// wrote says that n bytes at offset off were written. It does not wait for the disk.
func (b *writeback) wrote(off, n int64) {
	if b == nil || b.stopped.Load() {
		return
	}
	for n > 0 {
		i := off / writebackBlock
		begin := i * writebackBlock
		part := min(n, begin+writebackBlock-off)
		size := min(writebackBlock, b.size-begin)
		// What is written twice is counted twice: the block goes too early, and what is written later with the flush.
		if sum := b.written[i].Add(part); sum >= size && sum-part < size {
			b.once.Do(func() { b.running.Go(b.run) })
			b.full <- int(i)
		}
		off += part
		n -= part
	}
}

// run starts the writing of blocks until the writeback is stopped. The system makes it wait where the disk is slower.
func (b *writeback) run() {
	for {
		select {
		case <-b.quit:
			return
		case i := <-b.full:
			begin := int64(i) * writebackBlock
			for off := begin; off < begin+writebackBlock && !b.stopped.Load(); off += writebackSlice {
				startWriteback(b.file, off, writebackSlice)
			}
		}
	}
}

// stop ends the goroutine, which may be in the middle of a slice. No write may be under way.
func (b *writeback) stop() {
	if b == nil || b.stopped.Swap(true) {
		return
	}
	close(b.quit)
	b.running.Wait()
}

// flushSlices brings what was written of the file to the disk, slice by slice, until ctx is done; the error is its
// cause then. It is no substitute for a Sync: it says nothing of the file's metadata.
func flushSlices(ctx context.Context, f *os.File, size int64) error {
	var started int64
	for off := int64(0); off < size; off += writebackSlice {
		for started < size && started <= off+writebackAhead*writebackSlice {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			startWriteback(f, started, writebackSlice)
			started += writebackSlice
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := waitWriteback(f, off, writebackSlice); err != nil {
			return err
		}
	}
	return nil
}
