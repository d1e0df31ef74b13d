package amd64

import (
	"bytes"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	generatedFile = "../../kernel/kernel_amd64.s"
	guardFile     = "../../internal/implementation/implementation_amd64.go"
)

// TestRegenerate fails when the committed assembly is not what the generator writes: run "go generate ./kernel".
func TestRegenerate(t *testing.T) {
	got, err := Generate()
	if err != nil {
		t.Fatal(err)
	}
	want, err := os.ReadFile(generatedFile)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("%s differs from what the generator writes: run \"go generate ./kernel\"", generatedFile)
	}
}

// features maps the names of instruction set extensions in avo's "Requires:" lines to the fields of x/sys/cpu.X86 that
// stand for them. An empty name is part of every amd64 processor.
var features = map[string]string{
	"AVX": "HasAVX", "AVX2": "HasAVX2", "FMA3": "HasFMA", "F16C": "HasF16C",
	"AVX512F": "HasAVX512F", "AVX512BW": "HasAVX512BW", "AVX512DQ": "HasAVX512DQ", "AVX512VL": "HasAVX512VL",
	"SSE": "", "SSE2": "", "MMX+": "", // SFENCE is listed as MMX+
}

// TestGuardCoversBody proves from the "Requires:" line of every generated function that the guard, before which no
// function of its name runs, asks for everything that the body needs.
func TestGuardCoversBody(t *testing.T) {
	source, err := os.ReadFile(guardFile)
	if err != nil {
		t.Fatal(err)
	}
	guard := func(name string) []string {
		line := regexp.MustCompile(`\b` + name + `\s*= (.*)`).FindSubmatch(source)
		if line == nil {
			t.Fatalf("%s has no guard %s", guardFile, name)
		}
		var has []string
		for _, m := range regexp.MustCompile(`cpu\.X86\.(Has\w+)`).FindAllSubmatch(line[1], -1) {
			has = append(has, string(m[1]))
		}
		return has
	}
	guards := map[string][]string{"AVX2": guard("hasAVX2")}
	guards["AVX512"] = append(guard("hasAVX512"), guards["AVX2"]...)

	text, err := os.ReadFile(generatedFile)
	if err != nil {
		t.Fatal(err)
	}
	functions := regexp.MustCompile(`(?m)^// Requires: (.*)\nTEXT ·(\w+)\(SB\)`).FindAllSubmatch(text, -1)
	if want := bytes.Count(text, []byte("\nTEXT ")); len(functions) != want || want != 2*2*len(kinds)+3 {
		t.Fatalf("%d functions have a Requires line, want %d, two for each of %d kinds and 2 instruction sets and 3 of AVX2",
			len(functions), want, len(kinds))
	}
	for _, f := range functions {
		name := string(f[2])
		suffix := "AVX2"
		if strings.HasSuffix(name, "AVX512") {
			suffix = "AVX512"
		}
		if !strings.HasSuffix(name, suffix) {
			t.Errorf("%s: no guard is known for its name", name)
		}
		for _, extension := range strings.Split(string(f[1]), ", ") {
			field, known := features[extension]
			switch {
			case !known:
				t.Errorf("%s needs %s, which no guard asks for", name, extension)
			case field != "" && !slices.Contains(guards[suffix], field):
				t.Errorf("%s needs %s, but the guard has only %v", name, extension, guards[suffix])
			}
		}
	}
}

// TestLeafFunctions proves that no function has a stack frame or touches the stack and frame pointers, which the
// runtime's unwinder relies on.
func TestLeafFunctions(t *testing.T) {
	text, err := os.ReadFile(generatedFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range regexp.MustCompile(`(?m)^TEXT .*`).FindAll(text, -1) {
		if !bytes.Contains(m, []byte("NOSPLIT, $0-")) {
			t.Errorf("%s: want a leaf without a frame", m)
		}
	}
	for _, register := range []string{"BP", "SP", "R14", "R15"} {
		if m := regexp.MustCompile(`(?m)^\t.*\b` + register + `\b.*`).Find(text); m != nil {
			t.Errorf("register %s is used: %s", register, m)
		}
	}
}

// TestFlagged proves that whatever flag a call has leads to the block that looks at each of them.
func TestFlagged(t *testing.T) {
	text, err := os.ReadFile(generatedFile)
	if err != nil {
		t.Fatal(err)
	}
	want := regexp.MustCompile(`(?m)^\tTESTQ +\$0x00000007, flags\+\d+\(FP\)\n\tJNZ +flagged\d+$`).FindAll(text, -1)
	jumps := regexp.MustCompile(`(?m)^\tJ\w+ +flagged\d+$`).FindAll(text, -1)
	if len(jumps) != len(want) || len(want) == 0 {
		t.Errorf("%d of %d jumps to flagged blocks come after a test of all flags", len(want), len(jumps))
	}
}
