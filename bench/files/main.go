//go:build linux

// Command files measures how fast package merge averages model files, against the same reads and writes without
// arithmetic, against cat, and, where Python has NumPy or PyTorch, against a script that does the same job.
//
//	go run ./bench/files -dir DIRECTORY
//
// from the root of the repository. It writes models of random numbers to a new directory in DIRECTORY, runs everything
// in turn for some rounds, with the files in the page cache and with them out of it, and prints a table in Markdown.
//
// A virtual machine may have given the memory that a new file takes back to its host; to get it again takes longer than
// all the rest. As much as the largest output is therefore taken and freed before each measurement, if it is free.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/modelavg/modelavg/checkpoint"
	"github.com/modelavg/modelavg/merge"
)

func main() {
	err := run(os.Args[1:], os.Stdout, os.Stderr)
	switch {
	case errors.Is(err, flag.ErrHelp):
	case errors.As(err, new(usageError)):
		fmt.Fprintln(os.Stderr, "files:", err)
		os.Exit(2)
	case err != nil:
		fmt.Fprintln(os.Stderr, "files:", err)
		os.Exit(1)
	}
}

// A usageError is a command line that cannot be followed.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// settings are the command line.
type settings struct {
	dir     string
	models  int
	bytes   int64
	dtype   checkpoint.DType
	rounds  int
	workers []int
	python  string
}

func parse(arguments []string, output io.Writer) (s settings, err error) {
	set := flag.NewFlagSet("files", flag.ContinueOnError)
	set.SetOutput(output)
	set.StringVar(&s.dir, "dir", "", "`directory` on the file system to measure (required)")
	set.IntVar(&s.models, "models", 2, "number of models")
	set.Int64Var(&s.bytes, "bytes", 1<<30, "size of a model")
	set.TextVar(&s.dtype, "dtype", checkpoint.F32, "`dtype` of the tensors: F32, F16, BF16 or F64")
	set.IntVar(&s.rounds, "rounds", 10, "number of rounds")
	set.StringVar(&s.python, "python", "python3", "Python with NumPy or PyTorch; without them its rows are missing")
	if err := set.Parse(arguments); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return s, err
		}
		return s, usageError{err}
	}
	s.workers = []int{1, 2, 4}
	switch {
	case set.NArg() > 0:
		return s, usageError{fmt.Errorf("got argument %q, want flags only", set.Arg(0))}
	case s.dir == "":
		return s, usageError{errors.New("-dir: got none, want a directory")}
	case s.models < 1 || s.rounds < 1 || s.bytes < tensors:
		return s, usageError{fmt.Errorf("got %d models of %d bytes and %d rounds, want at least 1, %d and 1", s.models, s.bytes,
			s.rounds, tensors)}
	case !s.dtype.IsFloat():
		return s, usageError{fmt.Errorf("-dtype: got %v, want F32, F16, BF16 or F64", s.dtype)}
	}
	return s, nil
}

// A job is one way to do the work.
type job struct {
	name string
	run  func() error
}

// A state is what the page cache holds when a job begins.
type state string

const (
	warm state = "in the page cache"
	cold state = "not in it"
)

