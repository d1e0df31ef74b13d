package main

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"math"
	"math/big"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/modelavg/modelavg/checkpoint"
)

// A content is a tensor with its data.
type content struct {
	checkpoint.Tensor
	data []byte
}

// values returns a tensor of these elements, a slice of a type of fixed size.
func values(name string, d checkpoint.DType, elements any, n int) content {
	data, err := binary.Append(nil, binary.LittleEndian, elements)
	if err != nil {
		panic(err)
	}
	return content{checkpoint.Tensor{Name: name, DType: d, Shape: []int64{int64(n)}}, data}
}

// save writes a model.
func save(t testing.TB, path string, contents ...content) {
	t.Helper()
	var tensors []checkpoint.Tensor
	for _, c := range contents {
		tensors = append(tensors, c.Tensor)
	}
	w, err := checkpoint.Create(path, tensors, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	for _, c := range contents {
		if _, err := w.WriteAt(c.Name, c.data, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Commit(); err != nil {
		t.Fatal(err)
	}
}

func TestInspect(t *testing.T) {
	t.Chdir(t.TempDir())
	inf := float32(math.Inf(1))
	save(t, "m",
		values("f", checkpoint.F32, []float32{3, -4, inf, float32(math.NaN()), -inf, 0, 1, 2}, 8),
		values("b", checkpoint.BF16, []uint16{0x3f80, 0xc000}, 2), // 1, −2
		values("i", checkpoint.I64, []int64{-5, 7}, 2),
		values("none", checkpoint.F32, []float32{}, 0),
		values("nan", checkpoint.F32, []float32{float32(math.NaN())}, 1),
		values("e", checkpoint.F8E8M0, []byte{1, 2}, 2))
	status, stdout, stderr := execute(t, "inspect m")
	want := `DTYPE    SHAPE  BYTES  TENSOR
BF16     [2]    4      b
F8_E8M0  [2]    2      e
F32      [8]    32     f
I64      [2]    16     i
F32      [1]    4      nan
F32      [0]    0      none
m: 6 tensors, 15 elements, 58 bytes, 1 F8_E8M0, 1 BF16, 3 F32, 1 I64
metadata format: pt
`
	if status != statusDone || stderr != "" || stdout != want {
		t.Errorf("status %d, %s\n%s\nwant\n%s", status, stderr, stdout, want)
	}
	status, stdout, stderr = execute(t, "inspect --stats m")
	want = `DTYPE    SHAPE  BYTES  MIN  MAX  MEAN  RMS      NAN  INF  TENSOR
BF16     [2]    4      -2   1    -0.5  1.58114  0    0    b
F8_E8M0  [2]    2      -    -    -     -        -    -    e
F32      [8]    32     -4   3    0.4   2.44949  1    2    f
I64      [2]    16     -5   7    1     6.08276  0    0    i
F32      [1]    4      -    -    -     -        1    0    nan
F32      [0]    0      -    -    -     -        0    0    none
m: `
	if status != statusDone || stderr != "" || !strings.HasPrefix(stdout, want) {
		t.Errorf("status %d, %s\n%s\nwant\n%s", status, stderr, stdout, want)
	}
	status, stdout, _ = execute(t, "inspect --stats --json m")
	var got inspection
	if err := json.Unmarshal([]byte(stdout), &got); status != statusDone || err != nil {
		t.Fatalf("status %d, %v\n%s", status, err, stdout)
	}
	if f := got.Tensors[2]; f.Name != "f" || f.DType != checkpoint.F32 || !slices.Equal(f.Shape, []int64{8}) ||
		f.Bytes != 32 ||
		f.Stats.Mean != 0.4 || f.Stats.NaN != 1 || f.Stats.Inf != 2 || got.Bytes != 58 ||
		got.Metadata["format"] != "pt" {
		t.Errorf("got %+v", got)
	}
	for _, want := range []string{`"min": null`, `"rms": null`, `"path": "m"`, `"elements": 15`} {
		if !strings.Contains(stdout, want) {
			t.Errorf("JSON\n%s\nwant %s in it", stdout, want)
		}
	}
	for line, want := range map[string]string{
		"inspect": "0 files given, want one", "inspect m m": "2 files given, want one",
		"inspect --workers -1 m": "--workers -1",
	} {
		if status, _, stderr := execute(t, line); status != statusUsage || !strings.Contains(stderr, want) {
			t.Errorf("%s: status %d, stderr %q", line, status, stderr)
		}
	}
	if status, _, stderr := execute(t, "inspect none"); status != statusFailed || !strings.Contains(stderr, "none") {
		t.Errorf("status %d, stderr %q", status, stderr)
	}
}

// Statistics and distances of tensors of several chunks, against sums without rounding; the same for any workers.
func TestSumsAgainstExact(t *testing.T) {
	t.Chdir(t.TempDir())
	r := rand.New(rand.NewPCG(1, 2))
	const n = 3*scanElements + 1001
	x, y := make([]float32, n), make([]float32, n)
	exact := func() *big.Float { return new(big.Float).SetPrec(2000) }
	sum, squares, d2, b2, ab := exact(), exact(), exact(), exact(), exact()
	var most float64
	for i := range x {
		x[i] = float32(r.NormFloat64()) + 1
		y[i] = x[i] + float32(r.NormFloat64()/4096)
		bx, by := exact().SetFloat64(float64(x[i])), exact().SetFloat64(float64(y[i]))
		d := exact().Sub(bx, by)
		sum.Add(sum, bx)
		squares.Add(squares, exact().Mul(bx, bx))
		b2.Add(b2, exact().Mul(by, by))
		ab.Add(ab, exact().Mul(bx, by))
		d2.Add(d2, exact().Mul(d, d))
		most = max(most, math.Abs(float64(x[i])-float64(y[i])))
	}
	save(t, "a", values("x", checkpoint.F32, x, n))
	save(t, "b", values("x", checkpoint.F32, y, n))
	float := func(x *big.Float) float64 { f, _ := x.Float64(); return f }
	near := func(what string, got number, want *big.Float) {
		t.Helper()
		if w := float(want); math.Abs(float64(got)-w) > 1e-12*math.Abs(w) {
			t.Errorf("%s is %v, want %v", what, float64(got), w)
		}
	}
	quo := func(a, b *big.Float) *big.Float { return exact().Quo(a, b) }
	count := exact().SetInt64(n)
	var outputs [2][]string
	for _, workers := range []int{1, 2, 7} {
		_, stdout, _ := execute(t, fmt.Sprint("inspect --stats --json --workers ", workers, " a"))
		outputs[0] = append(outputs[0], stdout)
		var i inspection
		if err := json.Unmarshal([]byte(stdout), &i); err != nil {
			t.Fatal(err)
		}
		near("mean", i.Tensors[0].Stats.Mean, quo(sum, count))
		near("rms", i.Tensors[0].Stats.RMS, exact().Sqrt(quo(squares, count)))

		_, stdout, _ = execute(t, fmt.Sprint("diff --json --workers ", workers, " a b"))
		outputs[1] = append(outputs[1], stdout)
		var c comparison
		if err := json.Unmarshal([]byte(stdout), &c); err != nil {
			t.Fatal(err)
		}
		d := c.Tensors[0]
		near("rms of the difference", d.RMS, exact().Sqrt(quo(d2, count)))
		near("relative distance", d.Relative, exact().Sqrt(quo(d2, squares)))
		near("maximum", d.Max, exact().SetFloat64(most))
		cosine := exact().Sub(exact().SetInt64(1), quo(ab, exact().Mul(exact().Sqrt(squares), exact().Sqrt(b2))))
		if w := float(cosine); math.Abs(float64(d.Cosine)-w) > 1e-8*w { // some 1e-8, of which 1 − cos would have half the digits
			t.Errorf("cosine distance is %v, want %v", float64(d.Cosine), w)
		}
	}
	for _, o := range outputs {
		if o[0] != o[1] || o[0] != o[2] {
			t.Errorf("the output depends on the number of workers:\n%s\n%s\n%s", o[0], o[1], o[2])
		}
	}
}

// Tensors that are multiples of each other point in the same direction: their cosine distance is not the rounding errors.
func TestCosineOfMultiples(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 100 {
		a, b := make([]float64, 1000), make([]float64, 1000)
		factor := random.Float64() * 3
		for i := range a {
			a[i] = random.NormFloat64()
			b[i] = factor * a[i]
		}
		s := distancesOf(a, b)
		if c := s.cosine(); c > 1e-14 {
			t.Errorf("times %v: the cosine distance is %v, want at most 1e-14", factor, c)
		}
	}
	one, two := []float64{1, 1, 1}, []float64{2, 2, 2}
	s := distancesOf(one, two)
	if c := s.cosine(); c != 0 {
		t.Errorf("of %v and %v: %v, want 0", one, two, c)
	}
}

func TestDiff(t *testing.T) {
	t.Chdir(t.TempDir())
	nan, inf := float32(math.NaN()), float32(math.Inf(1))
	save(t, "a",
		values("same", checkpoint.F32, []float32{1, inf, nan}, 3),
		values("half", checkpoint.F32, []float32{3, 4}, 2),
		values("turned", checkpoint.F32, []float32{1, 0}, 2),
		values("special", checkpoint.F32, []float32{1, nan, inf, 2}, 4),
		values("zero", checkpoint.F32, []float32{0}, 1),
		values("dtype", checkpoint.F32, []float32{1.5}, 1),
		values("onlya", checkpoint.F32, []float32{1}, 1),
		values("shape", checkpoint.F32, []float32{1}, 1),
		values("steps", checkpoint.I64, []int64{100}, 1),
		values("e", checkpoint.F8E8M0, []byte{1}, 1))
	save(t, "b",
		values("same", checkpoint.F32, []float32{1, inf, nan}, 3),
		values("half", checkpoint.F32, []float32{1.5, 2}, 2),
		values("turned", checkpoint.F32, []float32{0, 2}, 2),
		values("special", checkpoint.F32, []float32{1, 1, -inf, 4}, 4),
		values("zero", checkpoint.F32, []float32{1}, 1),
		values("dtype", checkpoint.BF16, []uint16{0x3fc0}, 1),
		values("onlyb", checkpoint.F32, []float32{1}, 1),
		values("shape", checkpoint.F32, []float32{1, 2}, 2),
		values("steps", checkpoint.I64, []int64{110}, 1),
		values("e", checkpoint.F8E8M0, []byte{1}, 1))
	status, stdout, stderr := execute(t, "diff a b")
	want := `MAX  RMS      RELATIVE  COSINE-DISTANCE  NON-FINITE  TENSOR
2    1.41421  0.894427  ` + cosineOf([]float64{1, 2}, []float64{1, 4}) + `  2           special
1    1        +Inf      -       0           zero
2    1.58114  2.23607   1       0           turned
2    1.76777  0.5       0       0           half
10   10       0.1       0       0           steps
0    0        0         0       0           dtype
0    0        0         0       0           same
tensor "e" of dtype F8_E8M0 and F8_E8M0 is not compared
tensor "onlya" is only in a
tensor "shape" has shape [1] in a and [2] in b
tensor "onlyb" is only in b
7 tensors compared, 2 of them equal
`
	squeeze := func(s string) string { // the columns are as wide as they need to be
		var lines []string
		for line := range strings.Lines(s) {
			lines = append(lines, strings.Join(strings.Fields(line), " "))
		}
		return strings.Join(lines, "\n")
	}
	if status != statusDone || stderr != "" || squeeze(stdout) != squeeze(want) {
		t.Errorf("status %d, %s\n%s\nwant\n%s", status, stderr, stdout, want)
	}
	for by, second := range map[string]string{"max": "steps", "rms": "steps", "relative": "zero", "cosine": "zero"} {
		_, stdout, _ := execute(t, "diff --json --by "+by+" a b")
		var c comparison
		if err := json.Unmarshal([]byte(stdout), &c); err != nil {
			t.Fatal(err)
		}
		if c.Tensors[0].Name != "special" || c.Tensors[1].Name != second || len(c.Differences) != 4 || c.A != "a" ||
			c.B != "b" || c.Tensors[0].Elements != 4 || c.Tensors[1].Elements != 1 {
			t.Errorf("--by %s: first %q and %q, differences %q", by, c.Tensors[0].Name, c.Tensors[1].Name, c.Differences)
		}
	}
	for line, want := range map[string]string{
		"diff a": "1 file given, want two", "diff a b a": "3 files given",
		"diff --by size a b": "want one of relative, max, rms, cosine",
	} {
		if status, _, stderr := execute(t, line); status != statusUsage || !strings.Contains(stderr, want) {
			t.Errorf("%s: status %d, stderr %q", line, status, stderr)
		}
	}
	if status, _, stderr := execute(t, "diff --plot none/x.svg a b"); status != statusFailed ||
		!strings.Contains(stderr, "none/x.svg") {
		t.Errorf("status %d, stderr %q", status, stderr)
	}
}

// cosineOf returns the cosine distance by its definition.
func cosineOf(a, b []float64) string {
	var ab, a2, b2 float64
	for i := range a {
		ab, a2, b2 = ab+a[i]*b[i], a2+a[i]*a[i], b2+b[i]*b[i]
	}
	return fmt.Sprintf("%.6g", 1-ab/math.Sqrt(a2*b2))
}

// texts returns all text of an SVG file, from the top to the bottom.
func texts(t *testing.T, path string) (list []string) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	height := make(map[string]float64)
	var y float64
	d := xml.NewDecoder(f)
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			slices.SortStableFunc(list, func(a, b string) int { return cmp.Compare(height[a], height[b]) })
			return list
		}
		if err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		switch x := token.(type) {
		case xml.CharData:
			if s := strings.TrimSpace(string(x)); s != "" {
				list = append(list, s)
				height[s] = y
			}
		case xml.StartElement:
			for _, a := range x.Attr {
				if a.Name.Local == "y" {
					fmt.Sscan(a.Value, &y)
				}
			}
		}
	}
}

