package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"math"
	"math/big"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/modelavg/modelavg"
	"github.com/modelavg/modelavg/checkpoint"
)

// asServer in the environment makes the test binary the program, for Load.Run, which starts the server as a process.
const asServer = "MODELAVG_TEST_FEDERATED_SERVER"

func TestMain(m *testing.M) {
	if os.Getenv(asServer) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// A values is a model by the names of its tensors, in float64 whatever the dtype.
type values map[string][]float64

var layout = []checkpoint.Tensor{
	{Name: "bias", DType: checkpoint.F16, Shape: []int64{5}},
	{Name: "double", DType: checkpoint.F64, Shape: []int64{3}},
	{Name: "empty", DType: checkpoint.F32, Shape: []int64{0, 4}},
	{Name: "scalar", DType: checkpoint.BF16, Shape: nil},
	{Name: "steps", DType: checkpoint.I64, Shape: []int64{2}},
	{Name: "weight", DType: checkpoint.F32, Shape: []int64{3, 700}},
}

// initial is what the initial model of a test has; all else in it is zero.
var initial = values{"steps": {1 << 40, -7}}

// encodeElements returns x, numbers of the dtype, as data.
func encodeElements(d checkpoint.DType, x []float64) []byte {
	var b []byte
	for _, v := range x {
		switch d {
		case checkpoint.F64:
			b = binary.LittleEndian.AppendUint64(b, math.Float64bits(v))
		case checkpoint.F16:
			b = binary.LittleEndian.AppendUint16(b, uint16(modelavg.NewFloat16(float32(v))))
		case checkpoint.BF16:
			b = binary.LittleEndian.AppendUint16(b, uint16(math.Float32bits(float32(v))>>16))
		case checkpoint.I64:
			b = binary.LittleEndian.AppendUint64(b, uint64(int64(v)))
		default:
			b = binary.LittleEndian.AppendUint32(b, math.Float32bits(float32(v)))
		}
	}
	return b
}

// decodeElements is the inverse of encodeElements.
func decodeElements(d checkpoint.DType, b []byte) []float64 {
	var x []float64
	for len(b) > 0 {
		switch d {
		case checkpoint.F64:
			x = append(x, math.Float64frombits(binary.LittleEndian.Uint64(b)))
		case checkpoint.F16:
			x = append(x, float64(modelavg.Float16(binary.LittleEndian.Uint16(b)).Float32()))
		case checkpoint.BF16:
			x = append(x, float64(math.Float32frombits(uint32(binary.LittleEndian.Uint16(b))<<16)))
		case checkpoint.I64:
			x = append(x, float64(int64(binary.LittleEndian.Uint64(b))))
		default:
			x = append(x, float64(math.Float32frombits(binary.LittleEndian.Uint32(b))))
		}
		b = b[d.Bits()/8:]
	}
	return x
}

// safetensors returns a file of the tensors. Those without values are zero.
func safetensors(t testing.TB, tensors []checkpoint.Tensor, model values) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "model.safetensors")
	w, err := checkpoint.Create(path, tensors, nil, checkpoint.WithoutSync())
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for _, x := range tensors {
		b := make([]byte, x.Bytes())
		copy(b, encodeElements(x.DType, model[x.Name]))
		if _, err := w.WriteAt(x.Name, b, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// randomModel returns numbers of the dtypes of the layout.
func randomModel(rng *rand.Rand) values {
	model := values{}
	for _, x := range layout {
		for range x.Elements() {
			v := rng.NormFloat64() * math.Ldexp(1, rng.IntN(12)-10)
			model[x.Name] = append(model[x.Name], v)
		}
		model[x.Name] = decodeElements(x.DType, encodeElements(x.DType, model[x.Name]))
	}
	return model
}

// An uploaded is a model, its client and its number of samples.
type uploaded struct {
	client  string
	samples int64
	model   values
	file    []byte
}

func randomUploads(t testing.TB, n int) []uploaded {
	rng := rand.New(rand.NewPCG(uint64(n), 7))
	var all []uploaded
	for i := range n {
		m := randomModel(rng)
		all = append(all, uploaded{fmt.Sprintf("client/%d & more", i), 1 + rng.Int64N(100_000), m, safetensors(t, layout, m)})
	}
	return all
}

// wantMean compares a mean with Σ samples·model / Σ samples, computed in rational numbers and rounded once.
func wantMean(t *testing.T, file []byte, of []uploaded) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "mean.safetensors")
	if err := os.WriteFile(path, file, 0o666); err != nil {
		t.Fatal(err)
	}
	m, err := checkpoint.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if got, want := fmt.Sprint(m.Tensors()), fmt.Sprint(layout); got != want {
		t.Fatalf("mean of %s, want %s", got, want)
	}
	total := new(big.Rat)
	for _, u := range of {
		total.Add(total, new(big.Rat).SetInt64(u.samples))
	}
	if got, want := m.Metadata()["models"], fmt.Sprint(len(of)); got != want {
		t.Errorf("metadata: %s models, want %s", got, want)
	}
	if got, want := m.Metadata()["samples"], total.RatString(); got != want {
		t.Errorf("metadata: %s samples, want %s", got, want)
	}
	for _, x := range layout {
		b := make([]byte, x.Bytes())
		if _, err := m.ReadAt(x.Name, b, 0); err != nil && len(b) > 0 {
			t.Fatal(err)
		}
		if x.DType.IsInteger() {
			if want := encodeElements(x.DType, initial[x.Name]); !bytes.Equal(b, want) {
				t.Errorf("tensor %q is %v, want %v as in the initial model", x.Name, b, want)
			}
			continue
		}
		for i, got := range decodeElements(x.DType, b) {
			sum := new(big.Rat)
			for _, u := range of {
				v := new(big.Rat).SetFloat64(u.model[x.Name][i])
				sum.Add(sum, v.Mul(v, new(big.Rat).SetInt64(u.samples)))
			}
			if want := roundTo(x.DType, sum.Quo(sum, total)); got != want {
				t.Fatalf("tensor %q, element %d of the mean is %v, want %v", x.Name, i, got, want)
			}
		}
	}
}

