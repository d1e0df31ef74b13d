package main

import (
	"fmt"
	"strconv"
	"strings"
)

// A job is what all libraries have to do.
type job string

const (
	weightedSum job = "WeightedSum" // dst[i] = Σ w[k]·x[k][i]
	mean        job = "Mean"        // dst[i] = (Σ x[k][i]) / K
	emaStep     job = "EMAStep"     // dst[i] += (1−d)·(x[1][i] − dst[i]); dst is x[0]
)

var jobs = []job{weightedSum, mean, emaStep}

// A dtype is the type of the elements.
type dtype string

const (
	float32s  dtype = "float32"
	float64s  dtype = "float64"
	float16s  dtype = "float16"
	bfloat16s dtype = "bfloat16"
)

var dtypes = []dtype{float32s, float64s, float16s, bfloat16s}

// size returns the bytes of an element.
func (d dtype) size() int {
	switch d {
	case float64s:
		return 8
	case float32s:
		return 4
	}
	return 2
}

// A point is one job at one size: what the libraries are compared at.
type point struct {
	job    job
	dtype  dtype
	models int // an EMA step has two: the average and the new model
	n      int
}

// bytes returns how many bytes the job has to read and write.
func (p point) bytes() int { return (p.models + 1) * p.n * p.dtype.size() }

// benchmark returns the name of the benchmark of a library at p.
func (p point) benchmark(library string) string {
	return fmt.Sprintf("Benchmark%s/library=%s/dtype=%s/models=%d/n=%d", p.job, library, p.dtype, p.models, p.n)
}

func (p point) String() string {
	return fmt.Sprintf("%s of %d × %d %s", p.job, p.models, p.n, p.dtype)
}

// parseBenchmark is the inverse of benchmark for a name without the word Benchmark; ok reports whether it is one.
func parseBenchmark(name string) (p point, library string, ok bool) {
	parts := strings.Split(name, "/")
	if len(parts) != 5 {
		return point{}, "", false
	}
	var values [4]string
	for i, key := range []string{"library=", "dtype=", "models=", "n="} {
		value, found := strings.CutPrefix(parts[i+1], key)
		if !found {
			return point{}, "", false
		}
		values[i] = value
	}
	models, err1 := strconv.Atoi(values[2])
	n, err2 := strconv.Atoi(values[3])
	if err1 != nil || err2 != nil {
		return point{}, "", false
	}
	return point{job(parts[0]), dtype(values[1]), models, n}, values[0], true
}

// selection is what the flags ask for.
type selection struct {
	jobs   []job
	dtypes []dtype
	models []int
	sizes  []int
}

// points returns the points of a selection, of one dtype after the other.
func (s selection) points() (points []point) {
	for _, d := range s.dtypes {
		for _, j := range s.jobs {
			models := s.models
			if j == emaStep {
				models = []int{2}
			}
			for _, k := range models {
				for _, n := range s.sizes {
					points = append(points, point{j, d, k, n})
				}
			}
		}
	}
	return points
}

// parseInts parses a list like "8,4096,64000000" of positive numbers.
func parseInts(flag, list string) (values []int, err error) {
	for item := range strings.SplitSeq(list, ",") {
		v, err := strconv.Atoi(strings.ReplaceAll(strings.TrimSpace(item), "_", ""))
		if err != nil || v <= 0 {
			return nil, fmt.Errorf("-%s: got %q, want positive integers separated by commas", flag, item)
		}
		values = append(values, v)
	}
	return values, nil
}

// parseNames parses a list of names, each of which is one of known; "all" stands for all of them.
func parseNames[T ~string](flag, list string, known []T) (values []T, err error) {
	if list == "all" {
		return known, nil
	}
next:
	for item := range strings.SplitSeq(list, ",") {
		item = strings.TrimSpace(item)
		for _, k := range known {
			if strings.EqualFold(item, string(k)) {
				values = append(values, k)
				continue next
			}
		}
		return nil, fmt.Errorf("-%s: got %q, want all or some of %v", flag, item, known)
	}
	return values, nil
}
