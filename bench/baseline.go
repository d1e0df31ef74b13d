package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// yardstick is the library against which two runs are compared: it does the same in both, so that what it lost or gained
// is the machine's and not ours.
const yardstick = "copy"

// findBaseline returns the results in the directory that were measured on a processor of this name, or nil if there are
// none.
func findBaseline(directory, cpu string) (*results, string, error) {
	paths, err := filepath.Glob(filepath.Join(directory, "*.txt"))
	if err != nil {
		return nil, "", err
	}
	if len(paths) == 0 {
		return nil, "", fmt.Errorf("%s: %w: no results, want at least one .txt file", directory, fs.ErrNotExist)
	}
	for _, path := range paths {
		r, err := readResults(path)
		if err != nil {
			return nil, "", err
		}
		if r.configValue("cpu") == cpu {
			return r, path, nil
		}
	}
	return nil, "", nil
}

// compared returns how the times of our libraries compare with those of the baseline: each time is divided by that of
// the yardstick in the same round before the two medians are. A ratio above 1 is slower than the baseline.
func (r *results) compared(baseline *results) table {
	t := table{header: []string{"job", "n", "library", "time / " + yardstick, "baseline", "ratio"}}
	for _, p := range r.points() {
		for _, library := range r.in([]point{p}) {
			if !strings.HasPrefix(library, ourName) {
				continue
			}
			now := medianRatio(r.seconds(p, library), r.seconds(p, yardstick))
			then := medianRatio(baseline.seconds(p, library), baseline.seconds(p, yardstick))
			if now == 0 || then == 0 {
				continue
			}
			title := group{p.job, p.dtype, p.models, nil}.title()
			t.rows = append(t.rows, []string{
				title, sizeName(p.n), library, significant(now), significant(then), significant(now / then),
			})
		}
	}
	return t
}

// writeComparison prints how the run compares with the committed one of the same processor. It never fails on a time.
func (r *results) writeComparison(w io.Writer, directory string) error {
	cpu := r.configValue("cpu")
	baseline, path, err := findBaseline(directory, cpu)
	if err != nil {
		return err
	}
	if baseline == nil {
		fmt.Fprintf(w, "no baseline in %s is of this processor, %s\n", directory, cpu)
		return nil
	}
	t := r.compared(baseline)
	if len(t.rows) == 0 {
		return errors.New(path + ": has no point of this run with " + yardstick + " and one of our libraries")
	}
	fmt.Fprintf(w, "against %s, of %s:\n\n", path, baseline.configValue("date"))
	t.write(w)
	return nil
}

// checkDirectory returns an error unless the directory of a baseline is there, before anything is measured.
func checkDirectory(directory string) error {
	info, err := os.Stat(directory)
	if err == nil && !info.IsDir() {
		err = fmt.Errorf("%s: is a file, want a directory", directory)
	}
	return err
}
