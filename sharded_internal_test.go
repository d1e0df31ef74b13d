package modelavg

import (
	"testing"
	"time"
)

// With all shards in use an Add waits, and goes on when one is given back; with one of several in use it takes another.
func TestShardedClaims(t *testing.T) {
	s, err := NewSharded[float64](1, 2)
	if err != nil {
		t.Fatal(err)
	}
	add := func(x float64) {
		if err := s.Add([]float64{x}, 1); err != nil {
			t.Error(err)
		}
	}
	mean := func() float64 {
		dst := []float64{0}
		if err := s.Mean(dst); err != nil {
			t.Error(err)
		}
		return dst[0]
	}
	add(1)
	first := s.tryClaim()
	add(2)
	if s.shards[0].sum.Count() != 1 || s.shards[1].sum.Count() != 1 {
		t.Fatalf("%d and %d models in the shards, want 1 and 1", s.shards[0].sum.Count(), s.shards[1].sum.Count())
	}
	second := s.tryClaim()
	if third := s.tryClaim(); first == nil || second == nil || third != nil {
		t.Fatalf("claimed %p, %p and %p, want two shards", first, second, third)
	}
	const waiting = 3
	done := make(chan bool)
	for range waiting {
		go func() {
			add(6)
			done <- true
		}()
	}
	for deadline := time.Now().Add(10 * time.Second); s.waiting.Load() < waiting && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	select {
	case <-done:
		t.Fatal("an Add has not waited for a shard")
	case <-time.After(20 * time.Millisecond):
	}
	s.release(second)
	for range waiting {
		select {
		case <-done:
		case <-time.After(10 * time.Second):
			t.Fatal("an Add waits although there is a free shard")
		}
	}
	s.release(first)
	for range 2 { // what has been merged is not merged again
		if got, want := mean(), (1+2+3*6)/5.0; got != want || s.Count() != 5 {
			t.Errorf("got %v of %d models, want %v of 5", got, s.Count(), want)
		}
	}
}
