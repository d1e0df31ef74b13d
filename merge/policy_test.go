package merge_test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/modelavg/modelavg"
	"github.com/modelavg/modelavg/checkpoint"
	"github.com/modelavg/modelavg/merge"
	"github.com/modelavg/modelavg/weighting"
)

// Every dtype of the result, and models of random dtypes, against the exact reference.
func TestMixedDTypes(t *testing.T) {
	r := rand.New(rand.NewPCG(4, 4))
	names := []string{"F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2"}
	const n = 4999 // more than a tile
	for _, to := range names {
		for round := range 6 {
			dir := t.TempDir()
			var paths, dtypes []string
			var data [][]byte
			models := 1 + r.IntN(4)
			for k := range models {
				d := names[r.IntN(len(names))]
				if round >= 3 { // all of 16 bits and less, so that they are summed in float32
					d = names[2+r.IntN(4)]
				}
				dtypes = append(dtypes, d)
				data = append(data, randomData(r, d, n))
				paths = append(paths, writeModel(t, filepath.Join(dir, fmt.Sprint(k)), nil,
					tensor{"x", d, []int64{n}, data[k]}, int64s("steps", 1)))
			}
			weights := [][]float64{nil, {1}, {0.3, 0.7}, {1.5, -0.75, 0.25}, {0.1, 0.2, 0.3, 0.4}}[models*(round%2)]
			dtype, err := checkpoint.ParseDType(to)
			if err != nil {
				t.Fatal(err)
			}
			want := mixedReference(to, dtypes, data, weights)
			for _, chunk := range []int{0, 4096} {
				_, got := readModel(t, run(t, weights, paths, merge.WithDType(dtype), merge.WithChunkBytes(chunk)))
				if got["x"].dtype != to || !bytes.Equal(got["x"].data, want) {
					i := firstDifference(got["x"].data, want) / formats[to].size
					t.Errorf("%q to %s, weights %v: element %d differs from the reference", dtypes, to, weights, i)
				}
				if got["steps"].dtype != "I64" {
					t.Errorf("the integers have become %s", got["steps"].dtype)
				}
			}
		}
	}
}

// Without a dtype, the result has that of the first model, and the plan names the others.
func TestMixedDTypesFirst(t *testing.T) {
	dir := t.TempDir()
	a := writeModel(t, filepath.Join(dir, "a"), nil, tensor{"x", "BF16", []int64{1}, []byte{0x80, 0x3f}})
	b := writeModel(t, filepath.Join(dir, "b"), nil, float32s("x", 1+0x1p-7+0x1p-20))
	p := plan(t, []float64{0.5, 0.5}, open(t, a, b))
	if _, got := readModel(t, run(t, []float64{0.5, 0.5}, []string{a, b})); got["x"].dtype != "BF16" ||
		!bytes.Equal(got["x"].data, []byte{0x81, 0x3f}) { // just above the middle of two neighbours
		t.Errorf("got %+v", got["x"])
	}
	if want := []merge.Difference{{
		Path: b, Tensor: "x", Field: "dtype", Want: "BF16",
		Got: "F32",
	}}; !slices.Equal(p.Differences, want) {
		t.Errorf("differences %+v, want %+v", p.Differences, want)
	}
	if !strings.Contains(p.String(), "x (from BF16, F32)\n") {
		t.Errorf("plan\n%s", p)
	}
	if p.Sources[0].Bytes != 2 || p.Sources[1].Bytes != 4 || p.BytesRead != 6 || p.BytesWritten != 2 {
		t.Errorf("sources %+v, read %d, written %d", p.Sources, p.BytesRead, p.BytesWritten)
	}
}

// integers returns a tensor of the dtype with these values.
func integers(t *testing.T, name, dtype string, values ...int64) tensor {
	t.Helper()
	size := bytesOf(dtype, []int64{1})
	var data []byte
	for _, v := range values {
		p := binary.LittleEndian.AppendUint64(nil, uint64(v))
		data = append(data, p[:size]...)
	}
	return tensor{name, dtype, []int64{int64(len(values))}, data}
}

