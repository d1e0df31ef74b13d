package neon

import (
	"bytes"
	"encoding/binary"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/arch/arm64/arm64asm"
)

const generatedFile = "../../kernel/kernel_arm64.s"

func generate(t *testing.T) string {
	t.Helper()
	text, err := Generate()
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestRegenerate fails when the committed assembly is not what the generator writes: run "go generate ./kernel".
func TestRegenerate(t *testing.T) {
	want, err := os.ReadFile(generatedFile)
	if err != nil {
		t.Fatal(err)
	}
	if generate(t) != string(want) {
		t.Fatalf("%s differs from what the generator writes: run \"go generate ./kernel\"", generatedFile)
	}
}

// TestWords decodes every instruction that is written as a word and compares it with the comment beside it.
func TestWords(t *testing.T) {
	text := generate(t)
	words := regexp.MustCompile(`(?m)^\s*WORD\s+\$0x([0-9a-f]{8}) +// (.*)$`).FindAllStringSubmatch(text, -1)
	if want := strings.Count(text, "WORD"); len(words) != want || want == 0 {
		t.Fatalf("%d of %d words have a comment", len(words), want)
	}
	seen := map[string]bool{}
	for _, word := range words {
		value, err := strconv.ParseUint(word[1], 16, 32)
		if err != nil {
			t.Fatal(err)
		}
		instruction, err := arm64asm.Decode(binary.LittleEndian.AppendUint32(nil, uint32(value)))
		if err != nil {
			t.Errorf("%s // %s: %v", word[1], word[2], err)
			continue
		}
		if got := arm64asm.GNUSyntax(instruction); got != word[2] {
			t.Errorf("%s // %s: the word is %s", word[1], word[2], got)
		}
		seen[regexp.MustCompile(`(\b[vqxhs]|#)\d+`).ReplaceAllString(word[2], "${1}%d")] = true
	}
	for gnu := range encodings {
		if !seen[gnu] {
			t.Errorf("%s is used nowhere", gnu)
		}
	}
}

// TestWordErrors checks that a word that cannot be right is not written.
func TestWordErrors(t *testing.T) {
	for _, test := range []struct {
		gnu      string
		operands []int
		want     string
	}{
		{"fadd v%d.8h, v%d.8h, v%d.8h", []int{0, 1, 2}, "fadd v%d.8h, v%d.8h, v%d.8h with 3 operands has no encoding"},
		{"fcvtl v%d.4s, v%d.4h", []int{0}, "fcvtl v%d.4s, v%d.4h with 1 operands has no encoding"},
		{"fcvtl v%d.4s, v%d.4h", []int{0, 32}, "fcvtl v%d.4s, v%d.4h: operand 32 does not fit"},
		{"fcvtl v%d.4s, v%d.4h", []int{-1, 0}, "fcvtl v%d.4s, v%d.4h: operand -1 does not fit"},
		{"stnp q%d, q%d, [x%d,#%d]", []int{0, 1, 0, 8}, "stnp q%d, q%d, [x%d,#%d]: operand 8 does not fit"},
		{"stnp q%d, q%d, [x%d,#%d]", []int{0, 1, 0, 1024}, "stnp q%d, q%d, [x%d,#%d]: operand 1024 does not fit"},
	} {
		var e emitter
		e.word(test.gnu, test.operands...)
		e.word("no such word")
		if _, err := e.text(); err == nil || err.Error() != test.want {
			t.Errorf("word(%q, %d): error %v, want %s", test.gnu, test.operands, err, test.want)
		}
	}
}

// TestLabelErrors checks that a label stands only once in a function.
func TestLabelErrors(t *testing.T) {
	var e emitter
	e.function("f", "()", 0, "nothing")
	e.label("again")
	e.function("g", "()", 0, "nothing")
	e.label("again")
	if _, err := e.text(); err != nil {
		t.Errorf("one label in each of two functions: %v", err)
	}
	e.label("again")
	const want = "label again is defined twice"
	if _, err := e.text(); err == nil || err.Error() != want {
		t.Errorf("one label twice in a function: error %v, want %s", err, want)
	}
}

// TestLeafFunctions proves that there are two functions for each kind and two for magnitudes, that none has a stack frame, and that none uses
// a register of the linker (R16, R17, R27), the platform (R18), the runtime (R28) or the stack (R29, R30, RSP).
func TestLeafFunctions(t *testing.T) {
	text := generate(t)
	functions := regexp.MustCompile(`(?m)^TEXT .*`).FindAllString(text, -1)
	if len(functions) != 2*len(kinds)+2 {
		t.Errorf("%d functions for %d kinds, want two for each and two for magnitudes", len(functions), len(kinds))
	}
	for _, f := range functions {
		if !strings.Contains(f, "NOSPLIT, $0-") {
			t.Errorf("%s: want a leaf without a frame", f)
		}
	}
	forbidden := regexp.MustCompile(`\b([RXx](1[678]|2[789]|30)|RSP|sp|g|BL|CALL)\b`)
	for line := range strings.Lines(text) {
		if code := strings.TrimSpace(line); !strings.HasPrefix(code, "//") && forbidden.MatchString(code) {
			t.Errorf("%s: forbidden", code)
		}
	}
}

// TestRepeatable checks that the text depends on nothing but the generator.
func TestRepeatable(t *testing.T) {
	text := []byte(generate(t))
	for range 10 {
		if again := []byte(generate(t)); !bytes.Equal(again, text) {
			t.Fatal("two runs of the generator differ")
		}
	}
}
