package main

import "math"

// statistics are sums over elements. Those that are not finite are counted and have no part in the rest.
type statistics struct {
	n        int64 // finite elements
	nan, inf int64
	min, max float64
	sum      float64
	squares  float64
}

// statisticsOf returns the statistics of x.
func statisticsOf(x []float64) statistics {
	s := statistics{min: math.Inf(1), max: math.Inf(-1)}
	for _, v := range x {
		switch {
		case v != v:
			s.nan++
			continue
		case v > math.MaxFloat64 || v < -math.MaxFloat64:
			s.inf++
			continue
		}
		s.n++
		s.min, s.max = min(s.min, v), max(s.max, v)
		s.sum += v
		s.squares += v * v
	}
	return s
}

// add adds the statistics of other elements.
func (s *statistics) add(t statistics) {
	s.n += t.n
	s.nan += t.nan
	s.inf += t.inf
	s.min, s.max = min(s.min, t.min), max(s.max, t.max)
	s.sum += t.sum
	s.squares += t.squares
}

// A summary is what is shown of statistics. Without a finite element its numbers are NaN.
type summary struct {
	Min  number `json:"min"`
	Max  number `json:"max"`
	Mean number `json:"mean"`
	RMS  number `json:"rms"`
	NaN  int64  `json:"nan"`
	Inf  int64  `json:"inf"`
}

func (s *statistics) summary() summary {
	if s.n == 0 {
		none := number(math.NaN())
		return summary{none, none, none, none, s.nan, s.inf}
	}
	n := float64(s.n)
	return summary{number(s.min), number(s.max), number(s.sum / n), number(math.Sqrt(s.squares / n)), s.nan, s.inf}
}
