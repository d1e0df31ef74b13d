package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/modelavg/modelavg/checkpoint"
)

// A refusal is an error of the client's, with a status of HTTP.
type refusal struct {
	status int
	reason string
}

func (r *refusal) Error() string { return r.reason }

func refuse(status int, format string, args ...any) error {
	return &refusal{status, fmt.Sprintf(format, args...)}
}

// answer makes a handler of a function, whose error becomes the answer. What is not the client's fault is logged, and
// the client is told no more than that it happened.
func (s *Server) answer(handle func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		err := handle(w, r)
		if err == nil {
			return
		}
		var refused *refusal
		if !errors.As(err, &refused) {
			s.config.Log.Printf("%s %q from %s: %v", r.Method, r.URL, r.RemoteAddr, err)
			refused = &refusal{http.StatusInternalServerError, "the server failed; the model was not added"}
		}
		if refused.status == http.StatusServiceUnavailable {
			w.Header().Set("Retry-After", "1")
		}
		http.Error(w, refused.reason, refused.status)
	}
}

// bound returns the handler with a bound on the time for what net/http does when it has ended: it sends the answer, and
// reads on in a body that the handler has not read, of whatever request, to let the client get the answer.
func (s *Server) bound(handler http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		handler.ServeHTTP(w, r)
		control, end := http.NewResponseController(w), time.Now().Add(s.config.Timeout)
		if err := errors.Join(control.SetReadDeadline(end), control.SetWriteDeadline(end)); err != nil {
			s.config.Log.Print(err)
		}
	})
}

// An upload is what a request says about its body.
type upload struct {
	round   int
	client  string
	samples int64
}

const longestClient = 128 // bytes

// parse reads the path and the query of an upload, and looks at the length of its body, if it is known.
func (s *Server) parse(r *http.Request) (u upload, err error) {
	if u.round, err = parseRound(r); err != nil {
		return u, err
	}
	query := r.URL.Query()
	u.client = query.Get("client")
	if u.client == "" || len(u.client) > longestClient || !utf8.ValidString(u.client) {
		return u, refuse(http.StatusBadRequest, "client: got %.*q, want 1 to %d bytes of UTF-8",
			longestClient, u.client, longestClient)
	}
	// A whole number has no NaN, and a range of them bounds what one client can do to the mean.
	text := query.Get("samples")
	u.samples, err = strconv.ParseInt(text, 10, 64)
	if err != nil || u.samples < 1 || u.samples > s.config.MaxSamples {
		return u, refuse(http.StatusBadRequest, "samples: got %.32q, want a whole number from 1 to %d",
			text, s.config.MaxSamples)
	}
	if r.ContentLength > s.limit {
		return u, s.tooLarge()
	}
	return u, nil
}

func parseRound(r *http.Request) (int, error) {
	text := r.PathValue("round")
	round, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return 0, refuse(http.StatusBadRequest, "round: got %.32q, want a number", text)
	}
	return int(round), nil
}

func (s *Server) tooLarge() error {
	return refuse(http.StatusRequestEntityTooLarge, "the body is larger than %d bytes, the model's size and some more",
		s.limit)
}

// admit is accepts for those who do not hold the lock.
func (s *Server) admit(u upload) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accepts(u)
}

// accepts returns why an upload cannot be added to the open round, or nil.
func (s *Server) accepts(u upload) error {
	switch {
	case s.closed:
		return refuse(http.StatusServiceUnavailable, "the server is stopping")
	case u.round < s.round:
		return refuse(http.StatusGone, "round %d is closed; round %d is open", u.round, s.round)
	case u.round > s.round:
		return refuse(http.StatusNotFound, "round %d has not begun; round %d is open", u.round, s.round)
	case s.clients[u.client]:
		return refuse(http.StatusConflict, "round %d has a model of client %q already", u.round, u.client)
	}
	return nil
}

// spoolBuffer is the memory of an upload that is under way, besides what net/http has for its connection.
const spoolBuffer = 16 << 10