func TestIntegerPolicies(t *testing.T) {
	for _, dtype := range []string{"I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64"} {
		signed := dtype[0] == 'I'
		values := [][]int64{{1, 100, 7, 0}, {3, 20, 7, 0}, {2, 5, 7, 1}}
		maximum, sum := []int64{3, 100, 7, 1}, []int64{6, 125, 21, 1}
		if signed {
			values[1][1], maximum[1], sum[1] = -20, 100, 85
			values[0][0], values[1][0], values[2][0], maximum[0], sum[0] = -1, -3, -2, -1, -6
		}
		dir := t.TempDir()
		var paths []string
		for k, v := range values {
			paths = append(paths, writeModel(t, filepath.Join(dir, fmt.Sprint(k)), nil,
				integers(t, "n", dtype, v...), float32s("w", float32(k))))
		}
		for _, test := range []struct {
			policy merge.IntegerPolicy
			action string
			want   []int64
			report string
		}{
			{"", "copy-last", values[2], "1 copied from 2: n"},
			{merge.IntegersLast, "copy-last", values[2], "1 copied from 2: n"},
			{merge.IntegersFirst, "copy-first", values[0], "1 copied from 0: n"},
			{merge.IntegersMax, "max", maximum, "1 by their maximum: n"},
			{merge.IntegersSum, "sum", sum, "1 summed: n"},
		} {
			for _, weights := range [][]float64{nil, {0.25, 0.25, 0.5}} { // which have no part in it
				p := plan(t, weights, open(t, paths...), merge.WithIntegers(test.policy))
				out := filepath.Join(t.TempDir(), "out")
				report, err := p.Run(t.Context(), out, nil)
				if err != nil {
					t.Fatal(err)
				}
				want := integers(t, "n", dtype, test.want...)
				if _, got := readModel(t, out); !bytes.Equal(got["n"].data, want.data) {
					t.Errorf("%s, %s: got %v, want %v", dtype, test.policy, got["n"].data, want.data)
				}
				i := slices.IndexFunc(p.Steps, func(s merge.Step) bool { return s.Tensor.Name == "n" })
				if s := p.Steps[i]; s.Action.String() != test.action || s.Weights != nil {
					t.Errorf("%s, %s: action %v, weights %v, want %s without weights", dtype, test.policy, s.Action,
						s.Weights, test.action)
				}
				if text := strings.ReplaceAll(report.String(), dir+"/", ""); !strings.Contains(text, test.report) {
					t.Errorf("%s, %s: report %q, want %q in it", dtype, test.policy, text, test.report)
				}
				if !slices.Equal(report.Integers, []string{"n"}) {
					t.Errorf("%s, %s: integers %q", dtype, test.policy, report.Integers)
				}
			}
		}
	}
}

func TestIntegerPoliciesBool(t *testing.T) {
	dir := t.TempDir()
	a := writeModel(t, filepath.Join(dir, "a"), nil, tensor{"m", "BOOL", []int64{4}, []byte{0, 0, 1, 1}})
	b := writeModel(t, filepath.Join(dir, "b"), nil, tensor{"m", "BOOL", []int64{4}, []byte{0, 1, 0, 1}})
	for _, policy := range []merge.IntegerPolicy{merge.IntegersMax, merge.IntegersSum} {
		if _, got := readModel(t, run(t, nil, []string{a, b}, merge.WithIntegers(policy))); !bytes.Equal(got["m"].data,
			[]byte{0, 1, 1, 1}) {
			t.Errorf("%s: got %v, want 0 1 1 1", policy, got["m"].data)
		}
	}
}

// named returns the models as an error names them that is about what they make together.
func named(paths ...string) string {
	if n := len(paths); n > 3 {
		return strings.Join(paths[:2], ", ") + fmt.Sprintf(" and %d more", n-2)
	}
	return strings.Join(paths, ", ")
}

