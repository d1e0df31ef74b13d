package main

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/modelavg/modelavg/checkpoint"
)

// A client that does not send its body loses the connection, also if it was refused before the body was read, and if
// nothing serves its path or its method.
func TestBodyThatIsNotRead(t *testing.T) {
	r := start(t, Config{Quorum: 1, Timeout: 500 * time.Millisecond})
	var all sync.WaitGroup
	defer all.Wait()
	for _, request := range []string{
		target(1, "a", 1), target(1, "a", 0), target(2, "a", 1), "/elsewhere", "/round", "/round/0", "/round/1", "/round/2",
	} {
		for _, method := range []string{"GET", "POST", "PUT"} {
			for _, length := range []string{"Content-Length: 100", "Transfer-Encoding: chunked"} {
				all.Go(func() {
					text := fmt.Sprintf("%s %s HTTP/1.1\r\nHost: x\r\n%s\r\n\r\n", method, request, length)
					if err := r.sendHeader(text); err != nil {
						t.Errorf("%s %s, %s: %v", method, request, length, err)
					}
				})
			}
		}
	}
}

// sendHeader sends text and nothing else, and returns an error unless the server closes the connection after that.
func (r *running) sendHeader(text string) error {
	c, err := net.Dial("tcp", strings.TrimPrefix(r.address, "http://"))
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := io.WriteString(c, text); err != nil {
		return err
	}
	if err := c.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, c); os.IsTimeout(err) {
		return err
	}
	return nil // closed, or reset because there was more to read
}

// The greatest numbers of samples are counted as they are; greater ones would be rounded to float64.
func TestGreatSamples(t *testing.T) {
	uploads := randomUploads(t, 3)
	r := start(t, Config{Quorum: 3, MaxSamples: 1 << 53})
	for name, x := range uploads[0].model { // two models nearly cancel each other
		for k, v := range x {
			uploads[1].model[name][k], uploads[2].model[name][k] = -v, 0
		}
	}
	for i, samples := range []int64{1 << 53, 1<<53 - 1, 1} {
		uploads[i].samples, uploads[i].file = samples, safetensors(t, layout, uploads[i].model)
		r.mustPost(1, uploads[i])
	}
	wantMean(t, r.mean(1), uploads)
}

// A mean that cannot be written is tried again, though no client is left to come and there is no deadline.
func TestMeanIsTriedAgain(t *testing.T) {
	uploads := randomUploads(t, 2)
	r := start(t, Config{Quorum: 2, Timeout: time.Second})
	must(t, os.Mkdir(r.path(1), 0o777)) // where the mean should be
	must(t, os.WriteFile(filepath.Join(r.path(1), "x"), nil, 0o666))
	for _, u := range uploads {
		r.mustPost(1, u)
	}
	must(t, os.RemoveAll(r.path(1)))
	wantMean(t, r.mean(1), uploads)
}

// Finite models never have a mean that is not: rounded sums refuse elements that could make them overflow.
func TestGreatElements(t *testing.T) {
	model := filepath.Join(t.TempDir(), "initial.safetensors")
	tensors := []checkpoint.Tensor{
		{Name: "b", DType: checkpoint.BF16, Shape: []int64{2}},
		{Name: "d", DType: checkpoint.F64, Shape: []int64{2}},
		{Name: "f", DType: checkpoint.F32, Shape: []int64{2}},
		{Name: "h", DType: checkpoint.F16, Shape: []int64{2}},
	}
	must(t, os.WriteFile(model, safetensors(t, tensors, nil), 0o666))
	for _, rounded := range []bool{false, true} {
		r := start(t, Config{Quorum: 2, Model: model, Rounded: rounded, MaxSamples: 1000})
		for name, x := range map[string]float64{"b": -1e38, "d": 1e308, "f": 3e38, "h": -65504} {
			u := uploaded{client: name, samples: 1000, file: safetensors(t, tensors, values{name: {0, x}})}
			want := http.StatusOK
			if rounded && (name == "b" || name == "d") {
				want = http.StatusUnprocessableEntity
			}
			status, text := r.post(r.Round(), u)
			if status != want || status != http.StatusOK && !strings.Contains(text, "element 1 of 2 is too large") {
				t.Errorf("%v in %q, rounded %v: got %d %s want %d", x, name, rounded, status, text, want)
			}
		}
		if !rounded {
			continue
		}
		// The greatest that are taken, with the greatest numbers of samples.
		greatest := values{
			"b": {math.Ldexp(1, 115), 0}, "d": {math.Ldexp(1, 1011), 0}, "f": {math.MaxFloat32, 0}, "h": {-65504, 0},
		}
		round := r.Round()
		for _, client := range []string{"p", "q"} {
			r.mustPost(round, uploaded{client: client, samples: 1000, file: safetensors(t, tensors, greatest)})
		}
		const data = 2 * (2 + 8 + 4 + 2) // bytes
		got, want := r.mean(round), safetensors(t, tensors, greatest)
		got, want = got[len(got)-data:], want[len(want)-data:]
		if !bytes.Equal(got, want) {
			t.Errorf("the mean of twice the same is % x, want % x", got, want)
		}
	}
}

// Files of others in the directory stay.
func TestFilesOfOthers(t *testing.T) {
	dir := t.TempDir()
	names := []string{"upload-7.safetensors", "upload-notes", "state.old", "round-x.safetensors", "round-01.safetensors"}
	for _, name := range names {
		must(t, os.WriteFile(filepath.Join(dir, name), nil, 0o666))
	}
	r := start(t, Config{Quorum: 1, Dir: dir, Keep: 1})
	if got := r.Round(); got != 1 {
		t.Errorf("round %d is open, want 1", got)
	}
	for _, name := range names {
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// No bit of the state can change unseen: that of a client's name would count the client twice.
func TestEveryBitOfState(t *testing.T) {
	u := randomUploads(t, 1)[0]
	r := start(t, Config{Quorum: 2})
	r.mustPost(1, u)
	r.stop()
	state, err := os.ReadFile(r.statePath())
	must(t, err)
	refused := func(what string, state []byte) {
		t.Helper()
		must(t, os.WriteFile(r.statePath(), state, 0o666))
		if _, err := NewServer(r.config); err == nil || !strings.Contains(err.Error(), r.statePath()) {
			t.Errorf("%s: got error %v, want one that names the file", what, err)
		}
	}
	line := bytes.IndexByte(state, '\n')
	for i := 0; i < len(state); i += 1 + 13*(i/line) { // all of the line
		damaged := bytes.Clone(state)
		damaged[i] ^= 1 << (i % 8)
		refused(fmt.Sprintf("bit %d of byte %d", i%8, i), damaged)
	}
	refused("more", append(bytes.Clone(state), 0))
	refused("twice", append(bytes.Clone(state), state...))
	must(t, os.WriteFile(r.statePath(), state, 0o666))
	s, err := NewServer(r.config)
	must(t, err)
	must(t, s.Close())
}

// A server that is started twice leaves the uploads and the round of the first one alone.
func TestStartedTwice(t *testing.T) {
	r := start(t, Config{Quorum: 2})
	under := filepath.Join(r.config.Dir, temporary+"1.safetensors")
	must(t, os.WriteFile(under, nil, 0o666))
	err := run(t.Context(), []string{
		"-listen", strings.TrimPrefix(r.address, "http://"), "-model", r.config.Model, "-dir", r.config.Dir,
	}, io.Discard)
	if err == nil {
		t.Error("two servers at one address")
	}
	must(t, os.Remove(under))
}
