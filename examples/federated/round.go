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
func (s *Server) startTimer() {
	if s.timer != nil {
		s.timer.Stop()
	}
	if s.config.Deadline <= 0 || s.closed {
		return
	}
	round := s.round
	s.timer = time.AfterFunc(s.config.Deadline, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		switch {
		case s.closed || s.round != round:
		case len(s.clients) >= s.config.Minimum:
			s.closeRound()
		default:
			s.startTimer()
		}
	})
}
