package main

import (
	"encoding/json"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/modelavg/modelavg/checkpoint"
)

func TestPlan(t *testing.T) {
	inDirectory(t)
	before := files(t)
	for _, test := range []struct {
		line string
		want []string // in the output
	}{
		{"plan mean a b", []string{
			"copy-last  I64  [1]  8 B  steps\n", "average    F32  [2]  8 B  weight\n",
			"mean of 2 models\nweight 0.5         a\n",
		}},
		{"plan mean -o out a b", []string{"reads 24 B, writes 16 B, with "}},
		{
			"plan weighted -w 1,3 --normalize a b",
			[]string{"weighted mean of 2 models\nweight 0.25        a\nweight 0.75        b\n"},
		},
		{"plan weighted -w 0,1 a b", []string{"weight 0           a (not read)\n", "reads 16 B"}},
		{"plan ewa --decay 0.5 --workers 1 a b c", []string{"weight 0.142857    a\n", "(1 worker, chunks of 64 B)"}},
		{"plan mean --integers max --dtype f16 a b", []string{
			"max      I64  [1]  8 B  steps\n",
			"average  F16  [2]  4 B  weight (from F32)\n",
			"integers max, keys strict, non-finite propagate, overflow inf, dtype F16\n",
		}},
		{"plan mean --tensor-weights ^w=0.75,0.25 a b", []string{"weight (0.75 of a, 0.25 of b)\n"}},
		{"plan mean --exclude steps a b", []string{"left out: tensor \"steps\", excluded\n"}},
	} {
		status, stdout, stderr := execute(t, test.line)
		if status != statusDone || stderr != "" {
			t.Errorf("%s: status %d, %s", test.line, status, stderr)
		}
		for _, want := range test.want {
			if !strings.Contains(stdout, want) {
				t.Errorf("%s: got\n%s\nwant %q in it", test.line, stdout, want)
			}
		}
	}
	for line, want := range map[string]string{
		"plan":                        "no command given: want mean, weighted or ewa (see modelavg plan --help)",
		"plan mean":                   "no model files given (see modelavg plan mean --help)",
		"plan soup a":                 `unknown command "soup" for "modelavg plan"`,
		"plan weighted -w 1 a b":      "1 weight for 2 files",
		"plan mean --no-sync a b":     "unknown flag: --no-sync",
		"plan weighted -w 0.5,0 a b ": "weights do not sum to one",
	} {
		status, stdout, stderr := execute(t, line)
		if status != statusUsage || stdout != "" {
			t.Errorf("%s: status %d, %q", line, status, stdout)
		}
		checkErrorLine(t, line, stderr, want)
	}
	if status, stdout, stderr := execute(t, "plan mean a none"); status != statusFailed || stdout != "" ||
		!strings.Contains(stderr, "none") {
		t.Errorf("status %d, %q, %q", status, stdout, stderr)
	}
	if got := files(t); !slices.Equal(got, before) {
		t.Errorf("files %q", got)
	}
}

func TestJSON(t *testing.T) {
	type plan struct {
		Rule   string
		Models []struct {
			Path   string
			Weight float64
		}
		Tensors []struct {
			Name, Action string
		}
	}
	inDirectory(t)
	for line, rule := range map[string]string{
		"mean --json -o out a b":                "mean",
		"weighted --json -w 0.5,0.5 -o out a b": "weighted mean",
		"ewa --json --decay 1 -o out a b":       "weighted mean",
		"plan mean --json a b":                  "mean",
		"plan weighted --json -w 0.5,0.5 a b":   "weighted mean",
		"plan ewa --json --decay 1 a b":         "weighted mean",
	} {
		status, stdout, stderr := execute(t, line)
		if status != statusDone || stderr != "" {
			t.Fatalf("%s: status %d, %s", line, status, stderr)
		}
		var got struct {
			Plan   *plan
			Report *struct {
				Path         string
				BytesWritten int64 `json:"bytes_written"`
			}
		}
		if err := json.Unmarshal([]byte(stdout), &got); err != nil {
			t.Fatalf("%s: %v\n%s", line, err, stdout)
		}
		if p := got.Plan; p.Rule != rule || len(p.Models) != 2 || p.Models[1].Path != "b" ||
			p.Models[1].Weight != 0.5 ||
			len(p.Tensors) != 2 || p.Tensors[0].Action != "copy-last" {
			t.Errorf("%s: plan %+v", line, got.Plan)
		}
		if strings.HasPrefix(line, "plan") {
			if got.Report != nil {
				t.Errorf("%s: there is a report: %s", line, stdout)
			}
		} else if got.Report == nil || got.Report.Path != "out" || got.Report.BytesWritten != 16 {
			t.Errorf("%s: report %+v", line, got.Report)
		}
	}
	if status, stdout, stderr := execute(t, "mean --json -o out a none"); status != statusFailed || stdout != "" ||
		!strings.Contains(stderr, "none") {
		t.Errorf("status %d, stdout %q, stderr %q", status, stdout, stderr)
	}
}

