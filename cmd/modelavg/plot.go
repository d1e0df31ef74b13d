package main

import (
	"bytes"
	"cmp"
	"encoding/xml"
	"errors"
	"fmt"
	"image/color"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"github.com/mattn/go-runewidth"
	"golang.org/x/image/font/gofont/gomono"
	"golang.org/x/image/font/opentype"
	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/text"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/modelavg/modelavg/internal/printable"
)

var measureTitles = map[string]string{
	"max":      "largest absolute difference",
	"rms":      "root mean square of the difference",
	"relative": "norm of the difference / norm of the first",
	"cosine":   "cosine distance",
}

// A bar is one line of a bar chart.
type bar struct {
	label string
	value float64
}

// maxBars is how many tensors have a bar each; of more, those of one layer share a bar.
const maxBars = 48

// drawn returns the tensors that have a bar: not those of integers, such as the number of steps, beside which nothing of
// the others would be seen, unless there are no others.
func (c *comparison) drawn() []compared {
	floats := slices.DeleteFunc(slices.Clone(c.Tensors), func(t compared) bool { return t.integers })
	if len(floats) == 0 {
		return c.Tensors
	}
	return floats
}

// bars returns the bars of the comparison, in natural order of the names.
func (c *comparison) bars(measure string) []bar {
	group := func(name string) string { return name }
	if len(c.drawn()) > maxBars {
		group = layerOf
	}
	sums := make(map[string]*distances)
	var names []string
	for _, t := range c.drawn() {
		name := group(t.Name)
		if sums[name] == nil {
			sums[name] = new(distances)
			names = append(names, name)
		}
		sums[name].add(t.sums)
	}
	slices.SortFunc(names, compareNatural)
	bars := make([]bar, len(names))
	for i, name := range names {
		all := newCompared(name, 0, *sums[name])
		bars[i] = bar{name, all.by(measure)}
	}
	return bars
}

// layerOf returns the name of the layer that a tensor is in: its name up to the first part that is a number, or without
// its last part if there is none.
func layerOf(name string) string {
	parts := strings.Split(name, ".")
	for i, p := range parts {
		if p != "" && strings.Trim(p, "0123456789") == "" {
			return strings.Join(parts[:i+1], ".")
		}
	}
	if len(parts) > 1 {
		parts = parts[:len(parts)-1]
	}
	return strings.Join(parts, ".")
}

// compareNatural compares names so that numbers in them count by their value: layer 2 comes before layer 10.
func compareNatural(a, b string) int {
	digits := func(s string) int { return len(s) - len(strings.TrimLeft(s, "0123456789")) }
	x, y := a, b
	for x != "" && y != "" {
		if m, n := digits(x), digits(y); m > 0 && n > 0 {
			p, q := strings.TrimLeft(x[:m], "0"), strings.TrimLeft(y[:n], "0")
			if c := cmp.Or(cmp.Compare(len(p), len(q)), cmp.Compare(p, q)); c != 0 {
				return c
			}
			x, y = x[m:], y[n:]
			continue
		}
		if x[0] != y[0] {
			return cmp.Compare(x[0], y[0])
		}
		x, y = x[1:], y[1:]
	}
	return cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(a, b))
}

// How much text is shown, in characters of the width of a Latin letter.
const (
	maxLabel = 48 // of a name beside its bar
	maxTitle = 120
	maxNote  = 140
)

// The measures of a picture.
const (
	plotWidth  = 750 * vg.Length(1)
	plotMargin = 12 * vg.Length(1)
	rowHeight  = 13.5 * vg.Length(1)
	barHeight  = 9 * vg.Length(1)
	labelSize  = 9 * vg.Length(1)
	titleSize  = 10 * vg.Length(1)
	noteSize   = 8.25 * vg.Length(1)
	noteHeight = 12 * vg.Length(1)
	ticks      = 5
)

// plotFont is what all text is set in. A picture has the font in it, for those who see it without having the font.
var plotFont = font.Font{Typeface: "Go", Variant: "Mono"}

// plotFonts returns the fonts of a picture.
var plotFonts = sync.OnceValues(func() (*font.Cache, error) {
	face, err := opentype.Parse(gomono.TTF)
	if err != nil {
		return nil, err
	}
	return font.NewCache(font.Collection{{Font: plotFont, Face: face}}), nil
})

// A lettering sets the text of a picture so that it stands where it belongs in viewers that ignore fonts in pictures,
// too: its room is that of monospaced text, which in hardly any font is wider, and it is placed by its end or its
// middle where that is what has a place.
type lettering struct {
	text.Plain
	anchors []text.XAlignment // of each text that was drawn
}

// cells tells how wide text is in characters of a terminal, whatever the locale: characters that the font lacks, which
// are shown in another, are at most as wide as that.
var cells = &runewidth.Condition{StrictEmojiNeutral: true}

// Box returns the size of the text.
func (l *lettering) Box(txt string, f font.Font) (width, height, depth vg.Length) {
	width, height, depth = l.Plain.Box("0", f)
	return width * vg.Length(cells.StringWidth(txt)), height, depth
}

