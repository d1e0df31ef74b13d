package instructions_test

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
	"text/tabwriter"

	"github.com/modelavg/modelavg/asmgen/amd64"
	"github.com/modelavg/modelavg/asmgen/instructions"
	"github.com/modelavg/modelavg/asmgen/neon"
)

const (
	expectedFile = "testdata/instructions.txt"
	page         = "../../docs/instructions.md"
	pageBegin    = "<!-- go test ./asmgen/instructions -update writes this table -->\n\n"
	pageEnd      = "\n<!-- end -->\n"
)

var update = flag.Bool("update", false, "rewrite the tables of instructions")

// TestInstructions fails when a main loop has more or fewer instructions than testdata/instructions.txt says. Where that
// is meant, "go test ./asmgen/instructions -update" rewrites the file.
func TestInstructions(t *testing.T) {
	got := table(t, mainLoops(t)) + commonTable(t, commonLoops(t)) + staggeredTable(t) + magnitudeTable(t, magnitudes(t))
	if *update {
		if err := os.WriteFile(expectedFile, []byte(got), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(expectedFile)
	if err != nil {
		t.Fatal(err)
	}
	gotLines, wantLines := strings.Split(got, "\n"), strings.Split(string(text), "\n")
	if len(gotLines) != len(wantLines) {
		t.Errorf("%d lines, want %d", len(gotLines), len(wantLines))
	}
	for i := range min(len(gotLines), len(wantLines)) {
		if gotLines[i] != wantLines[i] {
			t.Errorf("line %d of %s:\n      %s\n got  %s\n want %s", i+1, expectedFile, wantLines[0], gotLines[i], wantLines[i])
		}
	}
	if t.Failed() {
		t.Logf("if that is meant: go test ./asmgen/instructions -update, and go run ./asmgen/mca for the tables in %s", page)
	}
}

// TestPage compares the summary in docs/instructions.md with the loops.
func TestPage(t *testing.T) {
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, begins := strings.Cut(string(text), pageBegin)
	old, after, ends := strings.Cut(rest, pageEnd)
	if !begins || !ends {
		t.Fatalf("%s has no lines %q and %q", page, pageBegin, pageEnd)
	}
	summary := summary(t, mainLoops(t), commonLoops(t))
	if *update {
		if err := os.WriteFile(page, []byte(before+pageBegin+summary+pageEnd+after), 0o666); err != nil {
			t.Fatal(err)
		}
	} else if old != summary {
		t.Errorf("%s has\n%s\nwant\n%s\nif that is meant: go test ./asmgen/instructions -update", page, old, summary)
	}
}

// mainLoops returns those of the committed assembly, which must be what the generators write.
func mainLoops(t *testing.T) []instructions.Loop {
	t.Helper()
	var all []instructions.Loop
	for _, file := range []struct {
		name     string
		generate func() ([]byte, error)
	}{
		{"kernel_amd64.s", amd64.Generate},
		{"kernel_arm64.s", neon.Generate},
	} {
		assembly, err := os.ReadFile("../../kernel/" + file.name)
		if err != nil {
			t.Fatal(err)
		}
		if generated, err := file.generate(); err != nil || !bytes.Equal(generated, assembly) {
			t.Fatalf("%s differs from what the generator writes (error %v): run \"go generate ./kernel\"", file.name, err)
		}
		loops, err := instructions.Loops(string(assembly))
		if err != nil {
			t.Fatalf("%s: %v", file.name, err)
		}
		want := bytes.Count(assembly, []byte("\nTEXT ")) - bytes.Count(assembly, []byte("\nTEXT ·magnitude")) -
			bytes.Count(assembly, []byte("\nTEXT ·weightedSumStaggered"))
		if len(loops) != want || want == 0 {
			t.Fatalf("%s: %d main loops in %d functions", file.name, len(loops), want)
		}
		all = append(all, loops...)
	}
	return all
}

// commonLoops returns those of the committed assembly that are for a number of models.
func commonLoops(t *testing.T) []instructions.Loop {
	t.Helper()
	assembly, err := os.ReadFile("../../kernel/kernel_amd64.s")
	if err != nil {
		t.Fatal(err)
	}
	loops, err := instructions.Common(string(assembly))
	if err != nil {
		t.Fatal(err)
	}
	if len(loops) == 0 {
		t.Fatal("no loops for a number of models")
	}
	return loops
}

// magnitudes returns the loops of the magnitude functions in the committed assembly.
func magnitudes(t *testing.T) []instructions.Magnitude {
	t.Helper()
	var all []instructions.Magnitude
	for _, name := range []string{"kernel_amd64.s", "kernel_arm64.s"} {
		assembly, err := os.ReadFile("../../kernel/" + name)
		if err != nil {
			t.Fatal(err)
		}
		loops, err := instructions.Magnitudes(string(assembly))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if want := bytes.Count(assembly, []byte("\nTEXT ·magnitude")); len(loops) != want || want == 0 {
			t.Fatalf("%s: %d loops in %d magnitude functions", name, len(loops), want)
		}
		all = append(all, loops...)
	}
	return all
}

// staggeredTable has the counts of the loops over models of the staggered functions, of which each has two: one for the
// last group of models and one for the others.
func staggeredTable(t *testing.T) string {
	t.Helper()
	assembly, err := os.ReadFile("../../kernel/kernel_amd64.s")
	if err != nil {
		t.Fatal(err)
	}
	loops, err := instructions.StaggeredLoops(string(assembly))
	if err != nil {
		t.Fatal(err)
	}
	if want := 2 * bytes.Count(assembly, []byte("\nTEXT ·weightedSumStaggered")); len(loops) != want || want == 0 {
		t.Fatalf("%d loops over models in staggered functions, want %d", len(loops), want)
	}
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "function\tvectors\tmodel\ta vector\t")
	for _, l := range loops {
		fmt.Fprintf(w, "%s\t%d\t%d\t%.3f\t\n", l.Function, l.Vectors, l.Instructions,
			float64(l.Instructions)/float64(l.Vectors))
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return text.String()
}

// TestStaggeredLoops checks that a loop is found, and that one that does not end is an error.
func TestStaggeredLoops(t *testing.T) {
	const begin = "TEXT ·weightedSumStaggeredA(SB), NOSPLIT, $0-8\n\tRET\nmodels1:\n\tVFMADD231PD Y3, Y2, Y1\n"
	for _, end := range []string{"", "TEXT ·g(SB), NOSPLIT, $0-8\n"} {
		const want = "weightedSumStaggeredA: the loop does not end"
		if _, err := instructions.StaggeredLoops(begin + end); err == nil || err.Error() != want {
			t.Errorf("%q: error %v, want %s", begin+end, err, want)
		}
	}
	loops, err := instructions.StaggeredLoops(begin + "\tDECQ R8\n\tJNZ models1\n\tRET\n")
	want := instructions.Staggered{Function: "weightedSumStaggeredA", Vectors: 1, Instructions: 3}
	if err != nil || len(loops) != 1 || loops[0] != want {
		t.Errorf("got %+v, %v; want %+v", loops, err, want)
	}
}

// magnitudeTable has the counts of the magnitude functions.
func magnitudeTable(t *testing.T, loops []instructions.Magnitude) string {
	t.Helper()
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "function\tbytes\tinstructions\ta byte\t")
	for _, l := range loops {
		fmt.Fprintf(w, "%s\t%d\t%d\t%.3f\t\n", l.Function, l.Bytes, l.Instructions, float64(l.Instructions)/float64(l.Bytes))
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return text.String()
}

// all adds up the counts of a loop for a number of models.
func all(t *testing.T, l instructions.Loop, call instructions.Call) int {
	t.Helper()
	c := count(t, l, call)
	return c.Start + c.Model + c.Divide + c.Round + c.Store + c.Advance
}

// commonTable has the counts of loops that are for a number of models.
func commonTable(t *testing.T, loops []instructions.Loop) string {
	t.Helper()
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "function\tmodels\telements\tblock\tdivide\tscale\tstream\tan element\t")
	for _, l := range loops {
		block := all(t, l, instructions.Call{})
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%d\t%.3f\t\n", l.Function, l.Models, l.Elements, block,
			all(t, l, instructions.Call{Divide: true}), all(t, l, instructions.Call{Scale: true}),
			all(t, l, instructions.Call{Stream: true}), float64(block)/float64(l.Elements))
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return text.String()
}

func count(t *testing.T, l instructions.Loop, call instructions.Call) instructions.Count {
	t.Helper()
	c, err := l.Count(call)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// plain counts the way of a sum without a divisor that is stored through the caches, and adds up what is done once.
func plain(t *testing.T, l instructions.Loop) (c instructions.Count, once int) {
	t.Helper()
	c = count(t, l, instructions.Call{Continue: strings.HasPrefix(l.Function, "accumulate")})
	return c, c.Start + c.Divide + c.Round + c.Store + c.Advance
}

// table has the counts of all ways through every loop.
func table(t *testing.T, loops []instructions.Loop) string {
	t.Helper()
	var text strings.Builder
	w := tabwriter.NewWriter(&text, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "function\telements\tmodel\tan element\tstart\tcontinue\t"+
		"no divisor\tdivide\tscale\tround\tstore\tstream\tadvance\tan element\t")
	for _, l := range loops {
		sum, once := plain(t, l)
		fmt.Fprintf(w, "%s\t%d\t%d\t%.3f\t", l.Function, l.Elements, sum.Model, float64(sum.Model)/float64(l.Elements))
		if strings.HasPrefix(l.Function, "accumulate") {
			fmt.Fprintf(w, "\t%d\t\t\t\t\t%d\t\t%d\t", sum.Start, sum.Store, sum.Advance)
		} else {
			fmt.Fprintf(w, "%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t%d\t",
				sum.Start, count(t, l, instructions.Call{Continue: true}).Start, sum.Divide,
				count(t, l, instructions.Call{Divide: true}).Divide, count(t, l, instructions.Call{Scale: true}).Divide,
				sum.Round, sum.Store, count(t, l, instructions.Call{Stream: true}).Store, sum.Advance)
		}
		fmt.Fprintf(w, "%.3f\t\n", float64(once)/float64(l.Elements))
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return text.String()
}

// summary is a Markdown table of what weightedSum executes for an element, in loops for any number of models and in
// those for some.
func summary(t *testing.T, loops, common []instructions.Loop) string {
	t.Helper()
	var text strings.Builder
	text.WriteString("| kind | instruction set | elements in a block | an element of a model | an element, once " +
		"| 2 models | 3 models | 4 models | 8 models |\n")
	text.WriteString("|---|---|---:|---:|---:|---:|---:|---:|---:|\n")
	for _, l := range loops {
		name, isSum := strings.CutPrefix(l.Function, "weightedSum")
		if !isSum {
			continue
		}
		sum, once := plain(t, l)
		for _, isa := range []string{"AVX512", "AVX2", "NEON"} {
			if kind, found := strings.CutSuffix(name, isa); found {
				fmt.Fprintf(&text, "| %s | %s | %d | %.3f | %.3f |", kind, isa, l.Elements,
					float64(sum.Model)/float64(l.Elements), float64(once)/float64(l.Elements))
				for _, models := range []int{2, 3, 4, 8} {
					cell := " "
					for _, c := range common {
						if c.Function == l.Function && c.Models == models {
							cell = fmt.Sprintf(" %.3f ", float64(all(t, c, instructions.Call{}))/float64(c.Elements))
						}
					}
					text.WriteString(cell + "|")
				}
				text.WriteString("\n")
			}
		}
	}
	return text.String()
}

// TestCommonErrors checks that a loop that does not end, or has no number of elements, is an error.
func TestCommonErrors(t *testing.T) {
	const begin = "TEXT ·f(SB), NOSPLIT, $0-8\ntwo1:\n\tRET\n"
	const flagged = "\tJGE two1\nflagged2:\n\tJGE two1\n"
	for assembly, want := range map[string]string{
		begin:                  "f: the loop for 2 models does not end",
		begin + "\tJGE two1\n": "f: the loop for 2 models does not end",
		begin + flagged:        "f: the loop for 2 models has no number of elements",
	} {
		if _, err := instructions.Common(assembly); err == nil || err.Error() != want {
			t.Errorf("%q: error %v, want %s", assembly, err, want)
		}
	}
	loops, err := instructions.Common(begin + "\tCMPQ BX, $+8\n" + flagged)
	if err != nil || len(loops) != 1 || loops[0].Function != "f" || loops[0].Models != 2 || loops[0].Elements != 8 {
		t.Errorf("got %+v, %v; want one loop of f for 2 models with 8 elements", loops, err)
	}
}

// TestMagnitudeErrors checks that a magnitude loop that does not end, or has no number of bytes, is an error.
func TestMagnitudeErrors(t *testing.T) {
	const begin = "TEXT ·magnitude16(SB), NOSPLIT, $0-32\nmagnitudes1:\n\tNOP\n"
	for assembly, want := range map[string]string{
		begin:                            "magnitude16: the loop does not end",
		begin + "\tJNZ magnitudes1\n":    "magnitude16: the loop has no number of bytes",
		begin + "TEXT ·g(SB), NOSPLIT\n": "magnitude16: the loop does not end",
	} {
		if _, err := instructions.Magnitudes(assembly); err == nil || err.Error() != want {
			t.Errorf("%q: error %v, want %s", assembly, err, want)
		}
	}
	loops, err := instructions.Magnitudes(begin + "\tSUBQ $0x80, CX\n\tJNZ magnitudes1\n")
	if want := (instructions.Magnitude{Function: "magnitude16", Bytes: 128, Instructions: 3}); err != nil || len(loops) != 1 ||
		loops[0] != want {
		t.Errorf("got %+v, %v; want %+v", loops, err, want)
	}
}

// TestErrors checks that assembly of another shape is not counted wrongly.
func TestErrors(t *testing.T) {
	for _, test := range []struct {
		assembly, want string
	}{
		{"TEXT ·f(SB), NOSPLIT, $0-8\n\tRET\n", "f has no main loop"},
		{"TEXT ·f(SB), NOSPLIT, $0-8\n\tRET\nTEXT ·g(SB), NOSPLIT, $0-8\n\tRET\n", "f has no main loop"},
		{"TEXT ·f(SB), NOSPLIT, $0-8\nblock1:\n\tCMPQ BX, $+8\n\tJGE block1\n", "f has no loop over models in its main loop"},
	} {
		if _, err := instructions.Loops(test.assembly); err == nil || err.Error() != test.want {
			t.Errorf("%q: error %v, want %s", test.assembly, err, test.want)
		}
	}
	const models = "models2:\n\tDECQ R8\n\tJNZ models2\nfolded3:\n"
	for _, test := range []struct {
		block, want string
	}{
		{models + "other4:\n\tRET\n", "f: label other has no meaning here"},
		{"\tJZ other4\n" + models, "f: JZ other4 has no meaning here"},
		{"\tJMP stored4\n" + models, "f: label stored is not in the block"},
	} {
		loops, err := instructions.Loops("TEXT ·f(SB), NOSPLIT, $0-8\nblock1:\n" + test.block + "\tCMPQ BX, $+8\n\tJGE block1\n")
		if err != nil {
			t.Errorf("%q: %v", test.block, err)
			continue
		}
		if _, err := loops[0].Count(instructions.Call{}); err == nil || err.Error() != test.want {
			t.Errorf("%q: error %v, want %s", test.block, err, test.want)
		}
	}
}
