package amd64

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestPaths follows every path through every function, for what no result of a test need show: a return with non-temporal
// stores that no SFENCE has ordered before the next stores of the caller; one with the upper halves of the vector registers
// in use, which slows down the SSE code that comes after; and a register that is read before anything is written to it,
// where it holds what the caller left there.
func TestPaths(t *testing.T) {
	text, err := os.ReadFile(generatedFile)
	if err != nil {
		t.Fatal(err)
	}
	functions := strings.Split(string(text), "\nTEXT ")[1:]
	if len(functions) == 0 {
		t.Fatal("no functions")
	}
	for _, function := range functions {
		for _, problem := range problems(strings.Split(function, "\n")) {
			t.Error(problem)
		}
	}
}

// TestPathsFinds checks that each of the three is found.
func TestPathsFinds(t *testing.T) {
	const begin, end = "·f(SB), NOSPLIT, $0-8\n\tMOVQ dst+0(FP), AX\n", "\tVZEROUPPER\n\tRET\n"
	for _, test := range []struct{ body, want string }{
		{"\tVMOVUPS (AX), Y0\n\tVMOVUPS Y0, (AX)\n" + end, ""},
		{"\tTESTQ AX, AX\n\tJZ done1\n\tMOVQ AX, BX\n\tADDQ BX, AX\ndone1:\n" + end, ""},
		{"\tVMOVUPS (AX), Y0\n\tRET\n", "·f, line 3: returns without VZEROUPPER"},
		{"\tVMOVUPS (AX), Y0\n\tJZ done1\n\tVZEROUPPER\ndone1:\n\tRET\n", "·f, line 6: returns without VZEROUPPER"},
		{"\tVMOVNTPS Y0, (AX)\n" + end, "·f, line 4: returns without SFENCE"},
		{"\tVMOVNTPS Y0, (AX)\n\tSFENCE\n" + end, ""},
		{"\tVMOVUPS (AX)(BX*4), Y0\n" + end, "·f, line 2: reads BX, which nothing was written to"},
		{"\tADDQ AX, CX\n" + end, "·f, line 2: reads CX, which nothing was written to"},
		{
			"\tTESTQ AX, AX\n\tJZ done1\n\tMOVQ AX, BX\ndone1:\n\tADDQ BX, AX\n" + end,
			"·f, line 6: reads BX, which nothing was written to",
		},
		{"\tNOP\n", "·f: runs over its end"},
	} {
		got := problems(strings.Split(strings.TrimSuffix(begin+test.body, "\n"), "\n"))
		if want := []string{test.want}; !slices.Equal(got, want) && (test.want != "" || len(got) > 0) {
			t.Errorf("%q: got %q, want %q", test.body, got, test.want)
		}
	}
}

var (
	labelLine  = regexp.MustCompile(`^(\w+):`)
	branchLine = regexp.MustCompile(`^\t(J\w+)\s+(\w+)$`)
	streamTest = regexp.MustCompile(`^\tTESTQ\s+\$0x00000001, flags\+`)
	upperLine  = regexp.MustCompile(`^\tV.*\b[YZ]\d+$`)
	register   = regexp.MustCompile(`\b([ABCD]X|[SD]I|R8|R9|R1[0-3])\b`)
	wholeWrite = regexp.MustCompile(`^\t(?:MOVQ|LEAQ|IMUL3Q|MOVWLZX|VMOVD)\s+(.*), (\w+)$`) // of a register, or a move to a vector
)

// problems returns what is wrong on the paths through a function, of which the first line is what follows TEXT.
func problems(lines []string) (found []string) {
	name, _, _ := strings.Cut(lines[0], "(")
	report := func(format string, args ...any) {
		if text := name + fmt.Sprintf(format, args...); !slices.Contains(found, text) {
			found = append(found, text)
		}
	}
	labels := map[string]int{}
	for i, line := range lines {
		if m := labelLine.FindStringSubmatch(line); m != nil {
			labels[m[1]] = i
		}
	}
	type state struct {
		line             int
		unfenced, uppers bool
		written          uint16 // a bit for each general register
	}
	seen := map[state]bool{}
	for rest := []state{{line: 1}}; len(rest) > 0; {
		s := rest[len(rest)-1]
		rest = rest[:len(rest)-1]
		if seen[s] {
			continue
		}
		seen[s] = true
		if s.line == len(lines) {
			report(": runs over its end")
			continue
		}
		line := lines[s.line]
		next := s
		next.line++
		reads := line
		if m := wholeWrite.FindStringSubmatch(line); m != nil && register.MatchString(m[2]) {
			reads = m[1]
			next.written |= bit(m[2])
		}
		if strings.HasPrefix(line, "\t//") {
			reads = ""
		}
		for _, r := range register.FindAllString(reads, -1) {
			if s.written&bit(r) == 0 {
				report(", line %d: reads %s, which nothing was written to", s.line, r)
			}
		}
		switch {
		case strings.HasPrefix(line, "\tVMOVNT"):
			next.unfenced = true
		case line == "\tSFENCE":
			next.unfenced = false
		case line == "\tVZEROUPPER":
			next.uppers = false
		case line == "\tRET", strings.HasPrefix(line, "\tJMP ·"): // to a function that keeps the same rules
			if s.unfenced {
				report(", line %d: returns without SFENCE", s.line)
			}
			if s.uppers {
				report(", line %d: returns without VZEROUPPER", s.line)
			}
			continue
		case upperLine.MatchString(line):
			next.uppers = true
		}
		if m := branchLine.FindStringSubmatch(line); m != nil {
			target, ok := labels[m[2]]
			if !ok {
				report(", line %d: there is no label %s", s.line, m[2])
				continue
			}
			// What has stored past the caches was told to, so that the same question has the same answer.
			if !(s.unfenced && m[1] == "JZ" && streamTest.MatchString(lines[s.line-1])) {
				jump := next
				jump.line = target
				rest = append(rest, jump)
			}
			if m[1] == "JMP" {
				continue
			}
		}
		rest = append(rest, next)
	}
	return found
}

// bit returns that of a general register.
func bit(name string) uint16 {
	return 1 << slices.Index([]string{
		"AX", "BX", "CX", "DX", "SI", "DI", "R8", "R9", "R10", "R11", "R12", "R13",
	}, name)
}