// Draw draws the text from where it is anchored, and remembers by what it is anchored there.
func (l *lettering) Draw(c vg.Canvas, txt string, style text.Style, at vg.Point) {
	if txt == "" {
		return
	}
	l.anchors = append(l.anchors, style.XAlign)
	style.XAlign = text.XLeft
	l.Plain.Draw(c, txt, style, at)
}

// anchor writes into an SVG of the texts by what each of them is anchored.
func (l *lettering) anchor(svg []byte) []byte {
	const element = "<text " // in text it is escaped
	parts := bytes.Split(svg, []byte(element))
	var b bytes.Buffer
	b.Write(parts[0])
	for i, part := range parts[1:] {
		b.WriteString(element)
		switch l.anchors[i] {
		case text.XCenter:
			b.WriteString(`text-anchor="middle" `)
		case text.XRight:
			b.WriteString(`text-anchor="end" `)
		}
		b.Write(part)
	}
	return b.Bytes()
}

// drawBars returns an SVG with a horizontal bar for each value, the first at the top, and the notes below them. Values
// that are no numbers have no bar, and say what they are.
func drawBars(title, axis string, bars []bar, notes []string) ([]byte, error) {
	fonts, err := plotFonts()
	if err != nil {
		return nil, err
	}
	handler := &lettering{Plain: text.Plain{Fonts: fonts}}
	if len(bars) == 0 {
		bars = []bar{{"no tensors", 0}}
	}
	style := text.Style{Color: color.Gray{0x33}, Font: font.From(plotFont, labelSize), Handler: handler}

	p := plot.New()
	p.TextHandler = handler
	p.Title.Text = shortenLeft(printable.Text(title), maxTitle)
	p.Title.Padding = labelSize
	p.Title.TextStyle = style
	p.Title.TextStyle.Font.Size = titleSize
	p.Title.TextStyle.XAlign, p.Title.TextStyle.YAlign = text.XCenter, text.YTop
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		a.Padding, a.Tick.Length, a.LineStyle.Width = 0, 0, 0
		a.Label.TextStyle = style
		a.Tick.Label = style
	}
	p.X.Padding = labelSize / 3
	p.X.Label.Text = axis
	p.X.Label.Padding = labelSize / 2
	p.X.Label.TextStyle.XAlign, p.X.Label.TextStyle.YAlign = text.XCenter, text.YBottom
	p.X.Tick.Label.XAlign, p.X.Tick.Label.YAlign = text.XCenter, text.YTop
	p.Y.Tick.Label.XAlign, p.Y.Tick.Label.YAlign = text.XRight, text.YCenter

	if err := addBars(p, style, bars); err != nil {
		return nil, err
	}

	// The rows have what the title and the axis leave.
	rows := rowHeight * vg.Length(len(bars))
	trial := draw.Canvas{Rectangle: vg.Rectangle{Max: vg.Point{X: plotWidth - 2*plotMargin, Y: 2*rows + plotWidth}}}
	height := trial.Size().Y - p.DataCanvas(trial).Size().Y + rows + 2*plotMargin
	below := noteHeight * vg.Length(len(notes))
	if below > 0 {
		below += plotMargin
	}
	svg := vgsvg.NewWith(vgsvg.UseWH(plotWidth, height+below), vgsvg.EmbedFonts(true))
	whole := draw.New(svg)
	whole.SetColor(color.White)
	whole.Fill(whole.Path())
	p.Draw(draw.Crop(whole, plotMargin, -plotMargin, plotMargin+below, -plotMargin))
	style.Font.Size = noteSize
	style.YAlign = text.YBottom
	for i, note := range notes {
		at := vg.Point{X: plotMargin, Y: plotMargin + noteHeight*vg.Length(len(notes)-1-i)}
		whole.FillText(style, at, cells.Truncate(printable.Text(note), maxNote, "…"))
	}

	var b bytes.Buffer
	if _, err := svg.WriteTo(&b); err != nil {
		return nil, err
	}
	return handler.anchor(b.Bytes()), nil
}

