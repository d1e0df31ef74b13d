package main

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// A saved state is a line of JSON, then the sums of the tensors, and then the SHA-256 of all that.
type savedRound struct {
	Round   int      `json:"round"`
	Samples int64    `json:"samples"`
	Clients []string `json:"clients"`
	Tensors []string `json:"tensors"` // name, dtype and shape
	Rounded bool     `json:"rounded"`
}

func (s *Server) statePath() string { return filepath.Join(s.config.Dir, "state") }

func (s *Server) savedRound() savedRound {
	saved := savedRound{Round: s.round, Samples: s.samples, Rounded: s.config.Rounded}
	for c := range s.clients {
		saved.Clients = append(saved.Clients, c)
	}
	for _, t := range s.tensors {
		saved.Tensors = append(saved.Tensors, t.describe().String())
	}
	return saved
}

// Close ends the adding and saves the open round, so that a new server in the same directory goes on with it.
func (s *Server) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.closed = true
	if s.timer != nil {
		s.timer.Stop()
	}
	if len(s.clients) == 0 {
		return nil
	}
	file, err := os.CreateTemp(s.config.Dir, temporary+"*")
	if err != nil {
		return err
	}
	defer os.Remove(file.Name())
	err = s.save(file)
	if err == nil {
		err = file.Sync()
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return err
	}
	return os.Rename(file.Name(), s.statePath())
}

func (s *Server) save(file io.Writer) error {
	hash := sha256.New()
	w := bufio.NewWriter(io.MultiWriter(file, hash))
	if err := json.NewEncoder(w).Encode(s.savedRound()); err != nil {
		return err
	}
	for _, t := range s.tensors {
		if err := t.save(w, &s.room); err != nil {
			return err
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := file.Write(hash.Sum(nil))
	return err
}

// restore goes on with the round that was saved, if there is one and it is the open one.
func (s *Server) restore() error {
	file, err := os.Open(s.statePath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	defer file.Close()
	saved, err := undamaged(file)
	if err == nil {
		err = s.load(saved)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", s.statePath(), err)
	}
	return nil
}

// undamaged returns what is before the checksum at the end of a file, if it is what the checksum is of.
func undamaged(file *os.File) (io.Reader, error) {
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	n := info.Size() - sha256.Size
	if n < 0 {
		return nil, fmt.Errorf("got %d bytes, want a checksum of %d at least", info.Size(), sha256.Size)
	}
	hash := sha256.New()
	if _, err := io.Copy(hash, io.NewSectionReader(file, 0, n)); err != nil {
		return nil, err
	}
	want := make([]byte, sha256.Size)
	if _, err := file.ReadAt(want, n); err != nil {
		return nil, err
	}
	if got := hash.Sum(nil); !bytes.Equal(got, want) {
		return nil, fmt.Errorf("the state is damaged: got checksum %x, want %x", got, want)
	}
	return io.NewSectionReader(file, 0, n), nil
}

func (s *Server) load(file io.Reader) error {
	r := bufio.NewReader(file)
	line, err := r.ReadBytes('\n')
	if err != nil {
		return err
	}
	var saved savedRound
	if err := json.Unmarshal(line, &saved); err != nil {
		return err
	}
	if saved.Round < s.round {
		return nil // it has closed since
	}
	want := s.savedRound()
	if saved.Rounded != want.Rounded {
		return fmt.Errorf("got sums with rounded = %v, want %v as the server", saved.Rounded, want.Rounded)
	}
	if fmt.Sprint(saved.Tensors) != fmt.Sprint(want.Tensors) {
		return fmt.Errorf("got tensors %v, want those of the model, %v", saved.Tensors, want.Tensors)
	}
	for _, t := range s.tensors {
		if err := t.restore(r, len(saved.Clients)); err != nil {
			return fmt.Errorf("tensor %q: %w", t.describe().Name, err)
		}
	}
	s.round, s.samples = saved.Round, saved.Samples
	for _, c := range saved.Clients {
		s.clients[c] = true
	}
	return nil
}
