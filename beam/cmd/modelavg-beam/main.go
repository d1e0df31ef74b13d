// Command modelavg-beam averages model files on an engine that runs pipelines of Apache Beam.
//
//	modelavg-beam -o out.safetensors a.safetensors b.safetensors
//
// Run modelavg-beam -help for its flags, and see docs/beam.md for engines.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/apache/beam/sdks/v2/go/pkg/beam"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/options/jobopts"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/runners"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/runners/prism"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/runners/universal"
	"github.com/apache/beam/sdks/v2/go/pkg/beam/runners/universal/extworker"

	"github.com/modelavg/modelavg/beam/transform"
	"github.com/modelavg/modelavg/checkpoint"
	"github.com/modelavg/modelavg/internal/bytesize"
	"github.com/modelavg/modelavg/merge"
)

// dtypes are what -dtype may be, in upper or lower case.
var dtypes = []string{"first", "f64", "f32", "f16", "bf16", "f8_e4m3", "f8_e5m2"}

// errUsage reports a command line that means nothing.
var errUsage = errors.New("usage")

// The flags, beside those of Beam.
var (
	output = flag.String("o", "", "`path` of the output: a .safetensors file or a directory of shards (required)")

	weights = flag.String("w", "",
		"the `weights`, one for each model, separated by commas, with the sum 1; without them, the mean")
	sums = flag.Int("sums", 0,
		"average by sums of up to `n` models that the engine merges; 0: by reference, with the bits of one machine")

	integers = flag.String("integers", "", "`policy` for integer tensors: last, first, max, sum or error")
	keys     = flag.String("keys", "",
		"`policy` for tensors that not all models have: strict, intersection or union")
	nonFinite = flag.String("nonfinite", "", "`policy` for NaN and infinities: propagate or error")
	overflow  = flag.String("overflow", "",
		"`policy` for averages that are too large for their dtype: inf, saturate or error")
	dtype = flag.String("dtype", "",
		"`dtype` of all averaged tensors: "+strings.Join(dtypes, ", ")+"; without it first, as in the first model")

	shardSize bytesize.Size
	parts     = flag.Int("parts", 0, "the `number` of parts that the output is divided into; 0: parts of 256 MiB")
	workers   = flag.Int("workers", 0,
		"`goroutines` that work on one part; 0: as many as keep a machine busy that does one part at a time")
	discard = flag.Bool("discard", false, "remove what a killed run has left of an unfinished output before")
	verbose = flag.Bool("v", false, "show the log of Beam")
	pool    = flag.Int("pool", 0,
		"serve as the workers of an engine on this machine, at localhost and this `port`, until interrupted")
)

func init() {
	flag.StringVar(nonFinite, "non-finite", "", "the same as -nonfinite")
	flag.Var(&shardSize, "max-shard-size",
		"write a directory of shards of at most so many bytes, a `size` such as 5GB, or of one tensor")
}

func usage() {
	w := flag.CommandLine.Output()
	fmt.Fprint(w, `Averages model files on an engine that runs pipelines of Apache Beam.

	modelavg-beam -o OUTPUT [-w WEIGHT,...] [flags] MODEL...
	modelavg-beam -pool PORT

Flags come before the models.

Without -runner it runs in this process. An engine with a job service takes
-runner=universal -endpoint=HOST:PORT and an -environment_type: see docs/beam.md.

Flags, among them those of Beam:
`)
	flag.PrintDefaults()
}

func main() {
	if err := parseFlags(os.Args[1:]); errors.Is(err, flag.ErrHelp) {
		usage()
		return
	} else if err != nil {
		fmt.Fprintln(os.Stderr, "modelavg-beam:", err)
		os.Exit(2)
	}
	beam.Init() // which does not return in a worker that an engine has started
	if !*verbose {
		slog.SetDefault(slog.New(slog.DiscardHandler)) // what fails comes back as an error
	}
	// SIGHUP is what a closed terminal sends.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	err := run(ctx, os.Stdout, os.Stderr)
	if err != nil {
		fmt.Fprintln(os.Stderr, "modelavg-beam:", err)
	}
	switch {
	case errors.Is(err, errUsage):
		os.Exit(2)
	case err != nil:
		os.Exit(1)
	}
}

