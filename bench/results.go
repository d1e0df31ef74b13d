package main

import (
	"cmp"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"golang.org/x/perf/benchfmt"
)

// A seriesKey names the samples of a library at a point.
type seriesKey struct {
	point   point
	library string
}

// samples are what was measured, in the order of the rounds.
type samples struct {
	seconds []float64 // per operation
	rate    []float64 // bytes per second; absent where nothing is moved
}

// results are what a results file holds.
type results struct {
	config    []benchfmt.Config // the header: goos, goarch, cpu and so on
	series    map[seriesKey]*samples
	libraries []string // in the order of the tables
}

// header are the lines before the results.
type header struct{ key, value string }

func writeHeader(w io.Writer, lines []header) error {
	for _, l := range lines {
		if l.value == "" {
			continue
		}
		if _, err := fmt.Fprintf(w, "%s: %s\n", l.key, l.value); err != nil {
			return err
		}
	}
	return nil
}

// readResults reads results files; the header is that of the first.
func readResults(paths ...string) (*results, error) {
	r := &results{series: map[seriesKey]*samples{}}
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		err = r.read(f, path)
		f.Close()
		if err != nil {
			return nil, err
		}
	}
	if len(r.series) == 0 {
		return nil, fmt.Errorf("%s: no results", strings.Join(paths, ", "))
	}
	r.sortLibraries()
	return r, nil
}

// read adds the results of one file.
func (r *results) read(file io.Reader, path string) error {
	reader := benchfmt.NewReader(file, path)
	for reader.Scan() {
		switch record := reader.Result().(type) {
		case *benchfmt.SyntaxError:
			return record
		case *benchfmt.Result:
			p, library, ok := parseBenchmark(record.Name.String())
			if !ok {
				return fmt.Errorf("%s: got benchmark %q, want one like %q", path, record.Name,
					point{weightedSum, float32s, 4, 4096}.benchmark(ourName))
			}
			if !slices.Contains(jobs, p.job) || !slices.Contains(dtypes, p.dtype) {
				return fmt.Errorf("%s: benchmark %q: got job %s of %s, want one of %v of one of %v", path, record.Name, p.job,
					p.dtype, jobs, dtypes)
			}
			if r.config == nil {
				for _, c := range record.Config {
					c.Value = slices.Clone(c.Value)
					r.config = append(r.config, c)
				}
			}
			cpu, first := record.GetConfig("cpu"), r.configValue("cpu")
			if cpu != "" && first != "" && cpu != first { // the Python script does not know its own
				return fmt.Errorf("%s: the processor is %q, in the first results it is %q", path, cpu, first)
			}
			key := seriesKey{p, library}
			s := r.series[key]
			if s == nil {
				s = new(samples)
				r.series[key] = s
			}
			seconds, ok := record.Value("sec/op")
			if !ok || !(seconds > 0) {
				return fmt.Errorf("%s: benchmark %q has no time per operation", path, record.Name)
			}
			s.seconds = append(s.seconds, seconds)
			if rate, ok := record.Value("B/s"); ok {
				s.rate = append(s.rate, rate)
			}
			if !slices.Contains(r.libraries, library) {
				r.libraries = append(r.libraries, library)
			}
		}
	}
	return reader.Err()
}

// sortLibraries brings the libraries into the order of the list that is known here, with others after those that do the
// job and the probes of other machines at the end.
func (r *results) sortLibraries() {
	known := libraries()
	rank := func(name string) int {
		i := slices.IndexFunc(known, func(l library) bool { return l.name == name })
		switch {
		case i >= 0 && known[i].kind == mover:
			return 2000 + i
		case i >= 0:
			return i
		case isProbe(name):
			return 3000
		}
		return 1000
	}
	slices.SortStableFunc(r.libraries, func(a, b string) int {
		return cmp.Or(cmp.Compare(rank(a), rank(b)), cmp.Compare(a, b))
	})
}

// configValue returns a value of the header, or "".
func (r *results) configValue(key string) string {
	for _, c := range r.config {
		if c.Key == key {
			return string(c.Value)
		}
	}
	return ""
}

// points returns the points that were measured, in the order of the report.
func (r *results) points() (points []point) {
	seen := map[point]bool{}
	for key := range r.series {
		if !seen[key.point] {
			seen[key.point] = true
			points = append(points, key.point)
		}
	}
	slices.SortFunc(points, func(a, b point) int {
		return cmp.Or(
			cmp.Compare(slices.Index(jobs, a.job), slices.Index(jobs, b.job)),
			cmp.Compare(slices.Index(dtypes, a.dtype), slices.Index(dtypes, b.dtype)),
			cmp.Compare(a.models, b.models),
			cmp.Compare(a.n, b.n),
		)
	})
	return points
}

// rates returns the bytes per second of a library at a point, one a round, or nil.
func (r *results) rates(p point, library string) []float64 {
	if s := r.series[seriesKey{p, library}]; s != nil {
		return s.rate
	}
	return nil
}

// seconds returns the time of a library at a point, one a round, or nil.
func (r *results) seconds(p point, library string) []float64 {
	if s := r.series[seriesKey{p, library}]; s != nil {
		return s.seconds
	}
	return nil
}

// median returns the median, or 0 of nothing.
func median(values []float64) float64 {
	if len(values) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(values))
	middle := len(sorted) / 2
	if len(sorted)%2 == 1 {
		return sorted[middle]
	}
	return (sorted[middle-1] + sorted[middle]) / 2
}

// medianRatio returns the median of the ratios of the rounds, or 0 where one of them is missing.
func medianRatio(a, b []float64) float64 {
	var ratios []float64
	for i := range min(len(a), len(b)) {
		ratios = append(ratios, a[i]/b[i])
	}
	return median(ratios)
}
