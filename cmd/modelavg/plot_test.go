package main

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/modelavg/modelavg/checkpoint"
)

// A picture replaces neither a model, whatever the order of the arguments, nor anything else that is no picture.
func TestPlotReplaces(t *testing.T) {
	inDirectory(t)
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	writeModel(t, "model.svg", 1, 1, 2)
	if err := os.Link("model.svg", "link.svg"); err != nil {
		t.Fatal(err)
	}
	write("notes.svg", "svg")
	write("page.svg", "<html><svg/></html>")
	write("empty.svg", "")
	write("old.svg", "\xef\xbb\xbf<?xml version=\"1.0\" encoding=\"ISO-8859-1\"?>\n<!-- x -->\n"+
		"<svg xmlns=\"http://www.w3.org/2000/svg\"/>")
	write("UPPER.SVG", "<svg/>")
	for _, test := range []struct {
		line   string
		status int
		want   string // in the error
	}{
		{"diff --plot a b c", statusUsage, "--plot a: want the name of an SVG file, which ends with .svg"},
		{"diff --plot picture.png a b", statusUsage, "ends with .svg"},
		{"diff --plot= a b", statusUsage, "ends with .svg"},
		{"diff --plot link.svg a model.svg", statusUsage, "is one of the models"},
		{"diff --plot model.svg model.svg b", statusUsage, "is one of the models"},
		{"diff --plot model.svg a b", statusFailed, "model.svg: exists and is no SVG file"},
		{"diff --plot notes.svg a b", statusFailed, "exists and is no SVG file"},
		{"diff --plot page.svg a b", statusFailed, "exists and is no SVG file"},
		{"diff --plot new.svg a b", statusDone, ""},
		{"diff --plot new.svg a c", statusDone, ""},
		{"diff --plot empty.svg a b", statusDone, ""},
		{"diff --plot old.svg a b", statusDone, ""},
		{"diff --plot UPPER.SVG a b", statusDone, ""},
	} {
		path := strings.TrimPrefix(strings.Fields(test.line)[1], "--plot=")
		if path == "--plot" {
			path = strings.Fields(test.line)[2]
		}
		before, _ := os.ReadFile(path)
		status, _, stderr := execute(t, test.line)
		if status != test.status || !strings.Contains(stderr, test.want) {
			t.Errorf("%s: status %d, %s, want %d and %q", test.line, status, stderr, test.status, test.want)
		}
		after, _ := os.ReadFile(path)
		if status != statusDone && string(after) != string(before) {
			t.Errorf("%s: %s was changed", test.line, path)
		}
		if status == statusDone && !isSVG(bytes.NewReader(after)) {
			t.Errorf("%s: %s is %.20q", test.line, path, after)
		}
	}
}

// A picture is what can be seen in an SVG, in its units, from the left and from the top.
type picture struct {
	width, height float64
	grid, bars    []box
	texts         []svgText
}

type box struct{ left, right, top, bottom float64 }

type svgText struct {
	x, y, size float64
	anchor     string
	text       string
}

