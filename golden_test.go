package modelavg_test

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"testing"

	"github.com/modelavg/modelavg"
	"github.com/modelavg/modelavg/weighting"
)

// The golden files hold averages computed by NumPy; testdata/golden/generate.py writes them and describes the format.

type goldenCase struct {
	Name        string
	Models      []string
	Mean        string
	MeanFloat64 string `json:"mean_float64"`
	Weights     string
	Weighted    string
	Decay       string
	Powers      string
	Exponential string
}

// decode returns the numbers of a golden vector.
func decode[T modelavg.Element](t *testing.T, digits string) []T {
	t.Helper()
	width := 2 * elementSize[T]()
	if len(digits)%width != 0 {
		t.Fatalf("a vector of %d digits, want a multiple of %d", len(digits), width)
	}
	var v []T
	for ; len(digits) > 0; digits = digits[width:] {
		b, err := strconv.ParseUint(digits[:width], 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		v = append(v, fromBits[T](b))
	}
	return v
}

func forGoldenCases[T modelavg.Element](t *testing.T, f func(t *testing.T, c goldenCase, models [][]T)) {
	var document struct {
		DType string
		Cases []goldenCase
	}
	name := map[int]string{2: "float16", 4: "float32", 8: "float64"}[elementSize[T]()]
	data, err := os.ReadFile(filepath.Join("testdata", "golden", name+".json"))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &document); err != nil {
		t.Fatal(err)
	}
	if document.DType != name || len(document.Cases) < 10 {
		t.Fatalf("%d cases of dtype %q, want at least 10 of %q", len(document.Cases), document.DType, name)
	}
	for _, c := range document.Cases {
		t.Run(c.Name, func(t *testing.T) {
			var models [][]T
			for _, m := range c.Models {
				models = append(models, decode[T](t, m))
			}
			f(t, c, models)
		})
	}
}

// Mean has NumPy's bits: for float64; for float16, which NumPy sums in float32; for float32 summed in float32, as NumPy
// does, and summed in float64, as NumPy does when asked. NumPy starts its sum from 0, so that negative zeros alone sum to
// 0; here they give −0, as the mean of a model with itself must.
func TestGoldenMean(t *testing.T) {
	t.Run("float64", func(t *testing.T) {
		forGoldenCases(t, func(t *testing.T, c goldenCase, models [][]float64) {
			checkMean(t, models, decode[float64](t, c.Mean))
		})
	})
	t.Run("float32", func(t *testing.T) {
		forGoldenCases(t, func(t *testing.T, c goldenCase, models [][]float32) {
			checkMean(t, models, decode[float32](t, c.MeanFloat64))
			checkMean(t, models, decode[float32](t, c.Mean), modelavg.WithAccumulation(modelavg.Native))
		})
	})
	t.Run("float16", func(t *testing.T) {
		forGoldenCases(t, func(t *testing.T, c goldenCase, models [][]modelavg.Float16) {
			checkMean(t, models, decode[modelavg.Float16](t, c.Mean))
		})
	})
}

func checkMean[T modelavg.Element](t *testing.T, models [][]T, want []T, options ...modelavg.Option) {
	t.Helper()
	got := make([]T, len(want))
	if err := modelavg.Mean(got, models, options...); err != nil {
		t.Fatal(err)
	}
	negativeZero := fromBits[T](1 << (8*elementSize[T]() - 1))
	for i := range got {
		expected := want[i]
		if !slices.ContainsFunc(models, func(m []T) bool { return bits(m[i]) != bits(negativeZero) }) {
			expected = negativeZero
		}
		if bits(got[i]) != bits(expected) {
			t.Errorf("element %d: got %v, want %v", i, number(got[i]), number(expected))
		}
	}
}

// WeightedMean equals the article's second function, and a WeightedSum with the weights of ArticleRecurrence equals its
// third, but for the roundings of NumPy's steps and of ours.
func TestGoldenWeighted(t *testing.T) {
	t.Run("float64", goldenWeighted[float64])
	t.Run("float32", goldenWeighted[float32])
	t.Run("float16", goldenWeighted[modelavg.Float16])
}

