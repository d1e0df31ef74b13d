// Command bench measures how fast modelavg and other ways of averaging models in Go are, side by side, against what the
// memory of the machine can move.
//
//	go run ./bench
//
// from the root of the repository checks that all libraries compute the same, measures them in interleaved rounds, and
// writes results.txt (in Go's benchmark format), report.md and charts to the directory of the flag -out. README.md says
// what the numbers mean.
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/klauspost/cpuid/v2"
	"github.com/modelavg/modelavg/internal/implementation"
	"github.com/modelavg/modelavg/kernel"
)

func main() {
	switch err := run(os.Args[1:], os.Stdout, os.Stderr); {
	case errors.Is(err, flag.ErrHelp):
	case errors.As(err, new(usageError)):
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// A usageError is a command line that cannot be followed.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

const gibibyte = 1 << 30

// flags are the command line.
type flags struct {
	selection
	libraries   []library
	rounds      int
	sample      time.Duration
	out         string
	from        []string
	check       bool
	pages       string
	memory      float64
	chartModels int
	baseline    string
}

func parseFlags(arguments []string, output io.Writer) (f flags, err error) {
	set := flag.NewFlagSet("bench", flag.ContinueOnError)
	set.SetOutput(output)
	jobList := set.String("jobs", "all", "`list` of jobs: WeightedSum, Mean, EMAStep")
	dtypeList := set.String("dtypes", "all", "`list` of types: float32, float64, float16, bfloat16")
	modelList := set.String("models", "2,4,8,16", "`list` of numbers of models, at least 2 each; an EMAStep has 2")
	sizeList := set.String("n", "8,64,256,4096,65536,1048576,64000000", "`list` of numbers of elements")
	libraryList := set.String("libraries", "default", "`list` of libraries, or all")
	implementationList := set.String("impl", "", "`list` of implementations to force our libraries to, or all")
	set.IntVar(&f.rounds, "rounds", 10, "number of rounds")
	set.DurationVar(&f.sample, "time", 5*time.Millisecond, "length of a sample; one run if that takes longer")
	set.StringVar(&f.out, "out", filepath.Join("bench", "out"), "`directory` for the results, the report and the charts")
	from := set.String("from", "", "measure nothing: make the report of this comma-separated `list` of results files")
	set.BoolVar(&f.check, "check", false, "measure nothing: only check that all libraries compute the same")
	set.StringVar(&f.pages, "hugepages", "system", "transparent huge `pages`: on, off, or as the system says")
	set.Float64Var(&f.memory, "memory", 12, "leave out what needs more than this many `GiB`")
	set.StringVar(&f.baseline, "baseline", "", "compare with the results of the same processor in this `directory`")
	set.IntVar(&f.chartModels, "chart-models", 4, "number of models in the charts of speed against size, or the nearest that was measured")
	set.Usage = func() {
		fmt.Fprintf(output, "Usage: go run ./bench [flags]\n\n")
		set.PrintDefaults()
		fmt.Fprintf(output, "\nLibraries (* only when named):\n")
		for _, l := range libraries() {
			mark := " "
			if l.optional {
				mark = "*"
			}
			fmt.Fprintf(output, " %s%-28s %s\n", mark, l.name, l.about)
		}
	}
	if err := set.Parse(arguments); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return f, err
		}
		return f, usageError{err}
	}
	var errs [6]error
	f.jobs, errs[0] = parseNames("jobs", *jobList, jobs)
	f.dtypes, errs[1] = parseNames("dtypes", *dtypeList, dtypes)
	f.models, errs[2] = parseInts("models", *modelList)
	f.sizes, errs[3] = parseInts("n", *sizeList)
	f.libraries, errs[4] = choose(*libraryList, *implementationList)
	switch {
	case set.NArg() > 0:
		errs[5] = fmt.Errorf("got argument %q, want flags only", set.Arg(0))
	case f.rounds < 1:
		errs[5] = fmt.Errorf("-rounds: got %d, want at least 1", f.rounds)
	case f.sample <= 0:
		errs[5] = fmt.Errorf("-time: got %v, want more than 0", f.sample)
	case !(f.memory > 0):
		errs[5] = fmt.Errorf("-memory: got %v, want more than 0", f.memory)
	case f.chartModels < 1:
		errs[5] = fmt.Errorf("-chart-models: got %d, want at least 1", f.chartModels)
	case f.pages != "system" && f.pages != "on" && f.pages != "off":
		errs[5] = fmt.Errorf("-hugepages: got %q, want system, on or off", f.pages)
	}
	for _, k := range f.models {
		if k < 2 {
			errs[2] = fmt.Errorf("-models: got %d, want at least 2", k)
		}
	}
	if f.baseline != "" && errs[5] == nil {
		errs[5] = checkDirectory(f.baseline)
	}
	for _, err := range errs {
		if err != nil {
			return f, usageError{err}
		}
	}
	if *from != "" {
		f.from = strings.Split(*from, ",")
	}
	return f, nil
}

