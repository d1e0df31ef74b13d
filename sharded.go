package modelavg

import (
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/modelavg/modelavg/internal/exact"
)

// A Sharded is an [Accumulator] to which many goroutines add at the same time. It has a fixed number of shards, each an
// Accumulator, of which an Add takes one that no other Add is using; Mean merges them, in the order of the shards.
//
// All methods may be called at the same time. Adds do not wait for each other as long as there are no more of them than
// shards: each finds its shard with an atomic compare-and-swap. The others (Mean, Weight, …) wait for the Adds that
// have begun and hold up those that have not.
//
// Which shard a model comes to depends on which Adds run at the same time, and with it the last bits of the mean. They
// do not with WithAccumulation([Exact]); then the result is the same for any number of shards and goroutines. Adds one
// after the other all go to the first shard, and the result has the bits of an Accumulator.
//
// A Sharded is made by [NewSharded] and must not be copied.
type Sharded[T Element] struct {
	n       int
	options []Option
	shards  []shard[T]

	exclusive sync.RWMutex // held for reading while a shard is in use, for writing by methods that need all of them

	// For an Add that finds no free shard.
	mu      sync.Mutex
	freed   sync.Cond // on mu
	waiting atomic.Int32
}

type shard[T Element] struct {
	busy atomic.Bool
	sum  *Accumulator[T] // nil until it is first needed
	_    [64 - 16]byte   // the next shard's busy is in another line of memory
}

// maxShards is the greatest number of shards: 64 MiB before any of them has a sum, and far more than there are
// processors.
const maxShards = 1 << 20

// NewSharded returns a Sharded for models of n elements. shards is how many goroutines can add at once without waiting;
// 0 stands for [runtime.GOMAXPROCS]. The memory for a shard is allocated when it is first needed: as much as an
// Accumulator's for each Add that ran at the same time as others.
//
// It takes the options of [NewAccumulator]. The error wraps [ErrLength] or [ErrOption], also for a number of shards
// that is negative or above 2²⁰.
func NewSharded[T Element](n, shards int, options ...Option) (*Sharded[T], error) {
	if shards < 0 || shards > maxShards {
		return nil, fmt.Errorf("modelavg: %w: got %d shards, want 0 to %d", ErrOption, shards, maxShards)
	}
	if shards == 0 {
		shards = runtime.GOMAXPROCS(0)
	}
	first, err := NewAccumulator[T](n, options...)
	if err != nil {
		return nil, err
	}
	s := &Sharded[T]{n: n, options: append([]Option(nil), options...), shards: make([]shard[T], shards)}
	s.shards[0].sum = first
	s.freed.L = &s.mu
	return s, nil
}

// Add is [Accumulator.Add]. It does not allocate once the shard that it takes has been used, and waits if there is
// none.
func (s *Sharded[T]) Add(model []T, weight float64) error {
	s.exclusive.RLock()
	defer s.exclusive.RUnlock()
	c, err := s.claim()
	if err != nil {
		return err
	}
	defer s.release(c)
	return c.sum.Add(model, weight)
}

// Merge adds all that has been added to an Accumulator, which is left as it is: a saved state, or the sum of another
// server. The errors are those of [Accumulator.Merge].
func (s *Sharded[T]) Merge(other *Accumulator[T]) error {
	s.exclusive.RLock()
	defer s.exclusive.RUnlock()
	c, err := s.claim()
	if err != nil {
		return err
	}
	defer s.release(c)
	return c.sum.Merge(other)
}

// Mean is [Accumulator.Mean] of all models whose Add has returned, and of none in part. It first merges all shards into
// one, which takes no memory.
func (s *Sharded[T]) Mean(dst []T) error {
	s.exclusive.Lock()
	defer s.exclusive.Unlock()
	a, err := s.merged()
	if err != nil {
		return err
	}
	return a.Mean(dst)
}

// MarshalBinary is [Accumulator.MarshalBinary] of the merged shards: the state of an Accumulator.
func (s *Sharded[T]) MarshalBinary() ([]byte, error) { return s.AppendBinary(nil) }

// AppendBinary is [Accumulator.AppendBinary] of the merged shards.
func (s *Sharded[T]) AppendBinary(b []byte) ([]byte, error) {
	s.exclusive.Lock()
	defer s.exclusive.Unlock()
	a, err := s.merged()
	if err != nil {
		return b, err
	}
	return a.AppendBinary(b)
}

// Len returns the number of elements of a model.
func (s *Sharded[T]) Len() int { return s.n }

// Weight returns the sum of the weights that have been added, as the shards took them, rounded once to float64.
func (s *Sharded[T]) Weight() float64 {
	s.exclusive.Lock()
	defer s.exclusive.Unlock()
	var total exact.Sum
	for i := range s.shards {
		if a := s.shards[i].sum; a != nil {
			total.Merge(&a.weights)
		}
	}
	return total.Round(exact.Binary64)
}

// Count returns how many models have been added, those of weight zero not included.
func (s *Sharded[T]) Count() int {
	s.exclusive.Lock()
	defer s.exclusive.Unlock()
	count := 0
	for i := range s.shards {
		if a := s.shards[i].sum; a != nil {
			count += a.count
		}
	}
	return count
}

// Reset makes the sum one to which nothing has been added. It keeps the memory.
func (s *Sharded[T]) Reset() {
	s.exclusive.Lock()
	defer s.exclusive.Unlock()
	for i := range s.shards {
		if a := s.shards[i].sum; a != nil && a.count > 0 {
			a.Reset()
		}
	}
}

// merged adds all shards to the first one and returns it. The caller has excluded everyone else.
func (s *Sharded[T]) merged() (*Accumulator[T], error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	first := s.shards[0].sum
	for i := range s.shards[1:] {
		a := s.shards[1+i].sum
		if a == nil || a.count == 0 {
			continue
		}
		if err := first.Merge(a); err != nil {
			return nil, err
		}
		a.Reset()
	}
	return first, nil
}

// claim returns a shard that nobody else uses, the first of those that are free. It waits while there is none.
func (s *Sharded[T]) claim() (*shard[T], error) {
	if c := s.tryClaim(); c != nil {
		return c, nil
	}
	if err := s.check(); err != nil {
		return nil, err
	}
	// Who frees a shard looks at waiting after it, and this looks for a free shard after it has set waiting: one of the
	// two sees the other.
	s.waiting.Add(1)
	defer s.waiting.Add(-1)
	s.mu.Lock()
	defer s.mu.Unlock()
	for {
		if c := s.tryClaim(); c != nil {
			return c, nil
		}
		s.freed.Wait()
	}
}

func (s *Sharded[T]) check() error {
	if len(s.shards) == 0 {
		return fmt.Errorf("modelavg: %w: got no shards in a Sharded that NewSharded has not made", ErrOption)
	}
	return nil
}

func (s *Sharded[T]) tryClaim() *shard[T] {
	for i := range s.shards {
		c := &s.shards[i]
		if c.busy.Load() || !c.busy.CompareAndSwap(false, true) {
			continue
		}
		if c.sum == nil {
			c.sum, _ = NewAccumulator[T](s.n, s.options...) // the first shard was made of the same, without an error
		}
		return c
	}
	return nil
}

func (s *Sharded[T]) release(c *shard[T]) {
	c.busy.Store(false)
	if s.waiting.Load() > 0 {
		s.mu.Lock()
		s.freed.Signal()
		s.mu.Unlock()
	}
}
