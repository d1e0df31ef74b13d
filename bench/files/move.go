//go:build linux

package main

import (
	"os"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// moveChunk is what package merge reads of a model at a time, for few models.
const moveChunk = 512 << 10

// move does the reads and writes of an average and nothing else: every chunk of every file into a buffer of the worker,
// and one of them to the output, which is reserved at the beginning.
func move(inputs []string, out string, workers int) error {
	files := make([]*os.File, len(inputs))
	for k, path := range inputs {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		files[k] = f
	}
	info, err := files[0].Stat()
	if err != nil {
		return err
	}
	o, err := os.Create(out)
	if err != nil {
		return err
	}
	defer o.Close()
	if err := unix.Fallocate(int(o.Fd()), 0, 0, info.Size()); err != nil {
		return err
	}
	var next atomic.Int64
	var group sync.WaitGroup
	errs := make([]error, workers)
	for i := range errs {
		group.Go(func() { errs[i] = moveChunks(files, o, &next, info.Size()) })
	}
	group.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return o.Close()
}

// moveChunks is one worker. Chunks meet at multiples of their size in the file, as those of package merge do.
func moveChunks(files []*os.File, out *os.File, next *atomic.Int64, size int64) error {
	const header = 1000 // which is not read here
	buffers := make([][]byte, len(files))
	for k := range buffers {
		buffers[k] = make([]byte, moveChunk)
	}
	for {
		begin := (next.Add(1) - 1) * moveChunk
		if begin >= size {
			return nil
		}
		end := min(begin+moveChunk, size)
		begin = max(begin, min(header, size))
		for k, f := range files {
			if _, err := f.ReadAt(buffers[k][:end-begin], begin); err != nil {
				return err
			}
		}
		if _, err := out.WriteAt(buffers[0][:end-begin], begin); err != nil {
			return err
		}
	}
}
