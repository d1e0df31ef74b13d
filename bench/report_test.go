package main

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// made is a results file with round numbers: the cache holds 1000 bytes.
func made() string {
	var b strings.Builder
	b.WriteString("goos: linux\ngoarch: amd64\ncpu: A processor\nlast-level-cache: 1000\n")
	add := func(p point, library string, bytes int, rates ...float64) { // in GB/s
		for _, rate := range rates {
			fmt.Fprintf(&b, "%s\t10\t%v ns/op\t%v MB/s\n", p.benchmark(library), float64(bytes)/rate, rate*1000)
		}
	}
	small, large := point{weightedSum, float32s, 4, 8}, point{weightedSum, float32s, 4, 64_000_000}
	for _, p := range []point{small, large} {
		// The second round was twice as slow for all; the third was slow for the read probe alone.
		add(p, "limit-read-256", p.bytes(), 40, 20, 10)
		add(p, "limit-read-512", p.bytes(), 30, 20, 40)
		add(p, "gonum", p.bytes(), 10, 5, 10)
		add(p, "vek", p.bytes(), 8, 4, 8)
		add(p, ourName, p.bytes(), 20, 10, 20)
		add(p, "go-passes", p.bytes(), 2, 1, 2)
		add(p, "numpy-article", p.bytes(), 1, 1, 1)
		add(p, "copy", 64, 60, 60, 60)
	}
	step := point{emaStep, float32s, 2, 64}
	add(step, ourName, step.bytes(), 50)
	add(step, "limit-update-256", step.bytes(), 100)
	fmt.Fprintf(&b, "%s\t10\t2 ns/op\n", small.benchmark(callName))
	return b.String()
}