// parseFlags parses the command line. Package flag would print all flags, those of Beam included, after every error.
func parseFlags(arguments []string) error {
	set := flag.CommandLine
	set.Init(set.Name(), flag.ContinueOnError)
	output := set.Output()
	set.SetOutput(io.Discard)
	defer set.SetOutput(output)
	err := set.Parse(arguments)
	if err != nil && !errors.Is(err, flag.ErrHelp) {
		return fmt.Errorf("%w: %w (see modelavg-beam -help)", errUsage, err)
	}
	return err
}

// run does what the flags say.
func run(ctx context.Context, stdout, stderr io.Writer) error {
	switch {
	case *pool < 0 || *pool > math.MaxUint16:
		return fmt.Errorf("%w: port %d, want 1 to %d", errUsage, *pool, math.MaxUint16)
	case *pool != 0 && (flag.NArg() > 0 || *output != ""):
		return fmt.Errorf("%w: -pool serves the runs of others, want neither -o nor models", errUsage)
	case *pool != 0:
		return serve(ctx, *pool)
	}
	job, err := newJob()
	if err != nil {
		return err
	}
	execute, err := runner()
	if err != nil {
		return err
	}
	if *discard {
		if _, err := checkpoint.DiscardParts(job.Output); err != nil && !errors.Is(err, checkpoint.ErrNoParts) {
			return err
		}
	}
	remove, err := ownTempDir()
	if err != nil {
		return err
	}
	if *jobopts.Endpoint != "" { // which may not answer, and Beam goes on trying for minutes
		fmt.Fprintf(stderr, "modelavg-beam: the job goes to the engine at %s\n", *jobopts.Endpoint)
	}
	r, err := transform.Average(ctx, job, execute)
	if err = errors.Join(err, remove()); err != nil {
		if errors.Is(err, transform.ErrUnfinished) {
			err = fmt.Errorf("%w; -discard removes it", err)
		}
		return err
	}
	fmt.Fprint(stdout, effectiveWeights(job))
	if r.Report != nil {
		fmt.Fprint(stdout, r.Report)
		return nil
	}
	fmt.Fprintf(stdout, "%s: %d parts, read %d bytes, wrote %d bytes\n", r.Path, r.Parts, r.BytesRead, r.BytesWritten)
	return nil
}

// effectiveWeights returns a line for the weight of each model, as the command modelavg prints them.
func effectiveWeights(job transform.Job) string {
	var plan merge.Plan
	for i, path := range job.Models {
		w := 1 / float64(len(job.Models))
		if job.Weights != nil {
			w = job.Weights[i]
		}
		plan.Sources = append(plan.Sources, merge.Source{Path: path, Weight: w})
	}
	return plan.Weights()
}

// ownTempDir gives this process a directory of its own for temporary files, and returns what removes it. Beam leaves an
// empty file there for every pipeline.
func ownTempDir() (remove func() error, err error) {
	dir, err := os.MkdirTemp("", "modelavg-beam-*")
	if err != nil {
		return nil, err
	}
	return func() error { return os.RemoveAll(dir) }, os.Setenv("TMPDIR", dir)
}

// serve starts the workers that engines ask for until ctx is done.
func serve(ctx context.Context, port int) error {
	s, err := extworker.StartLoopback(context.WithoutCancel(ctx), port)
	if err != nil {
		return err
	}
	<-ctx.Done()
	return s.Stop(context.WithoutCancel(ctx))
}

