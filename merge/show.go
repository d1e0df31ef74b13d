package merge

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/modelavg/modelavg/checkpoint"
	"github.com/modelavg/modelavg/internal/printable"
)

// Weights returns the effective weights for people: one line for each source, its weight and its path.
func (p *Plan) Weights() string {
	var b strings.Builder
	for _, s := range p.Sources {
		fmt.Fprintf(&b, "weight %-11.6g %s", s.Weight, printable.Name(s.Path))
		if !s.read() {
			b.WriteString(" (not read)")
		}
		b.WriteByte('\n')
	}
	return b.String()
}

// Notes returns for people, one line for each, what is left out and how the models differ; mostly nothing. Of either it
// names the first 20, and how many more there are; Omissions and Differences have all.
func (p *Plan) Notes() string {
	var b strings.Builder
	for _, o := range p.Omissions[:min(len(p.Omissions), maxNamed)] {
		fmt.Fprintf(&b, "left out: tensor %q, %s\n", o.Tensor, o.Reason)
	}
	if more := andMore(len(p.Omissions)); more != "" {
		fmt.Fprintf(&b, "left out:%s\n", more)
	}
	if len(p.Differences) == 0 {
		return b.String()
	}
	result := make(map[string]checkpoint.DType, len(p.Steps))
	for i := range p.Steps {
		result[p.Steps[i].Tensor.Name] = p.Steps[i].Tensor.DType
	}
	for _, d := range p.Differences[:min(len(p.Differences), maxNamed)] {
		dtype, there := result[d.Tensor]
		path := printable.Name(d.Path)
		switch {
		case d.Field != "dtype":
			fmt.Fprintf(&b, "difference: %s: %v\n", path, d)
		case there:
			fmt.Fprintf(&b, "difference: tensor %q has dtype %s in %s, %v in the result\n", d.Tensor, d.Got, path, dtype)
		default:
			fmt.Fprintf(&b, "difference: tensor %q has dtype %s in %s, %s before, and is left out\n", d.Tensor, d.Got,
				path, d.Want)
		}
	}
	if more := andMore(len(p.Differences)); more != "" {
		fmt.Fprintf(&b, "difference:%s\n", more)
	}
	return b.String()
}

// Summary returns the plan for people without its tensors: the effective weights, the policies, what happens to how many
// tensors, what is left out, how the models differ, the bytes that move and the memory that it takes.
func (p *Plan) Summary() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s of %s\n%s%v\n", p.Rule, plural(len(p.Sources), "model"), p.Weights(), p.Policies)
	fmt.Fprintln(&b, p.tensorCounts())
	b.WriteString(otherWeightsText(p.otherWeights()))
	b.WriteString(p.Notes())
	fmt.Fprintf(&b, "reads %s, writes %s, with %s of buffers (%s, chunks of %s)\n",
		formatBytes(p.BytesRead), formatBytes(p.BytesWritten), formatBytes(p.Memory),
		plural(p.Workers, "worker"), formatBytes(int64(p.ChunkBytes)))
	return b.String()
}

// String returns the plan for people: a table of its tensors, each with its action, dtype, shape and size, and with
// sources, weights and dtypes where they are not those of all models; and then what [Plan.Summary] returns.
func (p *Plan) String() string {
	// There may be a million tensors: nothing is kept of a line but the widths of its columns.
	var widths [4]int
	var length int
	for i := range p.Steps {
		for k, cell := range p.Steps[i].cells() {
			widths[k] = max(widths[k], len(cell))
		}
		length += len(p.Steps[i].Tensor.Name) + len("\n")
	}
	for _, n := range widths {
		length += len(p.Steps) * (n + len(gap))
	}
	var b strings.Builder
	b.Grow(length)
	for i := range p.Steps {
		s := &p.Steps[i]
		for k, cell := range s.cells() {
			b.WriteString(cell)
			for range widths[k] - len(cell) {
				b.WriteByte(' ')
			}
			b.WriteString(gap)
		}
		b.WriteString(printable.Name(s.Tensor.Name))
		b.WriteString(p.remark(s))
		b.WriteByte('\n')
	}
	b.WriteString(p.Summary())
	return b.String()
}

