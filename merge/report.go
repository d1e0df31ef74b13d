package merge

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/modelavg/modelavg/checkpoint"
	"github.com/modelavg/modelavg/internal/printable"
)

// A Report says what a run did.
type Report struct {
	Path         string         // the file written
	Averaged     []string       // names of the averaged tensors, sorted
	Integers     []string       // names of the integer and BOOL tensors, sorted
	NonFinite    []NonFinite    // what was not finite in the models, sorted by tensor, then in the order of the models
	Overflows    []Overflow     // averages of finite numbers that were too large for their dtype, sorted by tensor
	OtherWeights []OtherWeights // how many tensors had other weights than those of the plan
	Removed      []string       // names of shards that only the model had which was replaced, removed from the directory
	Copied       []string       // names of files that came with a new directory: see [checkpoint.WithSideFiles]
	BytesRead    int64          // tensor data read
	BytesWritten int64          // tensor data written
	Duration     time.Duration  // until the file stood in its place

	tensors  string // how many tensors, and what happened to them
	overflow OverflowPolicy
	toNaN    map[string]bool // averaged tensors of a dtype that has no infinity
}

// OtherWeights counts tensors that had other weights than those of the plan's sources, for one reason.
type OtherWeights struct {
	Pattern string // of [WithTensorWeights], which gave the weights; empty if Union is set
	Union   bool   // not all models that have a weight have the tensors
	Tensors int
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
		OtherWeights: p.otherWeights(),
		overflow:     p.Policies.Overflow,
		toNaN:        p.toNaN(),
	}
}

// toNaN returns the names of the averaged tensors of a dtype that has NaN but no infinity.
func (p *Plan) toNaN() map[string]bool {
	names := make(map[string]bool)
	for i := range p.Steps {
		if s := &p.Steps[i]; s.Action == Average && s.Tensor.DType == checkpoint.F8E4M3 {
			names[s.Tensor.Name] = true
		}
	}
	return names
}

// otherWeights counts the averaged tensors that have other weights than those of the plan: by pattern, and then those
// that not all models have.
func (p *Plan) otherWeights() []OtherWeights {
	counts := make(map[OtherWeights]int)
	for i := range p.Steps {
		switch s := &p.Steps[i]; {
		case s.Action != Average:
		case s.pattern != nil:
			counts[OtherWeights{Pattern: s.pattern.String()}]++
		case !p.usual(s):
			counts[OtherWeights{Union: true}]++
		}
	}
	var list []OtherWeights
	for o, n := range counts {
		o.Tensors = n
		list = append(list, o)
	}
	slices.SortFunc(list, func(a, b OtherWeights) int {
		if a.Union != b.Union {
			if b.Union {
				return -1
			}
			return 1
		}
		return cmp.Compare(a.Pattern, b.Pattern)
	})
	return list
}

// otherWeightsText returns a line for each.
func otherWeightsText(list []OtherWeights) string {
	var b strings.Builder
	for _, o := range list {
		why := fmt.Sprintf("by the rule for %q", o.Pattern)
		if o.Union {
			why = "since not all models have them"
		}
		fmt.Fprintf(&b, "other weights: %s %s\n", plural(o.Tensors, "tensor"), why)
	}
	return b.String()
}

// String returns the report for people: two lines, and one for each tensor of a model that was not finite, for each
// tensor that overflowed, for each rule that gave tensors other weights, and for old shards that were removed.
func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s\n", printable.Name(r.Path), r.tensors)
	b.WriteString(otherWeightsText(r.OtherWeights))
	for _, n := range r.NonFinite {
		fmt.Fprintf(&b, "not finite: %d NaN, %d Inf in tensor %q of %s\n", n.NaN, n.Inf, n.Tensor,
			printable.Name(n.Path))
	}
	for _, o := range r.Overflows {
		verb := "became infinite"
		switch {
		case r.overflow == OverflowSaturate:
			verb = "saturated"
		case r.toNaN[o.Tensor]:
			verb = "became NaN"
		}
		fmt.Fprintf(&b, "overflow: %s of tensor %q %s\n", plural(int(o.Count), "element"), o.Tensor, verb)
	}
	if len(r.Removed) > 0 {
		names := make([]string, min(len(r.Removed), maxNamed))
		for i := range names {
			names[i] = printable.Name(r.Removed[i])
		}
		fmt.Fprintf(&b, "removed shards of the replaced model: %s%s\n", strings.Join(names, ", "), andMore(len(r.Removed)))
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
			how = "copied from " + printable.Name(p.Sources[k.source].Path)
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