// newJob returns the job of the flags and arguments. Workers may have another working directory, so that all paths are
// absolute.
func newJob() (transform.Job, error) {
	job := transform.Job{
		Integers: merge.IntegerPolicy(*integers), Keys: merge.KeyPolicy(*keys),
		NonFinite: merge.NonFinitePolicy(*nonFinite), Overflow: merge.OverflowPolicy(*overflow), Workers: *workers,
		SumModels: *sums, Parts: *parts, MaxShardSize: int64(shardSize),
	}
	if misplaced := flagAmong(flag.Args()); misplaced != "" {
		return job, fmt.Errorf("%w: %s after the first model: flags come before the models", errUsage, misplaced)
	}
	switch d := strings.ToLower(*dtype); {
	case d != "" && !slices.Contains(dtypes, d):
		return job, fmt.Errorf("%w: -dtype %s: want one of %s", errUsage, *dtype, strings.Join(dtypes, ", "))
	case d != "first":
		job.DType = strings.ToUpper(d)
	}
	switch extension := strings.ToLower(filepath.Ext(*output)); {
	case *output == "":
		return job, fmt.Errorf("%w: no output given: -o PATH is required", errUsage)
	case flag.NArg() == 0:
		return job, fmt.Errorf("%w: no models given", errUsage)
	case extension == ".npy" || extension == ".npz":
		return job, fmt.Errorf("%w: -o %s: a %s file cannot be written in parts, want safetensors", errUsage, *output,
			extension)
	}
	for i, text := range strings.Split(*weights, ",") {
		if *weights == "" {
			break
		}
		w, err := strconv.ParseFloat(strings.TrimSpace(text), 64)
		if err != nil {
			return job, fmt.Errorf("%w: weight %d is %q, want a number", errUsage, i+1, text)
		}
		job.Weights = append(job.Weights, w)
	}
	if n := len(job.Weights); n > 0 && n != flag.NArg() {
		return job, fmt.Errorf("%w: %d weights for %d models, want one for each", errUsage, n, flag.NArg())
	}
	var err error
	if job.Output, err = filepath.Abs(*output); err != nil {
		return job, err
	}
	if os.IsPathSeparator((*output)[len(*output)-1]) {
		job.Output += string(filepath.Separator) // which a directory has, and no file
	}
	for _, path := range flag.Args() {
		if path, err = filepath.Abs(path); err != nil {
			return job, err
		}
		job.Models = append(job.Models, path)
	}
	return job, nil
}

// flagAmong returns the first of the models that looks like a flag and is no file, or "".
func flagAmong(models []string) string {
	for _, path := range models {
		if _, err := os.Lstat(path); err != nil && strings.HasPrefix(path, "-") {
			return path
		}
	}
	return ""
}

// runner returns what runs a pipeline as the flags of Beam have it.
func runner() (func(context.Context, *beam.Pipeline) (beam.PipelineResult, error), error) {
	if *jobopts.Async {
		return nil, fmt.Errorf("%w: -async is not supported: it is at the end that the output is put in its place",
			errUsage)
	}
	switch *runners.Runner {
	case "", "prism":
		return runPrism, nil
	case "universal", "flink", "spark":
		if *jobopts.Endpoint == "" {
			return nil, fmt.Errorf("%w: -runner=%s needs the -endpoint of a job service", errUsage, *runners.Runner)
		}
		return universal.Execute, useThisBinary()
	}
	return nil, fmt.Errorf("%w: runner %q, want prism, universal, flink or spark", errUsage, *runners.Runner)
}

// runPrism runs the pipeline with the runner in Beam's library. When ctx is done it leaves the runner as it is, in the
// last moments of this process: one that is stopped while it starts panics, because the worker that it is about to call
// has stopped before it.
func runPrism(ctx context.Context, p *beam.Pipeline) (beam.PipelineResult, error) {
	var result beam.PipelineResult
	done := make(chan error, 1)
	go func() {
		var err error
		result, err = prism.Execute(context.WithoutCancel(ctx), p)
		done <- err
	}()
	select {
	case err := <-done:
		return result, err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	}
}

// useThisBinary makes this program the one that workers get, if no other is named and they can run it. Beam would
// compile it from its source code.
func useThisBinary() error {
	if *jobopts.WorkerBinary != "" || runtime.GOOS != "linux" {
		return nil
	}
	var err error
	*jobopts.WorkerBinary, err = os.Executable()
	return err
}
