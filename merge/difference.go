package merge

import (
	"fmt"
	"slices"
	"strings"

	"github.com/modelavg/modelavg/checkpoint"
)

// A Difference is one thing in which a model differs from the first.
type Difference struct {
	Path   string // the model's file
	Tensor string
	Field  string // "missing", "extra", "dtype" or "shape"
	Want   string // of the first model; empty for an extra tensor
	Got    string // of this model; empty for a missing tensor
}

// A DifferenceError reports that models do not have the same tensors. It names every difference.
type DifferenceError struct {
	First       string // the file of the first model, with which the others are compared
	Differences []Difference
}

// Error returns all differences in one line, file by file.
func (e *DifferenceError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "models differ from %s", e.First)
	for i, d := range e.Differences {
		if i == 0 || d.Path != e.Differences[i-1].Path {
			fmt.Fprintf(&b, "; %s: ", d.Path)
		} else {
			b.WriteString(", ")
		}
		switch d.Field {
		case "missing", "extra":
			fmt.Fprintf(&b, "%s tensor %q", d.Field, d.Tensor)
		default:
			fmt.Fprintf(&b, "tensor %q has %s %s, want %s", d.Tensor, d.Field, d.Got, d.Want)
		}
	}
	return b.String()
}

// An UnsupportedError reports tensors of a dtype that can be neither averaged nor copied.
type UnsupportedError struct {
	Path    string
	Tensors []checkpoint.Tensor
}

// Error names every such tensor and its dtype.
func (e *UnsupportedError) Error() string {
	list := make([]string, len(e.Tensors))
	for i, t := range e.Tensors {
		list[i] = fmt.Sprintf("%q of dtype %v", t.Name, t.DType)
	}
	return fmt.Sprintf("%s: cannot average tensor %s (F64, F32, F16 and BF16 are averaged, integers and BOOL copied)",
		e.Path, strings.Join(list, ", "))
}

// compare returns a DifferenceError unless all models have the tensors of the first.
func compare(models []*checkpoint.Model) error {
	first := models[0]
	wanted := first.Tensors()
	var found []Difference
	for _, m := range models[1:] {
		note := func(tensor, field, want, got string) {
			found = append(found, Difference{Path: m.Path(), Tensor: tensor, Field: field, Want: want, Got: got})
		}
		for _, want := range wanted {
			got, ok := m.Tensor(want.Name)
			switch {
			case !ok:
				note(want.Name, "missing", describe(want), "")
				continue
			case got.DType != want.DType:
				note(want.Name, "dtype", want.DType.String(), got.DType.String())
			}
			if !slices.Equal(got.Shape, want.Shape) {
				note(want.Name, "shape", fmt.Sprint(want.Shape), fmt.Sprint(got.Shape))
			}
		}
		for _, got := range m.Tensors() {
			if _, ok := first.Tensor(got.Name); !ok {
				note(got.Name, "extra", "", describe(got))
			}
		}
	}
	if found != nil {
		return &DifferenceError{First: first.Path(), Differences: found}
	}
	return nil
}

// describe returns dtype and shape of a tensor, as in "F32 [2 3]".
func describe(t checkpoint.Tensor) string { return fmt.Sprintf("%v %v", t.DType, t.Shape) }
