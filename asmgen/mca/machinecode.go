package main

import (
	"debug/elf"
	"debug/gosym"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/modelavg/modelavg/asmgen/instructions"
)

// A loop is the loop over the models of a function, as the Go assembler has encoded it.
type loop struct {
	instructions.Loop
	code []byte
}

// machineCode adds to loops, by function, the loops over models in the kernels of an architecture. It builds package
// kernel, which lies in directory.
func machineCode(loops map[string]loop, directory, architecture string) error {
	assembly, err := os.ReadFile(filepath.Join(directory, "kernel_"+architecture+".s"))
	if err != nil {
		return err
	}
	all, err := instructions.Loops(string(assembly))
	if err != nil {
		return err
	}
	temporary, err := os.MkdirTemp("", "mca")
	if err != nil {
		return err
	}
	defer os.RemoveAll(temporary)
	program := filepath.Join(temporary, "kernel.test")
	build := exec.Command("go", "test", "-c", "-o", program, ".")
	build.Dir = directory
	build.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+architecture, "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%v: %w\n%s", build, err, output)
	}
	file, err := elf.Open(program)
	if err != nil {
		return err
	}
	defer file.Close()
	text := file.Section(".text")
	code, err := text.Data()
	if err != nil {
		return err
	}
	lines, err := file.Section(".gopclntab").Data()
	if err != nil {
		return err
	}
	table, err := gosym.NewTable(nil, gosym.NewLineTable(lines, text.Addr))
	if err != nil {
		return err
	}
	for _, l := range all {
		function := table.LookupFunc("github.com/modelavg/modelavg/kernel." + l.Function)
		if function == nil {
			return fmt.Errorf("%s is not in the program", l.Function)
		}
		first, last := l.ModelLines()
		var body []byte
		for pc := function.Entry; pc < function.End; pc++ {
			if _, line, _ := table.PCToLine(pc); first <= line && line <= last {
				body = append(body, code[pc-text.Addr])
			}
		}
		loops[l.Function] = loop{l, body}
	}
	return nil
}