// parsePicture reads an SVG whose only transformation is that heights count from the bottom.
func parsePicture(t *testing.T, svg []byte) picture {
	t.Helper()
	var x struct {
		Box   string `xml:"viewBox,attr"`
		Group struct {
			Transform string `xml:"transform,attr"`
			Paths     []struct {
				D     string `xml:"d,attr"`
				Style string `xml:"style,attr"`
			} `xml:"path"`
			Texts []struct {
				X         float64 `xml:"x,attr"`
				Y         float64 `xml:"y,attr"`
				Anchor    string  `xml:"text-anchor,attr"`
				Transform string  `xml:"transform,attr"`
				Style     string  `xml:"style,attr"`
				Text      string  `xml:",chardata"`
			} `xml:"text"`
			Groups []struct{} `xml:"g"`
		} `xml:"g"`
	}
	if err := xml.Unmarshal(svg, &x); err != nil {
		t.Fatal(err)
	}
	var p picture
	if _, err := fmt.Sscanf(x.Box, "0 0 %g %g", &p.width, &p.height); err != nil {
		t.Fatalf("viewBox %q: %v", x.Box, err)
	}
	want := fmt.Sprintf("scale(1, -1) translate(0, -%g)", p.height)
	if x.Group.Transform != want || len(x.Group.Groups) > 0 {
		t.Fatalf("transformation %q and %d in it, want %q alone", x.Group.Transform, len(x.Group.Groups), want)
	}
	for _, path := range x.Group.Paths {
		b := box{math.Inf(1), math.Inf(-1), math.Inf(1), math.Inf(-1)}
		for _, point := range strings.FieldsFunc(path.D, func(r rune) bool { return strings.ContainsRune("MLZ", r) }) {
			var left, bottom float64
			if _, err := fmt.Sscanf(point, "%g,%g", &left, &bottom); err != nil {
				t.Fatalf("point %q: %v", point, err)
			}
			b.left, b.right = min(b.left, left), max(b.right, left)
			b.top, b.bottom = min(b.top, p.height-bottom), max(b.bottom, p.height-bottom)
		}
		switch {
		case strings.Contains(path.Style, "fill:#4878A8"):
			p.bars = append(p.bars, b)
		case strings.Contains(path.Style, "stroke:#DDDDDD"):
			p.grid = append(p.grid, b)
		}
	}
	for _, e := range x.Group.Texts {
		_, size, _ := strings.Cut(e.Style, "font-size:")
		text := svgText{x: e.X, y: p.height + e.Y, anchor: e.Anchor, text: e.Text}
		size, _, _ = strings.Cut(size, "px")
		if _, err := fmt.Sscan(size, &text.size); err != nil || e.Transform != "scale(1, -1)" {
			t.Fatalf("text %+v: %v", e, err)
		}
		p.texts = append(p.texts, text)
	}
	return p
}

// Labels end before the bars begin and begin inside the picture, also in a font as wide as is usual; the numbers of the
// axis stand below the lines; and everything is inside the picture.
func TestPlotRoom(t *testing.T) {
	long := strings.Repeat("m", 100)
	bars := []bar{
		{"a", 1},
		{long, 2},
		{"ᄀ" + strings.Repeat("層", 60), math.NaN()},
		{"line\nbreak\x00", 4.9},
		{"model.layers.31.self_attn.qkv_proj.weight", 5},
		{"inf", math.Inf(1)},
	}
	notes := []string{"tensor \"x\" is only in b", strings.Repeat("n", 1000)}
	svg, err := drawBars(strings.Repeat("t", 1000), "axis", bars, notes)
	if err != nil {
		t.Fatal(err)
	}
	if len(svg) > 400<<10 {
		t.Errorf("%d bytes", len(svg))
	}
	p := parsePicture(t, svg)
	if len(p.grid) != ticks+1 || len(p.bars) != len(bars) {
		t.Fatalf("%d lines of the grid and %d bars, want %d and %d", len(p.grid), len(p.bars), ticks+1, len(bars))
	}
	left := p.grid[0].left
	var labels []svgText
	middles := make(map[string]svgText)
	numbers := make(map[string]svgText)
	for _, x := range p.texts {
		width := 0.0
		for _, r := range x.text {
			if width += 0.6 * x.size; r >= 0x1100 && r != '…' {
				width += 0.4 * x.size
			}
		}
		begin := x.x
		switch x.anchor {
		case "end":
			labels = append(labels, x)
			if begin -= width; x.x > left {
				t.Errorf("label %q ends at %v, where the bars begin at %v", x.text, x.x, left)
			}
		case "middle":
			begin -= width / 2
			middles[x.text] = x
		default:
			numbers[x.text] = x
		}
		if begin < 0 || begin+width > p.width || x.y > p.height || x.y < x.size {
			t.Errorf("text %q from %v to %v at height %v, in a picture of %v × %v", x.text, begin, begin+width, x.y,
				p.width, p.height)
		}
	}
	if len(labels) != len(bars) {
		t.Fatalf("%d labels, want %d", len(labels), len(bars))
	}
	for i, line := range p.grid {
		x, ok := middles[fmt.Sprint(i)]
		if !ok || line.left != line.right || math.Abs(x.x-line.left) > 0.01 || x.y < line.bottom+x.size/2 {
			t.Errorf("line %+v with the number %+v", line, x)
		}
	}
	// A bar is as high as its label, and ends where its value is on the axis, with the value behind it.
	slices.SortFunc(p.bars, func(a, b box) int { return cmp.Compare(a.top, b.top) })
	slices.SortFunc(labels, func(a, b svgText) int { return cmp.Compare(a.y, b.y) })
	unit := p.grid[1].left - left
	for i, want := range []float64{1, 2, 0, 4.9, 5, 0} {
		b, label := p.bars[i], labels[i]
		if b.left != left || math.Abs((b.right-left)/unit-want) > 0.01 {
			t.Errorf("bar %d is %v units wide, want %v", i, (b.right-left)/unit, want)
		}
		if label.y < b.top+0.5*label.size || label.y > b.bottom {
			t.Errorf("label %q at height %v, and its bar at %+v", label.text, label.y, b)
		}
		number, ok := numbers[fmt.Sprintf("%.3g", bars[i].value)]
		if !ok || number.y != label.y || number.x < b.right || number.x > b.right+number.size {
			t.Errorf("bar %d at %+v has the number %+v", i, b, number)
		}
	}
	wide := "…" + strings.Repeat("層", (maxLabel-1)/2) // with a space where half a character was
	for i, want := range []string{"a", "…" + long[:maxLabel-1], wide, `line\nbreak\x00`, bars[4].label, "inf"} {
		if got := strings.ReplaceAll(labels[i].text, " ", ""); got != want {
			t.Errorf("label %d is %q, want %q", i, got, want)
		}
	}
	if _, ok := numbers[notes[0]]; !ok {
		t.Errorf("no note %q", notes[0])
	}
	if note, ok := numbers[notes[1][:maxNote-1]+"…"]; !ok || note.y < middles["axis"].y {
		t.Errorf("a note at %+v", note)
	}
}

