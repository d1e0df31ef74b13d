package merge_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/modelavg/modelavg"
	"github.com/modelavg/modelavg/checkpoint"
	"github.com/modelavg/modelavg/merge"
)

// What would be a nil pointer is an error that says which one.
func TestNilModels(t *testing.T) {
	models := open(t, writeModel(t, filepath.Join(t.TempDir(), "a"), nil, float32s("w", 1)))
	list := []*checkpoint.Model{models[0], nil, nil}
	for name, plan := range map[string]func(opts ...merge.Option) (*merge.Plan, error){
		"mean": func(opts ...merge.Option) (*merge.Plan, error) { return merge.Mean(list, opts...) },
		"weighted mean": func(opts ...merge.Option) (*merge.Plan, error) {
			return merge.WeightedMean(list, []float64{1, 0, 0}, opts...)
		},
	} {
		if p, err := plan(); p != nil || err == nil || err.Error() != "merge: model 1 of 3 is nil, want an opened one" {
			t.Errorf("%s: plan %v, %v", name, p, err)
		}
	}
	for want, opt := range map[string]merge.Option{
		"include: pattern 1 is nil":        merge.WithInclude(regexp.MustCompile("w"), nil),
		"exclude: pattern 0 is nil":        merge.WithExclude(nil),
		"tensor weights: pattern 0 is nil": merge.WithTensorWeights(nil, 1),
	} {
		if _, err := merge.Mean(models, opt); !errors.Is(err, modelavg.ErrOption) || !strings.HasSuffix(fmt.Sprint(err), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestRunWithoutModels(t *testing.T) {
	path := filepath.Join(t.TempDir(), "out")
	for _, plan := range []*merge.Plan{nil, {}} {
		r, err := plan.Run(t.Context(), path, nil)
		if r != nil || err == nil || !strings.Contains(err.Error(), "the plan has no models") {
			t.Errorf("report %v, %v", r, err)
		}
	}
	if files := snapshot(t, filepath.Dir(path)); len(files) != 0 {
		t.Errorf("files %v", files)
	}
}

// The text of an error names some, the error itself has all.
func TestManyDifferences(t *testing.T) {
	for _, test := range []struct {
		missing int
		more    string // after the last that is named
	}{{19, ""}, {20, ""}, {21, " and 1 more"}, {1000, " and 980 more"}} {
		dir := t.TempDir()
		tensors := []tensor{float32s("w", 1)}
		var odd []tensor
		for i := range test.missing {
			tensors = append(tensors, float32s(fmt.Sprintf("t%04d", i), 1))
			odd = append(odd, tensor{name: fmt.Sprintf("t%04d", i), dtype: "F8_E8M0", data: []byte{1}})
		}
		models := open(t, writeModel(t, filepath.Join(dir, "a"), nil, tensors...),
			writeModel(t, filepath.Join(dir, "b"), nil, float32s("w", 1)))
		_, err := merge.Mean(models)
		var d *merge.DifferenceError
		if !errors.As(err, &d) || len(d.Differences) != test.missing {
			t.Fatalf("%v, want %d differences", err, test.missing)
		}
		last := min(test.missing, 20) - 1
		if text := err.Error(); strings.Count(text, "missing tensor") != last+1 ||
			!strings.HasSuffix(text, fmt.Sprintf("missing tensor \"t%04d\"%s", last, test.more)) {
			t.Errorf("%d differences: %s", test.missing, text)
		}

		models = open(t, writeModel(t, filepath.Join(dir, "c"), nil, odd...))
		_, err = merge.Mean(models)
		var u *merge.UnsupportedError
		if !errors.As(err, &u) || len(u.Tensors) != test.missing {
			t.Fatalf("%v, want %d tensors", err, test.missing)
		}
		if text := err.Error(); strings.Count(text, "F8_E8M0") != last+1 ||
			!strings.Contains(text, fmt.Sprintf("\"t%04d\" of dtype F8_E8M0%s (", last, test.more)) {
			t.Errorf("%d tensors: %s", test.missing, text)
		}
	}
}

// A step whose sources are others than those of the plan names the first of them.
func TestManySources(t *testing.T) {
	dir := t.TempDir()
	var paths []string
	for i := range 30 {
		tensors := []tensor{float32s("w", 1)}
		if i > 0 {
			tensors = append(tensors, float32s("x", 1))
		}
		paths = append(paths, writeModel(t, filepath.Join(dir, fmt.Sprint("m", i)), nil, tensors...))
	}
	p, err := merge.Mean(open(t, paths...), merge.WithKeys(merge.KeysUnion))
	if err != nil {
		t.Fatal(err)
	}
	if text := p.String(); strings.Count(text, " of "+dir) != 20 || !strings.Contains(text, "m20 and 9 more)") {
		t.Errorf("got\n%s", text)
	}
}
