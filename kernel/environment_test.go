package kernel

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/modelavg/modelavg/internal/implementation"
)

// requireVariable names the implementations that a test run is meant to cover: where one is missing the run fails.
const requireVariable = "MODELAVG_TEST_REQUIRE"

// TestRequired fails when an implementation that the environment asks for is not there, and says when the widest of this
// architecture is not.
func TestRequired(t *testing.T) {
	names := Implementations()
	t.Logf("implementations: %s", strings.Join(names, ", "))
	for name := range strings.SplitSeq(os.Getenv(requireVariable), ",") {
		if name != "" && !slices.Contains(names, name) {
			t.Errorf("%s asks for %s, which this build cannot run on this processor; it has %v", requireVariable, name, names)
		}
	}
	if !slices.Contains(names, "avx512") {
		t.Log("avx512 not available on this CPU: not tested")
	}
}

func TestImplementations(t *testing.T) {
	names := Implementations()
	if len(names) == 0 || names[len(names)-1] != "generic" {
		t.Fatalf("Implementations() = %v, want generic as the last", names)
	}
	order := []string{"avx512", "avx2", "neon", "generic"}
	last := -1
	for _, name := range names {
		i := slices.Index(order, name)
		if i <= last {
			t.Fatalf("Implementations() = %v, want widest first, of %v", names, order)
		}
		last = i
	}
	if now := Implementation(); !slices.Contains(names, now) {
		t.Errorf("Implementation() = %q, want one of %v", now, names)
	}
	for _, name := range names {
		former := implementation.Chosen
		restore, err := implementation.Force(name)
		if err != nil {
			t.Fatal(err)
		}
		if now := Implementation(); now != name {
			t.Errorf("Implementation() = %q when %s is forced", now, name)
		}
		restore()
		if implementation.Chosen != former {
			t.Errorf("after %s the choice is %v, want %v", name, implementation.Chosen, former)
		}
	}
	names[0] = "changed"
	if Implementations()[0] == "changed" {
		t.Error("Implementations returns the same memory twice")
	}
}

const childVariable = "MODELAVG_TEST_CHILD"

// TestChild is what TestEnvironment runs in a process of its own.
func TestChild(t *testing.T) {
	if os.Getenv(childVariable) == "" {
		t.Skip("only for TestEnvironment")
	}
	dst := make([]float32, 3)
	WeightedSumFloat32(dst, [][]float32{{1, 2, 3}, {3, 2, 1}}, []float64{0.5, 0.5})
	fmt.Printf("implementation %s, sum %v, choice %v\n", Implementation(), dst, implementation.Chosen)
}

// child starts this test binary with MODELAVG_KERNEL set, and returns what it prints.
func child(t *testing.T, name string) (stdout, stderr string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Skip(err)
	}
	cmd := exec.Command(self, "-test.run=^TestChild$", "-test.v=false", "-test.count=1")
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, implementation.Environment+"=") && !strings.HasPrefix(v, "GOCOVERDIR=") {
			cmd.Env = append(cmd.Env, v)
		}
	}
	cmd.Env = append(cmd.Env, implementation.Environment+"="+name, childVariable+"=1")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err = cmd.Run()
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.ENOEXEC) {
		t.Skipf("no process can be started here: %v", err)
	}
	if err != nil {
		t.Fatalf("%v\n%s%s", err, out.Bytes(), errs.Bytes())
	}
	return out.String(), errs.String()
}

// TestEnvironment forces each implementation by MODELAVG_KERNEL, which is read when the process starts.
func TestEnvironment(t *testing.T) {
	defaults, quiet := child(t, "")
	if quiet != "" {
		t.Errorf("without a name: stderr has %q", quiet)
	}
	for _, impl := range implementation.Available() {
		stdout, stderr := child(t, impl.String())
		var choice [implementation.Kinds]implementation.Implementation
		for k := range choice {
			choice[k] = impl
		}
		want := fmt.Sprintf("implementation %v, sum [2 2 2], choice %v\n", impl, choice)
		if !strings.HasPrefix(stdout, want) {
			t.Errorf("%v: prints %q, want %q", impl, stdout, want)
		}
		if stderr != "" {
			t.Errorf("%v: stderr has %q", impl, stderr)
		}
	}
	unavailable := []string{"sse9", "AVX2", "avx2 ", "avx2,generic"}
	for _, name := range []string{"avx512", "avx2", "neon"} {
		if !slices.Contains(Implementations(), name) {
			unavailable = append(unavailable, name)
		}
	}
	for _, name := range unavailable {
		stdout, stderr := child(t, name)
		if stdout != defaults {
			t.Errorf("%q: prints %q, want %q as by default", name, stdout, defaults)
		}
		want := fmt.Sprintf("modelavg: MODELAVG_KERNEL: implementation %q is not available here, want one of %v; ignored\n",
			name, Implementations())
		if stderr != want {
			t.Errorf("%q: stderr has %q, want %q", name, stderr, want)
		}
	}
}
