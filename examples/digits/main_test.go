package main

import (
	"bytes"
	"compress/gzip"
	"errors"
	"math"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/modelavg/modelavg/checkpoint"
)

const (
	root     = "../../testdata/digits"
	dataFile = root + "/digits.csv.gz"
)

func readAll(t *testing.T) []digit {
	t.Helper()
	digits, err := readDigits(dataFile)
	if err != nil {
		t.Fatal(err)
	}
	return digits
}

// The score is the percentage that the table shows.
func TestScore(t *testing.T) {
	var out bytes.Buffer
	if err := run([]string{"-score", "-data", dataFile, checkpointPath(root, 2)}, &out); err != nil {
		t.Fatal(err)
	}
	if out.String() != "90.77\n" {
		t.Errorf("got %q, want 90.77", out.String())
	}
	err := run([]string{"-score", "-data", dataFile, "none"}, &out)
	if err == nil || !strings.Contains(err.Error(), "none") {
		t.Errorf("error %v, want one that names the file", err)
	}
}

// A second training run has to write the files of the repository, on every processor.
func TestTrainingRepeats(t *testing.T) {
	if testing.Short() {
		t.Skip("trains 50 epochs")
	}
	dir := filepath.Join(t.TempDir(), "new")
	var out bytes.Buffer
	if err := run([]string{"-train", "-data", dataFile, "-dir", dir}, &out); err != nil {
		t.Fatal(err)
	}
	same := func(path, committed string) {
		t.Helper()
		got, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		want, err := os.ReadFile(committed)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s differs from the one in testdata", filepath.Base(path))
		}
	}
	for k := 1; k <= checkpoints; k++ {
		same(checkpointPath(dir, k), checkpointPath(root, k))
	}
	same(movingAveragePath(dir), movingAveragePath(root))
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != checkpoints+1 {
		t.Errorf("%d files written, want %d", len(files), checkpoints+1)
	}
	if n := strings.Count(out.String(), "training loss"); n != epochs {
		t.Errorf("%d lines of progress, want %d", n, epochs)
	}
	table, err := os.ReadFile(root + "/accuracy.txt")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.HasSuffix(out.String(), string(table)) {
		t.Errorf("the output does not end with the table of testdata:\n%s", out.String())
	}
}

func TestTable(t *testing.T) {
	want, err := os.ReadFile(root + "/accuracy.txt")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := run([]string{"-data", dataFile, "-dir", root}, &out); err != nil {
		t.Fatal(err)
	}
	if out.String() != string(want) {
		t.Errorf("got\n%s\nwant\n%s", out.String(), want)
	}
}

// The committed checkpoints hold the last epochs in order, oldest first.
func TestCheckpointTensors(t *testing.T) {
	for k := 1; k <= checkpoints; k++ {
		m, err := checkpoint.Open(checkpointPath(root, k))
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		if got := m.Metadata()["format"]; got != "pt" {
			t.Errorf("%s: format %q, want pt", m.Path(), got)
		}
		if got := len(m.Tensors()); got != 5 {
			t.Errorf("%s: %d tensors, want 5", m.Path(), got)
		}
		n, err := load(m.Path())
		if err != nil {
			t.Fatal(err)
		}
		if want := int64((epochs - checkpoints + k) * (training / batch)); n.steps != want {
			t.Errorf("%s: steps %d, want %d", m.Path(), n.steps, want)
		}
	}
}

// The averages are compared with exact rational sums: every value is the one nearest to Σ w·x / Σ w.
func TestAveragesAreExact(t *testing.T) {
	var networks []*network
	for k := 1; k <= checkpoints; k++ {
		n, err := load(checkpointPath(root, k))
		if err != nil {
			t.Fatal(err)
		}
		networks = append(networks, n)
	}
	entries, err := collect(root, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name  string
		decay *big.Rat
	}{
		{"mean", big.NewRat(1, 1)},
		{"exponential mean, decay 0.9", big.NewRat(9, 10)},
		{"exponential mean, decay 0.5", big.NewRat(1, 2)},
	} {
		got := find(t, entries, test.name)
		if last := networks[len(networks)-1].steps; got.steps != last {
			t.Errorf("%s: steps %d, want those of the last checkpoint, %d", test.name, got.steps, last)
		}
		for i, p := range got.parameters() {
			for j, v := range p.values {
				sum, total := new(big.Rat), new(big.Rat)
				for _, n := range networks { // Horner: the oldest is multiplied by decay most often
					x := new(big.Rat).SetFloat64(float64(n.parameters()[i].values[j]))
					sum.Add(sum.Mul(sum, test.decay), x)
					total.Add(total.Mul(total, test.decay), big.NewRat(1, 1))
				}
				want, _ := sum.Quo(sum, total).Float32()
				if v != want {
					t.Fatalf("%s: %s[%d] = %v, want %v", test.name, p.name, j, v, want)
				}
			}
		}
	}
}