func TestPlot(t *testing.T) {
	t.Chdir(t.TempDir())
	var few, fewB, many, manyB []content
	for i := range 60 {
		name := fmt.Sprintf("model.layers.%d.%c", i/3, 'a'+i%3)
		many = append(many, values(name, checkpoint.F32, []float32{1, 1}, 2))
		manyB = append(manyB, values(name, checkpoint.F32, []float32{1, 1 + float32(i)}, 2))
	}
	for _, name := range []string{"x.10", "x.9", "<y>&"} {
		few = append(few, values(name, checkpoint.F32, []float32{1}, 1))
		fewB = append(fewB, values(name, checkpoint.F32, []float32{2}, 1))
	}
	save(t, "a", few...)
	save(t, "b", fewB...)
	save(t, "c", many...)
	save(t, "d", manyB...)
	save(t, "e")
	if status, _, stderr := execute(t, "diff --plot few.svg a b"); status != statusDone ||
		stderr != "modelavg: the bars are in few.svg\n" {
		t.Fatal(stderr)
	}
	got := texts(t, "few.svg")
	i, j, k := slices.Index(got, "x.10"), slices.Index(got, "x.9"), slices.Index(got, "<y>&")
	if k < 0 || k > j || j > i {
		t.Errorf("texts %q, want <y>& above x.9 above x.10", got)
	}
	if !slices.Contains(got, "a and b") || !slices.Contains(got, measureTitles["relative"]) {
		t.Errorf("texts %q, want a title", got)
	}
	if status, _, stderr := execute(t, "diff --by max --plot many.svg c d"); status != statusDone {
		t.Fatal(stderr)
	}
	got = texts(t, "many.svg")
	layers := 0
	for _, s := range got {
		if strings.HasPrefix(s, "model.layers.") {
			layers++
		}
	}
	if layers != 20 || !slices.Contains(got, "model.layers.19") {
		t.Errorf("%d layers in %q, want 20", layers, got)
	}
	if status, _, stderr := execute(t, "diff --plot empty.svg e e"); status != statusDone {
		t.Fatal(stderr)
	}
	texts(t, "empty.svg")
}

