package main

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"slices"
	"strings"
)

// An llvm is the names of two of LLVM's programs.
type llvm struct {
	mc, mca string
}

// disassemble returns the assembly language of machine code as LLVM writes it, an instruction a line.
func (l llvm) disassemble(triple string, code []byte) ([]string, error) {
	var bytes strings.Builder
	for _, b := range code {
		fmt.Fprintf(&bytes, "%#02x ", b)
	}
	arguments := []string{"--disassemble", "--triple=" + triple}
	if triple == "x86_64" {
		arguments = append(arguments, "--mattr=+avx512f,+avx512bw,+avx512dq,+avx512vl")
	}
	text, err := run(bytes.String(), l.mc, arguments...)
	if err != nil {
		return nil, err
	}
	var listing []string
	for line := range strings.Lines(text) {
		line, _, _ = strings.Cut(line, "# ") // comment
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, ".") {
			listing = append(listing, line)
		}
	}
	return listing, nil
}

// simulate returns what one turn of a loop takes when it has run for long. The options go to llvm-mca.
func (l llvm) simulate(p processor, listing []string, options ...string) (result, error) {
	const iterations = 1000
	once, err := l.analyze(p, listing, iterations, options)
	if err != nil {
		return result{}, err
	}
	twice, err := l.analyze(p, listing, 2*iterations, options)
	if err != nil {
		return result{}, err
	}
	// Without the cycles until the first turns are under way.
	once.cycles = (twice.cycles - once.cycles) / iterations
	return once, nil
}

// analyze returns what llvm-mca says, with the cycles of all iterations.
func (l llvm) analyze(p processor, listing []string, iterations int, options []string) (result, error) {
	options = append([]string{
		"-json", "-mtriple=" + triples[p.architecture], "-mcpu=" + p.mcpu, fmt.Sprintf("-iterations=%d", iterations),
	}, options...)
	text, err := run(strings.Join(listing, "\n")+"\n", l.mca, options...)
	if err != nil {
		return result{}, err
	}
	r, err := parse([]byte(text), len(listing), iterations)
	if err != nil {
		return result{}, fmt.Errorf("%s: %w", l.mca, err)
	}
	return r, nil
}

// parse reads what llvm-mca reports in JSON for so many instructions.
func parse(text []byte, instructions, iterations int) (result, error) {
	var report struct {
		CodeRegions []struct {
			Instructions []string
			SummaryView  struct {
				TotalCycles, DispatchWidth, TotaluOps float64
			}
			ResourcePressureView struct {
				ResourcePressureInfo []struct {
					InstructionIndex, ResourceIndex int
					ResourceUsage                   float64
				}
			}
		}
		TargetInfo struct {
			Resources []string
		}
	}
	if err := json.Unmarshal(text, &report); err != nil {
		return result{}, err
	}
	if len(report.CodeRegions) != 1 {
		return result{}, fmt.Errorf("%d regions, want 1", len(report.CodeRegions))
	}
	region := report.CodeRegions[0]
	if got := len(region.Instructions); got != instructions {
		return result{}, fmt.Errorf("%d instructions, want %d", got, instructions)
	}
	r := result{
		model:  commonPrefix(report.TargetInfo.Resources),
		cycles: region.SummaryView.TotalCycles,
		uops:   region.SummaryView.TotaluOps / float64(iterations),
		width:  region.SummaryView.DispatchWidth,
		units:  map[string]float64{},
	}
	for _, pressure := range region.ResourcePressureView.ResourcePressureInfo {
		if pressure.InstructionIndex != instructions { // which stands for all of them
			continue
		}
		if pressure.ResourceIndex < 0 || pressure.ResourceIndex >= len(report.TargetInfo.Resources) {
			return result{}, fmt.Errorf("there is no unit %d", pressure.ResourceIndex)
		}
		// Units that are alike have one name, and a number that is a control character.
		name, _, _ := strings.Cut(report.TargetInfo.Resources[pressure.ResourceIndex], ".")
		r.units[name] = max(r.units[name], pressure.ResourceUsage)
	}
	return r, nil
}

// commonPrefix returns what all names begin with.
func commonPrefix(names []string) string {
	if len(names) == 0 {
		return ""
	}
	first, last := slices.Min(names), slices.Max(names)
	for i := range first {
		if i == len(last) || first[i] != last[i] {
			return first[:i]
		}
	}
	return first
}

// run returns what a program prints for an input. It fails when the program warns.
func run(input, program string, arguments ...string) (string, error) {
	command := exec.Command(program, arguments...)
	var warnings strings.Builder
	command.Stdin, command.Stderr = strings.NewReader(input), &warnings
	output, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("%v: %w\n%s", command, err, warnings.String())
	}
	if warnings.Len() > 0 {
		return "", fmt.Errorf("%v: %s", command, warnings.String())
	}
	return string(output), nil
}
