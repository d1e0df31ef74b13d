//go:build (!amd64 && !arm64) || purego || noasm

package kernel

import (
	"unsafe"

	"github.com/modelavg/modelavg/internal/implementation"
)

// There is no assembly, and nothing but Generic is ever chosen.

func leastElements(implementation.Kind, implementation.Implementation) int { return 0 }

func number(implementation.Kind, implementation.Implementation) int { return 0 }

func weightedSumAssembly(_, _, _, _, _ unsafe.Pointer, _, _, _ int, _ float64, _, _ int) {
	panic("kernel: no assembly")
}

func accumulateAssembly(_, _, _, _ unsafe.Pointer, _, _, _, _ int) { panic("kernel: no assembly") }

func weightedSumStaggered(_, _, _, _ unsafe.Pointer, _, _ int, _ float64, _ int) {
	panic("kernel: no assembly")
}

func magnitude16Assembly(unsafe.Pointer, int, uint64) uint64 { panic("kernel: no assembly") }

func magnitude32Assembly(unsafe.Pointer, int, uint64) uint64 { panic("kernel: no assembly") }
