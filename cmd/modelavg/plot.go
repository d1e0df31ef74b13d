package main

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/go-analyze/charts"
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

// bars returns the bars of the comparison, in natural order of the names.
func (c *comparison) bars(measure string) []bar {
	group := func(name string) string { return name }
	if len(c.Tensors) > maxBars {
		group = layerOf
	}
	sums := make(map[string]*distances)
	var names []string
	for _, t := range c.Tensors {
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

// maxLabel is how many characters of a name are shown beside its bar.
const maxLabel = 40

// drawBars returns an SVG with a horizontal bar for each value, the first at the top. Values that are no numbers have no
// bar.
func drawBars(title, axis string, bars []bar) ([]byte, error) {
	const barHeight, frame = 18, 130
	values := make([]float64, len(bars))
	labels := make([]string, len(bars))
	for i, b := range bars {
		at := len(bars) - 1 - i // the chart begins at the bottom
		values[at] = b.value
		if math.IsNaN(b.value) || math.IsInf(b.value, 0) {
			values[at] = 0
		}
		labels[at] = shorten(b.label)
	}
	if len(bars) == 0 {
		values, labels = []float64{0}, []string{"no tensors"}
	}
	opt := charts.NewBarChartOptionWithData([][]float64{values})
	opt.Horizontal = true
	opt.Title.Text = shortenPath(title)
	opt.Title.FontStyle.FontSize = 13
	opt.Legend.Show = charts.Ptr(false)
	opt.CategoryAxis.Labels = labels
	opt.CategoryAxis.LabelCount = len(labels)
	opt.CategoryAxis.LabelFontStyle.FontSize = 9
	opt.ValueAxis[0].Title = axis
	opt.ValueAxis[0].TitleFontStyle.FontSize = 10
	opt.ValueAxis[0].LabelFontStyle.FontSize = 9
	opt.ValueAxis[0].LabelCount = 6
	opt.ValueAxis[0].PreferNiceIntervals = charts.Ptr(false)
	opt.ValueAxis[0].RangeValuePaddingScale = charts.Ptr(0.0)
	opt.ValueAxis[0].Min = charts.Ptr(0.0)
	opt.ValueAxis[0].Max = charts.Ptr(axisEnd(slices.Max(values)))
	format := func(x float64) string { return fmt.Sprintf("%.3g", x) }
	opt.ValueAxis[0].ValueFormatter = format
	opt.ValueFormatter = format

	p := charts.NewPainter(charts.PainterOptions{
		OutputFormat: charts.ChartOutputSVG,
		Width:        1000,
		Height:       frame + barHeight*len(labels),
	}, charts.PainterPaddingOption(charts.NewBoxEqual(10)))
	if err := p.BarChart(opt); err != nil {
		return nil, err
	}
	return p.Bytes()
}

// axisEnd returns a round number that is not below the largest value, five steps of a round number from zero.
func axisEnd(largest float64) float64 {
	if largest <= 0 {
		return 1
	}
	unit := math.Pow(10, math.Floor(math.Log10(largest)))
	for _, digit := range []float64{1, 1.5, 2, 2.5, 3, 4, 5, 6, 7.5, 8} {
		if largest <= digit*unit {
			return digit * unit
		}
	}
	return 10 * unit
}

// shorten returns the end of a long name, which tells more than its beginning.
func shorten(name string) string {
	if r := []rune(name); len(r) > maxLabel {
		return "…" + string(r[len(r)-maxLabel+1:])
	}
	return name
}

// shortenPath returns the end of a long title.
func shortenPath(title string) string {
	const most = 120
	if r := []rune(title); len(r) > most {
		return "…" + string(r[len(r)-most+1:])
	}
	return title
}