func TestPolicyFlags(t *testing.T) {
	inDirectory(t)
	save(t, "k", values("weight", checkpoint.F32, []float32{4, 5}, 2), values("new", checkpoint.F32, []float32{7}, 1),
		values("steps", checkpoint.I64, []int64{9}, 1))
	tensors := func(path string) (list []string) {
		m, err := checkpoint.Open(path)
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		for _, x := range m.Tensors() {
			list = append(list, x.DType.String()+" "+x.Name)
		}
		return list
	}
	for _, test := range []struct {
		line    string
		tensors []string
		stdout  string // in it
	}{
		{
			"mean --keys union -o out a k",
			[]string{"F32 new", "I64 steps", "F32 weight"},
			"difference: k: extra tensor \"new\"\n",
		},
		{
			"mean --keys intersection -o out a k",
			[]string{"I64 steps", "F32 weight"},
			"left out: tensor \"new\", not in all models\n",
		},
		{"mean --exclude new -o out a k", []string{"I64 steps", "F32 weight"}, "left out: tensor \"new\", excluded\n"},
		{"mean --include ^w -o out a b", []string{"F32 weight"}, "1 tensor averaged\n"},
		{"mean --dtype bf16 -o out a b", []string{"I64 steps", "BF16 weight"}, ""},
		{"mean --dtype BF16 -o out a b", []string{"I64 steps", "BF16 weight"}, ""},
		{"mean --dtype f8_e4m3 --overflow saturate -o out a b", []string{"I64 steps", "F8_E4M3 weight"}, ""},
		{"ewa --decay 0.5 --integers sum -o out a b c", []string{"I64 steps", "F32 weight"}, "1 summed: steps"},
		{"mean --integers first --no-sync -o out b c", []string{"I64 steps", "F32 weight"}, "copied from b: steps"},
	} {
		status, stdout, stderr := execute(t, test.line)
		if status != statusDone || stderr != "" || !strings.Contains(stdout, test.stdout) {
			t.Errorf("%s: status %d, %s\n%s\nwant %q", test.line, status, stderr, stdout, test.stdout)
			continue
		}
		if got := tensors("out"); !slices.Equal(got, test.tensors) {
			t.Errorf("%s: tensors %q, want %q", test.line, got, test.tensors)
		}
	}

	// The weights of tensors are read as those of the files are; the last equals sign ends the pattern.
	for line, want := range map[string][]float32{
		"mean --tensor-weights ^w=0.75,0.25 -o out a b":                                          {1.25, 12.5},
		"mean --tensor-weights weight=0.75,0.25 --tensor-weights .*=0,1 -o out a b":              {1.25, 12.5},
		"mean --tensor-weights (=|weight)=1,0 -o out a b":                                        {1, 10},
		"weighted -w 1,1 --normalize --tensor-weights w=1,3 -o out a b":                          {1.75, 17.5},
		"weighted -w 10,10 --counts --tensor-weights w=100,300 -o out a b":                       {1.75, 17.5},
		"ewa --decay 0.5 --tensor-weights steps=0.5,0.5 --tensor-weights weight=-1,2 -o out a b": {3, 30},
	} {
		if status, _, stderr := execute(t, line); status != statusDone {
			t.Errorf("%s: %s", line, stderr)
		} else if got := weightsIn(t, "out"); !slices.Equal(got, want) {
			t.Errorf("%s: got %v, want %v", line, got, want)
		}
	}
	os.Remove("out")
	before := files(t)
	for _, test := range []struct {
		status     int
		line, want string
	}{
		{
			statusUsage, "mean --integers median -o out a b",
			`invalid argument "median" for "--integers" flag: want one of last, first, max, sum, error`,
		},
		{statusUsage, "mean --keys x -o out a b", "want one of strict, intersection, union"},
		{statusUsage, "mean --nonfinite x -o out a b", "want one of propagate, error"},
		{statusUsage, "mean --overflow x -o out a b", "want one of inf, saturate, error"},
		{statusUsage, "mean --dtype i8 -o out a b", "want one of first, f64, f32, f16, bf16, f8_e4m3, f8_e5m2"},
		{statusUsage, "mean --include ( -o out a b", "--include (: error parsing regexp: missing closing )"},
		{statusUsage, "mean --exclude [ -o out a b", "--exclude [: error parsing regexp"},
		{
			statusUsage, "mean --tensor-weights x -o out a b",
			"--tensor-weights x: want REGEXP=WEIGHT,... with one weight for each file",
		},
		{statusUsage, "mean --tensor-weights x=1 -o out a b", "--tensor-weights x=1: 1 weight for 2 files"},
		{
			statusUsage, "mean --tensor-weights x=1,y -o out a b",
			`--tensor-weights x=1,y: weight 2, of b, is "y": want a finite number`,
		},
		{statusUsage, "mean --tensor-weights x=1,1 -o out a b", "weights do not sum to one"},
		{statusUsage, "mean --tensor-weights (=1,0 -o out a b", "error parsing regexp"},
		{statusUsage, "soup --eval x{} --tensor-weights w=1,0 -o out a b", "unknown flag: --tensor-weights"},
		{statusUsage, "soup -o out a b", "no command given: --eval 'COMMAND {}' is required"},
		{statusUsage, "soup --eval true -o out a b", "--eval true: there is no {} for the path of the model"},
		{statusUsage, "soup --eval {} a b", "no output file given"},
		{statusFailed, "mean --include none -o out a b", `include: pattern "none" matches no tensor`},
		{
			statusFailed, "mean --integers error -o out a b",
			`b: tensor "steps": element 0: integer policy: it is 1, in a it is 0`,
		},
		{statusFailed, "mean -o out a k", `models differ from a; k: extra tensor "new"`},
	} {
		status, _, stderr := execute(t, test.line)
		if status != test.status {
			t.Errorf("%s: status %d, want %d", test.line, status, test.status)
		}
		checkErrorLine(t, test.line, stderr, test.want)
		if got := files(t); !slices.Equal(got, before) {
			t.Errorf("%s: files %q", test.line, got)
		}
	}
}
