package main

import (
	"bytes"
	"encoding/binary"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const kernelDirectory = "../../kernel"

// TestMachineCode checks that the machine code of a loop begins and ends where the loop does: the branch at its end goes to
// its beginning. No program of LLVM is needed.
func TestMachineCode(t *testing.T) {
	loops := map[string]loop{}
	for architecture := range triples {
		if err := machineCode(loops, kernelDirectory, architecture); err != nil {
			t.Fatal(err)
		}
	}
	for _, isa := range isas {
		for _, kind := range kinds {
			name := "weightedSum" + kind.name + isa.name
			code := loops[name].code
			if len(code) < 32 {
				t.Errorf("%s: %d bytes", name, len(code))
				continue
			}
			back := 0
			switch jnz := code[len(code)-6:]; {
			case isa.architecture == "arm64": // CBNZ, whose distance is 19 bits from bit 5 on, in instructions from its own address
				cbnz := int32(binary.LittleEndian.Uint32(code[len(code)-4:]))
				back = len(code) - 4 + int(cbnz<<8>>13)*4
			case jnz[0] == 0x0f && jnz[1] == 0x85:
				back = len(code) + int(int32(binary.LittleEndian.Uint32(jnz[2:])))
			case jnz[4] == 0x75:
				back = len(code) + int(int8(jnz[5]))
			default:
				t.Errorf("%s ends with % x, which is no JNZ", name, jnz)
			}
			if back != 0 {
				t.Errorf("%s ends with a branch to byte %d of the loop", name, back)
			}
		}
	}
}

// TestMachineCodeWords checks that the machine code of a NEON loop has the words that the assembly has.
func TestMachineCodeWords(t *testing.T) {
	loops := map[string]loop{}
	if err := machineCode(loops, kernelDirectory, "arm64"); err != nil {
		t.Fatal(err)
	}
	assembly, err := os.ReadFile(kernelDirectory + "/kernel_arm64.s")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(string(assembly), "\n")
	l := loops["weightedSumFloat64WiderNEON"]
	first, last := l.ModelLines()
	words := regexp.MustCompile(`WORD +\$0x([0-9a-f]{8})`).FindAllStringSubmatch(strings.Join(lines[first-1:last], "\n"), -1)
	if len(words) == 0 {
		t.Fatal("no words")
	}
	rest := l.code
	for _, word := range words {
		value, err := strconv.ParseUint(word[1], 16, 32)
		if err != nil {
			t.Fatal(err)
		}
		for len(rest) >= 4 && binary.LittleEndian.Uint32(rest) != uint32(value) {
			rest = rest[4:]
		}
		if len(rest) < 4 {
			t.Fatalf("%s is not where it should be in % x", word[0], l.code)
		}
		rest = rest[4:]
	}
}

func TestArithmetic(t *testing.T) {
	want := []string{
		"vfmadd231pd\t(%rax), %ymm0, %ymm1", "vpslld\t$16, %ymm1, %ymm2", "vcvtps2pd\t(%rax), %ymm3",
		"fmla\tv0.2d, v1.2d, v2.2d", "zip1\tv0.8h, v1.8h, v2.8h",
	}
	listing := slices.Concat(want, []string{
		"movq\t(%rsi), %r9", "vbroadcastsd\t(%rdi), %ymm18", "vmovupd\t(%rax), %ymm0", "vmovapd\t%ymm0, %ymm1", "addq\t$8, %rdi",
		"decq\t%r8", "jne\t-10", "ldp\tq8, q9, [x11]", "ld1r\t{ v24.2d }, [x9], #8", "mov\tv0.16b, v1.16b", "cbnz\tx10, #-88",
	})
	if got := arithmetic(listing); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestParse(t *testing.T) {
	report := `{"CodeRegions": [{
		"Instructions": ["ldr\tq0, [x0]", "fmla\tv0.2d, v1.2d, v2.2d"],
		"SummaryView": {"TotalCycles": 1007, "DispatchWidth": 3, "TotaluOps": 3000},
		"ResourcePressureView": {"ResourcePressureInfo": [
			{"InstructionIndex": 0, "ResourceIndex": 1, "ResourceUsage": 0.5},
			{"InstructionIndex": 2, "ResourceIndex": 0, "ResourceUsage": 1},
			{"InstructionIndex": 2, "ResourceIndex": 1, "ResourceUsage": 0.5},
			{"InstructionIndex": 2, "ResourceIndex": 2, "ResourceUsage": 0.25}
		]}
	}], "TargetInfo": {"Resources": ["N1UnitV0", "N1UnitL.\u0000", "N1UnitL.\u0001"]}}`
	r, err := parse([]byte(report), 2, 1000)
	if err != nil {
		t.Fatal(err)
	}
	if r.model != "N1Unit" || r.cycles != 1007 || r.uops != 3 || r.width != 3 || r.busiest() != 1 {
		t.Errorf("got %+v", r)
	}
	if want := map[string]float64{"N1UnitV0": 1, "N1UnitL": 0.5}; !maps.Equal(r.units, want) {
		t.Errorf("units %v, want %v", r.units, want)
	}
	r.cycles = 1.02
	if got := r.full(); !slices.Equal(got, []string{"V0"}) {
		t.Errorf("full %q, want V0", got)
	}
	for _, test := range []struct {
		text         string
		instructions int
		want         string
	}{
		{"", 2, "unexpected end of JSON input"},
		{"{}", 2, "0 regions, want 1"},
		{report, 3, "2 instructions, want 3"},
		{strings.Replace(report, `"ResourceIndex": 2`, `"ResourceIndex": 3`, 1), 2, "there is no unit 3"},
	} {
		if _, err := parse([]byte(test.text), test.instructions, 1000); err == nil || err.Error() != test.want {
			t.Errorf("%q: error %v, want %s", test.text, err, test.want)
		}
	}
}

// TestRun checks that a program that is not there, fails or warns is an error.
func TestRun(t *testing.T) {
	if _, err := run("", "no-such-program"); err == nil {
		t.Error("no error for a program that is not there")
	}
	if _, err := run("", "go", "no-such-command"); err == nil || !bytes.Contains([]byte(err.Error()), []byte("unknown command")) {
		t.Errorf("error %v, want what the program says", err)
	}
}
