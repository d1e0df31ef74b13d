package main

import (
	"fmt"
	"io"
	"testing"
	"time"
)

// A contender is a library at a point, ready to run.
type contender struct {
	library    library
	run        func(times int)
	iterations int
}

// A field is all the contenders of one point.
type field struct {
	point      point
	contenders []contender
}

// prepareFields makes ready every library at every point that it can do.
func prepareFields(a *arena, list []library, points []point) (fields []field) {
	for _, p := range points {
		f := field{point: p}
		for _, l := range list {
			if run := l.prepare(a, p); run != nil {
				f.contenders = append(f.contenders, contender{library: l, run: run})
			}
		}
		if len(f.contenders) > 0 {
			fields = append(fields, f)
		}
	}
	return fields
}

// timed returns how long run takes.
func timed(run func(int), times int) time.Duration {
	start := time.Now()
	run(times)
	return max(time.Since(start), 1)
}

// calibrate chooses how many times a contender runs in a sample of about the given length.
func calibrate(run func(int), sample time.Duration) int {
	const most = 1 << 30
	times := 1
	elapsed := timed(run, times)
	for elapsed < sample/4 && times < most {
		times = min(most, times*10, max(times*2, int(float64(times)*float64(sample)/float64(elapsed))))
		elapsed = timed(run, times)
	}
	return max(1, min(most, int(float64(times)*float64(sample)/float64(elapsed))))
}

// measure runs the rounds and writes a line for each sample. In every round all contenders of a point run one after the
// other on the same memory, each round beginning with the next of them; whatever else the machine does meanwhile hits all
// of them alike. One round before the first is not written: it warms up and calibrates.
func measure(w, progress io.Writer, a *arena, fields []field, rounds int, sample time.Duration) error {
	start := time.Now()
	for _, f := range fields {
		a.fill(f.point.dtype)
		for i := range f.contenders {
			c := &f.contenders[i]
			c.iterations = calibrate(c.run, sample)
		}
	}
	fmt.Fprintf(progress, "warmed up in %v\n", time.Since(start).Round(time.Second))
	for round := range rounds {
		start := time.Now()
		for _, f := range fields {
			a.fill(f.point.dtype)
			for i := range f.contenders {
				c := f.contenders[(i+round)%len(f.contenders)]
				result := testing.BenchmarkResult{N: c.iterations, T: timed(c.run, c.iterations), Bytes: int64(c.library.movedBytes(f.point))}
				if _, err := fmt.Fprintf(w, "%s\t%s\n", f.point.benchmark(c.library.name), result); err != nil {
					return err
				}
			}
		}
		elapsed := time.Since(start)
		left := elapsed * time.Duration(rounds-1-round)
		fmt.Fprintf(progress, "round %d of %d took %v; %v left\n", round+1, rounds, elapsed.Round(time.Second), left.Round(time.Second))
	}
	return nil
}