// Characters that the font lacks have room, too.
func TestPlotWideName(t *testing.T) {
	name := strings.Repeat("層", 20)
	svg, err := drawBars("title", "axis", []bar{{name, 1}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, x := range parsePicture(t, svg).texts {
		if x.text == name && x.anchor == "end" && x.x >= 20*x.size {
			return
		}
	}
	t.Error("the name has no room")
}

// The picture grows with the number of bars, which are equally high in all.
func TestPlotHeight(t *testing.T) {
	var before picture
	for _, n := range []int{0, 1, 2, 48, 500} {
		var bars []bar
		for i := range n {
			bars = append(bars, bar{fmt.Sprint("layers.", i), float64(i)})
		}
		svg, err := drawBars("title", "axis", bars, nil)
		if err != nil {
			t.Fatal(err)
		}
		p := parsePicture(t, svg)
		slices.SortFunc(p.bars, func(a, b box) int { return cmp.Compare(a.top, b.top) })
		if n == 0 && p.texts[0].text == "" || n > 0 && len(p.bars) != n {
			t.Fatalf("%d bars, want %d", len(p.bars), n)
		}
		if n > 1 && (p.height <= before.height || math.Abs(p.bars[1].top-p.bars[0].top-float64(rowHeight)) > 0.2) {
			t.Errorf("%d bars: %v high, with the second at %+v below %+v", n, p.height, p.bars[1], p.bars[0])
		}
		before = p
	}
}

// The axis of the smallest and the largest numbers that a difference can be.
func TestPlotExtremes(t *testing.T) {
	inf, nan := math.Inf(1), math.NaN()
	for _, x := range []float64{0, math.SmallestNonzeroFloat64, 3e-310, 1e-300, 1e300, math.MaxFloat64, inf, nan} {
		svg, err := drawBars("title", "axis", []bar{{"a", x}}, nil)
		if err != nil {
			t.Fatal(err)
		}
		p := parsePicture(t, svg)
		if len(p.bars) != 1 || len(p.grid) != ticks+1 {
			t.Errorf("%v: %d bars, %d lines", x, len(p.bars), len(p.grid))
		}
		for _, b := range append(p.grid, p.bars...) {
			if !(b.left >= 0 && b.right <= p.width && b.left <= b.right) {
				t.Errorf("%v: %+v in a picture %v wide", x, b, p.width)
			}
		}
		if !(p.grid[0].left == p.bars[0].left && p.grid[0].left < p.grid[ticks].left) {
			t.Errorf("%v: an axis from %v to %v and the bar at %v", x, p.grid[0].left, p.grid[ticks].left,
				p.bars[0].left)
		}
		if bytes.Contains(svg, []byte(">NaN<")) != math.IsNaN(x) {
			t.Errorf("%v: NaN in the picture", x)
		}
	}
}

// What only one model has is noted below the bars, and what is not finite.
func TestPlotNotes(t *testing.T) {
	t.Chdir(t.TempDir())
	var more []content
	for i := range 25 {
		more = append(more, values(fmt.Sprintf("extra.%02d", i), checkpoint.F32, []float32{1}, 1))
	}
	inf := float32(math.Inf(1))
	save(t, "a", values("same", checkpoint.F32, []float32{1, 1, inf}, 3))
	save(t, "b", append(more, values("same", checkpoint.F32, []float32{1, inf, inf}, 3))...)
	if status, _, stderr := execute(t, "diff --plot p.svg a b"); status != statusDone {
		t.Fatal(stderr)
	}
	text, err := os.ReadFile("p.svg")
	if err != nil {
		t.Fatal(err)
	}
	got := string(text)
	if strings.Count(got, "is only in b") != maxNotes-1 || !strings.Contains(got, ">and 6 more<") ||
		!strings.Contains(got, "tensor &#34;same&#34;: not finite, and not in its bar: 1 element<") ||
		!strings.Contains(got, "tensor &#34;extra.00&#34; is only in b") {
		t.Error(got)
	}
}

// A tensor in which elements differ that are not finite is farther than any other.
func TestDiffNonFiniteFirst(t *testing.T) {
	t.Chdir(t.TempDir())
	nan := float32(math.NaN())
	save(t, "a", values("nan", checkpoint.F32, []float32{nan, 1}, 2), values("far", checkpoint.F32, []float32{1, 1}, 2),
		values("same", checkpoint.F32, []float32{nan, 1}, 2))
	save(t, "b", values("nan", checkpoint.F32, []float32{1, 1}, 2), values("far", checkpoint.F32, []float32{9, 9}, 2),
		values("same", checkpoint.F32, []float32{nan, 1}, 2))
	for _, by := range measures {
		_, stdout, _ := execute(t, "diff --by "+by+" a b")
		var order []string
		for _, line := range strings.Split(stdout, "\n")[1:4] {
			order = append(order, line[strings.LastIndexByte(line, ' ')+1:])
		}
		if got := strings.Join(order, " "); got != "nan far same" {
			t.Errorf("--by %s: the order is %s", by, got)
		}
	}
}

func TestIsSVG(t *testing.T) {
	if isSVG(io.LimitReader(endless{}, 1<<30)) {
		t.Error("spaces are taken for a picture")
	}
}

// endless reads spaces.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = ' '
	}
	return len(p), nil
}