func TestIntegerSumOverflow(t *testing.T) {
	for _, test := range []struct {
		dtype string
		a, b  int64
		want  string // in the error; empty if there is none
		more  []int64
	}{
		{"I8", 100, 28, "the sum 128 is out of the range of I8", nil},
		{"I8", 100, 27, "", nil},
		{"I8", -100, -29, "the sum -129 is out of the range of I8", nil},
		{"I8", -100, -28, "", nil},
		{"U8", 200, 56, "the sum 256 is out of the range of U8", nil},
		{"U8", 200, 55, "", nil},
		{"I16", 32767, 1, "out of the range of I16", nil},
		{"U16", 65535, 1, "out of the range of U16", nil},
		{"I32", math.MaxInt32, 1, "out of the range of I32", nil},
		{"U32", math.MaxUint32, 1, "out of the range of U32", nil},
		{"I64", math.MaxInt64, 1, "the sum 9223372036854775808 is out of the range of I64", nil},
		{"I64", math.MinInt64, -1, "the sum -9223372036854775809 is out of the range of I64", nil},
		{"I64", math.MinInt64, math.MaxInt64, "", nil},
		{"U64", -1, 1, "the sum 18446744073709551616 is out of the range of U64", nil},
		// What counts is the whole sum, in any order.
		{"I8", 127, 1, "", []int64{-1}},
		{"I8", -128, -128, "", []int64{127, 127, 2}},
		{"I8", -128, -128, "the sum -129 is out of the range of I8", []int64{127}},
		{"I32", math.MaxInt32, math.MaxInt32, "", []int64{math.MinInt32}},
		{"I64", math.MaxInt64, math.MaxInt64, "", []int64{math.MinInt64, math.MinInt64, 2}},
		{"I64", math.MaxInt64, math.MaxInt64, "the sum 18446744073709551609 is out", []int64{math.MaxInt64, math.MinInt64, -2, -2}},
		{"U64", -1, -1, "the sum 55340232221128654845 is out of the range of U64", []int64{-1}},
	} {
		dir := t.TempDir()
		// The element is in the second chunk.
		zeros := make([]int64, 100)
		a := writeModel(t, filepath.Join(dir, "a"), nil, integers(t, "n", test.dtype, append(zeros, test.a)...))
		b := writeModel(t, filepath.Join(dir, "b"), nil, integers(t, "n", test.dtype, append(zeros, test.b)...))
		paths := []string{a, b}
		for k, v := range test.more {
			paths = append(paths, writeModel(t, filepath.Join(dir, fmt.Sprint(k)), nil, integers(t, "n", test.dtype,
				append(zeros, v)...)))
		}
		p := plan(t, nil, open(t, paths...), merge.WithIntegers(merge.IntegersSum), merge.WithChunkBytes(64))
		_, err := p.Run(t.Context(), filepath.Join(dir, "out"), nil)
		if test.want == "" {
			if err != nil {
				t.Errorf("%s: %d + %d + %d: %v", test.dtype, test.a, test.b, test.more, err)
				continue
			}
			var total int64
			for _, v := range append([]int64{test.a, test.b}, test.more...) {
				total += v
			}
			want := integers(t, "n", test.dtype, append(zeros, total)...).data
			if _, got := readModel(t, filepath.Join(dir, "out")); !bytes.Equal(got["n"].data, want) {
				t.Errorf("%s: %d + %d + %d: got % x, want % x", test.dtype, test.a, test.b, test.more, got["n"].data, want)
			}
			continue
		}
		if !errors.Is(err, merge.ErrIntegers) || !strings.Contains(err.Error(), named(paths...)+`: tensor "n": element 100: `) ||
			!strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %d + %d + %d: error %v, want %q of element 100", test.dtype, test.a, test.b, test.more, err, test.want)
		}
		if files := snapshot(t, dir); len(files) != len(paths) {
			t.Errorf("%s: %d files are left, want the %d models", test.dtype, len(files), len(paths))
		}
	}
}

