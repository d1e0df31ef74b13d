package main

import (
	"bytes"
	"math/rand/v2"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A signal at any moment, also while the output is flushed to the disk: the program ends soon, nothing is left, and the
// old output is as it was unless the program says that it is too late.
func TestCancel(t *testing.T) {
	inDirectory(t)
	if err := largeModel("large", 256<<20); err != nil {
		t.Fatal(err)
	}
	rounds := 12
	if testing.Short() {
		rounds = 4
	}
	// Other tests may run at the same time and use the same disk.
	testCancel(t, rounds, time.Second, "mean", "-o", "out", "large", "large")
}

// The same with an output of 2 GB, which takes the system a long time to throw away: 100 ms are enough.
func TestLargeCancel(t *testing.T) {
	largeDirectory(t)
	writeLarge(t, "large", 1, false, largeTensor{"a", 1 << 28}, largeTensor{"b", 1 << 29}, largeTensor{"c", 1 << 28})
	for _, args := range [][]string{nil, {"--max-shard-size", "512MiB"}, {"--no-sync"}} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			testCancel(t, 40, 100*time.Millisecond, append([]string{"mean", "-o", "out", "large", "large"}, args...)...)
		})
	}
}

// testCancel interrupts the command, which writes out, at random moments. Half of the time it takes to its end must be
// no more than the limit.
func testCancel(t *testing.T, rounds int, limit time.Duration, args ...string) {
	t.Helper()
	var took time.Duration
	for range 2 { // the second one finds the models in the page cache, as all that follow do
		os.RemoveAll("out")
		start := time.Now()
		if out, err := exec.Command(program, args...).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		took = time.Since(start)
	}
	var times []time.Duration
	done, tooLate := 0, 0
	for i := range rounds {
		os.RemoveAll("out")
		before := files(t)
		begin, part := 0.0, 1.0
		if i%2 == 1 { // towards the end, when the output is flushed
			begin, part = 0.6, 0.5
		}
		cmd := exec.Command(program, args...)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		moment := time.Duration((begin + part*rand.Float64()) * float64(took))
		time.Sleep(max(moment, 20*time.Millisecond)) // before, nobody waits for signals
		sent := time.Now()
		if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
			t.Fatal(err)
		}
		cmd.Wait()
		ended := time.Since(sent)
		switch status := cmd.ProcessState.ExitCode(); {
		case status == statusFailed && stderr.String() == "modelavg: interrupt signal received\n":
			times = append(times, ended)
			if got := files(t); !slices.Equal(got, before) {
				t.Errorf("after %v: files %q, want %q", moment, got, before)
			}
		case status == statusDone:
			done++
			if strings.Contains(stderr.String(), "stopped too late") {
				tooLate++
			}
			if got := files(t); len(got) != len(before)+1 || !slices.Contains(got, "out") {
				t.Errorf("after %v: files %q, want %q and out", moment, got, before)
			}
		default:
			t.Errorf("after %v: status %d, stderr %q", moment, status, stderr.String())
		}
	}
	if len(times) == 0 {
		t.Skipf("no run of %d was interrupted before its end", rounds)
	}
	middle := median(times)
	t.Logf("%d runs of %v were stopped, in %v to %v, median %v; %d were complete, %d of them after the signal",
		len(times), took, times[0], times[len(times)-1], middle, done, tooLate)
	if middle > limit {
		t.Errorf("median %v, want at most %v", middle, limit)
	}
}

// median returns the middle of the times.
func median(times []time.Duration) time.Duration {
	slices.Sort(times)
	return times[len(times)/2]
}
