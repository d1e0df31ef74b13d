package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// placeholder is what the path of a model takes the place of.
const placeholder = "{}"

// killDelay is how long a command that is told to end is waited for.
const killDelay = 5 * time.Second

// evaluate runs the command on the model at path and returns the last number that it prints.
func evaluate(ctx context.Context, command, path string) (float64, error) {
	cmd := shell(ctx, strings.ReplaceAll(command, placeholder, shellQuote(path)))
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.WaitDelay = killDelay
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("%s: %w%s", command, err, tail(&stderr))
	}
	score, err := lastNumber(stdout.String())
	if err != nil {
		return 0, fmt.Errorf("%s: %w%s", command, err, tail(&stderr))
	}
	return score, nil
}

var numbers = regexp.MustCompile(`(?i)[-+]?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?|[-+]?\b(?:nan|inf|infinity)\b`)

// lastNumber returns the last number in the text.
func lastNumber(text string) (float64, error) {
	all := numbers.FindAllString(text, -1)
	if all == nil {
		return 0, fmt.Errorf("it printed no number, but %q", shortenPath(strings.TrimSpace(text)))
	}
	x, err := strconv.ParseFloat(all[len(all)-1], 64)
	if err != nil && !errors.Is(err, strconv.ErrRange) { // what is too large is infinite
		return 0, err
	}
	return x, nil
}

// tail returns the end of what the command said, to follow an error.
func tail(stderr *bytes.Buffer) string {
	const most = 2000
	text := strings.TrimSpace(stderr.String())
	if text == "" {
		return ""
	}
	if len(text) > most {
		text = "…" + strings.ToValidUTF8(text[len(text)-most:], "")
	}
	return ": " + text
}
