package transform

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
)

// A cache opens what is asked for once, keeps what was in use last, and closes the rest.
func TestCache(t *testing.T) {
	var log []string
	fail := errors.New("cannot be opened")
	failing := true
	c := newCache(func(key string) (string, error) {
		if key == "bad" && failing {
			return "", fail
		}
		log = append(log, "open "+key)
		return "value of " + key, nil
	}, func(value string) { log = append(log, "stop "+value) }, func(value string) error {
		log = append(log, "close "+value)
		return nil
	})
	acquire := func(key string) func() error {
		t.Helper()
		value, release, err := c.acquire(key)
		must(t, err)
		if want := "value of " + key; value != want {
			t.Errorf("got %q, want %q", value, want)
		}
		return release
	}
	expect := func(want ...string) {
		t.Helper()
		if fmt.Sprint(log) != fmt.Sprint(want) {
			t.Errorf("got %q, want %q", log, want)
		}
		log = nil
	}

	a, again := acquire("a"), acquire("a")
	expect("open a")
	must(t, a())
	must(t, again())
	must(t, acquire("a")())
	expect() // it is the last one
	a = acquire("a")
	b := acquire("b")
	expect("open b") // a is in use
	must(t, a())
	expect("close value of a")
	must(t, b())
	must(t, acquire("c")())
	expect("open c", "close value of b")

	if _, _, err := c.acquire("bad"); !errors.Is(err, fail) {
		t.Errorf("got error %v, want %v", err, fail)
	}
	failing = false
	must(t, acquire("bad")())
	expect("open bad", "close value of c")

	must(t, c.end("bad"))
	must(t, c.end("never opened"))
	expect("stop value of bad", "close value of bad")
	if _, _, err := c.acquire("bad"); !errors.Is(err, errEnded) {
		t.Errorf("got error %v, want %v", err, errEnded)
	}
}

// The end waits for those who are at work.
func TestCacheEndWaits(t *testing.T) {
	var using atomic.Int32
	stopped := make(chan bool)
	c := newCache(func(string) (int, error) { return 0, nil }, func(int) { close(stopped) }, func(int) error {
		if n := using.Load(); n != 0 {
			t.Errorf("closed while %d are at work", n)
		}
		return nil
	})
	var workers sync.WaitGroup
	for range 4 {
		_, release, err := c.acquire("key")
		must(t, err)
		using.Add(1)
		workers.Go(func() {
			<-stopped
			using.Add(-1)
			if err := release(); err != nil {
				t.Error(err)
			}
		})
	}
	must(t, c.end("key"))
	workers.Wait()
}