func TestIntegersError(t *testing.T) {
	dir := t.TempDir()
	a := writeModel(t, filepath.Join(dir, "a"), nil, integers(t, "n", "I16", 1, 2, 3), tensor{
		"m", "BOOL",
		[]int64{1},
		[]byte{1},
	})
	b := writeModel(t, filepath.Join(dir, "b"), nil, integers(t, "n", "I16", 1, 2, 3), tensor{
		"m", "BOOL",
		[]int64{1},
		[]byte{1},
	})
	c := writeModel(t, filepath.Join(dir, "c"), nil, integers(t, "n", "I16", 1, -254, 3), tensor{
		"m", "BOOL",
		[]int64{1},
		[]byte{1},
	})
	option := merge.WithIntegers(merge.IntegersError)
	if _, got := readModel(t, run(t, nil, []string{a, b}, option)); !bytes.Equal(got["n"].data, []byte{
		1, 0, 2, 0, 3,
		0,
	}) {
		t.Errorf("got %v", got["n"].data)
	}
	run(t, []float64{0.5, 0.5, 0}, []string{a, b, c}, option) // c is not read
	_, err := plan(t, nil, open(t, a, b, c), option).Run(t.Context(), filepath.Join(dir, "out"), nil)
	want := c + `: tensor "n": element 1: integer policy: it is -254, in ` + a + ` it is 2`
	if !errors.Is(err, merge.ErrIntegers) || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestKeysUnion(t *testing.T) {
	dir := t.TempDir()
	a := writeModel(t, filepath.Join(dir, "a"), nil, float32s("all", 1), float32s("ab", 1), float32s("a", 1),
		int64s("n", 1))
	b := writeModel(t, filepath.Join(dir, "b"), nil, float32s("all", 2), float32s("ab", 4), float32s("bc", 2),
		int64s("n", 2))
	c := writeModel(t, filepath.Join(dir, "c"), nil, float32s("all", 6), float32s("bc", 6), float32s("c", 8))
	paths := []string{a, b, c}
	names := func(list ...float32) []float32 { return list }
	for _, test := range []struct {
		weights []float64
		want    map[string][]float32
		left    string
	}{
		{
			nil,
			map[string][]float32{"all": names(3), "ab": names(2.5), "a": names(1), "bc": names(4), "c": names(8)},
			"[]",
		},
		{
			[]float64{0.5, 0.25, 0.25},
			map[string][]float32{"all": names(2.5), "ab": names(2), "a": names(1), "bc": names(4), "c": names(8)},
			"[]",
		},
		{ // of a and b, only b is read
			[]float64{0, 0.25, 0.75},
			map[string][]float32{"all": names(5), "ab": names(4), "bc": names(5), "c": names(8)},
			"[{a in no model that is read}]",
		},
		{ // the weights of a and b sum to 0.5
			[]float64{-1, 1.5, 0.5},
			map[string][]float32{"all": names(5), "ab": names(10), "a": names(1), "bc": names(3), "c": names(8)},
			"[]",
		},
	} {
		p := plan(t, test.weights, open(t, paths...), merge.WithKeys(merge.KeysUnion))
		out := filepath.Join(t.TempDir(), "out")
		if _, err := p.Run(t.Context(), out, nil); err != nil {
			t.Fatal(err)
		}
		_, got := readModel(t, out)
		if len(got) != len(test.want)+1 {
			t.Errorf("weights %v: %d tensors, want %d", test.weights, len(got), len(test.want)+1)
		}
		for name, want := range test.want {
			if v := valuesOf(t, got[name]); !slices.Equal(v, want) {
				t.Errorf("weights %v: %s is %v, want %v", test.weights, name, v, want)
			}
		}
		if n := got["n"].data[0]; n != 2 { // of the last model that has it
			t.Errorf("weights %v: n is %d, want 2", test.weights, n)
		}
		if left := fmt.Sprint(p.Omissions); left != test.left {
			t.Errorf("weights %v: left out %s, want %s", test.weights, left, test.left)
		}
	}

	p := plan(t, []float64{0.5, 0.25, 0.25}, open(t, paths...), merge.WithKeys(merge.KeysUnion))
	want := []merge.Difference{
		{Path: b, Tensor: "a", Field: "missing", Want: "F32 [1]"},
		{Path: b, Tensor: "bc", Field: "extra", Got: "F32 [1]"},
		{Path: c, Tensor: "a", Field: "missing", Want: "F32 [1]"},
		{Path: c, Tensor: "ab", Field: "missing", Want: "F32 [1]"},
		{Path: c, Tensor: "n", Field: "missing", Want: "I64 [1]"},
		{Path: c, Tensor: "bc", Field: "extra", Got: "F32 [1]"},
		{Path: c, Tensor: "c", Field: "extra", Got: "F32 [1]"},
	}
	if !slices.Equal(p.Differences, want) {
		t.Errorf("differences %+v, want %+v", p.Differences, want)
	}
	text := strings.ReplaceAll(p.String(), dir+"/", "")
	for _, want := range []string{
		"ab (0.666667 of a, 0.333333 of b)\n", "bc (0.5 of b, 0.5 of c)\n", "all\n",
		"difference: c: extra tensor \"bc\"\n", "difference: b: missing tensor \"a\"\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("plan\n%s\nwant %q in it", text, want)
		}
	}

	// Weights that sum to nothing over the models that have a tensor.
	_, err := merge.WeightedMean(open(t, paths...), []float64{1, -1, 1}, merge.WithKeys(merge.KeysUnion))
	if err == nil || !strings.Contains(err.Error(), `tensor "ab": the weights [1 -1] of the models that have it`) {
		t.Errorf("error %v", err)
	}
	// Shapes and dtypes are compared among all that have a tensor.
	d := writeModel(t, filepath.Join(dir, "d"), nil, float32s("c", 8, 9))
	_, err = merge.Mean(open(t, a, c, d), merge.WithKeys(merge.KeysUnion))
	if want := `models differ from a; d: tensor "c" has shape [2], want [1]`; err == nil ||
		strings.ReplaceAll(err.Error(), dir+"/", "") != want {
		t.Errorf("error %v, want %s", err, want)
	}
}

func TestKeysIntersection(t *testing.T) {
	dir := t.TempDir()
	a := writeModel(t, filepath.Join(dir, "a"), nil, float32s("all", 1), float32s("ab", 1))
	b := writeModel(t, filepath.Join(dir, "b"), nil, float32s("all", 2), float32s("ab", 4), float32s("bc", 2))
	c := writeModel(t, filepath.Join(dir, "c"), nil, float32s("all", 6), float32s("bc", 6, 7))
	p := plan(t, nil, open(t, a, b, c), merge.WithKeys(merge.KeysIntersection))
	out := filepath.Join(dir, "out")
	if _, err := p.Run(t.Context(), out, nil); err != nil {
		t.Fatal(err)
	}
	if _, got := readModel(t, out); len(got) != 1 || !slices.Equal(valuesOf(t, got["all"]), []float32{3}) {
		t.Errorf("got %v", got)
	}
	if got := fmt.Sprint(p.Omissions); got != "[{ab not in all models} {bc not in all models}]" ||
		len(p.Differences) != 3 {
		t.Errorf("left out %s, differences %+v", got, p.Differences)
	}
	if !strings.Contains(p.Summary(), "left out: tensor \"ab\", not in all models\n") {
		t.Errorf("plan\n%s", p.Summary())
	}
}