func run(arguments []string, stdout, stderr io.Writer) error {
	s, err := parse(arguments, stderr)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, unix.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp(s.dir, "modelavg-files")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	var inputs []string
	for k := range s.models {
		path := filepath.Join(dir, fmt.Sprintf("model-%d.safetensors", k+1))
		if err := writeModel(path, uint64(k), s); err != nil {
			return err
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		inputs = append(inputs, path)
	}
	out := filepath.Join(dir, "out.safetensors")
	jobs, err := s.jobs(inputs, out, stderr)
	if err != nil {
		return err
	}
	times := map[state]map[string][]time.Duration{warm: {}, cold: {}}
	for round := range s.rounds + 1 { // the first one is not counted
		for _, when := range []state{warm, cold} {
			for _, i := range rand.Perm(len(jobs)) { // what ran before leaves the memory of the machine in a state of its own
				j := jobs[i]
				if ctx.Err() != nil { // the models are removed
					return context.Cause(ctx)
				}
				if err := prepare(when, inputs, out); err != nil {
					return err
				}
				start := time.Now()
				if err := j.run(); err != nil {
					return fmt.Errorf("%s: %w", j.name, err)
				}
				if round > 0 {
					times[when][j.name] = append(times[when][j.name], time.Since(start))
				}
			}
		}
		if round == 0 {
			fmt.Fprintln(stderr, "warm-up done")
			continue
		}
		fmt.Fprintf(stderr, "round %d of %d done\n", round, s.rounds)
	}
	s.print(stdout, jobs, times)
	return nil
}

// jobs returns what is measured.
func (s settings) jobs(inputs []string, out string, stderr io.Writer) ([]job, error) {
	var jobs []job
	for _, workers := range s.workers {
		jobs = append(jobs,
			job{movesName(workers), func() error { return move(inputs, out, workers) }},
			job{"modelavg, " + countWorkers(workers), func() error { return average(inputs, out, workers) }})
	}
	jobs = append(jobs, job{"cat of all into one", func() error {
		f, err := os.Create(out)
		if err != nil {
			return err
		}
		cat := exec.Command("cat", inputs...)
		cat.Stdout = f
		return errors.Join(cat.Run(), f.Close())
	}})
	script := filepath.Join("bench", "python", "files.py")
	if _, err := os.Stat(script); err != nil {
		return nil, fmt.Errorf("%w: to be run from the root of the repository", err)
	}
	for _, library := range []string{"numpy", "torch"} {
		imports := "import " + library
		if library == "torch" {
			imports += ", safetensors.torch" // which the script reads the files with
		}
		if exec.Command(s.python, "-c", imports).Run() != nil {
			fmt.Fprintf(stderr, "left out: %s, since %s cannot %s\n", library, s.python, imports)
			continue
		}
		if library == "numpy" && s.dtype == checkpoint.BF16 {
			continue // which NumPy does not have
		}
		jobs = append(jobs, job{library + ", script", func() error {
			text, err := exec.Command(s.python, append([]string{script, library, out}, inputs...)...).CombinedOutput()
			if err != nil {
				return fmt.Errorf("%w: %s", err, text)
			}
			return nil
		}})
	}
	return jobs, nil
}

func movesName(workers int) string {
	return "the same reads and writes, " + countWorkers(workers)
}

func countWorkers(workers int) string {
	if workers == 1 {
		return "1 worker"
	}
	return fmt.Sprintf("%d workers", workers)
}

// print writes the medians and the least times, and their ratios to the reads and writes with as many workers, or with
// the default number.
func (s settings) print(w io.Writer, jobs []job, times map[state]map[string][]time.Duration) {
	fmt.Fprintf(w, "%d models of %d MB of %s into one; medians and least of %d rounds in turn, milliseconds:\n\n", s.models,
		s.bytes/1e6, s.dtype, s.rounds)
	fmt.Fprintf(w, "| | %s | ratio | least | ratio | %s | ratio | least | ratio |\n"+
		"|---|---:|---:|---:|---:|---:|---:|---:|---:|\n", warm, cold)
	moves := ""
	for _, j := range jobs {
		if strings.HasPrefix(j.name, "the same") {
			moves = j.name
		}
		fmt.Fprintf(w, "| %s |", j.name)
		for _, when := range []state{warm, cold} {
			list, limit := times[when][j.name], times[when][moves]
			ratios := make([]float64, len(list))
			for i := range list {
				ratios[i] = float64(list[i]) / float64(limit[i])
			}
			least := slices.Min(list).Seconds()
			fmt.Fprintf(w, " %.1f | %.2f | %.1f | %.2f |", 1e3*middle(list).Seconds(), middle(ratios), 1e3*least,
				least/slices.Min(limit).Seconds())
		}
		fmt.Fprintln(w)
	}
}

// middle returns the median.
func middle[T time.Duration | float64](list []T) T {
	sorted := slices.Sorted(slices.Values(list))
	return sorted[len(sorted)/2]
}

// prepare removes the output, brings the models into the page cache or out of it, and sees to it that the machine has
// memory for the next output.
func prepare(when state, inputs []string, out string) error {
	if err := os.RemoveAll(out); err != nil {
		return err
	}
	unix.Sync()
	for _, path := range inputs {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		if when == cold {
			err = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
		} else {
			_, err = io.Copy(struct{ io.Writer }{io.Discard}, f)
		}
		if err := errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
	return takeMemory(inputs)
}

// takeMemory takes as much memory as the files have bytes, which is what cat writes, and frees it again: as much as is
// free.
func takeMemory(files []string) error {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return err
	}
	var bytes int64
	for _, path := range files {
		file, err := os.Stat(path)
		if err != nil {
			return err
		}
		bytes += file.Size()
	}
	const reserve = 1 << 30
	bytes = min(bytes, int64(info.Freeram)*int64(info.Unit)-reserve)
	if bytes <= 0 {
		return nil
	}
	p, err := unix.Mmap(-1, 0, int(bytes), unix.PROT_READ|unix.PROT_WRITE,
		unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_POPULATE)
	if err != nil {
		return err
	}
	return unix.Munmap(p)
}

// average averages the models as the command does, without the flush at the end.
func average(inputs []string, out string, workers int) error {
	var models []*checkpoint.Model
	for _, path := range inputs {
		m, err := checkpoint.Open(path)
		if err != nil {
			return err
		}
		defer m.Close()
		models = append(models, m)
	}
	plan, err := merge.Mean(models, merge.WithWorkers(workers), merge.WithCreateOptions(checkpoint.WithoutSync()))
	if err != nil {
		return err
	}
	_, err = plan.Run(context.Background(), out, nil)
	return err
}

// tensors is how many a model has.
const tensors = 8

// writeModel writes a model of random numbers between 2⁻⁷ and 2, the same in every MiB.
func writeModel(path string, seed uint64, s settings) error {
	size := int64(s.dtype.Bits() / 8)
	each := s.bytes / tensors / size
	var list []checkpoint.Tensor
	for i := range tensors {
		list = append(list, checkpoint.Tensor{Name: fmt.Sprintf("layer.%d.weight", i), DType: s.dtype, Shape: []int64{each}})
	}
	w, err := checkpoint.Create(path, list, nil, checkpoint.WithoutSync())
	if err != nil {
		return err
	}
	defer w.Close()
	block := randomBlock(seed, s.dtype)
	for _, t := range list {
		for off := int64(0); off < each*size; off += int64(len(block)) {
			if _, err := w.WriteAt(t.Name, block[:min(int64(len(block)), each*size-off)], off); err != nil {
				return err
			}
		}
	}
	return w.Commit()
}

// randomBlock returns a MiB of elements.
func randomBlock(seed uint64, d checkpoint.DType) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	size := d.Bits() / 8
	high := map[checkpoint.DType]byte{checkpoint.F64: 0x3f, checkpoint.F32: 0x3e, checkpoint.BF16: 0x3e, checkpoint.F16: 0x38}
	block := make([]byte, 1<<20)
	for i := 0; i < len(block); i += size {
		for j := range size - 1 {
			block[i+j] = byte(r.Uint32())
		}
		block[i+size-1] = high[d] | byte(r.IntN(2))<<7
	}
	return block
}