// gap is what separates two columns.
const gap = "  "

// cells returns the first columns of the line of a step.
func (s *Step) cells() [4]string {
	return [4]string{s.Action.String(), s.Tensor.DType.String(), s.Tensor.ShapeString(), formatBytes(s.Bytes)}
}

// remark returns what is special about the step, in parentheses, or "".
func (p *Plan) remark(s *Step) string {
	var list []string
	if s.Action == Average && !p.usual(s) {
		for i, k := range s.Sources[:min(len(s.Sources), maxNamed)] {
			list = append(list, fmt.Sprintf("%.6g of %s", s.Weights[i], printable.Name(p.Sources[k].Path)))
		}
		if more := andMore(len(s.Sources)); more != "" {
			list[len(list)-1] += more
		}
	}
	if s.DTypes != nil {
		from := make([]string, len(s.DTypes))
		for i, d := range s.DTypes {
			from[i] = d.String()
		}
		list = append(list, "from "+strings.Join(slices.Compact(from), ", "))
	}
	if list == nil {
		return ""
	}
	return " (" + strings.Join(list, ", ") + ")"
}

// usual reports whether the step has the sources and weights of the plan.
func (p *Plan) usual(s *Step) bool {
	var i int
	for k := range p.Sources {
		w := p.Sources[k].Weight
		if w == 0 {
			continue
		}
		if i == len(s.Sources) || s.Sources[i] != k || s.Weights[i] != w {
			return false
		}
		i++
	}
	return i == len(s.Sources)
}

// The names and types of the fields below are what programs rely on: they may grow, but not change.

type jsonPlan struct {
	Rule         string            `json:"rule"`
	Policies     jsonPolicies      `json:"policies"`
	Models       []jsonSource      `json:"models"`
	Tensors      []jsonStep        `json:"tensors"`
	LeftOut      []jsonOmission    `json:"left_out"`
	Differences  []jsonDifference  `json:"differences"`
	Metadata     map[string]string `json:"metadata"`
	BytesRead    int64             `json:"bytes_read"`
	BytesWritten int64             `json:"bytes_written"`
	Workers      int               `json:"workers"`
	ChunkBytes   int               `json:"chunk_bytes"`
	MemoryBytes  int64             `json:"memory_bytes"`
}

type jsonPolicies struct {
	Integers  IntegerPolicy   `json:"integers"`
	Keys      KeyPolicy       `json:"keys"`
	NonFinite NonFinitePolicy `json:"non_finite"`
	Overflow  OverflowPolicy  `json:"overflow"`
	DType     string          `json:"dtype"` // "first": as in the first model
}

type jsonSource struct {
	Path   string  `json:"path"`
	Weight float64 `json:"weight"`
	Bytes  int64   `json:"bytes"`
}

type jsonStep struct {
	Name    string             `json:"name"`
	DType   checkpoint.DType   `json:"dtype"`
	Shape   []int64            `json:"shape"`
	Bytes   int64              `json:"bytes"`
	Action  Action             `json:"action"`
	Models  []int              `json:"models"`            // indices
	Weights []float64          `json:"weights,omitempty"` // of these models
	DTypes  []checkpoint.DType `json:"dtypes,omitempty"`  // in these models
}

type jsonOmission struct {
	Name   string `json:"name"`
	Reason string `json:"reason"`
}

type jsonDifference struct {
	Path   string `json:"path"`
	Tensor string `json:"tensor"`
	Field  string `json:"field"`
	Want   string `json:"want"`
	Got    string `json:"got"`
}

