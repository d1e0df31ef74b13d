package main

import (
	"errors"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"

	"golang.org/x/perf/benchfmt"
	"golang.org/x/perf/benchmath"
	"golang.org/x/perf/benchunit"
)

const (
	timeUnit       = "sec/op"
	bytesUnit      = "B/op"
	allocationUnit = "allocs/op"
	confidence     = 0.95
)

// measurements are the results of one revision.
type measurements struct {
	names  []string                        // of the benchmarks, in the order of their first result
	values map[string]map[string][]float64 // by unit and name, in the order of the rounds
}

// parse reads what test binaries print.
func parse(text, title string) (m measurements, err error) {
	m.values = map[string]map[string][]float64{}
	reader := benchfmt.NewReader(strings.NewReader(text), title)
	for reader.Scan() {
		switch record := reader.Result().(type) {
		case *benchfmt.SyntaxError:
			return m, record
		case *benchfmt.Result:
			name := record.Name.String()
			if !slices.Contains(m.names, name) {
				m.names = append(m.names, name)
			}
			for _, v := range record.Values {
				if m.values[v.Unit] == nil {
					m.values[v.Unit] = map[string][]float64{}
				}
				m.values[v.Unit][name] = append(m.values[v.Unit][name], v.Value)
			}
		}
	}
	if err := reader.Err(); err != nil {
		return m, err
	}
	if len(m.names) == 0 {
		return m, fmt.Errorf("no benchmark ran at %s: -bench and -package match none", title)
	}
	return m, nil
}

// writeComparison writes a table for each unit: medians with their confidence intervals, the difference with its
// significance (Mann-Whitney), and for times the median of the ratios new/old of the rounds.
func writeComparison(w io.Writer, before, after measurements) error {
	for _, unit := range []string{timeUnit, bytesUnit, allocationUnit} {
		if unit != timeUnit && zero(before.values[unit]) && zero(after.values[unit]) {
			continue
		}
		t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		header := "\n" + unit + "\told\tnew\tnew vs old"
		if unit == timeUnit {
			header += "\tratio of the rounds"
		}
		fmt.Fprintln(t, header)
		logarithms, count := 0.0, 0
		for _, name := range before.names {
			a, b := before.values[unit][name], after.values[unit][name]
			if len(a) == 0 || len(b) == 0 {
				continue
			}
			x := benchmath.NewSample(slices.Clone(a), &benchmath.DefaultThresholds)
			y := benchmath.NewSample(slices.Clone(b), &benchmath.DefaultThresholds)
			assume := benchmath.AssumeNothing
			old, now := assume.Summary(x, confidence), assume.Summary(y, confidence)
			comparison := assume.Compare(x, y)
			row := fmt.Sprintf("%s\t%s ± %s\t%s ± %s\t%s (%s)", name,
				benchunit.Scale(old.Center, benchunit.ClassOf(unit)), old.PctRangeString(),
				benchunit.Scale(now.Center, benchunit.ClassOf(unit)), now.PctRangeString(),
				comparison.FormatDelta(old.Center, now.Center), comparison)
			if unit == timeUnit {
				ratio := medianRatio(b, a)
				logarithms += math.Log(ratio)
				count++
				row += fmt.Sprintf("\t%.3f", ratio)
			}
			fmt.Fprintln(t, row)
		}
		if unit == timeUnit && count > 0 {
			fmt.Fprintf(t, "geometric mean\t\t\t\t%.3f\n", math.Exp(logarithms/float64(count)))
		}
		if err := t.Flush(); err != nil {
			return err
		}
	}
	for _, only := range []struct {
		in    string
		names []string
	}{{"old", missing(before.names, after.names)}, {"new", missing(after.names, before.names)}} {
		if len(only.names) > 0 {
			fmt.Fprintf(w, "\nonly in %s: %s\n", only.in, strings.Join(only.names, " "))
		}
	}
	return nil
}

// missing returns the names that others lack.
func missing(names, others []string) (list []string) {
	for _, name := range names {
		if !slices.Contains(others, name) {
			list = append(list, name)
		}
	}
	return list
}

func zero(values map[string][]float64) bool {
	for _, v := range values {
		if slices.Max(v) != 0 {
			return false
		}
	}
	return true
}

// medianRatio returns the median of a[i]/b[i].
func medianRatio(a, b []float64) float64 {
	var ratios []float64
	for i := range min(len(a), len(b)) {
		ratios = append(ratios, a[i]/b[i])
	}
	slices.Sort(ratios)
	middle := len(ratios) / 2
	if len(ratios)%2 == 1 {
		return ratios[middle]
	}
	return (ratios[middle-1] + ratios[middle]) / 2
}

// moreAllocations returns an error that names every benchmark that allocates more often in the median than before.
func moreAllocations(before, after measurements) error {
	var errs []error
	for _, name := range before.names {
		a, b := before.values[allocationUnit][name], after.values[allocationUnit][name]
		if len(a) == 0 || len(b) == 0 {
			continue
		}
		x := benchmath.NewSample(slices.Clone(a), &benchmath.DefaultThresholds)
		y := benchmath.NewSample(slices.Clone(b), &benchmath.DefaultThresholds)
		old := benchmath.AssumeNothing.Summary(x, confidence).Center
		now := benchmath.AssumeNothing.Summary(y, confidence).Center
		if now > old {
			errs = append(errs, fmt.Errorf("%s: got %v allocations a run, want at most %v as before", name, now, old))
		}
	}
	return errors.Join(errs...)
}
