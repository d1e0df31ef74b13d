package main

import (
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
)

// defaultCache is taken for the last-level cache where the results do not name its size.
const defaultCache = 32 << 20

// inMemory reports whether the streams of p do not fit the last-level cache.
func (r *results) inMemory(p point) bool {
	cache, err := strconv.Atoi(r.configValue("last-level-cache"))
	if err != nil {
		cache = defaultCache
	}
	return p.bytes() >= cache
}

// limit returns what the rate at p is compared with, one a round: what the fastest probe of the round moved, which reads
// one stream after the other. A job out of place has to read K of the K+1 streams that its rate counts, and in memory the
// writes run beside the reads, so there the rate may exceed the probe's by that. In the caches the limit is the rate at which the core loads. For a step in place it
// is the rate of the probe that reads both streams and writes one.
func (r *results) limit(p point) []float64 {
	prefix, factor := limitPrefix+"read-", 1.0
	switch {
	case p.job == emaStep:
		prefix = limitPrefix + "update-"
	case r.inMemory(p):
		factor = float64(p.models+1) / float64(p.models)
	}
	var limit []float64
	for _, name := range r.libraries {
		if !strings.HasPrefix(name, prefix) {
			continue
		}
		for i, rate := range r.rates(p, name) {
			if i == len(limit) {
				limit = append(limit, 0)
			}
			limit[i] = max(limit[i], rate*factor)
		}
	}
	return limit
}

// ofLimit returns the median ratio of a library to the limit, or 0. A mover has none: it does another thing.
func (r *results) ofLimit(p point, library string) float64 {
	if isMover(library) {
		return 0
	}
	return medianRatio(r.rates(p, library), r.limit(p))
}

// bestPeer returns the peer with the least median time at p, or "".
func (r *results) bestPeer(p point) (best string) {
	least := 0.0
	for _, l := range peerLibraries() {
		if m := median(r.seconds(p, l.name)); m > 0 && (best == "" || m < least) {
			best, least = l.name, m
		}
	}
	return best
}

// A group is the points that differ in n alone.
type group struct {
	job    job
	dtype  dtype
	models int
	points []point
}

func (g group) title() string {
	return fmt.Sprintf("%s, %s, %d models", g.job, g.dtype, g.models)
}

// groups returns the points, grouped.
func (r *results) groups() (groups []group) {
	for _, p := range r.points() {
		last := len(groups) - 1
		if last < 0 || groups[last].job != p.job || groups[last].dtype != p.dtype || groups[last].models != p.models {
			groups = append(groups, group{p.job, p.dtype, p.models, nil})
			last++
		}
		groups[last].points = append(groups[last].points, p)
	}
	return groups
}

// isProbe reports whether a library only shows the limit.
func isProbe(library string) bool { return strings.HasPrefix(library, limitPrefix) }

// in returns the libraries with samples at one of the points.
func (r *results) in(points []point) (names []string) {
	for _, name := range r.libraries {
		if slices.ContainsFunc(points, func(p point) bool { return r.seconds(p, name) != nil }) {
			names = append(names, name)
		}
	}
	return names
}

// sizeName writes n as people say it: 64000000 as 64M, 65536 as 64Ki.
func sizeName(n int) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%dMi", n>>20)
	case n >= 1e6 && n%1e6 == 0:
		return fmt.Sprintf("%dM", n/1e6)
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%dKi", n>>10)
	}
	return strconv.Itoa(n)
}

// significant writes v with three digits or more, without an exponent.
func significant(v float64) string {
	switch {
	case v == 0:
		return "–"
	case v < 10:
		return strconv.FormatFloat(v, 'f', 2, 64)
	case v < 100:
		return strconv.FormatFloat(v, 'f', 1, 64)
	}
	return strconv.FormatFloat(v, 'f', 0, 64)
}

// A table is written as Markdown.
type table struct {
	header []string
	rows   [][]string
}

func (t table) write(w io.Writer) {
	fmt.Fprintf(w, "| %s |\n|", strings.Join(t.header, " | "))
	for i := range t.header {
		if i == 0 {
			fmt.Fprint(w, "---|")
		} else {
			fmt.Fprint(w, "---:|")
		}
	}
	fmt.Fprintln(w)
	for _, row := range t.rows {
		fmt.Fprintf(w, "| %s |\n", strings.Join(row, " | "))
	}
	fmt.Fprintln(w)
}

// smallSizes is the greatest n for which a table of times is written.
const smallSizes = 256

