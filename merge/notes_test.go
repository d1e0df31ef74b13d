package merge_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/modelavg/modelavg/checkpoint"
	"github.com/modelavg/modelavg/merge"
)

// The notes name the first twenty of a kind; the plan has all. A dtype is compared with that of the result.
func TestNotes(t *testing.T) {
	t.Chdir(t.TempDir())
	var a, b []tensor
	for i := range 30 {
		a = append(a, float32s(fmt.Sprintf("x%02d", i), 1), float32s(fmt.Sprintf("y%02d", i), 1))
		b = append(b, tensor{fmt.Sprintf("x%02d", i), "F16", []int64{1}, halves(1)}, float32s(fmt.Sprintf("y%02d", i), 1))
	}
	writeModel(t, "a", nil, a...)
	writeModel(t, "b", nil, b...)
	p := plan(t, []float64{0.5, 0.5}, open(t, "a", "b"), merge.WithExclude(regexp.MustCompile("^y")),
		merge.WithDType(checkpoint.BF16))
	lines := strings.Split(strings.TrimSuffix(p.Notes(), "\n"), "\n")
	if len(lines) != 42 || len(p.Omissions) != 30 || len(p.Differences) != 30 {
		t.Fatalf("%d lines, %d left out, %d differences\n%s", len(lines), len(p.Omissions), len(p.Differences), p.Notes())
	}
	for i, want := range map[int]string{
		0: `left out: tensor "y00", excluded`, 19: `left out: tensor "y19", excluded`, 20: "left out: and 10 more",
		21: `difference: tensor "x00" has dtype F16 in b, BF16 in the result`, 41: "difference: and 10 more",
	} {
		if lines[i] != want {
			t.Errorf("line %d is %q, want %q", i, lines[i], want)
		}
	}

	// A tensor may be left out for another reason than its dtype.
	writeModel(t, "c", nil, tensor{"x00", "F16", []int64{1}, halves(1)}, float32s("z", 1))
	writeModel(t, "d", nil, float32s("z", 1))
	p = plan(t, []float64{0.25, 0.25, 0.5}, open(t, "a", "c", "d"), merge.WithKeys(merge.KeysIntersection),
		merge.WithInclude(regexp.MustCompile("x00|z")))
	want := "difference: tensor \"x00\" has dtype F16 in c, F32 before, and is left out\n"
	if !strings.Contains(p.Notes(), want) {
		t.Errorf("%q is not in\n%s", want, p.Notes())
	}
}

// Plan and report say how many tensors had other weights than the files, and why.
func TestOtherWeights(t *testing.T) {
	t.Chdir(t.TempDir())
	writeModel(t, "a", nil, float32s("head.0", 1), float32s("head.1", 1), float32s("tail", 1), float32s("u", 1))
	writeModel(t, "b", nil, float32s("head.0", 1), float32s("head.1", 1), float32s("tail", 1), float32s("v", 1),
		float32s("union", 1))
	rule := func(pattern string, weights ...float64) merge.Option {
		return merge.WithTensorWeights(regexp.MustCompile(pattern), weights...)
	}
	for _, test := range []struct {
		opts []merge.Option
		want []merge.OtherWeights
		text string
		json string
	}{
		{
			nil,
			[]merge.OtherWeights{{"", true, 3}},
			"other weights: 3 tensors since not all models have them\n",
			`[{"pattern":"","union":true,"tensors":3}]`,
		},
		{
			[]merge.Option{rule("head", 0.1, 0.9), rule("^union$", 0, 1)},
			[]merge.OtherWeights{{"^union$", false, 1}, {"head", false, 2}, {"", true, 2}},
			"other weights: 1 tensor by the rule for \"^union$\"\nother weights: 2 tensors by the rule for \"head\"\n" +
				"other weights: 2 tensors since not all models have them\n",
			`[{"pattern":"^union$","union":false,"tensors":1},{"pattern":"head","union":false,"tensors":2},` +
				`{"pattern":"","union":true,"tensors":2}]`,
		},
		{[]merge.Option{merge.WithKeys(merge.KeysIntersection)}, nil, "", "[]"},
	} {
		opts := append([]merge.Option{merge.WithKeys(merge.KeysUnion)}, test.opts...)
		p := plan(t, []float64{0.5, 0.5}, open(t, "a", "b"), opts...)
		report, err := p.Run(t.Context(), "out", nil)
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(report.OtherWeights, test.want) {
			t.Errorf("got %+v, want %+v", report.OtherWeights, test.want)
		}
		for _, text := range []string{report.String(), p.Summary()} {
			if !strings.Contains(text, test.text) || strings.Count(text, "other weights") != len(test.want) {
				t.Errorf("want %q in\n%s", test.text, text)
			}
		}
		got, err := json.Marshal(report)
		if want := `"other_weights":` + test.json; err != nil || !strings.Contains(string(got), want) {
			t.Errorf("%v, want %s in %s", err, want, got)
		}
	}
}

// Check finds what Run would find, and the report names the shards of the replaced model that are gone.
func TestCheckAndRemoved(t *testing.T) {
	t.Chdir(t.TempDir())
	writeModel(t, "a", nil, float32s("x", 1), float32s("y", 1), float32s("z", 1))
	models := open(t, "a")
	p := plan(t, nil, models)
	run := func(path string, size int64) (*merge.Report, error) {
		p := plan(t, nil, models, merge.WithCreateOptions(checkpoint.WithMaxShardSize(size)))
		if err := p.Check(path); err != nil {
			return nil, err
		}
		return p.Run(t.Context(), path, nil)
	}
	for _, path := range []string{"out.npy", filepath.Join("a", "out"), ""} {
		want := p.Check(path)
		if _, err := p.Run(t.Context(), path, nil); err == nil || want == nil {
			t.Errorf("%s: Check says %v, Run %v", path, want, err)
		}
	}
	if err := p.Check("new"); err != nil {
		t.Error(err)
	}
	if err := (*merge.Plan)(nil).Check("new"); err == nil {
		t.Error("no error without a plan")
	}
	if _, err := run("dir", 4); err != nil {
		t.Fatal(err)
	}
	report, err := run("dir", 8)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for i := range 3 {
		names = append(names, fmt.Sprintf("model-%05d-of-00003.safetensors", i+1))
	}
	if !slices.Equal(report.Removed, names) {
		t.Errorf("removed %q, want %q", report.Removed, names)
	}
	want := "removed shards of the replaced model: " + strings.Join(names, ", ") + "\n"
	if !strings.Contains(report.String(), want) {
		t.Errorf("want %q in\n%s", want, report)
	}
	got, err := json.Marshal(report)
	if err != nil || !strings.Contains(string(got), `"removed":["model-00001-of-00003.safetensors",`) {
		t.Errorf("%v, %s", err, got)
	}
}