func TestIncludeExclude(t *testing.T) {
	dir := t.TempDir()
	a := writeModel(t, filepath.Join(dir, "a"), nil,
		float32s("layer.1.w", 1), float32s("layer.2.w", 1), float32s("head", 1, 2), tensor{
			"z", "C64",
			[]int64{1},
			make([]byte, 8),
		})
	b := writeModel(t, filepath.Join(dir, "b"), nil, float32s("layer.1.w", 3), float32s("layer.2.w", 3),
		float32s("head", 1))
	re := regexp.MustCompile
	for _, test := range []struct {
		opts []merge.Option
		want []string
	}{
		{[]merge.Option{merge.WithInclude(re("layer"))}, []string{"layer.1.w", "layer.2.w"}},
		{[]merge.Option{merge.WithInclude(re(`^layer\.1`), re(`2\.w$`))}, []string{"layer.1.w", "layer.2.w"}},
		{[]merge.Option{merge.WithExclude(re("head"), re("z"))}, []string{"layer.1.w", "layer.2.w"}},
		{[]merge.Option{merge.WithInclude(re("layer")), merge.WithExclude(re("1"))}, []string{"layer.2.w"}},
	} {
		p := plan(t, nil, open(t, a, b), test.opts...) // what is excluded is not compared: shapes, keys and dtypes differ
		var got []string
		for _, s := range p.Steps {
			got = append(got, s.Tensor.Name)
		}
		if !slices.Equal(got, test.want) || len(p.Omissions) != 4-len(got) || p.Omissions[0].Reason != "excluded" {
			t.Errorf("tensors %q, left out %v, want %q", got, p.Omissions, test.want)
		}
	}
	for _, test := range []struct {
		opt  merge.Option
		want string
	}{
		{merge.WithInclude(re("layer"), re("lyaer")), `include: pattern "lyaer" matches no tensor`},
		{merge.WithExclude(re("Head")), `exclude: pattern "Head" matches no tensor`},
		{merge.WithTensorWeights(re("none"), 0.5, 0.5), `tensor weights: pattern "none" matches no tensor`},
	} {
		_, err := merge.Mean(open(t, a, b), test.opt)
		if strings.HasPrefix(test.want, "tensor") {
			_, err = merge.Mean(open(t, a, b), test.opt, merge.WithInclude(re("layer")))
		}
		var pattern *merge.PatternError
		if !errors.As(err, &pattern) || err.Error() != test.want {
			t.Errorf("error %v, want %s", err, test.want)
		}
	}
}

func TestTensorWeights(t *testing.T) {
	dir := t.TempDir()
	var paths []string
	for k, name := range []string{"a", "b", "c"} {
		x := float32(int(1) << k)
		paths = append(paths, writeModel(t, filepath.Join(dir, name), nil,
			float32s("layer.1", x), float32s("layer.2", x), float32s("head", x), int64s("layer.n", int64(k))))
	}
	re := regexp.MustCompile
	opts := []merge.Option{
		merge.WithTensorWeights(re(`^layer\.1$`), 0, 0.5, 0.5), merge.WithTensorWeights(re("^layer"), 0.75, 0.25, 0),
	}
	for _, test := range []struct {
		weights []float64
		head    float32
		read    string
	}{
		{nil, 7.0 / 3, "[8 20 8]"},
		{[]float64{0, 0, 1}, 4, "[4 16 8]"},
	} {
		p := plan(t, test.weights, open(t, paths...), opts...)
		out := filepath.Join(t.TempDir(), "out")
		if _, err := p.Run(t.Context(), out, nil); err != nil {
			t.Fatal(err)
		}
		_, got := readModel(t, out)
		for name, want := range map[string]float32{"layer.1": 3, "layer.2": 1.25, "head": test.head} {
			if v := valuesOf(t, got[name]); v[0] != want {
				t.Errorf("weights %v: %s is %v, want %v", test.weights, name, v, want)
			}
		}
		if got["layer.n"].data[0] != 1 { // from the last model that has a weight for it
			t.Errorf("weights %v: integers of model %d", test.weights, got["layer.n"].data[0])
		}
		var read []int64
		for _, s := range p.Sources {
			read = append(read, s.Bytes)
		}
		if got := fmt.Sprint(read); got != test.read {
			t.Errorf("weights %v: bytes read %s, want %s", test.weights, got, test.read)
		}
		text := strings.ReplaceAll(p.String(), dir+"/", "")
		if !strings.Contains(text, "layer.1 (0.5 of b, 0.5 of c)\n") || strings.Contains(text, "not read") {
			t.Errorf("plan\n%s", text)
		}
	}
	for _, test := range []struct {
		weights []float64
		want    error
	}{
		{[]float64{1}, weighting.ErrWeightCount},
		{[]float64{0.5, 0.25, 0.5}, weighting.ErrWeightSum},
		{[]float64{math.NaN(), 0.5, 0.5}, weighting.ErrWeight},
	} {
		_, err := merge.Mean(open(t, paths...), merge.WithTensorWeights(re("head"), test.weights...))
		if !errors.Is(err, test.want) || !strings.Contains(err.Error(), `weights of tensors "head": `) {
			t.Errorf("weights %v: error %v, want %v", test.weights, err, test.want)
		}
	}
}

