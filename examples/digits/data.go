package main

import (
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

const (
	side    = 8 // an image is 8×8, row by row
	pixels  = side * side
	classes = 10

	// The split follows the order of the file: the first half trains, the second half is held out. It was fixed before the
	// first training run. Neighbouring rows can come from one writer, so that a shuffled split would be the easier one.
	images   = 1797
	training = images / 2 // 898, which leaves 899 held out
)

// A digit is one handwritten digit.
type digit struct {
	pixel [pixels]float32 // ink in [0, 1]: the file's 0 … 16 divided by 16, which is exact
	label int
}

// readDigits returns the digits of the gzip-compressed CSV file at path, in the order of the file.
func readDigits(path string) ([]digit, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	text, err := io.ReadAll(z)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	digits, err := parseDigits(string(text))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if len(digits) != images {
		return nil, fmt.Errorf("%s: %d images, want %d", path, len(digits), images)
	}
	return digits, nil
}

// parseDigits takes one digit from each line: 64 pixels from 0 to 16 and the label from 0 to 9, separated by commas.
// Errors name the line and the column, counted from 1.
func parseDigits(text string) ([]digit, error) {
	var digits []digit
	number := 0
	for line := range strings.Lines(text) {
		number++
		fields := strings.Split(strings.TrimSuffix(line, "\n"), ",")
		if len(fields) != pixels+1 {
			return nil, fmt.Errorf("line %d: %d columns, want %d", number, len(fields), pixels+1)
		}
		var d digit
		for i, field := range fields {
			what, limit := "pixel", 16
			if i == pixels {
				what, limit = "label", classes-1
			}
			v, err := strconv.Atoi(field)
			if err != nil || v < 0 || v > limit {
				return nil, fmt.Errorf("line %d, column %d: %s %q, want an integer from 0 to %d",
					number, i+1, what, field, limit)
			}
			if i == pixels {
				d.label = v
			} else {
				d.pixel[i] = float32(v) / 16
			}
		}
		digits = append(digits, d)
	}
	return digits, nil
}