// writeReport writes the tables.
func (r *results) writeReport(w io.Writer) error {
	out := &errorWriter{w: w}
	fmt.Fprint(out, "# Measurements\n\n")
	for _, c := range r.config {
		fmt.Fprintf(out, "- %s: %s\n", c.Key, c.Value)
	}
	fmt.Fprint(out, `
GB/s are the bytes that the job has to read and write, divided by the median time. Every ratio is the median of the ratios
of the rounds. The limit is what the probes moved in the same round; README.md says how it is made of them.

## Summary

`)
	r.summary().write(out)
	for _, g := range r.groups() {
		fmt.Fprintf(out, "## %s\n\nGB/s, and in brackets the ratio to the limit:\n\n", g.title())
		r.rateTable(g).write(out)
		fmt.Fprintf(out, "Time as a multiple of %s:\n\n", ourName)
		r.timeTable(g).write(out)
		if t := r.latencyTable(g); len(t.rows) > 0 && len(t.header) > 1 {
			fmt.Fprint(out, "Nanoseconds per call:\n\n")
			t.write(out)
		}
	}
	return out.err
}

// summary returns the table of the largest n of every group.
func (r *results) summary() table {
	t := table{header: []string{"job", "n", "library", "GB/s", "of the limit", "best Go peer", "times as fast", "plain Go, times as fast"}}
	for _, g := range r.groups() {
		p := g.points[len(g.points)-1]
		best := r.bestPeer(p)
		plain := ""
		for _, l := range plainLibraries() {
			if s := r.seconds(p, l.name); s != nil && (plain == "" || median(s) < median(r.seconds(p, plain))) {
				plain = l.name
			}
		}
		for _, name := range []string{ourName, ourNativeName, ourWiderName} {
			s := r.seconds(p, name)
			if s == nil {
				continue
			}
			t.rows = append(t.rows, []string{
				g.title(), sizeName(p.n), name, significant(median(r.rates(p, name)) / 1e9), significant(r.ofLimit(p, name)),
				orDash(best), significant(medianRatio(r.seconds(p, best), s)), significant(medianRatio(r.seconds(p, plain), s)),
			})
		}
	}
	return t
}

func orDash(s string) string {
	if s == "" {
		return "–"
	}
	return s
}

func (g group) header(first string, points []point) []string {
	header := []string{first}
	for _, p := range points {
		header = append(header, sizeName(p.n))
	}
	return header
}

func (r *results) rateTable(g group) table {
	t := table{header: g.header("library", g.points)}
	row := []string{"**limit**"}
	for _, p := range g.points {
		row = append(row, significant(median(r.limit(p))/1e9))
	}
	t.rows = append(t.rows, row)
	for _, name := range r.in(g.points) {
		if name == callName {
			continue
		}
		row := []string{name}
		for _, p := range g.points {
			cell := significant(median(r.rates(p, name)) / 1e9)
			if ratio := r.ofLimit(p, name); ratio > 0 {
				cell += " (" + strconv.FormatFloat(ratio, 'f', 2, 64) + ")"
			}
			row = append(row, cell)
		}
		t.rows = append(t.rows, row)
	}
	return t
}

// timeTable has the libraries that do the job: the movers move other numbers of bytes.
func (r *results) timeTable(g group) table {
	t := table{header: g.header("library", g.points)}
	for _, name := range r.in(g.points) {
		if isMover(name) {
			continue
		}
		row := []string{name}
		for _, p := range g.points {
			row = append(row, significant(medianRatio(r.seconds(p, name), r.seconds(p, ourName))))
		}
		t.rows = append(t.rows, row)
	}
	return t
}

func (r *results) latencyTable(g group) table {
	var small []point
	for _, p := range g.points {
		if p.n <= smallSizes {
			small = append(small, p)
		}
	}
	t := table{header: g.header("library", small)}
	for _, name := range r.in(small) {
		if isMover(name) && name != callName {
			continue
		}
		row := []string{name}
		for _, p := range small {
			row = append(row, significant(median(r.seconds(p, name))*1e9))
		}
		t.rows = append(t.rows, row)
	}
	return t
}

// isMover reports whether a library does no job.
func isMover(name string) bool { return isProbe(name) || name == "copy" }

// An errorWriter keeps the first error and writes nothing after it.
type errorWriter struct {
	w   io.Writer
	err error
}

func (e *errorWriter) Write(b []byte) (int, error) {
	if e.err != nil {
		return 0, e.err
	}
	n, err := e.w.Write(b)
	e.err = err
	return n, err
}