// roundTo returns the number of the dtype that is nearest to q. Of 16 bits it looks at all of them.
func roundTo(d checkpoint.DType, q *big.Rat) float64 {
	switch d {
	case checkpoint.F64:
		f, _ := q.Float64()
		return f
	case checkpoint.F32:
		f, _ := q.Float32()
		return float64(f)
	}
	about, _ := q.Float64()
	var best float64
	var least *big.Rat
	for pattern := range 1 << 16 {
		v := decodeElements(d, []byte{byte(pattern), byte(pattern >> 8)})[0]
		if v-v != 0 || math.Abs(v-about) > math.Abs(about)/64 {
			continue
		}
		distance := new(big.Rat).SetFloat64(v)
		distance.Abs(distance.Sub(distance, q))
		order := -1
		if least != nil {
			order = distance.Cmp(least)
		}
		if order < 0 || order == 0 && pattern&1 == 0 {
			best, least = v, distance
		}
	}
	return best
}

// A running is a server of a test.
type running struct {
	*Server
	t       *testing.T
	address string
	client  *http.Client
	stop    func()
}

func start(t *testing.T, c Config) *running {
	t.Helper()
	return startWith(t, c, 100)
}

func startWith(t *testing.T, c Config, connections int) *running {
	t.Helper()
	if c.Model == "" {
		c.Model = filepath.Join(t.TempDir(), "initial.safetensors")
		if err := os.WriteFile(c.Model, safetensors(t, layout, initial), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	if c.Dir == "" {
		c.Dir = t.TempDir()
	}
	c.Minimum = max(c.Minimum, 1)
	if c.Uploads == 0 {
		c.Uploads = 3
	}
	if c.Timeout == 0 {
		c.Timeout = time.Minute
	}
	if c.MaxSamples == 0 {
		c.MaxSamples = 1_000_000
	}
	c.Log = log.New(io.Discard, "", 0)
	s, err := NewServer(c)
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := NewHTTPServer(s.Handler(), connections)
	server.ErrorLog = c.Log
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = server.Serve(listener)
	}()
	address := "http://" + listener.Addr().String()
	r := &running{Server: s, t: t, address: address, client: &http.Client{Transport: &http.Transport{}}}
	r.stop = sync.OnceFunc(func() {
		r.client.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := server.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		<-served
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		left, err := filepath.Glob(filepath.Join(c.Dir, temporary+"*"))
		if len(left) > 0 || err != nil {
			t.Errorf("files of uploads are left: %q, %v", left, err)
		}
	})
	t.Cleanup(r.stop)
	return r
}

// do sends a request and returns the answer.
func (r *running) do(method, target string, body io.Reader) (int, []byte) {
	r.t.Helper()
	request, err := http.NewRequest(method, r.address+target, body)
	if err != nil {
		r.t.Fatal(err)
	}
	response, err := r.client.Do(request)
	if err != nil {
		r.t.Error(err)
		return 0, nil
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		r.t.Error(err)
	}
	return response.StatusCode, text
}

// target returns the path and query of an upload.
func target(round int, client string, samples any) string {
	escaped := strings.NewReplacer("&", "%26", " ", "%20", "/", "%2F").Replace(client)
	return fmt.Sprintf("/round/%d?client=%s&samples=%v", round, escaped, samples)
}

func (r *running) post(round int, u uploaded) (int, string) {
	r.t.Helper()
	status, text := r.do("POST", target(round, u.client, u.samples), bytes.NewReader(u.file))
	return status, string(text)
}

// mustPost posts a model that has to be added.
func (r *running) mustPost(round int, u uploaded) {
	r.t.Helper()
	if status, text := r.post(round, u); status != http.StatusOK {
		r.t.Errorf("%s: %d %s", u.client, status, text)
	}
}

// mean returns the mean of a round, once it has closed.
func (r *running) mean(round int) []byte {
	r.t.Helper()
	for range 1000 {
		status, body := r.do("GET", fmt.Sprint("/round/", round), nil)
		switch status {
		case http.StatusOK:
			return body
		case http.StatusServiceUnavailable:
			time.Sleep(10 * time.Millisecond)
		default:
			r.t.Fatalf("GET /round/%d: %d %s", round, status, body)
		}
	}
	r.t.Fatalf("round %d does not close", round)
	return nil
}

func (r *running) models() int {
	r.t.Helper()
	_, text := r.do("GET", "/round", nil)
	var s Status
	if err := json.Unmarshal(text, &s); err != nil {
		r.t.Fatal(err)
	}
	return s.Models
}

func TestQuorum(t *testing.T) {
	uploads := randomUploads(t, 7)
	r := start(t, Config{Quorum: 4})
	if got := r.mean(0); !bytes.Equal(got, safetensors(t, layout, initial)) {
		t.Error("round 0 is not the initial model")
	}
	for _, u := range uploads[:4] {
		r.mustPost(1, u)
	}
	wantMean(t, r.mean(1), uploads[:4])
	for _, u := range uploads[3:] { // one of them again: it is another round
		r.mustPost(2, u)
	}
	wantMean(t, r.mean(2), uploads[3:])
	if status, _ := r.do("GET", "/round/3", nil); status != http.StatusServiceUnavailable {
		t.Errorf("the mean of the open round: %d, want %d", status, http.StatusServiceUnavailable)
	}
	if status, _ := r.do("GET", "/round/4", nil); status != http.StatusNotFound {
		t.Errorf("the mean of a later round: %d, want %d", status, http.StatusNotFound)
	}
}

// The mean has the same bytes for any order of arrival, and whoever arrives at the same time.
func TestOrderOfArrival(t *testing.T) {
	uploads := randomUploads(t, 40)
	r := start(t, Config{Quorum: len(uploads), Uploads: 8})
	var first []byte
	for round := 1; round <= 3; round++ {
		order := rand.New(rand.NewPCG(uint64(round), 1)).Perm(len(uploads))
		var all sync.WaitGroup
		for _, i := range order {
			if round == 1 {
				r.mustPost(round, uploads[i])
				continue
			}
			all.Go(func() { r.mustPost(round, uploads[i]) })
		}
		all.Wait()
		mean := r.mean(round)
		wantMean(t, mean, uploads)
		if first == nil {
			first = mean
		} else if !bytes.Equal(mean, first) {
			t.Errorf("round %d has another mean", round)
		}
	}
}

func TestDeadline(t *testing.T) {
	uploads := randomUploads(t, 3)
	r := start(t, Config{Quorum: 10, Deadline: 150 * time.Millisecond, Minimum: 2})
	r.mustPost(1, uploads[0])
	time.Sleep(400 * time.Millisecond)
	if got := r.Round(); got != 1 {
		t.Fatalf("round %d is open with fewer models than the minimum, want 1", got)
	}
	r.mustPost(1, uploads[1])
	wantMean(t, r.mean(1), uploads[:2])
	if status, _ := r.post(1, uploads[2]); status != http.StatusGone {
		t.Errorf("a model for the closed round: %d, want %d", status, http.StatusGone)
	}
}

func TestRefused(t *testing.T) {
	u := randomUploads(t, 1)[0]
	with := func(name string, i int, v float64) []byte {
		m := values{}
		for k, x := range u.model {
			m[k] = slices.Clone(x)
		}
		m[name][i] = v
		return safetensors(t, layout, m)
	}
	changed := func(change func([]checkpoint.Tensor) []checkpoint.Tensor) []byte {
		return safetensors(t, change(slices.Clone(layout)), nil)
	}
	ok := target(1, "a", 10)
	tests := []struct {
		name, target string
		body         []byte
		status       int
		want         string // in the answer
	}{
		{"NaN F32", ok, with("weight", 2099, math.NaN()), 422, `tensor "weight": element 2099 of 2100 is not finite`},
		{"Inf F64", ok, with("double", 1, math.Inf(-1)), 422, `tensor "double"`},
		{"Inf F16", ok, with("bias", 0, math.Inf(1)), 422, `tensor "bias"`},
		{"NaN BF16", ok, with("scalar", 0, math.NaN()), 422, `tensor "scalar"`},
		{"shape", ok, changed(func(x []checkpoint.Tensor) []checkpoint.Tensor {
			x[5].Shape = []int64{700, 3}
			return x
		}), 422, `tensor "weight": got F32 [700 3], want F32 [3 700]`},
		{"dtype", ok, changed(func(x []checkpoint.Tensor) []checkpoint.Tensor {
			x[0].DType = checkpoint.BF16
			return x
		}), 422, `tensor "bias": got BF16 [5], want F16 [5]`},
		{"missing", ok, changed(func(x []checkpoint.Tensor) []checkpoint.Tensor {
			return x[1:]
		}), 422, `tensor "bias" is missing`},
		{"more", ok, changed(func(x []checkpoint.Tensor) []checkpoint.Tensor {
			return append(x, checkpoint.Tensor{Name: "more", DType: checkpoint.F32})
		}), 422, `tensor "more": the model has none of this name`},
		{"empty body", ok, nil, 422, "the body"},
		{"text", ok, []byte("a model, honestly"), 422, "the body"},
		{"cut file", ok, u.file[:len(u.file)-1], 422, "the body"},
		{"long header", ok, binary.LittleEndian.AppendUint64(nil, 1<<40), 422, "the body"},
		{"metadata", ok, slices.Concat(
			binary.LittleEndian.AppendUint64(nil, 66_000), make([]byte, 66_000),
		), 422, "header"},
		{"too large", ok, make([]byte, 200_000), 413, "larger than"},
		{"no samples", "/round/1?client=a", u.file, 400, "samples"},
		{"zero samples", target(1, "a", 0), u.file, 400, "samples"},
		{"negative samples", target(1, "a", -1), u.file, 400, "samples"},
		{"NaN samples", target(1, "a", "NaN"), u.file, 400, "samples"},
		{"Inf samples", target(1, "a", "Inf"), u.file, 400, "samples"},
		{"half a sample", target(1, "a", 0.5), u.file, 400, "samples"},
		{"too many samples", target(1, "a", 1_000_001), u.file, 400, "samples"},
		{"no client", "/round/1?samples=1", u.file, 400, "client"},
		{"long client", target(1, strings.Repeat("x", 129), 1), u.file, 400, "client"},
		{"no UTF-8", "/round/1?samples=1&client=%ff", u.file, 400, "client"},
		{"later round", target(2, "a", 1), u.file, 404, "round 2 has not begun"},
		{"round 0", target(0, "a", 1), u.file, 410, "round 0 is closed"},
		{"negative round", target(-1, "a", 1), u.file, 400, "round"},
		{"great round", "/round/99999999999999999999?client=a&samples=1", u.file, 400, "round"},
	}
	r := start(t, Config{Quorum: 1})
	for _, test := range tests {
		for _, sized := range []bool{true, false} {
			var body io.Reader = bytes.NewReader(test.body)
			if !sized {
				body = io.MultiReader(body) // of which net/http does not know the length
			}
			status, text := r.do("POST", test.target, body)
			if status != test.status || !strings.Contains(string(text), test.want) {
				t.Errorf("%s, sized %v: got %d %s want %d and %q", test.name, sized, status, text, test.status, test.want)
			}
			if strings.Contains(string(text), r.config.Dir) {
				t.Errorf("%s: the answer has a path of the server: %s", test.name, text)
			}
		}
	}
	r.mustPost(1, u)
	wantMean(t, r.mean(1), []uploaded{u}) // nothing of the others is in it
}

// A client that sends again is refused, also when both come at once, and with another model.
func TestRepeating(t *testing.T) {
	uploads := randomUploads(t, 3)
	r := start(t, Config{Quorum: 3})
	r.mustPost(1, uploads[0])
	again := uploads[1]
	again.client = uploads[0].client
	if status, text := r.post(1, again); status != http.StatusConflict {
		t.Errorf("again: %d %s want %d", status, text, http.StatusConflict)
	}
	statuses := make([]int, 5)
	var all sync.WaitGroup
	for i := range statuses {
		all.Go(func() { statuses[i], _ = r.post(1, uploads[1]) })
	}
	all.Wait()
	slices.Sort(statuses)
	if got, want := fmt.Sprint(statuses), "[200 409 409 409 409]"; got != want {
		t.Errorf("at once: %s, want %s", got, want)
	}
	r.mustPost(1, uploads[2])
	wantMean(t, r.mean(1), uploads)
}

// raw begins an upload of which only the first n bytes of the body are sent.
func (r *running) raw(u uploaded, n int) net.Conn {
	r.t.Helper()
	c, err := net.Dial("tcp", strings.TrimPrefix(r.address, "http://"))
	if err != nil {
		r.t.Fatal(err)
	}
	_, err = fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s",
		target(1, u.client, u.samples), len(u.file), u.file[:n])
	if err != nil {
		r.t.Fatal(err)
	}
	return c
}

