// Package implementation decides which instruction set each kernel runs on.
//
// It stands apart from package kernel so that the tests of every package can force an implementation in the running
// process; package kernel only reads Chosen.
package implementation

import (
	"fmt"
	"os"
)

// An Implementation is an instruction set for which the kernels are written.
type Implementation uint8

// The implementations, narrowest first. Generic is pure Go and runs everywhere.
const (
	Generic Implementation = iota
	NEON
	AVX2
	AVX512
)

var names = [...]string{Generic: "generic", NEON: "neon", AVX2: "avx2", AVX512: "avx512"}

// String returns the name that MODELAVG_KERNEL takes.
func (i Implementation) String() string { return names[i] }

// A Kind is an element type together with its accumulator: each has kernels of its own.
type Kind uint8

// The kinds. The comment is the accumulator.
const (
	Float32       Kind = iota // float64
	Float64                   // float64
	Float16                   // float32
	BFloat16                  // float32
	Float32Native             // float32
	Float64Wider              // a compensated pair of float64
	Kinds         = iota
)

var kindNames = [...]string{
	Float32: "float32", Float64: "float64", Float16: "float16", BFloat16: "bfloat16",
	Float32Native: "float32native", Float64Wider: "float64wider",
}

// String returns the kind's name in lower case.
func (k Kind) String() string { return kindNames[k] }

// A Choice is an implementation for every kind.
type Choice [Kinds]Implementation

// What each kind runs on now: Chosen as a rule, and ChosenPast in calls that move more than the caches hold, where other
// things than the arithmetic decide, and in some that the outer caches hold.
var Chosen, ChosenPast Choice

// Staggered is what kinds had better run on with groups of models one behind another, where there are many of them at the
// same line of a page; Generic stands for none. It is for kinds that run on the same implementation otherwise.
var Staggered Choice

// Environment is the variable that forces one implementation for every kernel when the process starts.
const Environment = "MODELAVG_KERNEL"

func init() {
	Chosen, ChosenPast, Staggered = preferred()
	name := os.Getenv(Environment)
	if name == "" {
		return
	}
	if _, err := Force(name); err != nil {
		fmt.Fprintf(os.Stderr, "modelavg: %s: %v; ignored\n", Environment, err)
	}
}

// Available returns the implementations that this machine can run, widest first. Generic is always the last.
func Available() []Implementation {
	return append(detected(), Generic)
}

// Widest returns the widest implementation that any kind runs on now.
func Widest() Implementation {
	widest := Generic
	for k := range Chosen {
		widest = max(widest, Chosen[k], ChosenPast[k])
	}
	return widest
}

// Force makes every kind run on the named implementation and returns a function that restores the former choice. It is
// not safe to call while kernels run.
func Force(name string) (restore func(), err error) {
	for _, i := range Available() {
		if i.String() != name {
			continue
		}
		former, formerPast := Chosen, ChosenPast
		Chosen, ChosenPast = all(i), all(i)
		return func() { Chosen, ChosenPast = former, formerPast }, nil
	}
	return nil, fmt.Errorf("implementation %q is not available here, want one of %v", name, Available())
}

// all returns the choice of one implementation for every kind.
func all(i Implementation) (choice Choice) {
	for k := range choice {
		choice[k] = i
	}
	return choice
}
