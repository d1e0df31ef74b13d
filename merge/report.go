package merge

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/modelavg/modelavg/internal/printable"
)

// A Report says what a run did.
type Report struct {
	Path         string        // the file written
	Averaged     []string      // names of the averaged tensors, sorted
	Integers     []string      // names of the integer and BOOL tensors, sorted
	NonFinite    []NonFinite   // what was not finite in the models, sorted by tensor, then in the order of the models
	Overflows    []Overflow    // averages of finite numbers that were too large for their dtype, sorted by tensor
	BytesRead    int64         // tensor data read
	BytesWritten int64         // tensor data written
	Duration     time.Duration // until the file stood in its place

	tensors  string // how many tensors, and what happened to them
	overflow OverflowPolicy
}

// A NonFinite counts the elements of one tensor of one model that are not finite.
type NonFinite struct {
	Tensor string
	Path   string // the model's file
	NaN    int64
	Inf    int64
}

// An Overflow counts the elements of one tensor of the result that are not finite, or saturated, although the models
// are finite there.
type Overflow struct {
	Tensor string
	Count  int64
}

// report makes the report of a run to path, but for what the run counts.
func (p *Plan) report(path string) *Report {
	return &Report{
		Path:         path,
		Averaged:     p.names(Average),
		Integers:     p.names(CopyLast, CopyFirst, CopyEqual, Max, Sum),
		BytesRead:    p.BytesRead,
		BytesWritten: p.BytesWritten,
		tensors:      p.tensorCounts(),
		overflow:     p.Policies.Overflow,
	}
}

// String returns the report for people: two lines, and one for each tensor of a model that was not finite and for each
// tensor that overflowed.
func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n", r.Path, r.tensors)
	for _, n := range r.NonFinite {
		fmt.Fprintf(&b, "not finite: %d NaN, %d Inf in tensor %q of %s\n", n.NaN, n.Inf, n.Tensor, n.Path)
	}
	for _, o := range r.Overflows {
		verb := "became infinite"
		if r.overflow == OverflowSaturate {
			verb = "saturated"
		}
		fmt.Fprintf(&b, "overflow: %s of tensor %q %s\n", plural(int(o.Count), "element"), o.Tensor, verb)
	}
	fmt.Fprintf(&b, "read %s, wrote %s in %v\n", formatBytes(r.BytesRead), formatBytes(r.BytesWritten),
		r.Duration.Round(time.Millisecond))
	return b.String()
}

// tensorCounts returns how many tensors are averaged, and which of the others are made how.
func (p *Plan) tensorCounts() string {
	type kind struct {
		action Action
		source int // of a copy
	}
	names := make(map[kind][]string)
	averaged := 0
	for i := range p.Steps {
		switch s := &p.Steps[i]; s.Action {
		case Average:
			averaged++
		case CopyFirst, CopyLast:
			k := kind{s.Action, s.Sources[0]}
			names[k] = append(names[k], printable.Name(s.Tensor.Name))
		default:
			k := kind{s.Action, 0}
			names[k] = append(names[k], printable.Name(s.Tensor.Name))
		}
	}
	text := plural(averaged, "tensor") + " averaged"
	kinds := slices.SortedFunc(maps.Keys(names), func(a, b kind) int {
		return cmp.Or(cmp.Compare(a.action, b.action), cmp.Compare(a.source, b.source))
	})
	for _, k := range kinds {
		how := map[Action]string{CopyEqual: "copied, equal in all models", Max: "by their maximum", Sum: "summed"}[k.action]
		if how == "" {
			how = "copied from " + p.Sources[k.source].Path
		}
		list := names[k]
		slices.Sort(list)
		text += fmt.Sprintf(", %d %s: %s", len(list), how, strings.Join(list, ", "))
	}
	return text
}

// counts is what the workers of a run count. Most runs count nothing.
type counts struct {
	mu        sync.Mutex
	special   map[[2]int]*NonFinite // by step and source
	overflows map[int]int64         // by step
}

func (c *counts) addSpecial(step, source, nan, inf int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.special == nil {
		c.special = make(map[[2]int]*NonFinite)
	}
	key := [2]int{step, source}
	if c.special[key] == nil {
		c.special[key] = new(NonFinite)
	}
	c.special[key].NaN += int64(nan)
	c.special[key].Inf += int64(inf)
}

func (c *counts) addOverflows(step, n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.overflows == nil {
		c.overflows = make(map[int]int64)
	}
	c.overflows[step] += int64(n)
}

// fill puts the counts into the report.
func (c *counts) fill(p *Plan, r *Report) {
	bySteps := func(a, b [2]int) int {
		return cmp.Or(cmp.Compare(p.Steps[a[0]].Tensor.Name, p.Steps[b[0]].Tensor.Name), cmp.Compare(a[1], b[1]))
	}
	for _, key := range slices.SortedFunc(maps.Keys(c.special), bySteps) {
		n := *c.special[key]
		n.Tensor, n.Path = p.Steps[key[0]].Tensor.Name, p.Sources[key[1]].Path
		r.NonFinite = append(r.NonFinite, n)
	}
	for step, n := range c.overflows {
		r.Overflows = append(r.Overflows, Overflow{p.Steps[step].Tensor.Name, n})
	}
	slices.SortFunc(r.Overflows, func(a, b Overflow) int { return cmp.Compare(a.Tensor, b.Tensor) })
}

// plural returns the number and the noun, with an s unless it is one.
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// formatBytes returns a size in decimal units, with three digits, as in "1.25 GB".
func formatBytes(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	x, unit := float64(n)/1000, 0
	for x >= 999.5 && unit < 5 {
		x /= 1000
		unit++
	}
	return fmt.Sprintf("%.3g %cB", x, "kMGTPE"[unit])
}
