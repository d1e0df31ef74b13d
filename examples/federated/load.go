package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math"
	"math/big"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/modelavg/modelavg/checkpoint"
)

// A Load is a measurement: clients that all send their models at the same time to a server in a process of its own, on
// this machine, with bad clients among them.
type Load struct {
	Clients int
	Bytes   int64 // of a model
	Rounds  int
	Seed    uint64        // of the order in which the clients begin
	Bad     int           // clients of each bad kind
	Rounded bool          // as Config.Rounded
	Timeout time.Duration // as Config.Timeout: what a client that stalls takes
	Out     io.Writer
}

// The kinds of clients.
const (
	good      = "good"
	repeating = "sends its model twice"
	notANum   = "sends a NaN"
	dying     = "dies half-way"
	stalling  = "stalls half-way"
	oversized = "sends too much"
	untyped   = "sends another dtype"
	negative  = "counts -5 samples"
)

// Run measures and prints what it finds. The error says what is not as it should be: a model of a good client that was
// not added, a mean that is not the exact one, or not the same in every round.
func (l Load) Run(ctx context.Context) (err error) {
	if l.Clients < 1 || l.Bytes < 4 || l.Rounds < 1 || l.Bad < 0 {
		return errors.New("load: want at least one client, 4 bytes and one round")
	}
	dir, err := os.MkdirTemp("", "federated-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	initial := filepath.Join(dir, "initial.safetensors")
	header, err := l.writeInitial(initial)
	if err != nil {
		return err
	}

	program, err := os.Executable()
	if err != nil {
		return err
	}
	server := exec.CommandContext(ctx, program,
		"-listen", "127.0.0.1:0", "-model", initial, "-dir", filepath.Join(dir, "rounds"),
		"-quorum", strconv.Itoa(l.Clients), "-timeout", l.Timeout.String(), "-rounded="+strconv.FormatBool(l.Rounded))
	server.Stderr = os.Stderr
	server.Cancel = func() error { return server.Process.Signal(os.Interrupt) }
	server.WaitDelay = time.Minute
	output, err := server.StdoutPipe()
	if err != nil {
		return err
	}
	if err := server.Start(); err != nil {
		return err
	}
	defer func() {
		_ = server.Process.Kill() // without effect after it has ended
		_ = server.Wait()
	}()
	line, err := bufio.NewReader(output).ReadString('\n')
	_, address, found := strings.Cut(strings.TrimSpace(line), " at ")
	if !found {
		return fmt.Errorf("the server did not start: %q, %w", line, err)
	}

	fmt.Fprintf(l.Out, "%d clients, models of %d bytes\n", l.Clients, l.Bytes)
	var sums []string
	for round := 1; round <= l.Rounds; round++ {
		sum, err := l.runRound(ctx, address, round, header)
		if err != nil {
			return err
		}
		sums = append(sums, sum)
	}
	if resident := peakResident(server.Process.Pid); resident > 0 {
		fmt.Fprintf(l.Out, "peak resident memory of the server: %.1f MB, %.1f models\n",
			float64(resident)/1e6, float64(resident)/float64(l.Bytes))
	}
	if slices.Sort(sums); sums[0] != sums[len(sums)-1] && !l.Rounded {
		return errors.New("load: the mean depends on the order of arrival")
	}
	return nil
}

// writeInitial writes the initial model, tensors of different sizes, and returns the header of its file, which is also
// that of the clients' models.
func (l Load) writeInitial(path string) ([]byte, error) {
	elements := l.Bytes / 4
	var tensors []checkpoint.Tensor
	for layer := 0; elements > 0; layer++ {
		n := elements
		if n > 16 {
			n = (n + 1) / 2
		}
		tensors = append(tensors, checkpoint.Tensor{
			Name: fmt.Sprintf("layer.%02d.weight", layer), DType: checkpoint.F32, Shape: []int64{n},
		})
		elements -= n
	}
	w, err := checkpoint.Create(path, tensors, nil, checkpoint.WithoutSync())
	if err != nil {
		return nil, err
	}
	defer w.Close()
	zeros := make([]byte, 64<<10)
	for _, t := range tensors {
		for at := int64(0); at < t.Bytes(); at += int64(len(zeros)) {
			if _, err := w.WriteAt(t.Name, zeros[:min(int64(len(zeros)), t.Bytes()-at)], at); err != nil {
				return nil, err
			}
		}
	}
	if err := w.Commit(); err != nil {
		return nil, err
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	return readHeader(file)
}

// readHeader reads the header of a safetensors file, with the 8 bytes of its length.
func readHeader(r io.Reader) ([]byte, error) {
	header := make([]byte, 8)
	if _, err := io.ReadFull(r, header); err != nil {
		return nil, err
	}
	length := binary.LittleEndian.Uint64(header)
	if length > checkpoint.DefaultHeaderLimit {
		return nil, fmt.Errorf("got a header of %d bytes", length)
	}
	header = append(header, make([]byte, length)...)
	_, err := io.ReadFull(r, header[8:])
	return header, err
}

// A measured is what one client saw.
type measured struct {
	kind    string
	status  int // of the last answer
	err     error
	upload  time.Duration // from the server's "100 Continue" to its answer
	request time.Duration // from the beginning
	added   *Added        // unless it was refused
}

// runRound sends all models of a round and returns the SHA-256 of the mean.
func (l Load) runRound(ctx context.Context, address string, round int, header []byte) (string, error) {
	type sender struct {
		number int
		kind   string
	}
	var senders []sender
	for i := range l.Clients {
		kind := good
		if i < l.Bad {
			kind = repeating
		}
		senders = append(senders, sender{i, kind})
	}
	for _, kind := range []string{notANum, dying, stalling, oversized, untyped, negative} {
		for range l.Bad {
			senders = append(senders, sender{len(senders), kind})
		}
	}
	seed := l.Seed + uint64(round-1)
	rng := rand.New(rand.NewPCG(seed, 0))
	rng.Shuffle(len(senders), func(i, j int) { senders[i], senders[j] = senders[j], senders[i] })

	client := &http.Client{Transport: &http.Transport{ExpectContinueTimeout: time.Hour}}
	defer client.CloseIdleConnections()
	results := make([]measured, len(senders))
	var all, models sync.WaitGroup
	start := time.Now()
	for i, s := range senders {
		isGood := s.kind == good || s.kind == repeating
		if isGood {
			models.Add(1)
		}
		all.Go(func() {
			name := url.QueryEscape(fmt.Sprint("client ", s.number))
			target := fmt.Sprintf("%s/round/%d?client=%s&samples=", address, round, name)
			results[i] = send(ctx, client, target, header, l.Bytes, s.number, s.kind)
			if isGood {
				models.Done()
			}
			if s.kind == repeating {
				results[i].status = send(ctx, client, target, header, l.Bytes, s.number, s.kind).status
			}
		})
	}
	models.Wait()
	seconds := time.Since(start).Seconds()
	all.Wait()

	fmt.Fprintf(l.Out, "round %d, order of seed %d\n", round, seed)
	failed := l.report(results, seconds)
	response, err := client.Get(fmt.Sprintf("%s/round/%d", address, round))
	if err != nil {
		return "", err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err == nil && response.StatusCode != http.StatusOK {
		err = fmt.Errorf("mean: %s: %s", response.Status, body)
	}
	if err = errors.Join(failed, err); err != nil {
		return "", err
	}
	sum := fmt.Sprintf("%x", sha256.Sum256(body))
	fmt.Fprintf(l.Out, "  SHA-256 of the mean     %s\n", sum)
	if l.Rounded {
		return sum, nil
	}
	return sum, l.check(body)
}

// report prints what the clients saw. The error is about the first good one that was not added.
func (l Load) report(results []measured, seconds float64) error {
	var reading, adding, upload, request []time.Duration
	refused := make(map[string]map[string]int)
	var failed error
	for _, r := range results {
		if r.added != nil {
			reading, adding = append(reading, r.added.Reading), append(adding, r.added.Adding)
			upload, request = append(upload, r.upload), append(request, r.request)
		} else if failed == nil && (r.kind == good || r.kind == repeating) {
			failed = fmt.Errorf("load: a good client was refused: status %d, %w", r.status, r.err)
		}
		if r.kind == good {
			continue
		}
		if refused[r.kind] == nil {
			refused[r.kind] = make(map[string]int)
		}
		answer := fmt.Sprint("status ", r.status)
		if r.status == 0 {
			answer = "no answer"
		}
		refused[r.kind][answer]++
	}
	fmt.Fprintf(l.Out, "  models added            %d of %d in %.1f s, %.0f MB/s\n",
		len(adding), l.Clients, seconds, float64(len(adding))*float64(l.Bytes)/seconds/1e6)
	for _, row := range []struct {
		name  string
		times []time.Duration
	}{
		{"reading, checking", reading},
		{"adding", adding},
		{"upload and answer", upload},
		{"with the wait before", request},
	} {
		slices.Sort(row.times)
		fmt.Fprintf(l.Out, "  %-22s  p50 %8.1f ms   p99 %8.1f ms\n",
			row.name, percentile(row.times, 50), percentile(row.times, 99))
	}
	for _, kind := range []string{repeating, notANum, dying, stalling, oversized, untyped, negative} {
		for _, answer := range slices.Sorted(maps.Keys(refused[kind])) {
			fmt.Fprintf(l.Out, "  %-22s  %s: %d\n", kind, answer, refused[kind][answer])
		}
	}
	return failed
}

// percentile returns the least of the sorted times that p percent of them do not exceed, in milliseconds.
func percentile(times []time.Duration, p int) float64 {
	if len(times) == 0 {
		return math.NaN()
	}
	i := (p*len(times) + 99) / 100
	return float64(times[max(i, 1)-1]) / 1e6
}

// send sends the model of a client.
func send(
	ctx context.Context, client *http.Client, target string, header []byte, size int64, number int, kind string,
) measured {
	samples := fmt.Sprint(samplesOf(number))
	body := &modelBody{header: header, size: size / 4 * 4, number: number, broken: -1}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	switch kind {
	case notANum:
		body.nan = true
	case dying:
		body.broken, body.fail = size/2, func() error { return errors.New("the client dies") }
	case stalling:
		body.broken, body.fail = size/2, func() error {
			<-ctx.Done()
			return ctx.Err()
		}
	case oversized:
		body.size += 1 << 20
	case untyped:
		body.header = bytes.Replace(header, []byte(`"F32"`), []byte(`"I32"`), 1)
	case negative:
		samples = "-5"
	}
	result := measured{kind: kind}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, target+samples, io.NopCloser(body))
	if err != nil {
		result.err = err
		return result
	}
	request.ContentLength = int64(len(body.header)) + body.size
	request.Header.Set("Expect", "100-continue")
	start := time.Now()
	response, err := client.Do(request)
	if err != nil {
		result.err = err
		return result
	}
	defer response.Body.Close()
	result.status = response.StatusCode
	text, err := io.ReadAll(response.Body)
	result.request = time.Since(start)
	if response.StatusCode != http.StatusOK {
		result.err = errors.Join(err, errors.New(strings.TrimSpace(string(text))))
		return result
	}
	result.upload = time.Since(body.begun)
	result.added = new(Added)
	if err := json.Unmarshal(text, result.added); err != nil {
		result.added, result.err = nil, err
	}
	return result
}

// A modelBody is the model of a client as a file, made while it is read.
type modelBody struct {
	header []byte
	size   int64 // of the data
	number int
	at     int64 // in header and data
	nan    bool  // the last element is one
	broken int64 // where fail is called, in the data
	fail   func() error
	begun  time.Time // when the first byte was read
}

func (m *modelBody) Read(p []byte) (int, error) {
	if m.begun.IsZero() {
		m.begun = time.Now()
	}
	if m.at < int64(len(m.header)) {
		n := copy(p, m.header[m.at:])
		m.at += int64(n)
		return n, nil
	}
	at := m.at - int64(len(m.header))
	switch {
	case at == m.size:
		return 0, io.EOF
	case m.broken >= 0 && at >= m.broken:
		return 0, m.fail()
	case len(p) < 4:
		return 0, io.ErrShortBuffer // net/http has larger ones
	}
	n := int(min(int64(len(p)/4), (m.size-at)/4))
	for i := range n {
		binary.LittleEndian.PutUint32(p[4*i:], math.Float32bits(element(m.number, at/4+int64(i))))
	}
	m.at += int64(4 * n)
	if m.nan && m.at == int64(len(m.header))+m.size {
		binary.LittleEndian.PutUint32(p[4*(n-1):], math.Float32bits(float32(math.NaN())))
	}
	return 4 * n, nil
}

// samplesOf returns the number of samples of a client.
func samplesOf(number int) int64 { return 1 + int64(mix(uint64(number))%1000) }

// element returns an element of a client's model: one that all clients share, and a smaller one of its own. Both are
// nearly normal; the standard deviation is 0.02, as that of a layer of 2,500 inputs.
func element(number int, i int64) float32 {
	shared, own := bell(mix(uint64(i))), bell(mix(uint64(i)^uint64(number+1)<<40))
	return float32(float64(4*shared+own) * (0.02 / (4.123 * 37837)))
}

// bell returns the sum of four random numbers of 16 bits, less its mean. The standard deviation is 37837.
func bell(bits uint64) int64 {
	return int64(bits>>48) + int64(bits>>32&0xffff) + int64(bits>>16&0xffff) + int64(bits&0xffff) - 2*0xffff
}

// mix returns bits that look random (the finalizer of splitmix64: Steele, Lea and Flood, 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// check compares elements of the mean with the exact one, rounded.
func (l Load) check(mean []byte) error {
	header, err := readHeader(bytes.NewReader(mean))
	if err != nil {
		return err
	}
	data := mean[len(header):]
	if int64(len(data)) != l.Bytes/4*4 {
		return fmt.Errorf("load: the mean has %d bytes of data, want %d", len(data), l.Bytes/4*4)
	}
	elements := l.Bytes / 4
	checked := min(elements, 1000)
	samples := new(big.Rat)
	for number := range l.Clients {
		samples.Add(samples, new(big.Rat).SetInt64(samplesOf(number)))
	}
	for k := range checked {
		i := k * (elements - 1) / max(checked-1, 1)
		sum := new(big.Rat)
		for number := range l.Clients {
			x := new(big.Rat).SetFloat64(float64(element(number, i)))
			sum.Add(sum, x.Mul(x, new(big.Rat).SetInt64(samplesOf(number))))
		}
		want, _ := sum.Quo(sum, samples).Float32()
		if got := math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:])); got != want {
			return fmt.Errorf("load: element %d of the mean is %v, want %v", i, got, want)
		}
	}
	fmt.Fprintf(l.Out, "  elements of the mean    %d of %d compared: all are the exact mean, rounded once\n",
		checked, elements)
	return nil
}

// peakResident returns the most memory that a process has had resident, in bytes, or 0 where the system does not say.
func peakResident(pid int) int64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)) // of Linux
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(status)) {
		var kilobytes int64
		if _, err := fmt.Sscanf(line, "VmHWM: %d kB", &kilobytes); err == nil {
			return kilobytes << 10
		}
	}
	return 0
}