func TestBars(t *testing.T) {
	c := &comparison{}
	for i := range 60 {
		d := distances{n: 1, max: float64(i), d2: float64(i * i), a2: 1}
		c.Tensors = append(c.Tensors, newCompared(fmt.Sprintf("l.%d.w%d", i/30, i), 1, d))
	}
	if got := c.bars("max"); !slices.Equal(got, []bar{{"l.0", 29}, {"l.1", 59}}) {
		t.Errorf("got %v", got)
	}
	if got := c.bars("relative"); got[0].value != math.Sqrt(29*30*59/6)/math.Sqrt(30) {
		t.Errorf("got %v", got)
	}
	names := []string{"x.10.a", "x.9.b", "x.9.a", "x.09.a", "lm_head", "x"}
	slices.SortFunc(names, compareNatural)
	if want := []string{"lm_head", "x", "x.09.a", "x.9.a", "x.9.b", "x.10.a"}; !slices.Equal(names, want) {
		t.Errorf("order %q, want %q", names, want)
	}
	for name, want := range map[string]string{
		"model.layers.12.mlp.up.weight": "model.layers.12", "lm_head.weight": "lm_head", "h.0": "h.0", "w": "w", "": "",
		"a..b": "a.",
	} {
		if got := layerOf(name); got != want {
			t.Errorf("layerOf(%q) = %q, want %q", name, got, want)
		}
	}
	for x, want := range map[float64]float64{
		0: 1, 0.16: 0.2, 0.2: 0.2, 0.96: 1, 1: 1, 1.01: 1.5, 99: 100, 3e-9: 3e-9,
		1e300: 1e300,
	} {
		if got := axisEnd(x); math.Abs(got-want) > 1e-9*want {
			t.Errorf("axisEnd(%v) = %v, want %v", x, got, want)
		}
	}
}