func run(arguments []string, stdout, stderr io.Writer) error {
	f, err := parseFlags(arguments, stderr)
	if err != nil {
		return err
	}
	if f.from != nil {
		return report(f, stdout)
	}
	if !f.check {
		if err := os.MkdirAll(f.out, 0o777); err != nil {
			return err
		}
	}
	points := f.points()
	limit := 4096
	if f.check {
		limit = 1 << 20
	}
	count, err := checkAll(f.libraries, points, limit)
	if err != nil {
		return fmt.Errorf("the libraries do not compute the same: %w", err)
	}
	fmt.Fprintf(stderr, "%d results are as they should be\n", count)
	if f.check {
		return nil
	}
	points = affordable(points, f.memory, stderr)
	if len(points) == 0 {
		return errors.New("nothing to measure")
	}
	path := filepath.Join(f.out, "results.txt")
	if err := measureTo(path, stderr, f, points); err != nil {
		return err
	}
	f.from = []string{path}
	return report(f, stdout)
}

// affordable returns the points that fit the memory, and says which do not.
func affordable(points []point, memory float64, w io.Writer) (fit []point) {
	for _, p := range points {
		if need := float64(arenaBytes(p)) / gibibyte; need > memory {
			fmt.Fprintf(w, "left out: %v, which needs %.1f GiB\n", p, need)
			continue
		}
		fit = append(fit, p)
	}
	return fit
}

// measureTo measures and writes the results file, which takes the place of an older one when all is measured.
func measureTo(path string, progress io.Writer, f flags, points []point) (err error) {
	file, err := os.Create(path + ".part")
	if err != nil {
		return err
	}
	defer func() {
		if e := file.Close(); err == nil {
			err = e
		}
		if err == nil {
			err = os.Rename(file.Name(), path)
		}
	}()
	w := bufio.NewWriter(file)
	if err := writeHeader(w, headerLines(f)); err != nil {
		return err
	}
	// Neither the collector nor another thread is to run beside a measurement.
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	start := time.Now()
	a, err := newArena(points, f.pages)
	if err != nil {
		return err
	}
	fmt.Fprintf(progress, "touched %.1f GiB in %v\n", float64(len(a.memory))/gibibyte, time.Since(start).Round(time.Second))
	if err := measure(w, progress, a, prepareFields(a, f.libraries, points), f.rounds, f.sample); err != nil {
		return err
	}
	return w.Flush()
}

// headerLines describe the machine and the run.
func headerLines(f flags) []header {
	pages := f.pages
	if pages == "system" {
		pages = systemPages()
	}
	cache := ""
	if size := cpuid.CPU.Cache.L3; size > 0 {
		cache = strconv.Itoa(size)
	}
	list := func(choice implementation.Choice) string {
		var kinds []string
		for kind, chosen := range choice {
			kinds = append(kinds, fmt.Sprintf("%v=%v", implementation.Kind(kind), chosen))
		}
		return strings.Join(kinds, " ")
	}
	return []header{
		{"goos", runtime.GOOS},
		{"goarch", runtime.GOARCH},
		{"pkg", "github.com/modelavg/modelavg/bench"},
		{"cpu", processor()},
		{"go", runtime.Version()},
		{"processors", strconv.Itoa(runtime.NumCPU())},
		{"last-level-cache", cache},
		{"huge-pages", pages},
		{"implementations", strings.Join(kernel.Implementations(), " ")},
		{"kernels", list(implementation.Chosen)},
		{"kernels-past-the-caches", list(implementation.ChosenPast)},
		{"rounds", strconv.Itoa(f.rounds)},
		{"sample", f.sample.String()},
		{"date", time.Now().UTC().Format(time.DateOnly)},
	}
}

// processor returns the name of the processor with its family and model, which tell apart machines of one name.
func processor() string {
	name := cpuid.CPU.BrandName
	if cpuid.CPU.Family != 0 {
		name += fmt.Sprintf(" (family %#x, model %#x)", cpuid.CPU.Family, cpuid.CPU.Model)
	}
	return strings.TrimSpace(name)
}

// report writes the report and the charts of results files.
func report(f flags, stdout io.Writer) (err error) {
	r, err := readResults(f.from...)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(f.out, 0o777); err != nil {
		return err
	}
	path := filepath.Join(f.out, "report.md")
	var text strings.Builder
	if err := r.writeReport(&text); err != nil {
		return err
	}
	if err := os.WriteFile(path, []byte(text.String()), 0o666); err != nil {
		return err
	}
	charts, err := r.writeCharts(f.out, f.chartModels)
	if err != nil {
		return err
	}
	r.summary().write(stdout)
	fmt.Fprintf(stdout, "%s and %d charts beside it\n", path, len(charts))
	if f.baseline == "" {
		return nil
	}
	fmt.Fprintln(stdout)
	return r.writeComparison(stdout, f.baseline)
}
