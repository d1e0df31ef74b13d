// Federated is a server that averages models which clients send to it over HTTP, weighted by the clients' numbers of
// samples, and the load that it is tested with.
//
//	go run ./examples/federated -model initial.safetensors -dir rounds -quorum 10    serve
//	go run ./examples/federated -load -clients 500 -bytes 10000000                   measure
//
// The server is in server.go; what guards it against its clients is in requests.go.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := run(ctx, os.Args[1:], os.Stdout)
	switch {
	case errors.Is(err, flag.ErrHelp):
	case errors.As(err, new(usageError)):
		os.Exit(2) // the flag package has printed it
	case err != nil:
		fmt.Fprintln(os.Stderr, "federated:", err)
		os.Exit(1)
	}
}

// A usageError is a mistake in the flags.
type usageError struct{ error }

// run executes the command line and writes what it prints to out.
func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("federated", flag.ContinueOnError)
	var c Config
	listen := flags.String("listen", "127.0.0.1:8080", "address of the server")
	connections := flags.Int("connections", 64, "connections that are open at once; others wait")
	flags.StringVar(&c.Model, "model", "", "initial model, a safetensors file with the tensors that the clients' have")
	flags.StringVar(&c.Dir, "dir", "rounds", "directory for the means and for uploads under way")
	flags.IntVar(&c.Quorum, "quorum", 10, "models that close a round")
	flags.DurationVar(&c.Deadline, "deadline", 0, "time after which a round closes without the quorum; 0 for none")
	flags.IntVar(&c.Minimum, "minimum", 1, "models without which a round does not close at its deadline")
	flags.IntVar(&c.Keep, "keep", 0, "means that are kept, of the last rounds; 0 for all")
	flags.IntVar(&c.Uploads, "uploads", 16, "uploads that are received at once; others wait")
	flags.DurationVar(&c.Timeout, "timeout", 30*time.Second, "time for the body of an upload and for a download")
	flags.Int64Var(&c.MaxSamples, "max-samples", 1_000_000_000, "greatest number of samples of a client")
	flags.BoolVar(&c.Rounded, "rounded", false, "round the sums: faster, but the order of arrival shows in the last bits")

	var l Load
	load := flags.Bool("load", false, "measure a server under load, in a process of its own, and print what was found")
	flags.IntVar(&l.Clients, "clients", 500, "with -load: clients")
	flags.Int64Var(&l.Bytes, "bytes", 10_000_000, "with -load: bytes of a model")
	flags.IntVar(&l.Rounds, "rounds", 2, "with -load: rounds, each with the same models in another order")
	flags.Uint64Var(&l.Seed, "seed", 1, "with -load: of the order of arrival")
	flags.IntVar(&l.Bad, "bad", 5, "with -load: clients of each bad kind in a round")
	if err := flags.Parse(args); errors.Is(err, flag.ErrHelp) {
		return err
	} else if err != nil {
		return usageError{err}
	}
	if flags.NArg() > 0 || *connections < 1 || !*load && c.Model == "" {
		err := errors.New("want -load or -model and a file, at least one connection, and no arguments")
		fmt.Fprintln(flags.Output(), err)
		return usageError{err}
	}
	if *load {
		l.Rounded, l.Timeout, l.Out = c.Rounded, 10*time.Second, out
		return l.Run(ctx)
	}
	return serve(ctx, c, *listen, *connections, out)
}

// serve serves until ctx is done, then lets the requests under way end and saves the round.
func serve(ctx context.Context, c Config, address string, connections int, out io.Writer) error {
	// Nearly all of the heap are the sums, which stay. By default as much again would be let accumulate as garbage.
	debug.SetGCPercent(10)
	// First of all: a second server at the same address must not touch the directory of the first one.
	listener, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	s, err := NewServer(c)
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	fmt.Fprintf(out, "round %d at http://%s\n", s.Round(), listener.Addr())
	server := NewHTTPServer(s.Handler(), connections)
	failed := make(chan error, 1)
	go func() { failed <- server.Serve(listener) }()
	select {
	case err = <-failed:
	case <-ctx.Done():
		within, cancel := context.WithTimeout(context.Background(), c.Timeout)
		defer cancel()
		if err = server.Shutdown(within); err != nil {
			err = errors.Join(err, server.Close())
		}
		if served := <-failed; !errors.Is(served, http.ErrServerClosed) {
			err = errors.Join(err, served)
		}
	}
	return errors.Join(err, s.Close())
}