// Weights of the models that have a tensor, whose sum is zero, cannot be made to sum to one.
func TestUnionZeroSum(t *testing.T) {
	both, one := filepath.Join(t.TempDir(), "a"), filepath.Join(t.TempDir(), "b")
	x, y := tensor{"x", "F16", []int64{1}, halves(1)}, tensor{"y", "F16", []int64{1}, halves(1)}
	writeModel(t, both, nil, x, y)
	writeModel(t, one, nil, x)
	_, err := merge.WeightedMean(open(t, both, both, one), []float64{1, -1, 1}, merge.WithKeys(merge.KeysUnion))
	if !errors.Is(err, weighting.ErrWeightSum) || !strings.Contains(err.Error(), `tensor "y": the weights [1 -1] of the models `+
		"that have it cannot be divided by their sum, which is 0") {
		t.Errorf("error %v", err)
	}
}

// halves returns the elements of a F16 tensor.
func halves(values ...float64) []byte {
	var data []byte
	for _, v := range values {
		data = binary.LittleEndian.AppendUint16(data, uint16(formats["F16"].encode(v)))
	}
	return data
}

func TestNonFinite(t *testing.T) {
	dir := t.TempDir()
	inf, nan := math.Inf(1), math.NaN()
	const n = 100 // chunks of 32 elements
	one := slices.Repeat([]float64{1}, n)
	x, y := slices.Clone(one), slices.Clone(one)
	x[3], x[70], y[71], y[99] = nan, inf, -inf, nan
	a := writeModel(t, filepath.Join(dir, "a"), nil, tensor{"x", "F16", []int64{n}, halves(x...)}, float32s("y", 1, 2))
	b := writeModel(t, filepath.Join(dir, "b"), nil, tensor{"x", "F16", []int64{n}, halves(y...)}, float32s("y", 1,
		float32(nan)))
	want := []merge.NonFinite{{"x", a, 1, 1}, {"x", b, 1, 1}, {"y", b, 1, 0}}
	for _, opts := range [][]merge.Option{
		nil,
		{merge.WithDType(checkpoint.F8E4M3)},
		{merge.WithOverflow(merge.OverflowSaturate)},
	} {
		opts = append(opts, merge.WithChunkBytes(64), merge.WithWorkers(3))
		out := filepath.Join(dir, "out")
		report, err := plan(t, nil, open(t, a, b), opts...).Run(t.Context(), out, nil)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(report.NonFinite, want) || report.Overflows != nil {
			t.Errorf("not finite %+v, overflows %+v, want %+v and none", report.NonFinite, report.Overflows, want)
		}
		_, got := readModel(t, out)
		f := formats[got["x"].dtype]
		for i := range n {
			v := f.decode(bitsAt(got["x"].data[i*f.size:], f.size))
			isNaN := i == 3 || i == 99 || f.size == 1 && (i == 70 || i == 71)
			isInf := f.size == 2 && (i == 70 && v > 0 || i == 71 && v < 0)
			if math.IsNaN(v) != isNaN || math.IsInf(v, 0) != isInf || !isNaN && !isInf && v != 1 {
				t.Errorf("%s: element %d is %v", got["x"].dtype, i, v)
			}
		}
		if text := report.String(); !strings.Contains(text, "not finite: 1 NaN, 1 Inf in tensor \"x\" of "+a+"\n") {
			t.Errorf("report %q", text)
		}
		os.Remove(out)
	}
	before := snapshot(t, dir)
	p := plan(t, []float64{0.5, 0.5}, open(t, a, b), merge.WithNonFinite(merge.NonFiniteError),
		merge.WithChunkBytes(64), merge.WithWorkers(1))
	_, err := p.Run(t.Context(), filepath.Join(dir, "out"), nil)
	if want := b + `: tensor "y": element 1: not a finite number (NaN or infinite)`; !errors.Is(err,
		merge.ErrNonFinite) || err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if !sameFiles(snapshot(t, dir), before) {
		t.Error("the directory has changed")
	}
	p = plan(t, nil, open(t, a), merge.WithNonFinite(merge.NonFiniteError), merge.WithChunkBytes(64),
		merge.WithWorkers(1))
	_, err = p.Run(t.Context(), filepath.Join(dir, "out"), nil)
	if want := a + `: tensor "x": element 3: `; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("error %v, want %s", err, want)
	}
	// A model of weight zero is not looked at.
	p = plan(t, []float64{1, 0}, open(t, writeModel(t, filepath.Join(dir, "c"), nil,
		tensor{"x", "F16", []int64{n}, halves(one...)}, float32s("y", 1, 2)), b),
		merge.WithNonFinite(merge.NonFiniteError))
	if report, err := p.Run(t.Context(), filepath.Join(dir, "out"), nil); err != nil || report.NonFinite != nil {
		t.Errorf("weight zero: %v, %v", report, err)
	}
}