// Tensors of integers have no bar, beside which those of weights would be nothing, and a note says so; alone they have.
func TestPlotIntegers(t *testing.T) {
	t.Chdir(t.TempDir())
	writeModel(t, "a", 0, 1, 2)
	writeModel(t, "b", 2000, 1, 2.5)
	if status, _, stderr := execute(t, "diff --plot d.svg --by max a b"); status != statusDone {
		t.Fatal(stderr)
	}
	picture, err := os.ReadFile("d.svg")
	if err != nil {
		t.Fatal(err)
	}
	if text := string(picture); !strings.Contains(text, "1 tensor of integers without a bar") ||
		strings.Contains(text, ">steps<") || !strings.Contains(text, ">weight<") {
		t.Errorf("got\n%s\nwant a bar of weight and none of steps, and a note", text)
	}
	c := &comparison{Tensors: []compared{{Name: "steps", integers: true}}}
	if bars := c.bars("max"); len(bars) != 1 || len(c.notes()) != 0 {
		t.Errorf("bars %v, notes %q of integers alone, want one bar", bars, c.notes())
	}
	status, _, stderr := execute(t, "diff --plot none/d.svg a b")
	if status != statusFailed {
		t.Errorf("status %d, want %d", status, statusFailed)
	}
	checkErrorLine(t, "diff", stderr, "none/d.svg: there is no directory none")
}