func find(t *testing.T, entries []entry, name string) *network {
	t.Helper()
	for _, e := range entries {
		if e.name == name {
			return e.network
		}
	}
	t.Fatalf("no entry %q", name)
	return nil
}

func TestFurtherFiles(t *testing.T) {
	entries, err := collect(root, nil)
	if err != nil {
		t.Fatal(err)
	}
	soup := filepath.Join(t.TempDir(), "soup.safetensors")
	if err := find(t, entries, "mean").save(soup); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := run([]string{"-data", dataFile, "-dir", root, soup}, &out); err != nil {
		t.Fatal(err)
	}
	results := map[string]string{}
	for line := range strings.Lines(out.String()) {
		if name, result, ok := strings.Cut(line, "  "); ok {
			results[name] = strings.TrimSpace(result)
		}
	}
	if results["mean"] == "" || results[soup] != results["mean"] {
		t.Errorf("the mean from a file and the mean computed here differ:\n%s", out.String())
	}
}

func TestFileErrors(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, tensors []checkpoint.Tensor, size map[string]int) string {
		path := filepath.Join(dir, name)
		w, err := checkpoint.Create(path, tensors, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		for tensor, n := range size {
			if _, err := w.WriteAt(tensor, make([]byte, n), 0); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Commit(); err != nil {
			t.Fatal(err)
		}
		return path
	}
	weight := func(d checkpoint.DType, shape ...int64) []checkpoint.Tensor {
		return []checkpoint.Tensor{{Name: "fc1.weight", DType: d, Shape: shape}}
	}
	text := filepath.Join(dir, "text.safetensors")
	if err := os.WriteFile(text, []byte("no tensors here, only a few words"), 0o666); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ path, want string }{
		{filepath.Join(dir, "missing.safetensors"), "run in the root of the repository"},
		{text, "text.safetensors"},
		{
			write("other.safetensors", []checkpoint.Tensor{{Name: "x", DType: checkpoint.U8, Shape: []int64{1}}},
				map[string]int{"x": 1}),
			`other.safetensors: no tensor "fc1.weight": not a network of this example`,
		},
		{
			write("half.safetensors", weight(checkpoint.F16, 32, 64), map[string]int{"fc1.weight": 32 * 64 * 2}),
			`half.safetensors: tensor "fc1.weight" is F16 [32 64], want F32 [32 64]`,
		},
		{
			write("shape.safetensors", weight(checkpoint.F32, 64, 32), map[string]int{"fc1.weight": 32 * 64 * 4}),
			`shape.safetensors: tensor "fc1.weight" is F32 [64 32], want F32 [32 64]`,
		},
	} {
		var out bytes.Buffer
		err := run([]string{"-data", dataFile, "-dir", root, test.path}, &out)
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), filepath.Base(test.path)) {
			t.Errorf("%s: error %v, want one with %q", test.path, err, test.want)
		}
		if out.Len() != 0 {
			t.Errorf("%s: printed %q before the error", test.path, out.String())
		}
	}
}

func TestCommandLineErrors(t *testing.T) {
	for _, test := range []struct {
		args []string
		want string
	}{
		{nil, "testdata/digits/digits.csv.gz"},
		{[]string{"-data", dataFile}, "checkpoint-01.safetensors"},
		{[]string{"-data", dataFile, "-dir", "nowhere"}, "say -data and -dir"},
		{[]string{"-data", "main.go"}, "main.go: gzip: invalid header"},
	} {
		err := run(test.args, new(bytes.Buffer))
		if err == nil || !strings.Contains(filepath.ToSlash(err.Error()), test.want) {
			t.Errorf("%q: error %v, want one with %q", test.args, err, test.want)
		}
	}
}