// A connection that is cut leaves nothing, and the client may try again.
func TestDying(t *testing.T) {
	uploads := randomUploads(t, 4)
	r := start(t, Config{Quorum: 4, Uploads: 2})
	for i, u := range uploads {
		for _, n := range []int{0, 1, len(u.file) / 2, len(u.file) - 1} {
			c := r.raw(u, n)
			if n%2 == 0 {
				_ = c.(*net.TCPConn).SetLinger(0) // cut, and not closed
			}
			c.Close()
		}
		if got := r.models(); got != i {
			t.Fatalf("%d models, want %d", got, i)
		}
		r.mustPost(1, u)
	}
	wantMean(t, r.mean(1), uploads)
}

// Clients that stall, as many as there are uploads at once, hold up the others for the timeout.
func TestStalling(t *testing.T) {
	uploads := randomUploads(t, 5)
	r := start(t, Config{Quorum: 3, Uploads: 2, Timeout: time.Second})
	var stalled []net.Conn
	for _, u := range uploads[3:] {
		c := r.raw(u, len(u.file)/2)
		defer c.Close()
		stalled = append(stalled, c)
	}
	for len(r.uploads) < 2 {
		time.Sleep(time.Millisecond)
	}
	begin := time.Now()
	for _, u := range uploads[:3] {
		r.mustPost(1, u)
	}
	if waited := time.Since(begin); waited > 10*time.Second {
		t.Errorf("the others waited for %v", waited)
	}
	for _, c := range stalled {
		answer, err := io.ReadAll(c)
		if err != nil || !bytes.HasPrefix(answer, []byte("HTTP/1.1 408 ")) {
			t.Errorf("answer to a client that stalls: %.100q, %v", answer, err)
		}
	}
	wantMean(t, r.mean(1), uploads[:3])
}

