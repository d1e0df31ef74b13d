package main

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/go-analyze/charts"
)

const (
	chartWidth  = 900
	chartHeight = 540
	limitName   = "limit"
)

// lineColors keeps a library's color the same in all charts; others take theirs from spareColors in turn.
var lineColors = map[string]string{
	limitName:        "#9e9e9e",
	ourName:          "#c62828",
	ourNativeName:    "#ef6c00",
	ourWiderName:     "#8e24aa",
	"go-passes":      "#6d4c41",
	"go-onepass":     "#a1887f",
	"go-written-out": "#bcaaa4",
	"gonum":          "#1565c0",
	"vek":            "#00897b",
	"tphakala":       "#2e7d32",
	"vecf32":         "#9e9d24",
	"copy":           "#546e7a",
}

var spareColors = []string{"#5e35b1", "#00acc1", "#d81b60", "#7cb342", "#3949ab", "#fbc02d", "#455a64", "#f48fb1"}

// A line is one library in a chart; a value of 0 is missing.
type line struct {
	name   string
	values []float64
}

// A chart is lines over labels.
type chart struct {
	file        string
	title       string
	labelsTitle string
	valuesTitle string
	labels      []string
	lines       []line
	logarithmic bool
}

// writeCharts writes the charts to a directory and returns their names.
func (r *results) writeCharts(directory string, models int) (names []string, err error) {
	for _, c := range r.charts(models) {
		svg, err := c.render()
		if err != nil {
			return names, fmt.Errorf("chart %s: %w", c.file, err)
		}
		if err := os.WriteFile(filepath.Join(directory, c.file), svg, 0o666); err != nil {
			return names, err
		}
		names = append(names, c.file)
	}
	return names, nil
}

// charts returns, for each job and type, speed and ratio to the limit against size for the given number of models (or the
// nearest that was measured), the ratio against the number of models, and the latency of small slices.
func (r *results) charts(models int) (list []chart) {
	groups := r.groups()
	for len(groups) > 0 {
		// The groups of one job and type follow each other.
		end := slices.IndexFunc(groups, func(g group) bool { return g.job != groups[0].job || g.dtype != groups[0].dtype })
		if end < 0 {
			end = len(groups)
		}
		same := groups[:end]
		groups = groups[end:]
		nearest := same[0]
		for _, g := range same {
			if distance(g.models, models) < distance(nearest.models, models) {
				nearest = g
			}
		}
		for _, c := range []chart{r.speedChart(nearest), r.limitChart(nearest), r.modelsChart(same), r.latencyChart(same[0])} {
			if len(c.labels) > 1 && len(c.lines) > 0 {
				list = append(list, c)
			}
		}
	}
	return list
}

func distance(a, b int) int { return max(a-b, b-a) }

// lines returns a line for each library that is no probe, of what value gives at the points.
func (r *results) lines(points []point, value func(p point, name string) float64) (lines []line) {
	for _, name := range r.in(points) {
		if isProbe(name) {
			continue
		}
		l := line{name: name}
		for _, p := range points {
			l.values = append(l.values, value(p, name))
		}
		if slices.Max(l.values) > 0 {
			lines = append(lines, l)
		}
	}
	return lines
}

func (g group) file(what string) string {
	return strings.ToLower(fmt.Sprintf("%s-%s-%d-%s.svg", g.job, g.dtype, g.models, what))
}

// title names the machine too, for a chart that is shown by itself.
func (r *results) title(what string) string {
	machine := cmp.Or(r.configValue("cpu"), r.configValue("goarch"))
	threads := " · one thread"
	if slices.Contains(r.libraries, workersName) {
		threads = " · one thread but for " + workersName
	}
	return what + " · " + machine + threads
}

func (r *results) speedChart(g group) chart {
	c := chart{
		file:        g.file("speed"),
		title:       r.title(g.title()),
		labelsTitle: "elements", labels: g.header("", g.points)[1:],
		valuesTitle: "GB/s", logarithmic: true,
	}
	var limit []float64
	for _, p := range g.points {
		limit = append(limit, median(r.limit(p))/1e9)
	}
	if slices.Max(limit) > 0 {
		c.lines = append(c.lines, line{limitName, limit})
	}
	c.lines = append(c.lines, r.lines(g.points, func(p point, name string) float64 { return median(r.rates(p, name)) / 1e9 })...)
	return c
}

func (r *results) limitChart(g group) chart {
	return chart{
		file:        g.file("limit"),
		title:       r.title(g.title()),
		labelsTitle: "elements", labels: g.header("", g.points)[1:],
		valuesTitle: "ratio to the limit",
		lines:       r.lines(g.points, r.ofLimit),
	}
}