func readMade(t *testing.T) *results {
	t.Helper()
	path := filepath.Join(t.TempDir(), "results.txt")
	if err := os.WriteFile(path, []byte(made()), 0o666); err != nil {
		t.Fatal(err)
	}
	r, err := readResults(path)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestResults(t *testing.T) {
	r := readMade(t)
	if got := r.configValue("cpu"); got != "A processor" {
		t.Errorf("got cpu %q", got)
	}
	want := []string{ourName, "go-passes", "gonum", "vek", "numpy-article", "copy", "limit-read-256", "limit-read-512", "limit-update-256", callName}
	// The probes of another processor have no place of their own.
	sorted := slices.Clone(r.libraries)
	slices.Sort(sorted)
	slices.Sort(want)
	if !slices.Equal(sorted, want) {
		t.Errorf("got libraries %q, want %q", sorted, want)
	}
	if r.libraries[0] != ourName || r.libraries[3] != "vek" || r.libraries[4] != "numpy-article" {
		t.Errorf("the libraries are in the order %q", r.libraries)
	}
	for name, text := range map[string]string{
		"want one like": "BenchmarkOther/n=5\t1\t3 ns/op\n",
		"no time":       (point{mean, float32s, 2, 8}).benchmark("gonum") + "\t1\t3 MB/s\n",
		"syntax":        "BenchmarkMean/library=\tx\n",
		"got job Other": (point{"Other", float32s, 2, 8}).benchmark("gonum") + "\t1\t3 ns/op\n",
		"of float99":    (point{mean, "float99", 2, 8}).benchmark("gonum") + "\t1\t3 ns/op\n",
		`the processor is "B", in the first results it is "A"`: "cpu: A\n" + (point{mean, float32s, 2, 8}).benchmark("gonum") +
			"\t1\t3 ns/op\ncpu: B\n" + (point{mean, float32s, 2, 8}).benchmark("vek") + "\t1\t3 ns/op\n",
	} {
		err := (&results{series: map[seriesKey]*samples{}}).read(strings.NewReader(text), "file")
		if err == nil || name != "syntax" && !strings.Contains(err.Error(), name) {
			t.Errorf("%q: got error %v, want one with %q", text, err, name)
		}
	}
	empty := filepath.Join(t.TempDir(), "empty.txt")
	if err := os.WriteFile(empty, []byte("cpu: A\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	if _, err := readResults(empty); err == nil || !strings.Contains(err.Error(), "empty.txt: no results") {
		t.Errorf("a file without results: got error %v", err)
	}
	if _, err := readResults(filepath.Join(t.TempDir(), "nothing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file that is not there: got error %v", err)
	}
}

func TestRatios(t *testing.T) {
	r := readMade(t)
	near := func(what string, got, want float64) {
		t.Helper()
		if math.Abs(got-want) > 1e-9*math.Abs(want) {
			t.Errorf("%s: got %v, want %v", what, got, want)
		}
	}
	small, large := point{weightedSum, float32s, 4, 8}, point{weightedSum, float32s, 4, 64_000_000}
	// In the cache the limit is the faster probe of each round: 40, 20, 40. In memory 5/4 of it.
	for i, want := range []float64{40e9, 20e9, 40e9} {
		near("limit in the cache", r.limit(small)[i], want)
		near("limit in memory", r.limit(large)[i], want*5/4)
	}
	near("ratio to the limit in the cache", r.ofLimit(small, ourName), 0.5)
	near("ratio to the limit in memory", r.ofLimit(large, ourName), 0.4)
	near("ratio to the limit of the step", r.ofLimit(point{emaStep, float32s, 2, 64}, ourName), 0.5)
	near("ratio of a mover", r.ofLimit(large, "copy"), 0)
	if got := r.bestPeer(large); got != "gonum" {
		t.Errorf("got the best peer %q, want gonum", got)
	}
	near("median of four", median([]float64{4, 1, 3, 2}), 2.5)
	near("median of nothing", median(nil), 0)
	near("ratios of rounds", medianRatio([]float64{2, 40, 3}, []float64{1, 20}), 2)
}

func TestReport(t *testing.T) {
	r := readMade(t)
	var b strings.Builder
	if err := r.writeReport(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"- cpu: A processor\n",
		"| WeightedSum, float32, 4 models | 64M | modelavg | 20.0 | 0.40 | gonum | 2.00 | 10.0 |\n",
		"| EMAStep, float32, 2 models | 64 | modelavg | 50.0 | 0.50 | – | – | – |\n",
		"## WeightedSum, float32, 4 models\n",
		"| library | 8 | 64M |\n|---|---:|---:|\n| **limit** | 40.0 | 50.0 |\n| modelavg | 20.0 (0.50) | 20.0 (0.40) |\n",
		"| copy | 60.0 | 60.0 |\n| limit-read-256 | 20.0 | 20.0 |\n",
		"| vek | 2.50 | 2.50 |\n",
		"Nanoseconds per call:\n\n| library | 8 |\n|---|---:|\n| modelavg | 8.00 |\n",
		"| limit-call | 2.00 |\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("the report lacks\n%s", want)
		}
	}
	if t.Failed() {
		t.Log(b.String())
	}
	if err := r.writeReport(failingWriter{}); !errors.Is(err, errFull) {
		t.Errorf("a full disk: got error %v", err)
	}
}

var errFull = errors.New("full")

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, errFull }

func TestNumbersInTables(t *testing.T) {
	for _, test := range []struct {
		n    int
		want string
	}{{8, "8"}, {4096, "4Ki"}, {65536, "64Ki"}, {1 << 20, "1Mi"}, {64_000_000, "64M"}, {1000, "1000"}, {5000, "5000"}} {
		if got := sizeName(test.n); got != test.want {
			t.Errorf("sizeName(%d): got %q, want %q", test.n, got, test.want)
		}
	}
	for _, test := range []struct {
		v    float64
		want string
	}{{0, "–"}, {0.123, "0.12"}, {9.994, "9.99"}, {12.34, "12.3"}, {123.4, "123"}} {
		if got := significant(test.v); got != test.want {
			t.Errorf("significant(%v): got %q, want %q", test.v, got, test.want)
		}
	}
}

