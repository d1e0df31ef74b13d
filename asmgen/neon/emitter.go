package neon

import (
	"bytes"
	"fmt"
	"strings"
)

// An emitter writes Plan 9 assembly. The first error sticks; text returns it.
type emitter struct {
	out    bytes.Buffer
	lines  [][3]string     // instructions that are still to be aligned: mnemonic, operands, comment
	labels map[string]bool // of the function
	err    error
}

// op writes an instruction that the assembler knows.
func (e *emitter) op(mnemonic, format string, args ...any) {
	e.lines = append(e.lines, [3]string{mnemonic, fmt.Sprintf(format, args...)})
}

// word writes an instruction that the assembler does not know. Its GNU syntax, with %d for the operands, is its name in
// the table of encodings, and stands beside it as a comment.
func (e *emitter) word(gnu string, operands ...int) {
	encoding, ok := encodings[gnu]
	if !ok || len(operands) != len(encoding.fields) {
		e.fail("%s with %d operands has no encoding", gnu, len(operands))
		return
	}
	word, args := encoding.word, make([]any, len(operands))
	for i, field := range encoding.fields {
		value := operands[i] / field.scale
		if value < 0 || value >= field.limit || value*field.scale != operands[i] {
			e.fail("%s: operand %d does not fit", gnu, operands[i])
		}
		word |= uint32(value) << field.shift
		args[i] = operands[i]
	}
	e.lines = append(e.lines, [3]string{"WORD", fmt.Sprintf("$0x%08x", word), "// " + fmt.Sprintf(gnu, args...)})
}

func (e *emitter) label(name string) {
	if e.labels[name] {
		e.fail("label %s is defined twice", name)
	}
	e.labels[name] = true
	e.flush()
	fmt.Fprintf(&e.out, "\n%s:\n", name)
}

// comment starts a paragraph, unless it comes first under a label.
func (e *emitter) comment(lines ...string) {
	e.flush()
	if !bytes.HasSuffix(e.out.Bytes(), []byte(":\n")) {
		e.out.WriteByte('\n')
	}
	fmt.Fprintf(&e.out, "\t// %s\n", strings.Join(lines, "\n\t// "))
}

// function starts a leaf function without a frame. The doc lines say what it computes.
func (e *emitter) function(name, signature string, argumentBytes int, doc ...string) {
	e.flush()
	e.labels = map[string]bool{}
	fmt.Fprintf(&e.out, "\n// func %s%s\nTEXT ·%s(SB), NOSPLIT, $0-%d\n\t// %s\n",
		name, signature, name, argumentBytes, strings.Join(doc, "\n\t// "))
}

// flush writes the pending instructions, with their operands in one column and their comments in another.
func (e *emitter) flush() {
	var width [2]int
	for _, line := range e.lines {
		width[0], width[1] = max(width[0], len(line[0])), max(width[1], len(line[1]))
	}
	for _, line := range e.lines {
		text := fmt.Sprintf("\t%-*s %-*s %s", width[0], line[0], width[1], line[1], line[2])
		fmt.Fprintln(&e.out, strings.TrimRight(text, " "))
	}
	e.lines = nil
}

func (e *emitter) fail(format string, args ...any) {
	if e.err == nil {
		e.err = fmt.Errorf(format, args...)
	}
}

func (e *emitter) text() ([]byte, error) {
	e.flush()
	return e.out.Bytes(), e.err
}
