package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"sync"
	"time"

	"github.com/modelavg/modelavg/checkpoint"
)

// A Server averages the models that clients upload, round after round. The mean of a round is weighted by the clients'
// numbers of samples.
//
//	POST /round/N?client=ID&samples=COUNT    the model of a client, a safetensors file, for the open round N
//	GET  /round/N                            the mean of round N as a safetensors file; of round 0, the initial model
//	GET  /round                              which round is open, and how many models it has
//
// A round closes when a quorum of models has been added, or at its deadline, and the next one opens.
type Server struct {
	config      Config
	limit       int64                        // of an upload, in bytes
	headerLimit int64                        // of its header
	wanted      map[string]checkpoint.Tensor // what an upload has to have
	uploads     chan struct{}                // holds a value for each upload that is under way

	mu      sync.Mutex // for all that follows
	round   int        // the one that is open
	tensors []tensor   // the sums
	clients map[string]bool
	samples int64
	room    room
	timer   *time.Timer
	closed  bool
}

// Handler returns the handler of the requests above.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /round", s.answer(s.status))
	mux.HandleFunc("GET /round/{round}", s.answer(s.download))
	mux.HandleFunc("POST /round/{round}", s.answer(s.upload))
	return s.bound(mux)
}

// upload takes the model of a client. It goes to a temporary file first, whatever that takes; only the whole of it, once
// it has been found to be right, is added.
func (s *Server) upload(w http.ResponseWriter, r *http.Request) error {
	u, err := s.parse(r)
	if err != nil {
		return err
	}
	if err := s.admit(u); err != nil { // before a byte of the body is sent, if the client waits for "100 Continue"
		return err
	}
	s.uploads <- struct{}{}
	defer func() { <-s.uploads }()
	if err := s.admit(u); err != nil { // the round may have closed
		return err
	}
	path, err := s.spool(w, r)
	if err != nil {
		return err
	}
	defer os.Remove(path)
	added, err := s.add(u, path)
	if err != nil {
		return err
	}
	return json.NewEncoder(w).Encode(added)
}

// An Added is the answer to an upload that has been added.
type Added struct {
	Round   int           `json:"round"`
	Models  int           `json:"models"`  // of the round so far
	Reading time.Duration `json:"reading"` // nanoseconds that it took to read and check the model,
	Adding  time.Duration `json:"adding"`  // and to add it
}

// add adds the model in a file, one file at a time, and closes the round if it was the last one.
func (s *Server) add(u upload, path string) (*Added, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.accepts(u); err != nil { // the round may have closed, or have a model of the same client
		return nil, err
	}
	start := time.Now()
	m, err := s.open(path)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	if err := s.check(m); err != nil {
		return nil, err
	}
	checked := time.Now()
	for _, t := range s.tensors {
		if err := t.add(m, float64(u.samples), &s.room); err != nil {
			// A file that was readable a moment ago is not. What has been added of it cannot be told from the rest.
			s.begin()
			return nil, fmt.Errorf("round %d begins again: %w", s.round, err)
		}
	}
	s.clients[u.client] = true
	s.samples += u.samples
	added := &Added{s.round, len(s.clients), checked.Sub(start), time.Since(checked)}
	if len(s.clients) >= s.config.Quorum {
		s.closeRound()
	}
	return added, nil
}

// closeRound writes the mean and opens the next round. If the mean cannot be written the round stays open, and the next
// model or the timer tries again: there may be nobody left to send one.
func (s *Server) closeRound() {
	if err := s.writeMean(); err != nil {
		s.config.Log.Printf("round %d: %v", s.round, err)
		s.closeAfter(s.config.Timeout)
		return
	}
	s.config.Log.Printf("round %d: closed with %d models of %d samples", s.round, len(s.clients), s.samples)
	s.removeOld()
	s.round++
	s.begin()
}

// begin opens a round with nothing in it.
func (s *Server) begin() {
	s.clients, s.samples = make(map[string]bool), 0
	for _, t := range s.tensors {
		t.reset()
	}
	s.startTimer()
}