func TestOverflow(t *testing.T) {
	dir := t.TempDir()
	const n = 100
	x := slices.Repeat([]float64{1}, n)
	y := slices.Clone(x)
	x[5], y[5] = 60000, 40000   // 2x − y is 80000
	x[90], y[90] = -60000, 1000 // −121000
	x[91] = math.Inf(1)
	a := writeModel(t, filepath.Join(dir, "a"), nil, tensor{"x", "F16", []int64{n}, halves(x...)})
	b := writeModel(t, filepath.Join(dir, "b"), nil, tensor{"x", "F16", []int64{n}, halves(y...)})
	weights := []float64{2, -1}
	for _, test := range []struct {
		policy   merge.OverflowPolicy
		dtype    checkpoint.DType
		at5, at9 float64
		verb     string
	}{
		{"", 0, math.Inf(1), math.Inf(-1), "became infinite"},
		{merge.OverflowInf, checkpoint.F16, math.Inf(1), math.Inf(-1), "became infinite"},
		{merge.OverflowSaturate, checkpoint.F16, 65504, -65504, "saturated"},
		{merge.OverflowSaturate, checkpoint.F8E4M3, 448, -448, "saturated"},
		{merge.OverflowSaturate, checkpoint.F8E5M2, 57344, -57344, "saturated"},
		{merge.OverflowInf, checkpoint.F8E5M2, math.Inf(1), math.Inf(-1), "became infinite"},
		{merge.OverflowInf, checkpoint.F8E4M3, math.NaN(), math.NaN(), "became NaN"},
	} {
		out := filepath.Join(dir, "out")
		p := plan(t, weights, open(t, a, b), merge.WithOverflow(test.policy), merge.WithDType(test.dtype),
			merge.WithChunkBytes(64))
		report, err := p.Run(t.Context(), out, nil)
		if err != nil {
			t.Fatal(err)
		}
		if want := []merge.Overflow{{"x", 2}}; !slices.Equal(report.Overflows, want) {
			t.Errorf("%s: overflows %+v, want %+v", test.policy, report.Overflows, want)
		}
		if want := []merge.NonFinite{{"x", a, 0, 1}}; !slices.Equal(report.NonFinite, want) {
			t.Errorf("%s: not finite %+v, want %+v", test.policy, report.NonFinite, want)
		}
		if want := "overflow: 2 elements of tensor \"x\" " + test.verb; !strings.Contains(report.String(), want) {
			t.Errorf("%s: report %q", test.policy, report)
		}
		_, got := readModel(t, out)
		f := formats[got["x"].dtype]
		at := func(i int) float64 { return f.decode(bitsAt(got["x"].data[i*f.size:], f.size)) }
		same := func(a, b float64) bool { return a == b || math.IsNaN(a) && math.IsNaN(b) }
		if !same(at(5), test.at5) || !same(at(90), test.at9) || at(6) != 1 {
			t.Errorf("%s, %v: elements %v and %v, want %v and %v", test.policy, test.dtype, at(5), at(90), test.at5,
				test.at9)
		}
		os.Remove(out)
	}
	before := snapshot(t, dir)
	p := plan(t, weights, open(t, a, b), merge.WithOverflow(merge.OverflowError), merge.WithChunkBytes(64),
		merge.WithWorkers(1))
	_, err := p.Run(t.Context(), filepath.Join(dir, "out"), nil)
	if want := named(a, b) + `: tensor "x": element 5: average too large for F16`; !errors.Is(err, merge.ErrOverflow) ||
		err.Error() != want {
		t.Errorf("error %v, want %s", err, want)
	}
	if !sameFiles(snapshot(t, dir), before) {
		t.Error("the directory has changed")
	}
}