func TestCharts(t *testing.T) {
	r := readMade(t)
	directory := t.TempDir()
	names, err := r.writeCharts(directory, 8)
	if err != nil {
		t.Fatal(err)
	}
	want := []string{"weightedsum-float32-4-speed.svg", "weightedsum-float32-4-limit.svg"}
	if !slices.Equal(names, want) {
		t.Errorf("got charts %q, want %q: there is one number of models, one small size, and one size of the step", names, want)
	}
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(directory, name))
		if err != nil {
			t.Fatal(err)
		}
		contents := svgText(t, name, text)
		wanted := []string{ourName, "gonum", "numpy-article", "64M", "elements", "A processor"}
		unwanted := []string{"limit-read"}
		if strings.Contains(name, "speed") {
			wanted = append(wanted, limitName, "copy", "GB/s", "64")
		} else {
			wanted = append(wanted, "ratio to the limit", "0.6")
			unwanted = append(unwanted, "copy")
		}
		for _, w := range wanted {
			if !strings.Contains(contents, w) {
				t.Errorf("%s lacks %q: %q", name, w, contents)
			}
		}
		for _, w := range unwanted {
			if strings.Contains(contents, w) {
				t.Errorf("%s has %q: %q", name, w, contents)
			}
		}
	}
}

// The chart over the number of models is of one size, the largest that most numbers were measured at.
func TestModelsChart(t *testing.T) {
	r := readMade(t)
	groupOf := func(models int, sizes ...int) group {
		g := group{job: weightedSum, dtype: float32s, models: models}
		for _, n := range sizes {
			g.points = append(g.points, point{weightedSum, float32s, models, n})
		}
		return g
	}
	c := r.modelsChart([]group{groupOf(2, 64, 65536, 1<<20), groupOf(4, 64, 65536, 1<<20), groupOf(8, 64, 65536)})
	if want := sizeName(65536) + " elements"; !slices.Equal(c.labels, []string{"2", "4", "8"}) || !strings.Contains(c.title, want) {
		t.Errorf("got labels %q and title %q, want 2, 4 and 8, and %s", c.labels, c.title, want)
	}
}

func TestChartWithoutValues(t *testing.T) {
	for _, logarithmic := range []bool{false, true} {
		c := chart{labels: []string{"8", "64", "256"}, lines: []line{{"a", []float64{1, 0, 4}}, {"b", []float64{0, 0, 2}}}, logarithmic: logarithmic}
		svg, err := c.render()
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(string(svg), `r="3"`); got != 3 { // a point without neighbors has a smaller circle too
			t.Errorf("logarithmic %v: got %d points, want the 3 that have a value", logarithmic, got)
		}
	}
}

// svgText returns the text of a chart, which has to be well-formed.
func svgText(t *testing.T, name string, text []byte) string {
	t.Helper()
	var contents strings.Builder
	decoder := xml.NewDecoder(strings.NewReader(string(text)))
	for {
		token, err := decoder.Token()
		if err == io.EOF {
			return contents.String()
		}
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if data, ok := token.(xml.CharData); ok {
			contents.Write(data)
			contents.WriteByte(' ')
		}
	}
}

// The rounds begin with another library each, and every sample is one run of at least one iteration.
func TestMeasure(t *testing.T) {
	p := point{mean, float32s, 2, 8}
	a, err := newArena([]point{p}, "system")
	if err != nil {
		t.Fatal(err)
	}
	var runs []string
	counted := func(name string) library {
		return library{name: name, prepare: func(*arena, point) func(int) {
			return func(times int) {
				runs = append(runs, name)
				time.Sleep(time.Millisecond)
			}
		}}
	}
	absent := library{name: "absent", prepare: func(*arena, point) func(int) { return nil }}
	fields := prepareFields(a, []library{counted("a"), absent, counted("b"), counted("c")}, []point{p})
	var b strings.Builder
	if err := measure(&b, io.Discard, a, fields, 4, time.Millisecond); err != nil {
		t.Fatal(err)
	}
	if got, want := strings.Join(runs[3:], ""), "abcbcacababc"; got != want {
		t.Errorf("the libraries ran in the order %s, want %s", got, want)
	}
	r := &results{series: map[seriesKey]*samples{}}
	if err := r.read(strings.NewReader(b.String()), "results"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"a", "b", "c"} {
		s := r.seconds(p, name)
		if len(s) != 4 || slices.Min(s) < 1e-3 || slices.Max(s) > 1 {
			t.Errorf("%s: got the times %v, want four of a millisecond", name, s)
		}
		for i, rate := range r.rates(p, name) {
			if got := rate * s[i]; math.Abs(got/96-1) > 0.15 { // the format has two decimals of MB/s
				t.Errorf("%s: rate times time is %v bytes, want 96", name, got)
			}
		}
	}
	if err := measure(failingWriter{}, io.Discard, a, fields, 1, time.Millisecond); !errors.Is(err, errFull) {
		t.Errorf("a full disk: got error %v", err)
	}
}