// modelsChart shows the groups, which differ in the number of models, at the largest size that most of them have.
func (r *results) modelsChart(groups []group) chart {
	counts := map[int]int{}
	size := 0
	for _, g := range groups {
		for _, p := range g.points {
			counts[p.n]++
			if more := counts[p.n] - counts[size]; more > 0 || more == 0 && p.n > size {
				size = p.n
			}
		}
	}
	var points []point
	var labels []string
	for _, g := range groups {
		if i := slices.IndexFunc(g.points, func(p point) bool { return p.n == size }); i >= 0 {
			points = append(points, g.points[i])
			labels = append(labels, strconv.Itoa(g.models))
		}
	}
	g := groups[0]
	return chart{
		file:        strings.ToLower(fmt.Sprintf("%s-%s-models.svg", g.job, g.dtype)),
		title:       r.title(fmt.Sprintf("%s, %s, %s elements", g.job, g.dtype, sizeName(size))),
		labelsTitle: "models", labels: labels,
		valuesTitle: "ratio to the limit",
		lines:       r.lines(points, r.ofLimit),
	}
}

func (r *results) latencyChart(g group) chart {
	var small []point
	for _, p := range g.points {
		if p.n <= smallSizes {
			small = append(small, p)
		}
	}
	c := chart{
		file:        g.file("latency"),
		title:       r.title(g.title()),
		labelsTitle: "elements", labels: g.header("", small)[1:],
		valuesTitle: "ns a call", logarithmic: true,
	}
	for _, l := range r.lines(small, func(p point, name string) float64 { return median(r.seconds(p, name)) * 1e9 }) {
		if !isMover(l.name) {
			c.lines = append(c.lines, l)
		}
	}
	return c
}

// render returns the chart as SVG. The charts package has no logarithmic axis: the lines of such a chart are the binary
// logarithms, and the labels are powers of two.
func (c chart) render() ([]byte, error) {
	axis := charts.YAxisOption{
		Title:               c.valuesTitle,
		PreferNiceIntervals: charts.Ptr(false),
		SplitLineShow:       charts.Ptr(true),
	}
	least, greatest := math.Inf(1), 0.0
	for _, l := range c.lines {
		for _, v := range l.values {
			if v > 0 {
				least, greatest = min(least, v), max(greatest, v)
			}
		}
	}
	if c.logarithmic {
		low, high := math.Floor(math.Log2(least)), math.Ceil(math.Log2(greatest))
		high = max(high, low+1)
		axis.Min, axis.Max = &low, &high
		axis.LabelCount = int(high-low) + 1
		axis.ValueFormatter = func(v float64) string { return strconv.FormatFloat(math.Exp2(math.Round(v)), 'g', 6, 64) }
	} else {
		step := 0.2
		for greatest > 10*step {
			step *= 2
		}
		low, high := 0.0, math.Ceil(greatest/step)*step
		axis.Min, axis.Max = &low, &high
		axis.LabelCount = int(math.Round(high/step)) + 1
		axis.ValueFormatter = func(v float64) string { return strconv.FormatFloat(v, 'f', 1, 64) }
	}
	var series charts.LineSeriesList
	var names []string
	var colors []charts.Color
	spare := 0
	for _, l := range c.lines {
		var values []float64
		for _, v := range l.values {
			switch {
			case !(v > 0):
				v = charts.GetNullValue()
			case c.logarithmic:
				v = math.Log2(v)
			}
			values = append(values, v)
		}
		series = append(series, charts.LineSeries{Values: values, Name: l.name})
		names = append(names, l.name)
		color, known := lineColors[l.name]
		if !known {
			color = spareColors[spare%len(spareColors)]
			spare++
		}
		colors = append(colors, charts.ColorFromHex(color))
	}
	dark, grid := charts.ColorFromHex("#424242"), charts.ColorFromHex("#e0e0e0")
	theme := charts.MakeTheme(charts.ThemeOption{
		AxisStrokeColor: dark, AxisSplitLineColor: grid, TextColor: dark,
		BackgroundColor: charts.ColorWhite, SeriesColors: colors,
	})
	painter := charts.NewPainter(charts.PainterOptions{
		OutputFormat: charts.ChartOutputSVG, Width: chartWidth, Height: chartHeight, Theme: theme,
	})
	option := charts.NewLineChartOptionWithSeries(series)
	option.Theme = theme
	option.Padding = charts.NewBoxEqual(20)
	option.Title = charts.TitleOption{
		Text: c.title, FontStyle: charts.FontStyle{FontSize: 13, FontColor: dark},
	}
	option.Legend = charts.LegendOption{
		SeriesNames: names, Symbol: charts.SymbolSquare,
		Offset: charts.OffsetStr{Left: "0", Top: "34"}, FontStyle: charts.FontStyle{FontSize: 11, FontColor: dark},
	}
	option.XAxis = charts.XAxisOption{Title: c.labelsTitle, Labels: c.labels, BoundaryGap: charts.Ptr(false)}
	option.YAxis = []charts.YAxisOption{axis}
	option.Symbol = charts.Symbol{Shape: charts.SymbolCircle, Size: 3}
	option.LineStrokeWidth = 2
	if err := painter.LineChart(option); err != nil {
		return nil, err
	}
	return painter.Bytes()
}
