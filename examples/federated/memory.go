package main

import (
	"runtime/debug"
	"runtime/metrics"
)

// A memory keeps the memory of the process near to what is in use.
//
// Exact sums grow by digits: a block of them is replaced by a larger one now and then, more often in the first models of
// the first round. What they leave is garbage in sizes that are seldom asked for again.
type memory struct {
	most   uint64 // bytes that may be allocated before memory is given back
	sample [1]metrics.Sample
	freed  uint64 // bytes that had been allocated when it last was
}

// A part of a model is little beside its sums, and collecting garbage for every piece of a large one would take long.
const (
	garbageShare = 8
	leastGarbage = 1 << 20
)

func newMemory(model int64) memory {
	return memory{
		most:   uint64(max(leastGarbage, model/garbageShare)),
		sample: [1]metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}, // since the process began
	}
}

// trim collects garbage and gives memory back to the system if much has been allocated since it last did.
func (m *memory) trim() {
	metrics.Read(m.sample[:])
	if now := m.sample[0].Value.Uint64(); now-m.freed > m.most {
		debug.FreeOSMemory()
		m.freed = now
	}
}