// spool writes the body to a temporary file and returns its path. After an error there is no file.
func (s *Server) spool(w http.ResponseWriter, r *http.Request) (path string, err error) {
	file, err := os.CreateTemp(s.config.Dir, temporary+"*.safetensors")
	if err != nil {
		return "", err
	}
	defer func() {
		if closeErr := file.Close(); err == nil {
			err = closeErr
		}
		if err != nil {
			os.Remove(file.Name())
		}
	}()
	control := http.NewResponseController(w)
	if err := control.SetReadDeadline(time.Now().Add(s.config.Timeout)); err != nil {
		return "", err
	}
	body := http.MaxBytesReader(w, r.Body, s.limit)
	for buffer := make([]byte, spoolBuffer); ; {
		n, err := body.Read(buffer)
		if n > 0 {
			if _, err := file.Write(buffer[:n]); err != nil {
				return "", err
			}
		}
		switch {
		case err == io.EOF:
			// net/http goes on reading, to see whether the client is still there.
			return file.Name(), control.SetReadDeadline(time.Time{})
		case err == nil:
		case errors.As(err, new(*http.MaxBytesError)):
			return "", s.tooLarge()
		case errors.Is(err, os.ErrDeadlineExceeded):
			return "", refuse(http.StatusRequestTimeout, "the body did not arrive within %v", s.config.Timeout)
		default:
			return "", refuse(http.StatusBadRequest, "the body broke off: %v", err)
		}
	}
}

// invalid refuses a body for what is wrong with the model in it.
func invalid(format string, args ...any) error {
	return refuse(http.StatusUnprocessableEntity, format, args...)
}

// open opens the model in a file. What is wrong with it is the client's fault.
func (s *Server) open(path string) (*checkpoint.Model, error) {
	m, err := checkpoint.Open(path, checkpoint.WithHeaderLimit(s.headerLimit))
	var pathError *fs.PathError
	switch {
	case errors.As(err, &pathError): // or of the file system
		return nil, err
	case err != nil:
		return nil, invalid("%s", strings.ReplaceAll(err.Error(), path, "the body"))
	}
	return m, nil
}

// check returns a refusal unless a model has the right tensors, of finite numbers.
func (s *Server) check(m *checkpoint.Model) error {
	for _, got := range m.Tensors() {
		want, ok := s.wanted[got.Name]
		if !ok {
			return invalid("tensor %.200q: the model has none of this name", got.Name)
		}
		if got.DType != want.DType || got.ShapeString() != want.ShapeString() {
			return invalid("tensor %q: got %v %.200s, want %v %s",
				got.Name, got.DType, got.ShapeString(), want.DType, want.ShapeString())
		}
	}
	for _, t := range s.tensors {
		name := t.describe().Name
		if _, ok := m.Tensor(name); !ok {
			return invalid("tensor %q is missing", name)
		}
		if err := t.check(m, &s.room); errors.Is(err, errNotFinite) || errors.Is(err, errTooLarge) {
			return invalid("tensor %q: %v", name, err)
		} else if err != nil {
			return err
		}
	}
	return nil
}

// download serves the mean of a round.
func (s *Server) download(w http.ResponseWriter, r *http.Request) error {
	round, err := parseRound(r)
	if err != nil {
		return err
	}
	open := s.Round()
	switch {
	case round == open:
		return refuse(http.StatusServiceUnavailable, "round %d is open: it has no mean yet", round)
	case round > open:
		return refuse(http.StatusNotFound, "round %d has not begun; round %d is open", round, open)
	}
	file, err := os.Open(s.path(round))
	if errors.Is(err, fs.ErrNotExist) {
		return refuse(http.StatusGone, "the mean of round %d is not kept any more", round)
	} else if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if err := http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.config.Timeout)); err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	http.ServeContent(w, r, "", info.ModTime(), file)
	return nil
}

// A Status is the answer to GET /round.
type Status struct {
	Round   int   `json:"round"`  // the one that is open
	Models  int   `json:"models"` // that have been added to it
	Samples int64 `json:"samples"`
	Quorum  int   `json:"quorum"`
}

func (s *Server) status(w http.ResponseWriter, _ *http.Request) error {
	s.mu.Lock()
	status := Status{s.round, len(s.clients), s.samples, s.config.Quorum}
	s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(status)
}

// NewHTTPServer returns a server of HTTP for a handler, with at most so many connections and with a bound on everything
// that a client can make it wait for or hold. A connection serves one request, so that none is held by a client who has
// nothing to say.
func NewHTTPServer(handler http.Handler, connections int) *http.Server {
	open := make(chan struct{}, connections)
	server := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		MaxHeaderBytes:    16 << 10,
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew: // called where connections are accepted, which so waits
				open <- struct{}{}
			case http.StateClosed:
				<-open
			}
		},
	}
	server.SetKeepAlivesEnabled(false)
	return server
}