func TestVerify(t *testing.T) {
	inDirectory(t)
	for name, header := range map[string]string{
		"hole":    `{"x":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}`,
		"unknown": `{"x":{"dtype":"F31","shape":[1],"data_offsets":[0,4]}}`,
	} {
		text := append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...)
		if err := os.WriteFile(name, append(text, make([]byte, 8)...), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	status, stdout, stderr := execute(t, "verify a b")
	if status != statusDone || stderr != "" || stdout != "a: valid, 2 tensors\nb: valid, 2 tensors\n" {
		t.Errorf("status %d, %s\n%s", status, stderr, stdout)
	}
	status, stdout, stderr = execute(t, "verify a hole none unknown b")
	lines := strings.Split(stdout, "\n")
	if status != statusFailed || len(lines) != 7 || stderr != "modelavg: violations found: 3; files that could not be read: 1\n" {
		t.Fatalf("status %d, %s\n%s", status, stderr, stdout)
	}
	for i, want := range []string{
		"a: valid", `hole: tensor "x": data_offsets [4,8]: a hole before it`, "none",
		`unknown: tensor "x": dtype: unknown dtype "F31"`,
		"unknown: 8 bytes of data, want 4: 4 bytes after the last tensor", "b: valid",
	} {
		if !strings.Contains(lines[i], want) {
			t.Errorf("line %q, want %q in it", lines[i], want)
		}
	}
	if status, _, stderr := execute(t, "verify"); status != statusUsage || !strings.Contains(stderr,
		"no model files given") {
		t.Errorf("status %d, %s", status, stderr)
	}
}
