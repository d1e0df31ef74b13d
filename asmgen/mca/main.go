// Command mca says how fast the loops over models in package kernel can run on processors that are not at hand, by the
// scheduling models of LLVM:
//
//	go run ./asmgen/mca -suffix=-22    # with the programs of llvm-22
//
// It builds package kernel, takes the machine code of the loops over models in the largest blocks of weightedSum, has
// llvm-mc disassemble it and llvm-mca simulate it, and prints Markdown tables. Those of accumulate are the same but for
// general registers. In a table stand, in cycles for one element of one model when all data is in the first-level cache:
//
//   - cycles: what llvm-mca finds when the loop runs for many models;
//   - loads: the bytes of the elements through the load ports, by whole vectors, or by pairs of them (NEON);
//   - arithmetic: the vector instructions that calculate, each through the pipes that it can go to;
//   - ratio: cycles over the larger of these two limits;
//   - full: the units that have no cycle to spare, as the scheduling model names them, and the dispatch of
//     micro-operations, if twice as many a cycle would help; where there are none of these, instructions wait for others.
package main

import (
	"flag"
	"fmt"
	"log"
	"maps"
	"os"
	"os/exec"
	"slices"
	"strings"
)

// A processor is one that LLVM has a name for.
type processor struct {
	name, mcpu, architecture string
}

var processors = []processor{
	{"Neoverse N1", "neoverse-n1", "arm64"},
	{"Neoverse V1", "neoverse-v1", "arm64"},
	{"Neoverse V2", "neoverse-v2", "arm64"},
	{"Apple M1", "apple-m1", "arm64"},
	{"Skylake-X", "skylake-avx512", "amd64"},
	{"Ice Lake-SP", "icelake-server", "amd64"},
	{"Sapphire Rapids", "sapphirerapids", "amd64"},
	{"Zen 4", "znver4", "amd64"},
}

// An isa is an instruction set of the kernels.
type isa struct {
	name, architecture string
	load               string // the loops' way to load
	loadBytes          int    // that it loads
}

var isas = []isa{
	{"NEON", "arm64", "ldp q0, q1, [x0]", 32},
	{"AVX2", "amd64", "vmovups (%rax), %ymm0", 32},
	{"AVX512", "amd64", "vmovups (%rax), %zmm0", 64},
}

var kinds = []struct {
	name         string
	elementBytes int
}{
	{"Float32", 4}, {"Float64", 8}, {"Float16", 2}, {"BFloat16", 2}, {"Float32Native", 4}, {"Float64Wider", 8},
}

var triples = map[string]string{"amd64": "x86_64", "arm64": "aarch64"}

func main() {
	log.SetFlags(0)
	log.SetPrefix("mca: ")
	directory := flag.String("kernel", "kernel", "directory of package kernel")
	suffix := flag.String("suffix", "", `of the names of LLVM's programs, such as "-22" for llvm-mca-22`)
	flag.Parse()
	if flag.NArg() > 0 {
		flag.Usage()
		os.Exit(2)
	}
	if err := report(*directory, llvm{"llvm-mc" + *suffix, "llvm-mca" + *suffix}); err != nil {
		log.Fatal(err)
	}
}

