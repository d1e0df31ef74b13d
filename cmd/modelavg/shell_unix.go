//go:build unix

package main

import (
	"context"
	"os/exec"
	"strings"
	"syscall"
)

// shell returns the command that runs the line. When ctx is done, the shell and all that it has started are told to end.
func shell(ctx context.Context, line string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "sh", "-c", line)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	return cmd
}

// shellQuote returns s as one word of the shell.
func shellQuote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
