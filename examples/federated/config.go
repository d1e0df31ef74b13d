package main

import (
	"errors"
	"fmt"
	"io/fs"
	"log"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/modelavg/modelavg"
	"github.com/modelavg/modelavg/checkpoint"
)

// A Config says how a Server works.
type Config struct {
	Model string // the initial model, a safetensors file whose tensors the uploads must have
	Dir   string // for the means, the uploads under way and the state of a stopped server

	Quorum   int           // models that close a round
	Deadline time.Duration // after which a round closes without the quorum; 0 for none
	Minimum  int           // models without which it does not, but waits for another Deadline
	Keep     int           // means that are kept, of the last rounds; 0 for all

	Uploads    int           // that are received at once; others wait
	Timeout    time.Duration // for the body of an upload, from when its turn has come, and for an answer
	MaxSamples int64         // of one client
	Rounded    bool          // sums are rounded: faster, but the order of arrival shows in the last bits

	Log *log.Logger
}

// headerRoom is what the header of an upload may be longer than that of the initial model, for metadata. A header takes
// several times its length in memory while it is read.
const headerRoom = 64 << 10

// mostSamples is up to where every whole number is a float64, as weights are.
const mostSamples = 1 << 53

// temporary is what the names of files begin with that nobody needs when the server has ended.
const temporary = ".federated-"

// NewServer returns a server that goes on with what is in the directory: after the last round that has a mean, and with
// the sums that a server which was closed has saved. Without both it begins with round 1.
func NewServer(c Config) (*Server, error) {
	switch {
	case c.Quorum < 1:
		return nil, fmt.Errorf("quorum: got %d, want at least 1", c.Quorum)
	case c.Minimum < 1 || c.Minimum > c.Quorum:
		return nil, fmt.Errorf("minimum: got %d, want 1 to the quorum, %d", c.Minimum, c.Quorum)
	case c.Uploads < 1:
		return nil, fmt.Errorf("uploads: got %d, want at least 1", c.Uploads)
	case c.Timeout <= 0:
		return nil, fmt.Errorf("timeout: got %v, want more than 0", c.Timeout)
	}
	most := min(mostSamples, math.MaxInt64/int64(c.Quorum)) // the sum is counted as well
	if c.MaxSamples < 1 || c.MaxSamples > most {
		return nil, fmt.Errorf("greatest number of samples: got %d, want 1 to %d", c.MaxSamples, most)
	}
	if c.Log == nil {
		c.Log = log.New(os.Stderr, "federated: ", 0)
	}
	s := &Server{config: c, uploads: make(chan struct{}, c.Uploads), wanted: make(map[string]checkpoint.Tensor)}
	if err := s.makeTensors(); err != nil {
		return nil, err
	}
	if err := s.findRound(); err != nil {
		return nil, err
	}
	s.clients = make(map[string]bool)
	if err := s.restore(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.clients) >= c.Quorum { // which was larger when the round was saved
		s.closeRound()
	} else {
		s.startTimer()
	}
	return s, nil
}

// makeTensors takes the tensors from the initial model.
func (s *Server) makeTensors() error {
	m, err := checkpoint.Open(s.config.Model)
	if err != nil {
		return err
	}
	defer m.Close()
	if m.Dir() != "" || m.Index() != "" || filepath.Ext(s.config.Model) != ".safetensors" {
		return fmt.Errorf("%s: want one safetensors file, so that it can be served", s.config.Model)
	}
	info, err := os.Stat(s.config.Model)
	if err != nil {
		return err
	}
	s.limit, s.headerLimit = info.Size()+headerRoom, info.Size()+headerRoom
	s.room.memory = newMemory(info.Size())
	accumulation := modelavg.Exact
	if s.config.Rounded {
		accumulation = modelavg.DefaultAccumulation
	}
	for _, t := range m.Tensors() {
		sum, err := newTensor(t, accumulation, s.config.MaxSamples*int64(s.config.Quorum), s.config.Model)
		if err != nil {
			return fmt.Errorf("%s: tensor %q: %w", s.config.Model, t.Name, err)
		}
		s.headerLimit -= t.Bytes()
		s.tensors = append(s.tensors, sum)
		s.wanted[t.Name] = t
	}
	return nil
}

// path returns the file of the mean of a round. Round 0 is the initial model.
func (s *Server) path(round int) string {
	if round == 0 {
		return s.config.Model
	}
	return filepath.Join(s.config.Dir, fmt.Sprintf("round-%d.safetensors", round))
}

// findRound sets the open round to the one after the last mean in the directory, and removes what a killed server has
// left.
func (s *Server) findRound() error {
	if err := os.MkdirAll(s.config.Dir, 0o777); err != nil {
		return err
	}
	entries, err := os.ReadDir(s.config.Dir)
	if err != nil {
		return err
	}
	s.round = 1
	for _, e := range entries {
		var round int
		_, err := fmt.Sscanf(e.Name(), "round-%d.safetensors", &round)
		if err == nil && e.Name() == filepath.Base(s.path(round)) {
			s.round = max(s.round, round+1)
		}
		if strings.HasPrefix(e.Name(), temporary) {
			if err := os.Remove(filepath.Join(s.config.Dir, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}

// removeOld removes the mean that is too old to be kept when the open round has closed, and the state that was saved of
// the round.
func (s *Server) removeOld() {
	old := []string{s.statePath()}
	if n := s.round - s.config.Keep; s.config.Keep > 0 && n > 0 {
		old = append(old, s.path(n))
	}
	for _, path := range old {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			s.config.Log.Print(err)
		}
	}
}