// report prints all tables.
func report(directory string, tools llvm) error {
	version, err := exec.Command(tools.mca, "--version").Output()
	if err != nil {
		return fmt.Errorf("%s: %w", tools.mca, err)
	}
	first, _, _ := strings.Cut(string(version), "\n")
	fmt.Printf("llvm-mca of %s.\n", strings.TrimSpace(first))
	loops := map[string]loop{}
	for architecture := range triples {
		if err := machineCode(loops, directory, architecture); err != nil {
			return err
		}
	}
	cycles := map[string]float64{} // by function and processor
	for _, isa := range isas {
		fmt.Printf("\n%s:\n\n", isa.name)
		fmt.Println("| kind | processor | model | cycles | loads | arithmetic | ratio | full |")
		fmt.Println("|---|---|---|---:|---:|---:|---:|---|")
		for _, kind := range kinds {
			name := "weightedSum" + kind.name + isa.name
			loop, exists := loops[name]
			if !exists {
				return fmt.Errorf("there is no %s", name)
			}
			listing, err := tools.disassemble(triples[isa.architecture], loop.code)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			for _, p := range processors {
				if p.architecture != isa.architecture {
					continue
				}
				row, err := tools.row(p, isa, listing, loop.Elements, kind.elementBytes)
				if err != nil {
					return fmt.Errorf("%s on %s: %w", name, p.name, err)
				}
				cycles[name+p.name] = row.cycles
				fmt.Printf("| %s | %s | %s | %.4f | %.4f | %.4f | %.2f | %s |\n", kind.name, p.name, row.model,
					row.cycles, row.loads, row.arithmetic, row.cycles/max(row.loads, row.arithmetic), strings.Join(row.full, ", "))
			}
		}
	}
	fmt.Printf("\nAVX2 over AVX-512:\n\n| kind |")
	for _, p := range processors {
		if p.architecture == "amd64" {
			fmt.Printf(" %s |", p.name)
		}
	}
	fmt.Printf("\n|---|---:|---:|---:|---:|\n")
	for _, kind := range kinds {
		fmt.Printf("| %s |", kind.name)
		for _, p := range processors {
			if p.architecture == "amd64" {
				function := "weightedSum" + kind.name
				fmt.Printf(" %.2f |", cycles[function+"AVX2"+p.name]/cycles[function+"AVX512"+p.name])
			}
		}
		fmt.Println()
	}
	return nil
}

// A row is what a table says about one loop on one processor; cycles are for an element of a model.
type row struct {
	model                     string
	cycles, loads, arithmetic float64
	full                      []string
}

func (l llvm) row(p processor, isa isa, listing []string, elements, elementBytes int) (row, error) {
	whole, err := l.simulate(p, listing)
	if err != nil {
		return row{}, err
	}
	load, err := l.simulate(p, []string{isa.load})
	if err != nil {
		return row{}, err
	}
	calculation, err := l.simulate(p, arithmetic(listing))
	if err != nil {
		return row{}, err
	}
	// Where more dispatch would help, dispatch is what is full.
	faster, err := l.simulate(p, listing, fmt.Sprintf("-dispatch=%.0f", 2*whole.width))
	if err != nil {
		return row{}, err
	}
	full := whole.full()
	if faster.cycles < 29./30*whole.cycles {
		full = append(full, fmt.Sprintf("dispatch: %.0f micro-operations, %.0f a cycle; %.4f with %.0f",
			whole.uops, whole.width, faster.cycles/float64(elements), 2*whole.width))
	} else if len(full) == 0 {
		full = []string{"latency"}
	}
	return row{
		model:      whole.model,
		cycles:     whole.cycles / float64(elements),
		loads:      load.busiest() * float64(elementBytes) / float64(isa.loadBytes),
		arithmetic: calculation.busiest() / float64(elements),
		full:       full,
	}, nil
}

// A result is what llvm-mca says about one turn of a loop.
type result struct {
	model  string             // what the names of the units begin with
	cycles float64            // from one turn to the next
	uops   float64            // micro-operations
	width  float64            // most micro-operations that are dispatched in a cycle
	units  map[string]float64 // cycles that each is busy
}

// arithmetic returns the instructions of a loop that calculate with vectors: they neither move nor broadcast them.
func arithmetic(listing []string) []string {
	var some []string
	for _, text := range listing {
		for _, prefix := range []string{"vf", "vcvt", "vmul", "vadd", "vsub", "vpsll", "vpand", "f", "zip", "shll"} {
			if strings.HasPrefix(text, prefix) {
				some = append(some, text)
				break
			}
		}
	}
	return some
}

// busiest returns the cycles in which the busiest unit works.
func (r *result) busiest() float64 { return slices.Max(slices.Collect(maps.Values(r.units))) }

// full names the units that have less than a thirtieth of the cycles to spare.
func (r *result) full() []string {
	var names []string
	for _, unit := range slices.Sorted(maps.Keys(r.units)) {
		if r.units[unit] >= 29./30*r.cycles {
			names = append(names, strings.TrimPrefix(unit, r.model))
		}
	}
	return names
}