func goldenWeighted[T modelavg.Element](t *testing.T) {
	forGoldenCases(t, func(t *testing.T, c goldenCase, models [][]T) {
		got := make([]T, len(models[0]))
		weights := decode[float64](t, c.Weights)
		if err := modelavg.WeightedMean(got, models, weights); err != nil {
			t.Fatal(err)
		}
		// Per model NumPy rounds the weight, the product and the sum; we round the sum, and the result once.
		checkClose(t, "WeightedMean", got, decode[T](t, c.Weighted), models, weights, 3*len(models)+1)

		decay := decode[float64](t, c.Decay)[0]
		weights, err := weighting.ArticleRecurrence(len(models), decay)
		if err != nil {
			t.Fatal(err)
		}
		if err := modelavg.WeightedSum(got, models, weights); err != nil {
			t.Fatal(err)
		}
		// Per step NumPy rounds α and 1−α, two products and a sum. α is a power with an error of its own.
		checkClose(t, "ArticleRecurrence", got, decode[T](t, c.Exponential), models, weights, 6*len(models)+1)
	})
}

// checkClose wants |got − want| ≤ roundings · u · Σ|w·x|, where u is half an ulp of one, plus as many half-ulps of the
// subnormal range.
func checkClose[T modelavg.Element](t *testing.T, name string, got, want []T, models [][]T,
	weights []float64, roundings int,
) {
	t.Helper()
	unit, least := unitRoundoff[T]()
	for i := range got {
		scale := 0.0
		for k, w := range weights {
			scale += math.Abs(w * number(models[k][i]))
		}
		bound := float64(roundings) * (unit*scale + least)
		if off := math.Abs(number(got[i]) - number(want[i])); !(off <= bound) {
			t.Errorf("%s, element %d: got %v, want %v within %v", name, i, number(got[i]), number(want[i]), bound)
		}
	}
}

// The article's third function, transcribed step by step, gives NumPy's bits: what weighting.ArticleRecurrence is
// compared with is the article's function indeed. The conversions keep the compiler from fusing.
func TestGoldenArticleTranscription(t *testing.T) {
	t.Run("float64", goldenTranscription[float64])
	t.Run("float32", goldenTranscription[float32])
}

func goldenTranscription[T float32 | float64](t *testing.T) {
	forGoldenCases(t, func(t *testing.T, c goldenCase, models [][]T) {
		want := decode[T](t, c.Exponential)
		decay := decode[float64](t, c.Decay)[0]
		average := make([]T, len(want))
		for i, alpha := range decode[float64](t, c.Powers) { // the powers as Python has them; Go's may differ in a bit
			if p := math.Pow(decay, float64(i)); math.Abs(p-alpha) > 1e-14*alpha {
				t.Errorf("power %d of %v: got %v, want %v", i, decay, alpha, p)
			}
			model := models[len(models)-1-i]
			for j := range average {
				average[j] = T(T(alpha)*model[j]) + T(T(1-alpha)*average[j])
			}
		}
		for j := range average {
			if bits(average[j]) != bits(want[j]) {
				t.Errorf("element %d: got %v, want %v", j, average[j], want[j])
			}
		}
	})
}

// The first case is the article's example: its numbers are known without NumPy.
func TestGoldenArticleExample(t *testing.T) {
	forGoldenCases(t, func(t *testing.T, c goldenCase, models [][]float64) {
		if c.Name != "the article's example" {
			return
		}
		for _, check := range []struct {
			name, digits string
			want         []float64
		}{
			{"mean", c.Mean, []float64{2, 3, 4, 5}},
			{"weighted", c.Weighted, []float64{2.1, 3.1, 4.1, 5.1}},
			{"exponential", c.Exponential, []float64{1.432, 2.432, 3.432, 4.432}},
		} {
			if got := fmt.Sprintf("%.12g", decode[float64](t, check.digits)); got != fmt.Sprintf("%.12g", check.want) {
				t.Errorf("%s: got %s, want %v", check.name, got, check.want)
			}
		}
	})
}
