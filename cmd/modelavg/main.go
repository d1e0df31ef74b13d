// Command modelavg averages the weights of model files.
//
//	modelavg mean -o out.safetensors a.safetensors b.safetensors
//
// Run modelavg --help for the commands, and modelavg help with the name of one for its flags and an example.
package main

import (
	"context"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
)

// gcPercent is how much garbage there may be, in percent of what is in use. Little is made of the data, so that it costs
// nothing but where headers are large, and memory that is promised to be fixed should not go to what nobody uses.
const gcPercent = 50

func main() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	// SIGHUP is what a closed terminal sends.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	context.AfterFunc(ctx, stop) // a second signal ends the process at once
	// When nobody reads the report any more, writing it fails, and what is temporary is removed as after any other error.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	os.Exit(run(ctx, os.Args[1:], os.Stdout, os.Stderr))
}