func TestParseDigits(t *testing.T) {
	zeros := strings.Repeat("0,", pixels)
	digits, err := parseDigits("16," + zeros[2:] + "9\n" + zeros + "0\n")
	if err != nil {
		t.Fatal(err)
	}
	if len(digits) != 2 || digits[0].pixel[0] != 1 || digits[0].pixel[1] != 0 || digits[0].label != 9 || digits[1].label != 0 {
		t.Errorf("got %+v", digits)
	}
	for _, test := range []struct{ text, want string }{
		{"1,2,3\n", "line 1: 3 columns, want 65"},
		{zeros + "0\n\n", "line 2: 1 columns, want 65"},
		{zeros + "1,2\n", "line 1: 66 columns, want 65"},
		{zeros + "0\n17," + zeros[2:] + "0\n", `line 2, column 1: pixel "17", want an integer from 0 to 16`},
		{"0,-1," + zeros[4:] + "0\n", `line 1, column 2: pixel "-1", want an integer from 0 to 16`},
		{"0,0.5," + zeros[4:] + "0\n", `line 1, column 2: pixel "0.5", want an integer from 0 to 16`},
		{zeros + "10\n", `line 1, column 65: label "10", want an integer from 0 to 9`},
		{zeros + "\n", `line 1, column 65: label "", want an integer from 0 to 9`},
	} {
		if _, err := parseDigits(test.text); err == nil || err.Error() != test.want {
			t.Errorf("%q: error %v, want %q", test.text, err, test.want)
		}
	}
}

func TestReadDigitsErrors(t *testing.T) {
	whole, err := os.ReadFile(dataFile)
	if err != nil {
		t.Fatal(err)
	}
	pack := func(text string) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		if _, err := z.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	for _, test := range []struct {
		name    string
		content []byte
		want    string
	}{
		{"empty", nil, "EOF"},
		{"truncated", whole[:len(whole)/2], "unexpected EOF"},
		{"no image", pack(""), "0 images, want 1797"},
		{"one image", pack(strings.Repeat("0,", pixels) + "7\n"), "1 images, want 1797"},
		{"bad line", pack("0\n"), "line 1: 1 columns, want 65"},
	} {
		path := filepath.Join(t.TempDir(), "digits.csv.gz")
		if err := os.WriteFile(path, test.content, 0o666); err != nil {
			t.Fatal(err)
		}
		_, err := readDigits(path)
		if want := path + ": " + test.want; err == nil || err.Error() != want {
			t.Errorf("%s: error %v, want %q", test.name, err, want)
		}
	}
}

// The gradient of one step is compared with finite differences of the loss.
func TestStepFollowsTheGradient(t *testing.T) {
	digits := readAll(t)[:batch]
	n, err := load(checkpointPath(root, 1))
	if err != nil {
		t.Fatal(err)
	}
	moved := n.clone()
	moved.step(digits)
	if moved.steps != n.steps+1 {
		t.Errorf("steps %d, want %d", moved.steps, n.steps+1)
	}
	after := moved.parameters()
	for i, p := range n.parameters() {
		for j := 0; j < len(p.values); j += 1 + len(p.values)/40 {
			got := float64(p.values[j]-after[i].values[j]) / learningRate
			const h = 1.0 / 256
			value := p.values[j]
			p.values[j] = value + h
			_, above := n.evaluate(digits)
			p.values[j] = value - h
			_, below := n.evaluate(digits)
			p.values[j] = value
			if want := (above - below) / (2 * h); math.Abs(got-want) > 1e-3+0.02*math.Abs(want) {
				t.Errorf("%s[%d]: gradient %v, want %v", p.name, j, got, want)
			}
		}
	}
}

func TestExp(t *testing.T) {
	for x := -708.0; x <= 0; x += 0.0371 {
		got, want := exp(x), math.Exp(x)
		if math.Abs(got-want) > 4e-16*want {
			t.Fatalf("exp(%v) = %v, want %v", x, got, want)
		}
	}
	for x, want := range map[float64]float64{0: 1, -709: 0, math.Inf(-1): 0} {
		if got := exp(x); got != want {
			t.Errorf("exp(%v) = %v, want %v", x, got, want)
		}
	}
	if got := exp(math.NaN()); !math.IsNaN(got) {
		t.Errorf("exp(NaN) = %v, want NaN", got)
	}
}

func TestShifted(t *testing.T) {
	d := &digit{label: 3}
	for i := range d.pixel {
		d.pixel[i] = float32(i)
	}
	s := d.shifted(1, -1)
	if s.label != 3 || s.pixel[0] != 0 || s.pixel[side] != d.pixel[1] || s.pixel[2*side-1] != 0 ||
		s.pixel[pixels-2] != d.pixel[pixels-1-side] {
		t.Errorf("got %+v", s)
	}
	if d.shifted(0, 0) != *d {
		t.Error("a shift by nothing changed the image")
	}
}

type failingWriter struct{}

var errWrite = errors.New("no space")

func (failingWriter) Write([]byte) (int, error) { return 0, errWrite }

func TestWriteErrorIsReported(t *testing.T) {
	if err := run([]string{"-data", dataFile, "-dir", root}, failingWriter{}); !errors.Is(err, errWrite) {
		t.Errorf("error %v, want %v", err, errWrite)
	}
}
