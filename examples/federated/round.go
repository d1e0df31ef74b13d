package main

import (
	"fmt"
	"strconv"
	"time"

	"github.com/modelavg/modelavg/checkpoint"
)

// Round returns the number of the open round.
func (s *Server) Round() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.round
}

// writeMean writes the mean of the open round to its file, which appears whole or not at all.
func (s *Server) writeMean() error {
	var tensors []checkpoint.Tensor
	for _, t := range s.tensors {
		tensors = append(tensors, t.describe())
	}
	w, err := checkpoint.Create(s.path(s.round), tensors, map[string]string{
		"models": strconv.Itoa(len(s.clients)), "samples": strconv.FormatInt(s.samples, 10),
	})
	if err != nil {
		return err
	}
	defer w.Close()
	for _, t := range s.tensors {
		if err := t.writeMean(w, &s.room); err != nil {
			return fmt.Errorf("tensor %q: %w", t.describe().Name, err)
		}
	}
	return w.Commit()
}

// startTimer lets the open round close at its deadline, or later when it has enough models.
func (s *Server) startTimer() { s.closeAfter(s.config.Deadline) }

// closeAfter lets the open round close after a time, or later when it has enough models, and never if the time is 0.
// It does so instead of what it was called for before.
func (s *Server) closeAfter(wait time.Duration) {
	if s.timer != nil {
		s.timer.Stop()
		s.timer = nil
	}
	if wait <= 0 || s.closed {
		return
	}
	var timer *time.Timer
	timer = time.AfterFunc(wait, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case s.closed || s.timer != timer: // stopped when it had begun already
		case len(s.clients) >= s.config.Minimum:
			s.closeRound()
		default:
			s.startTimer()
		}
	})
	s.timer = timer
}
