package merge

import (
	"fmt"
	"slices"
	"strings"

	"github.com/modelavg/modelavg/checkpoint"
	"github.com/modelavg/modelavg/internal/convert"
)

// A Difference is one thing in which a model differs from the first, or, for a tensor that the first does not have,
// from the first that has it.
type Difference struct {
	Path   string // the model's file
	Tensor string
	Field  string // "missing", "extra", "dtype" or "shape"
	Want   string // of the first model; empty for an extra tensor
	Got    string // of this model; empty for a missing tensor
}

// String returns the difference without the path, as in `missing tensor "x"`.
func (d Difference) String() string {
	switch d.Field {
	case "missing", "extra":
		return fmt.Sprintf("%s tensor %q", d.Field, d.Tensor)
	}
	return fmt.Sprintf("tensor %q has %s %s, want %s", d.Tensor, d.Field, d.Got, d.Want)
}

// maxNamed is how many things the text of an error names.
const maxNamed = 20

// andMore returns how many of n things are not named, to end a list, or "".
func andMore(n int) string {
	if n <= maxNamed {
		return ""
	}
	return fmt.Sprintf(" and %d more", n-maxNamed)
}

// A DifferenceError reports that models do not have the same tensors. It has every difference that the policies do not
// allow.
type DifferenceError struct {
	First       string // the file of the first model, with which the others are compared
	Differences []Difference
}

// Error returns the first 20 differences in one line, file by file, and how many more there are.
func (e *DifferenceError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "models differ from %s", e.First)
	for i, d := range e.Differences[:min(len(e.Differences), maxNamed)] {
		if i == 0 || d.Path != e.Differences[i-1].Path {
			fmt.Fprintf(&b, "; %s: ", d.Path)
		} else {
			b.WriteString(", ")
		}
		b.WriteString(d.String())
	}
	return b.String() + andMore(len(e.Differences))
}

// An UnsupportedError reports tensors of a dtype that can be neither averaged nor copied.
type UnsupportedError struct {
	Path    string
	Tensors []checkpoint.Tensor
}

// Error names the first 20 such tensors and their dtypes, and how many more there are.
func (e *UnsupportedError) Error() string {
	list := make([]string, min(len(e.Tensors), maxNamed))
	for i, t := range e.Tensors[:len(list)] {
		list[i] = fmt.Sprintf("%q of dtype %v", t.Name, t.DType)
	}
	return fmt.Sprintf("%s: cannot average tensor %s%s (%s are averaged, integers and BOOL follow the integer policy)",
		e.Path, strings.Join(list, ", "), andMore(len(e.Tensors)), averagedDTypes)
}

// A candidate is a tensor that the result may have.
type candidate struct {
	tensor checkpoint.Tensor  // of the first model that has it
	owner  int                // that model
	dtypes []checkpoint.DType // in every model; zero where it is missing
}

// complete reports whether all models have the tensor.
func (c *candidate) complete() bool { return !slices.Contains(c.dtypes, 0) }

// A comparison finds the tensors of all models and how they differ.
type comparison struct {
	models     []*checkpoint.Model
	keys       KeyPolicy
	candidates []candidate
	byName     map[string]int
	allowed    []Difference
	refused    []Difference
}

// compare compares the models' tensors that keep returns true for. The differences that the policy does not allow are a
// DifferenceError.
func compare(models []*checkpoint.Model, keys KeyPolicy, keep func(name string) bool) (*comparison, error) {
	c := &comparison{models: models, keys: keys, byName: make(map[string]int)}
	for k, m := range models {
		for _, t := range m.Tensors() {
			if k == 0 && keep(t.Name) {
				c.add(0, t)
			}
		}
		if k == 0 {
			continue
		}
		for i := range c.candidates {
			if owner := c.candidates[i].owner; owner == 0 {
				c.match(k, i)
			}
		}
		for _, t := range m.Tensors() {
			if i, ok := c.byName[t.Name]; (!ok || c.candidates[i].owner != 0) && keep(t.Name) {
				c.extra(k, t)
			}
		}
	}
	if c.refused != nil {
		return nil, &DifferenceError{First: models[0].Path(), Differences: c.refused}
	}
	return c, nil
}

// add makes a candidate of a tensor of model k.
func (c *comparison) add(k int, t checkpoint.Tensor) {
	c.byName[t.Name] = len(c.candidates)
	dtypes := make([]checkpoint.DType, len(c.models))
	dtypes[k] = t.DType
	c.candidates = append(c.candidates, candidate{t, k, dtypes})
}

// match compares model k with a candidate of an earlier one.
func (c *comparison) match(k, i int) {
	want := c.candidates[i].tensor
	got, ok := c.models[k].Tensor(want.Name)
	if !ok {
		c.note(k, want.Name, "missing", describe(want), "", c.keys != KeysStrict)
		return
	}
	c.candidates[i].dtypes[k] = got.DType
	if got.DType != want.DType {
		c.note(k, want.Name, "dtype", want.DType.String(), got.DType.String(),
			convert.IsFloat(want.DType) && convert.IsFloat(got.DType))
	}
	if !slices.Equal(got.Shape, want.Shape) {
		c.note(k, want.Name, "shape", fmt.Sprint(want.Shape), fmt.Sprint(got.Shape), false)
	}
}

// extra notes a tensor of model k that the first model does not have.
func (c *comparison) extra(k int, t checkpoint.Tensor) {
	c.note(k, t.Name, "extra", "", describe(t), c.keys != KeysStrict)
	i, ok := c.byName[t.Name]
	switch {
	case !ok:
		c.add(k, t)
	case c.keys == KeysUnion: // otherwise it is not in the result, whatever its shape
		c.match(k, i)
	}
}

// note notes a difference of model k.
func (c *comparison) note(k int, tensor, field, want, got string, allowed bool) {
	list := &c.refused
	if allowed {
		list = &c.allowed
	}
	*list = append(*list, Difference{c.models[k].Path(), tensor, field, want, got})
}

// describe returns dtype and shape of a tensor, as in "F32 [2 3]".
func describe(t checkpoint.Tensor) string { return fmt.Sprintf("%v %v", t.DType, t.Shape) }
