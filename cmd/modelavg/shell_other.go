//go:build !unix

package main

import "os/exec"

// shell returns the command that runs the line.
func shell(line string) *exec.Cmd { return exec.Command("cmd", "/c", line) }

// terminate does nothing: there is no way to ask.
func terminate(*exec.Cmd) {}

// kill ends a command that was started.
func kill(cmd *exec.Cmd) { _ = cmd.Process.Kill() }

// runs returns false, for there is nothing to wait for.
func runs(*exec.Cmd) bool { return false }

// shellQuote returns s as one word of the shell. File names have no quotes here.
func shellQuote(s string) string { return `"` + s + `"` }
