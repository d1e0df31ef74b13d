// Digits shows what averaging checkpoints does to a small classifier of handwritten digits: the accuracy of each of the
// last checkpoints of a training run, of their mean, of their exponential mean and of the moving average that was kept while
// training, on digits that training never saw.
//
//	go run ./examples/digits                           evaluate the checkpoints in testdata/digits
//	go run ./examples/digits soup.safetensors …        evaluate these files as well
//	go run ./examples/digits -score soup.safetensors   print the percentage that this file reads, and nothing else
//	go run ./examples/digits -train                    train again and write the checkpoints first
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/modelavg/modelavg"
)

func main() {
	err := run(os.Args[1:], os.Stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
	case errors.As(err, new(usageError)):
		os.Exit(2) // the flag package has printed it
	case err != nil:
		fmt.Fprintln(os.Stderr, "digits:", err)
		os.Exit(1)
	}
}

// A usageError is a mistake in the flags.
type usageError struct{ error }

// run executes the command line and writes what it prints to out.
func run(args []string, out io.Writer) error {
	flags := flag.NewFlagSet("digits", flag.ContinueOnError)
	dir := flags.String("dir", filepath.Join("testdata", "digits"), "directory of the checkpoints")
	data := flags.String("data", filepath.Join("testdata", "digits", "digits.csv.gz"), "file of the digits")
	score := flags.Bool("score", false, "print the percentage of digits that one file reads, and nothing else")
	again := flags.Bool("train", false, "train and write the checkpoints to the directory first")
	seed := flags.Uint64("seed", 1, "with -train: seed of the run; the checkpoints of the repository have seed 1")
	flags.Usage = func() {
		fmt.Fprintln(flags.Output(), "usage: digits [flags] [further file.safetensors ...]")
		flags.PrintDefaults()
	}
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return err
	} else if err != nil {
		return usageError{err}
	}
	if *score && flags.NArg() != 1 {
		err := fmt.Errorf("-score with %d files, want one", flags.NArg())
		fmt.Fprintln(flags.Output(), err)
		return usageError{err}
	}

	digits, err := readDigits(*data)
	if err != nil {
		return located(err)
	}
	if *score {
		return writeScore(out, flags.Arg(0), digits[training:])
	}
	if *again {
		if err := retrain(digits[:training], *seed, *dir, out); err != nil {
			return err
		}
	}
	entries, err := collect(*dir, flags.Args())
	if err != nil {
		return located(err)
	}
	return writeTable(out, entries, digits[training:])
}

// writeScore prints the percentage of the digits that the network in a file reads.
func writeScore(out io.Writer, path string, digits []digit) error {
	n, err := load(path)
	if err != nil {
		return err
	}
	correct, _ := n.evaluate(digits)
	_, err = fmt.Fprintf(out, "%.2f\n", 100*float64(correct)/float64(len(digits)))
	return err
}

// located adds to the error of a missing file how the file is found.
func located(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w (run in the root of the repository, or say -data and -dir)", err)
	}
	return err
}

// retrain trains and writes the checkpoints to dir.
func retrain(digits []digit, seed uint64, dir string, out io.Writer) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	networks, moving, err := train(digits, seed, func(epoch int, loss float64) {
		fmt.Fprintf(out, "epoch %2d of %d: training loss %.4f\n", epoch, epochs, loss)
	})
	if err != nil {
		return err
	}
	for k, n := range networks {
		if err := n.save(checkpointPath(dir, k+1)); err != nil {
			return err
		}
	}
	return moving.save(movingAveragePath(dir))
}

// An entry is a line of the table.
type entry struct {
	name    string
	network *network
}

// collect returns the checkpoints in dir, their averages, the moving average in dir and the networks in the other files.
func collect(dir string, others []string) ([]entry, error) {
	var entries []entry
	var networks []*network // oldest first
	for k := 1; k <= checkpoints; k++ {
		path := checkpointPath(dir, k)
		n, err := load(path)
		if err != nil {
			return nil, err
		}
		networks = append(networks, n)
		entries = append(entries, entry{filepath.Base(path), n})
	}

	mean, err := average(networks, func(dst []float32, models [][]float32) error {
		return modelavg.Mean(dst, models)
	})
	if err != nil {
		return nil, err
	}
	entries = append(entries, entry{"mean", mean})
	for _, decay := range []float64{0.9, 0.5} {
		n, err := average(networks, func(dst []float32, models [][]float32) error {
			return modelavg.ExponentialMean(dst, models, decay)
		})
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry{fmt.Sprintf("exponential mean, decay %v", decay), n})
	}

	moving, err := load(movingAveragePath(dir))
	if err != nil {
		return nil, err
	}
	entries = append(entries, entry{fmt.Sprintf("moving average, decay %v", movingDecay), moving})

	for _, path := range others {
		n, err := load(path)
		if err != nil {
			return nil, err
		}
		entries = append(entries, entry{path, n})
	}
	return entries, nil
}

// average applies a mean to each tensor of the networks. The number of steps is a count and no weight: it is the last
// network's, as in the files that modelavg writes.
func average(networks []*network, mean func(dst []float32, models [][]float32) error) (*network, error) {
	result := newNetwork()
	for i, p := range result.parameters() {
		models := make([][]float32, len(networks))
		for k, n := range networks {
			models[k] = n.parameters()[i].values
		}
		if err := mean(p.values, models); err != nil {
			return nil, fmt.Errorf("%s: %w", p.name, err)
		}
	}
	result.steps = networks[len(networks)-1].steps
	return result, nil
}

// writeTable evaluates the entries on the digits and prints a line for each.
func writeTable(out io.Writer, entries []entry, digits []digit) error {
	width := 0
	for _, e := range entries {
		width = max(width, len(e.name))
	}
	fmt.Fprintf(out, "%d held-out digits\n", len(digits))
	for _, e := range entries {
		correct, loss := e.network.evaluate(digits)
		percent := 100 * float64(correct) / float64(len(digits))
		_, err := fmt.Fprintf(out, "%-*s  %4d correct  %6.2f %%  loss %.4f\n", width, e.name, correct, percent, loss)
		if err != nil {
			return err
		}
	}
	return nil
}
