package modelavg_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/modelavg/modelavg"
)

func ExampleNewBFloat16() {
	models := [][]modelavg.BFloat16{
		{modelavg.NewBFloat16(1), modelavg.NewBFloat16(-3)},
		{modelavg.NewBFloat16(2), modelavg.NewBFloat16(5)},
	}
	mean := make([]modelavg.BFloat16, 2)
	if err := modelavg.Mean(mean, models); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(mean, mean[0].Float32())
	// Output: [1.5 1] 1.5
}

func ExampleNewFloat16() {
	third := modelavg.NewFloat16(1. / 3)
	fmt.Printf("%#04x %v %v\n", uint16(third), third.Float32(), modelavg.NewFloat16(65520))
	// Output: 0x3555 0.33325195 +Inf
}

// TestHalves takes every pattern to float32 and back, and compares the values with a definition of their own.
func TestHalves(t *testing.T) {
	for bits := range 1 << 16 {
		b := modelavg.BFloat16(bits)
		want := math.Float32frombits(uint32(bits) << 16)
		if got := b.Float32(); math.Float32bits(got) != math.Float32bits(want) && want == want {
			t.Fatalf("BFloat16 %#04x is %v, want %v", bits, got, want)
		}
		if want == want && modelavg.NewBFloat16(b.Float32()) != b {
			t.Fatalf("BFloat16 %#04x does not come back", bits)
		}

		h := modelavg.Float16(bits)
		exponent, fraction := bits>>10&0x1f, float64(bits&0x3ff)
		value := math.Ldexp(1024+fraction, exponent-25)
		switch {
		case exponent == 0:
			value = math.Ldexp(fraction, -24)
		case exponent == 0x1f && fraction == 0:
			value = math.Inf(1)
		case exponent == 0x1f:
			value = math.NaN()
		}
		if bits>>15 == 1 {
			value = -value
		}
		got := float64(h.Float32())
		if math.Float64bits(got) != math.Float64bits(value) && value == value || (got != got) != (value != value) {
			t.Fatalf("Float16 %#04x is %v, want %v", bits, got, value)
		}
		if value == value && modelavg.NewFloat16(h.Float32()) != h {
			t.Fatalf("Float16 %#04x does not come back", bits)
		}
	}
}