// MarshalJSON returns the plan for machines. The object has the fields rule, policies (integers, keys, non_finite,
// overflow, dtype), models (path, weight, bytes), tensors (name, dtype, shape, bytes, action, models, weights, dtypes;
// models are indices), left_out (name, reason), differences (path, tensor, field, want, got), metadata, bytes_read,
// bytes_written, workers, chunk_bytes and memory_bytes. Lists are never null. Later versions may add fields.
func (p *Plan) MarshalJSON() ([]byte, error) {
	j := jsonPlan{
		Rule: p.Rule,
		Policies: jsonPolicies{
			Integers: p.Policies.Integers, Keys: p.Policies.Keys, NonFinite: p.Policies.NonFinite,
			Overflow: p.Policies.Overflow,
		},
		Models:       []jsonSource{},
		Tensors:      make([]jsonStep, 0, len(p.Steps)),
		LeftOut:      []jsonOmission{},
		Differences:  []jsonDifference{},
		Metadata:     p.Metadata,
		BytesRead:    p.BytesRead,
		BytesWritten: p.BytesWritten,
		Workers:      p.Workers,
		ChunkBytes:   p.ChunkBytes,
		MemoryBytes:  p.Memory,
	}
	j.Policies.DType = "first"
	if p.Policies.DType != 0 {
		j.Policies.DType = p.Policies.DType.String()
	}
	if j.Metadata == nil {
		j.Metadata = map[string]string{}
	}
	for _, s := range p.Sources {
		j.Models = append(j.Models, jsonSource(s))
	}
	for i := range p.Steps {
		s := &p.Steps[i]
		shape := s.Tensor.Shape
		if shape == nil {
			shape = []int64{}
		}
		j.Tensors = append(j.Tensors,
			jsonStep{s.Tensor.Name, s.Tensor.DType, shape, s.Bytes, s.Action, s.Sources, s.Weights, s.DTypes})
	}
	for _, o := range p.Omissions {
		j.LeftOut = append(j.LeftOut, jsonOmission{o.Tensor, o.Reason})
	}
	for _, d := range p.Differences {
		j.Differences = append(j.Differences, jsonDifference(d))
	}
	return json.Marshal(j)
}

type jsonReport struct {
	Path         string             `json:"path"`
	Averaged     []string           `json:"averaged"`
	Integers     []string           `json:"integers"`
	NonFinite    []jsonNonFinite    `json:"non_finite"`
	Overflows    []jsonOverflow     `json:"overflows"`
	OtherWeights []jsonOtherWeights `json:"other_weights"`
	Removed      []string           `json:"removed"`
	BytesRead    int64              `json:"bytes_read"`
	BytesWritten int64              `json:"bytes_written"`
	Seconds      float64            `json:"seconds"`
}

type jsonOtherWeights struct {
	Pattern string `json:"pattern"`
	Union   bool   `json:"union"`
	Tensors int    `json:"tensors"`
}

type jsonNonFinite struct {
	Tensor string `json:"tensor"`
	Path   string `json:"path"`
	NaN    int64  `json:"nan"`
	Inf    int64  `json:"inf"`
}

type jsonOverflow struct {
	Tensor string `json:"tensor"`
	Count  int64  `json:"count"`
}

// MarshalJSON returns the report for machines. The object has the fields path, averaged, integers, non_finite (tensor,
// path, nan, inf), overflows (tensor, count), other_weights (pattern, union, tensors), removed, bytes_read,
// bytes_written and seconds. Lists are never null. Later versions may add fields.
func (r *Report) MarshalJSON() ([]byte, error) {
	j := jsonReport{
		Path:         r.Path,
		Averaged:     append([]string{}, r.Averaged...),
		Integers:     append([]string{}, r.Integers...),
		NonFinite:    []jsonNonFinite{},
		Overflows:    []jsonOverflow{},
		OtherWeights: []jsonOtherWeights{},
		Removed:      append([]string{}, r.Removed...),
		BytesRead:    r.BytesRead,
		BytesWritten: r.BytesWritten,
		Seconds:      r.Duration.Seconds(),
	}
	for _, n := range r.NonFinite {
		j.NonFinite = append(j.NonFinite, jsonNonFinite(n))
	}
	for _, o := range r.Overflows {
		j.Overflows = append(j.Overflows, jsonOverflow(o))
	}
	for _, o := range r.OtherWeights {
		j.OtherWeights = append(j.OtherWeights, jsonOtherWeights(o))
	}
	return json.Marshal(j)
}