func TestPolicyErrors(t *testing.T) {
	a := writeModel(t, filepath.Join(t.TempDir(), "a"), nil, float32s("x", 1))
	for _, test := range []struct {
		opt  merge.Option
		want string
	}{
		{merge.WithIntegers("median"), `integers policy "median", want one of last, first, max, sum, error`},
		{merge.WithKeys("x"), `keys policy "x", want one of strict, intersection, union`},
		{merge.WithNonFinite("x"), `non-finite policy "x", want one of propagate, error`},
		{merge.WithOverflow("x"), `overflow policy "x", want one of inf, saturate, error`},
		{merge.WithDType(checkpoint.I8), `dtype I8, want one of F64, F32, F16, BF16, F8_E4M3 and F8_E5M2`},
	} {
		_, err := merge.Mean(open(t, a), test.opt)
		if want := "merge: option out of range: " + test.want; !errors.Is(err, modelavg.ErrOption) ||
			err.Error() != want {
			t.Errorf("error %v, want %s", err, want)
		}
	}
}

func TestWithMetadata(t *testing.T) {
	dir := t.TempDir()
	a := writeModel(t, filepath.Join(dir, "a"), map[string]string{"step": "1", "kept": "yes"}, float32s("x", 1))
	b := writeModel(t, filepath.Join(dir, "b"), nil, float32s("x", 1))
	for _, test := range []struct {
		paths []string
		want  string
	}{
		{[]string{a, b}, "map[format:pt kept:yes new:2 step:3]"},
		{[]string{b, a}, "map[format:pt new:2 step:3]"},
	} {
		metadata, _ := readModel(t, run(t, nil, test.paths, merge.WithMetadata(map[string]string{"new": "2"}),
			merge.WithMetadata(map[string]string{"step": "3"})))
		if got := fmt.Sprint(metadata); got != test.want {
			t.Errorf("metadata %s, want %s", got, test.want)
		}
	}
}

// The fields that programs rely on.
func TestJSON(t *testing.T) {
	dir := t.TempDir()
	a := writeModel(t, filepath.Join(dir, "a"), map[string]string{"k": "v"},
		tensor{"x", "F16", []int64{2}, halves(60000, math.Inf(1))}, tensor{"n", "I64", nil, make([]byte, 8)},
		float32s("q", 1))
	b := writeModel(t, filepath.Join(dir, "b"), nil, float32s("x", 10000, 1), tensor{"n", "I64", nil, make([]byte, 8)},
		float32s("r", 1))
	p := plan(t, []float64{2, -1}, open(t, a, b), merge.WithKeys(merge.KeysIntersection),
		merge.WithExclude(regexp.MustCompile("r")),
		merge.WithWorkers(1), merge.WithChunkBytes(64))
	text, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"rule":"weighted mean",` +
		`"policies":{"integers":"last","keys":"intersection","non_finite":"propagate","overflow":"inf","dtype":"first"},` +
		`"models":[{"path":"a","weight":2,"bytes":4},{"path":"b","weight":-1,"bytes":16}],` +
		`"tensors":[{"name":"n","dtype":"I64","shape":[],"bytes":8,"action":"copy-last","models":[1]},` +
		`{"name":"x","dtype":"F16","shape":[2],"bytes":4,"action":"average","models":[0,1],"weights":[2,-1],"dtypes":["F16","F32"]}],` +
		`"left_out":[{"name":"q","reason":"not in all models"},{"name":"r","reason":"excluded"}],` +
		`"differences":[{"path":"b","tensor":"q","field":"missing","want":"F32 [1]","got":""},` +
		`{"path":"b","tensor":"x","field":"dtype","want":"F16","got":"F32"}],` +
		`"metadata":{"k":"v"},"bytes_read":20,"bytes_written":12,"workers":1,"chunk_bytes":64,"memory_bytes":98493}`
	if got := strings.ReplaceAll(string(text), dir+"/", ""); got != want {
		t.Errorf("plan\n%s\nwant\n%s", got, want)
	}
	report, err := p.Run(t.Context(), filepath.Join(dir, "out"), nil)
	if err != nil {
		t.Fatal(err)
	}
	report.Duration = 1500e6
	text, err = json.Marshal(report)
	if err != nil {
		t.Fatal(err)
	}
	want = `{"path":"out","averaged":["x"],"integers":["n"],"non_finite":[{"tensor":"x","path":"a","nan":0,"inf":1}],` +
		`"overflows":[{"tensor":"x","count":1}],"other_weights":[],"removed":[],"bytes_read":20,"bytes_written":12,"seconds":1.5}`
	if got := strings.ReplaceAll(string(text), dir+"/", ""); got != want {
		t.Errorf("report\n%s\nwant\n%s", got, want)
	}
	empty := writeModel(t, filepath.Join(dir, "e"), nil)
	text, err = json.Marshal(plan(t, nil, open(t, empty)))
	if err != nil || strings.Contains(string(text), "null") {
		t.Errorf("plan of nothing: %s, %v", text, err)
	}
}