// In a bubble of package synctest a sleep takes exactly as long as it should, whatever else the machine does.
func TestCalibrate(t *testing.T) {
	for _, test := range []struct {
		each, once, sample time.Duration // of a run: each time, and besides
		want               int
	}{
		{100 * time.Microsecond, 0, 10 * time.Millisecond, 100},
		{0, 2 * time.Millisecond, time.Millisecond, 1},
		{2 * time.Millisecond, 0, time.Millisecond, 1},
		{time.Microsecond, 0, time.Second, 1_000_000},
		{3 * time.Millisecond, 0, 10 * time.Millisecond, 3},
		// One run says nothing where what a call costs besides is most of it.
		{time.Microsecond, time.Millisecond, 10 * time.Millisecond, 8180},
	} {
		synctest.Test(t, func(t *testing.T) {
			run := func(times int) { time.Sleep(test.once + time.Duration(times)*test.each) }
			if got := calibrate(run, test.sample); got != test.want {
				t.Errorf("got %d runs of %v + %v for %v, want %d", got, test.each, test.once, test.sample, test.want)
			}
		})
	}
}

func TestRun(t *testing.T) {
	out := filepath.Join(t.TempDir(), "out")
	arguments := []string{
		"-models", "2,4", "-n", "8,64,4096", "-rounds", "2", "-time", "20us", "-out", out,
	}
	var stdout, stderr strings.Builder
	if err := run(arguments, &stdout, &stderr); err != nil {
		t.Fatalf("%v\n%s", err, stderr.String())
	}
	for _, name := range []string{
		"results.txt", "report.md", "weightedsum-float32-4-speed.svg", "weightedsum-bfloat16-4-limit.svg",
		"mean-float64-models.svg", "emastep-float16-2-latency.svg",
	} {
		if _, err := os.Stat(filepath.Join(out, name)); err != nil {
			t.Error(err)
		}
	}
	if !strings.Contains(stdout.String(), "| EMAStep, bfloat16, 2 models | 4Ki | modelavg | ") {
		t.Errorf("the summary lacks a line:\n%s", stdout.String())
	}
	r, err := readResults(filepath.Join(out, "results.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for key, s := range r.series {
		if len(s.seconds) != 2 {
			t.Errorf("%v: got %d samples, want 2", key, len(s.seconds))
		}
	}
	// The report again, of the same results.
	stderr.Reset()
	again := filepath.Join(t.TempDir(), "again")
	if err := run([]string{"-from", filepath.Join(out, "results.txt"), "-out", again}, io.Discard, &stderr); err != nil {
		t.Fatal(err)
	}
	first, err1 := os.ReadFile(filepath.Join(out, "report.md"))
	second, err2 := os.ReadFile(filepath.Join(again, "report.md"))
	if err1 != nil || err2 != nil || string(first) != string(second) {
		t.Errorf("the report of the same results differs (%v, %v)", err1, err2)
	}
	if err := run([]string{"-check", "-n", "8", "-models", "2"}, io.Discard, &stderr); err != nil || !strings.Contains(stderr.String(), "results are as they should be") {
		t.Errorf("-check: got error %v and %q", err, stderr.String())
	}
	if err := run([]string{"-n", "64000000", "-memory", "0.1", "-models", "2"}, io.Discard, &stderr); err == nil || err.Error() != "nothing to measure" {
		t.Errorf("too little memory: got error %v", err)
	}
}
