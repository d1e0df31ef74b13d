package main

import "math"

// distances are sums over pairs of elements, a of one model and b of another. Pairs in which one is not finite are
// counted and have no part in the rest, unless both are the same infinity or NaN: they do not differ.
type distances struct {
	n         int64 // finite pairs
	nonFinite int64
	max       float64 // of |a − b|
	d2        float64 // sum of (a − b)²
	a2, b2    float64 // sums of squares
}

// distancesOf returns the distances of a and b, which are of one length.
func distancesOf(a, b []float64) distances {
	var s distances
	for i, x := range a {
		y := b[i]
		d := math.Abs(x - y)
		if !(d <= math.MaxFloat64) && !finite(x, y) {
			if x != y && (x == x || y == y) {
				s.nonFinite++
			}
			continue
		}
		s.n++
		s.max = max(s.max, d)
		s.d2 += d * d
		s.a2 += x * x
		s.b2 += y * y
	}
	return s
}

// finite reports whether both are. Their difference may still overflow.
func finite(x, y float64) bool {
	return math.Abs(x) <= math.MaxFloat64 && math.Abs(y) <= math.MaxFloat64
}

// add adds the distances of other elements.
func (s *distances) add(t distances) {
	s.n += t.n
	s.nonFinite += t.nonFinite
	s.max = max(s.max, t.max)
	s.d2 += t.d2
	s.a2 += t.a2
	s.b2 += t.b2
}

// rms returns the root of the mean squared difference; zero without elements.
func (s *distances) rms() float64 {
	if s.n == 0 {
		return 0
	}
	return math.Sqrt(s.d2 / float64(s.n))
}

// relative returns ‖a − b‖/‖a‖. It is zero if a and b are equal, and infinite if only a is zero.
func (s *distances) relative() float64 {
	if s.d2 == 0 {
		return 0
	}
	return math.Sqrt(s.d2) / math.Sqrt(s.a2)
}

// cosine returns the cosine distance, 1 − a·b/(‖a‖‖b‖). It is zero if both are zero and NaN if only one is.
//
// Models that are compared are close to each other mostly, and the difference of two numbers near one would have few
// correct digits. So it is (‖a − b‖² − (‖a‖ − ‖b‖)²) / (2‖a‖‖b‖), which is the same, and zero where the difference is not
// more than its rounding errors: as of tensors that are multiples of each other.
func (s *distances) cosine() float64 {
	a, b := math.Sqrt(s.a2), math.Sqrt(s.b2)
	switch {
	case s.d2 == 0:
		return 0
	case a == 0 || b == 0:
		return math.NaN()
	}
	const rounding = 0x1p-50 // of the squares, relatively
	difference := s.d2 - (a-b)*(a-b)
	if difference <= rounding*s.d2 {
		return 0
	}
	return difference / (2 * a * b)
}
