//go:build !unix

package main

import (
	"context"
	"os/exec"
)

// shell returns the command that runs the line.
func shell(ctx context.Context, line string) *exec.Cmd {
	return exec.CommandContext(ctx, "cmd", "/c", line)
}

// shellQuote returns s as one word of the shell. File names have no quotes here.
func shellQuote(s string) string { return `"` + s + `"` }
