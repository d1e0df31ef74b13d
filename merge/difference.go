package merge

import (
	"context"
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
	candidates []candidate // first those of the first model, sorted by name, and then the extra ones
	extras     map[string]int
	allowed    []Difference
	refused    []Difference
}

// compare compares the models' tensors that keep returns true for, until ctx is done. The differences that the policy
// does not allow are a DifferenceError.
func compare(ctx context.Context, models []*checkpoint.Model, keys KeyPolicy, keep func(name string) bool,
) (*comparison, error) {
	c := &comparison{models: models, keys: keys, extras: make(map[string]int)}
	for k, m := range models {
		if ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
		if k == 0 {
			c.begin(m.Tensors(), keep)
		} else if err := c.compare(ctx, k, m.Tensors(), keep); err != nil {
			return nil, err
		}
	}
	if c.refused != nil {
		return nil, &DifferenceError{First: models[0].Path(), Differences: c.refused}
	}
	return c, nil
}

// begin makes candidates of the tensors of the first model.
func (c *comparison) begin(tensors []checkpoint.Tensor, keep func(name string) bool) {
	c.candidates = make([]candidate, 0, len(tensors))
	// There may be a million of them: one allocation for all.
	dtypes := make([]checkpoint.DType, len(tensors)*len(c.models))
	for _, t := range tensors {
		if keep(t.Name) {
			n := len(c.models)
			dtypes[0] = t.DType
			c.candidates = append(c.candidates, candidate{t, 0, dtypes[:n:n]})
			dtypes = dtypes[n:]
		}
	}
}

// compare compares the tensors of model k, which are sorted by name, with the candidates of the first model, and then
// notes those that it has besides.
func (c *comparison) compare(ctx context.Context, k int, tensors []checkpoint.Tensor, keep func(name string) bool) error {
	var extra []int
	next := 0
	for i := range c.candidates {
		want := &c.candidates[i]
		if want.owner != 0 {
			break
		}
		if i%4096 == 4095 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		for next < len(tensors) && tensors[next].Name < want.tensor.Name {
			extra = append(extra, next)
			next++
		}
		if next < len(tensors) && tensors[next].Name == want.tensor.Name {
			c.match(k, i, tensors[next])
			next++
		} else {
			c.note(k, want.tensor.Name, "missing", describe(want.tensor), "", c.keys != KeysStrict)
		}
	}
	for ; next < len(tensors); next++ {
		extra = append(extra, next)
	}
	for n, i := range extra {
		if n%4096 == 4095 && ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if keep(tensors[i].Name) {
			c.extra(k, tensors[i])
		}
	}
	return nil
}

// match compares a tensor of model k with the candidate of that name of an earlier one.
func (c *comparison) match(k, i int, got checkpoint.Tensor) {
	want := c.candidates[i].tensor
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
	i, ok := c.extras[t.Name]
	switch {
	case !ok:
		c.extras[t.Name] = len(c.candidates)
		dtypes := make([]checkpoint.DType, len(c.models))
		dtypes[k] = t.DType
		c.candidates = append(c.candidates, candidate{t, k, dtypes})
	case c.keys == KeysUnion: // otherwise it is not in the result, whatever its shape
		c.match(k, i, t)
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