// Connections beyond the limit wait until there is room.
func TestConnections(t *testing.T) {
	u := randomUploads(t, 1)[0]
	r := startWith(t, Config{Quorum: 1}, 2)
	var held []net.Conn
	for range 2 {
		c, err := net.Dial("tcp", strings.TrimPrefix(r.address, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		held = append(held, c)
	}
	time.Sleep(100 * time.Millisecond)
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.mustPost(1, u)
	}()
	select {
	case <-done:
		t.Error("the third connection was served beside two others")
	case <-time.After(200 * time.Millisecond):
	}
	held[0].Close()
	<-done
	wantMean(t, r.mean(1), []uploaded{u})
}

// A server that was closed in the middle of a round goes on with it, with the same bits.
func TestRestart(t *testing.T) {
	uploads := randomUploads(t, 6)
	for _, rounded := range []bool{false, true} {
		c := Config{Quorum: 6, Dir: t.TempDir(), Rounded: rounded}
		whole := start(t, Config{Quorum: 6, Rounded: rounded})
		r := start(t, c)
		for i, u := range uploads {
			whole.mustPost(1, u)
			if i == 2 || i == 3 {
				r.stop()
				if status := r.admit(upload{1, "another", 1}); status == nil {
					t.Error("a closed server takes models")
				}
				r = start(t, c)
				if got := r.models(); got != i {
					t.Fatalf("%d models after a restart, want %d", got, i)
				}
				if status, _ := r.post(1, uploads[0]); status != http.StatusConflict {
					t.Errorf("a client that was there before the restart: %d, want %d", status, http.StatusConflict)
				}
			}
			r.mustPost(1, u)
		}
		if !bytes.Equal(r.mean(1), whole.mean(1)) {
			t.Error("the restart shows in the mean")
		}
		r.stop()
		if r = start(t, c); r.Round() != 2 || r.models() != 0 {
			t.Errorf("round %d with %d models is open after a restart, want an empty round 2", r.Round(), r.models())
		}
		r.mustPost(2, uploads[5])
		r.stop()
	}
}

// A state that is damaged or of something else is an error, and so is one whose clients do not match.
func TestDamagedState(t *testing.T) {
	u := randomUploads(t, 1)[0]
	c := Config{Quorum: 2, Dir: t.TempDir(), Model: filepath.Join(t.TempDir(), "initial.safetensors")}
	if err := os.WriteFile(c.Model, safetensors(t, layout, initial), 0o666); err != nil {
		t.Fatal(err)
	}
	r := start(t, c)
	r.mustPost(1, u)
	r.stop()
	state, err := os.ReadFile(r.statePath())
	if err != nil {
		t.Fatal(err)
	}
	c = r.config
	state = state[:len(state)-sha256.Size]
	line := bytes.IndexByte(state, '\n')
	damaged := map[string][]byte{
		"empty":      {},
		"cut":        state[:len(state)-1],
		"no sums":    state[:line+1],
		"one bit":    slices.Concat(state[:len(state)-9], []byte{state[len(state)-9] ^ 1}, state[len(state)-8:]),
		"length":     slices.Concat(state[:line+8], []byte{0x7f}, state[line+9:]),
		"client":     bytes.Replace(state, []byte(`"clients":[`), []byte(`"clients":["b",`), 1),
		"rounded":    bytes.Replace(state, []byte(`"rounded":false`), []byte(`"rounded":true`), 1),
		"dtype":      bytes.Replace(state, []byte(`F64`), []byte(`F32`), 1),
		"not a JSON": []byte("state\n"),
	}
	sealed := func(b []byte) []byte {
		sum := sha256.Sum256(b)
		return slices.Concat(b, sum[:])
	}
	for name, b := range damaged {
		if err := os.WriteFile(r.statePath(), sealed(b), 0o666); err != nil {
			t.Fatal(err)
		}
		if _, err := NewServer(c); err == nil || !strings.Contains(err.Error(), r.statePath()) {
			t.Errorf("%s: got error %v, want one that names the file", name, err)
		}
	}
	if err := os.WriteFile(r.statePath(), sealed(state), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := NewServer(c); err != nil {
		t.Errorf("undamaged: %v", err)
	}
}

func TestKeep(t *testing.T) {
	uploads := randomUploads(t, 3)
	r := start(t, Config{Quorum: 1, Keep: 2})
	for i, u := range uploads {
		r.mustPost(i+1, u)
	}
	for i, want := range []int{200, 410, 200, 200, 503} {
		if status, _ := r.do("GET", fmt.Sprint("/round/", i), nil); status != want {
			t.Errorf("round %d: %d, want %d", i, status, want)
		}
	}
}

// A mean that cannot be written leaves the round open, with all models in it.
func TestUnwritable(t *testing.T) {
	uploads := randomUploads(t, 3)
	r := start(t, Config{Quorum: 2})
	if err := os.Mkdir(r.path(1), 0o777); err != nil { // where the mean should be
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.path(1), "x"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	r.mustPost(1, uploads[0])
	r.mustPost(1, uploads[1])
	if got := r.Round(); got != 1 {
		t.Fatalf("round %d is open, want 1", got)
	}
	if err := os.RemoveAll(r.path(1)); err != nil {
		t.Fatal(err)
	}
	r.mustPost(1, uploads[2])
	wantMean(t, r.mean(1), uploads)
}

// A failing tensor cannot be read when it is to be added, as if the disk had failed between two readings.
type failing struct{ tensor }

func (failing) add(*checkpoint.Model, float64, *room) error { return errors.New("the disk failed") }

// Of a model that could be added only in part nothing remains: the round begins again.
func TestAddedInPart(t *testing.T) {
	uploads := randomUploads(t, 3)
	r := start(t, Config{Quorum: 2})
	r.mustPost(1, uploads[0])
	last := len(r.tensors) - 1
	good := r.tensors[last] // the others come before it
	r.tensors[last] = failing{good}
	status, text := r.post(1, uploads[1])
	if status != http.StatusInternalServerError || strings.Contains(text, "disk") {
		t.Errorf("got %d %s want %d, without the reason", status, text, http.StatusInternalServerError)
	}
	r.tensors[last] = good
	if got := r.models(); got != 0 {
		t.Errorf("%d models, want 0", got)
	}
	r.mustPost(1, uploads[0])
	r.mustPost(1, uploads[2])
	wantMean(t, r.mean(1), []uploaded{uploads[0], uploads[2]})
}

func TestConfig(t *testing.T) {
	dir := t.TempDir()
	small := filepath.Join(dir, "small.safetensors")
	tensors := []checkpoint.Tensor{{Name: "small", DType: checkpoint.F8E4M3}}
	if err := os.WriteFile(small, safetensors(t, tensors, nil), 0o666); err != nil {
		t.Fatal(err)
	}
	good := Config{Model: small, Dir: dir, Quorum: 2, Minimum: 1, Uploads: 1, Timeout: time.Second, MaxSamples: 1}
	tests := []struct {
		change func(*Config)
		want   string
	}{
		{func(*Config) {}, `tensor "small": got dtype F8_E4M3, want`},
		{func(c *Config) { c.Model = filepath.Join(dir, "none.safetensors") }, "none.safetensors"},
		{func(c *Config) { c.Quorum = 0 }, "quorum"},
		{func(c *Config) { c.Minimum = 3 }, "minimum"},
		{func(c *Config) { c.Uploads = 0 }, "uploads"},
		{func(c *Config) { c.Timeout = 0 }, "timeout"},
		{func(c *Config) { c.MaxSamples = math.MaxInt64 / 2000; c.Quorum = 2001 }, "samples"},
		{func(c *Config) { c.MaxSamples = 1<<53 + 1 }, "samples"},
	}
	for _, test := range tests {
		c := good
		test.change(&c)
		if _, err := NewServer(c); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("got error %v, want %q", err, test.want)
		}
	}
}

// No goroutine is left when a server has been closed, whatever its clients did.
func TestGoroutines(t *testing.T) {
	before := runtime.NumGoroutine()
	uploads := randomUploads(t, 4)
	r := start(t, Config{Quorum: 3, Deadline: time.Hour, Timeout: 500 * time.Millisecond})
	r.mustPost(1, uploads[0])
	dying := r.raw(uploads[1], 1000)
	dying.Close()
	stalling := r.raw(uploads[2], 1000)
	defer stalling.Close()
	r.mustPost(1, uploads[3])
	r.stop()
	for range 200 {
		if runtime.NumGoroutine() <= before {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	stacks := make([]byte, 1<<16)
	t.Errorf("%d goroutines, want %d\n%s", runtime.NumGoroutine(), before, stacks[:runtime.Stack(stacks, true)])
}

// The command serves until it is told to stop.
func TestServe(t *testing.T) {
	model := filepath.Join(t.TempDir(), "initial.safetensors")
	if err := os.WriteFile(model, safetensors(t, layout, initial), 0o666); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	reader, writer := io.Pipe()
	failed := make(chan error, 1)
	go func() {
		failed <- run(ctx, []string{"-listen", "127.0.0.1:0", "-model", model, "-dir", t.TempDir()}, writer)
	}()
	var round int
	var address string
	if _, err := fmt.Fscanf(reader, "round %d at %s\n", &round, &address); err != nil {
		t.Fatal(err)
	}
	response, err := http.Get(address + "/round/0")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if _, err := io.Copy(io.Discard, response.Body); err != nil {
		t.Error(err)
	}
	cancel()
	if err := <-failed; err != nil {
		t.Error(err)
	}
	for _, args := range [][]string{{}, {"-load", "x"}, {"-unknown"}, {"-load", "-connections", "0"}} {
		if err := run(t.Context(), args, io.Discard); !errors.As(err, new(usageError)) {
			t.Errorf("%q: got error %v, want one of usage", args, err)
		}
	}
}

// Many clients, good and bad, at once: none is lost, the mean is the same for every order, and the memory of the server
// does not depend on how many there are.
func TestLoad(t *testing.T) {
	t.Setenv(asServer, "1")
	var out bytes.Buffer
	l := Load{Clients: 60, Bytes: 4_000_000, Rounds: 2, Seed: 1, Bad: 2, Timeout: 2 * time.Second, Out: &out}
	if testing.Short() || raceEnabled {
		l.Clients, l.Bytes = 20, 400_000
	}
	if err := l.Run(t.Context()); errors.Is(err, syscall.ENOEXEC) {
		t.Skipf("the tests run in an emulator, in which they cannot start a process of their own: %v", err)
	} else if err != nil {
		t.Fatalf("%v\n%s", err, &out)
	}
	t.Logf("%s", &out)
	_, after, found := strings.Cut(out.String(), "peak resident memory of the server: ")
	if !found && runtime.GOOS == "linux" {
		t.Error("no peak resident memory")
	}
	if !found || raceEnabled {
		return
	}
	var megabytes float64
	if _, err := fmt.Sscanf(after, "%f MB", &megabytes); err != nil {
		t.Fatal(err)
	}
	// 8 models, of which up to 6 are the exact sums and one the model that is added, and the program with its buffers.
	if most := float64(8*l.Bytes)/1e6 + 25; megabytes > most {
		t.Errorf("peak of %v MB, want at most %v", megabytes, most)
	}
}