// addBars adds the bars, their names and values, and the lines of the grid.
func addBars(p *plot.Plot, style text.Style, bars []bar) error {
	n := len(bars)
	values := make(plotter.Values, n) // from the bottom to the top
	names := make([]string, n)
	numbers := plotter.XYLabels{XYs: make(plotter.XYs, n), Labels: make([]string, n)}
	var largest float64
	for i, b := range bars {
		at := n - 1 - i
		names[at] = shortenLeft(printable.Text(b.label), maxLabel)
		numbers.Labels[at] = fmt.Sprintf("%.3g", b.value)
		if finite(b.value, b.value) {
			values[at] = b.value
		}
		numbers.XYs[at] = plotter.XY{X: values[at], Y: float64(at)}
		largest = max(largest, values[at])
	}

	grid := plotter.NewGrid()
	grid.Horizontal.Color = nil
	grid.Vertical.Color, grid.Vertical.Width = color.Gray{0xdd}, 0.75
	chart, err := plotter.NewBarChart(values, barHeight)
	if err != nil {
		return err
	}
	chart.Horizontal = true
	chart.Color = color.RGBA{0x48, 0x78, 0xa8, 0xff}
	chart.LineStyle.Width = 0
	labels, err := plotter.NewLabels(numbers)
	if err != nil {
		return err
	}
	style.YAlign = text.YCenter
	for i := range labels.TextStyle {
		labels.TextStyle[i] = style
	}
	labels.Offset = vg.Point{X: labelSize / 3, Y: style.FontExtents().Descent}
	p.Add(grid, chart, labels)

	end := axisEnd(largest)
	marks := make(plot.ConstantTicks, ticks+1)
	for i := range marks {
		value := end / ticks * float64(i)
		marks[i] = plot.Tick{Value: value, Label: fmt.Sprintf("%.3g", value)}
	}
	p.X.Min, p.X.Max, p.X.Tick.Marker = 0, end, marks
	marks = make(plot.ConstantTicks, n)
	for i, name := range names {
		marks[i] = plot.Tick{Value: float64(i), Label: name}
	}
	p.Y.Min, p.Y.Max, p.Y.Tick.Marker = -0.5, float64(n)-0.5, marks
	return nil
}

// maxNotes is how many differences are named below the bars.
const maxNotes = 20

// notes returns what the bars do not show: elements that are not finite, the differences, and how many more there are
// than have room.
func (c *comparison) notes() []string {
	var notes []string
	if n := len(c.Tensors) - len(c.drawn()); n > 0 {
		notes = append(notes, plural(n, "tensor")+" of integers without a bar")
	}
	for _, t := range c.Tensors {
		if t.NonFinite > 0 {
			notes = append(notes, fmt.Sprintf("tensor %q: not finite, and not in its bar: %s", t.Name,
				plural(int(t.NonFinite), "element")))
		}
	}
	notes = append(notes, c.Differences...)
	if more := len(notes) - maxNotes; more > 0 {
		notes = append(notes[:maxNotes], fmt.Sprintf("and %d more", more))
	}
	return notes
}

// checkPlot returns an error if path is no place for the picture: if its name is not that of an SVG, if it is one of
// the models, or if there is something else at it.
func checkPlot(path string, models ...string) error {
	if !strings.EqualFold(filepath.Ext(path), ".svg") {
		return fmt.Errorf("--plot %s: want the name of an SVG file, which ends with .svg", path)
	}
	if err := checkParent(path); err != nil {
		return &failure{err}
	}
	target, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return &failure{err}
	}
	for _, model := range models {
		if info, err := os.Stat(model); err == nil && os.SameFile(info, target) {
			return fmt.Errorf("--plot %s: is one of the models", path)
		}
	}
	if !target.Mode().IsRegular() {
		return &failure{fmt.Errorf("%s: exists and is no file (%v)", path, target.Mode().Type())}
	}
	if target.Size() == 0 {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return &failure{err}
	}
	defer f.Close()
	if !isSVG(f) {
		return &failure{fmt.Errorf("%s: exists and is no SVG file: remove it or choose another name", path)}
	}
	return nil
}

// isSVG reports whether the first element of a document is svg.
func isSVG(r io.Reader) bool {
	const most = 1 << 16
	d := xml.NewDecoder(io.LimitReader(r, most))
	d.CharsetReader = func(_ string, in io.Reader) (io.Reader, error) { return in, nil } // names are in ASCII
	for {
		token, err := d.Token()
		if err != nil {
			return false
		}
		switch x := token.(type) {
		case xml.StartElement:
			return x.Name.Local == "svg"
		case xml.CharData:
			if len(bytes.TrimSpace(bytes.TrimPrefix(x, []byte("\xef\xbb\xbf")))) > 0 {
				return false
			}
		}
	}
}

// axisEnd returns a round number that is not below the largest value, five steps of a round number from zero. At the
// ends of the range of numbers, it is the largest number, or about the smallest that has all its digits.
func axisEnd(largest float64) float64 {
	const smallest = 1e-307
	switch {
	case largest <= 0:
		return 1
	case largest < smallest:
		return smallest
	}
	unit := math.Pow(10, math.Floor(math.Log10(largest)))
	for _, digit := range []float64{1, 1.5, 2, 2.5, 3, 4, 5, 6, 7.5, 8} {
		if largest <= digit*unit {
			return min(digit*unit, math.MaxFloat64)
		}
	}
	return min(10*unit, math.MaxFloat64)
}

// shortenLeft returns the end of a long text, which of names and paths tells more than the beginning.
func shortenLeft(long string, most int) string {
	if width := cells.StringWidth(long); width > most {
		return cells.TruncateLeft(long, width-most+1, "…")
	}
	return long
}

// shortenPath returns the end of a long title.
func shortenPath(title string) string { return shortenLeft(title, maxTitle) }
