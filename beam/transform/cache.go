package transform

import (
	"errors"
	"sync"
)

// A cache keeps what is open between the bundles of a worker: all that is in use, and besides that what was in use
// last. An engine need not say that a worker is no longer needed, so that nothing depends on being told.
type cache[T any] struct {
	open  func(key string) (T, error)
	stop  func(T)       // tells those who use it to come to an end; called once, if at all
	close func(T) error // when nobody uses it any more

	mu      sync.Mutex
	changed sync.Cond // that somebody has ended a use; its lock is mu
	entries map[string]*cached[T]
	last    string // key of the entry that is kept without users
	ended   map[string]bool
}

// errEnded reports a late use of something that has come to its end in this process.
var errEnded = errors.New("the run has ended")

// A cached is an entry.
type cached[T any] struct {
	users int
	value T
}

// newCache makes a cache.
func newCache[T any](open func(key string) (T, error), stop func(T), close func(T) error) *cache[T] {
	c := &cache[T]{
		open: open, stop: stop, close: close, entries: make(map[string]*cached[T]), ended: make(map[string]bool),
	}
	c.changed.L = &c.mu
	return c
}

// acquire returns what the key stands for, which stays open until release is called, once. After end the error is
// errEnded. A failure to open is not kept.
func (c *cache[T]) acquire(key string) (value T, release func() error, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended[key] {
		return value, nil, errEnded
	}
	e := c.entries[key]
	if e == nil {
		e = new(cached[T])
		if e.value, err = c.open(key); err != nil {
			return value, nil, err
		}
		c.entries[key] = e
	}
	e.users++
	before := c.last
	c.last = key
	if err := c.closeUnused(before); err != nil {
		e.users--
		return value, nil, err
	}
	return e.value, func() error {
		c.mu.Lock()
		defer c.mu.Unlock()
		e.users--
		c.changed.Broadcast()
		return c.closeUnused(key)
	}, nil
}

// closeUnused closes the entry of the key if nobody uses it and it is not the last one. The lock is held.
func (c *cache[T]) closeUnused(key string) error {
	e := c.entries[key]
	if e == nil || e.users > 0 || key == c.last {
		return nil
	}
	delete(c.entries, key)
	return c.close(e.value)
}

// end stops those who use the entry of the key, waits for them, and closes it. There is no use of the key any more.
func (c *cache[T]) end(key string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended[key] = true
	if c.last == key {
		c.last = ""
	}
	if e := c.entries[key]; e != nil {
		c.stop(e.value)
		for e.users > 0 {
			c.changed.Wait()
		}
	}
	return c.closeUnused(key)
}
