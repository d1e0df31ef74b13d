package implementation

import (
	"fmt"
	"slices"
	"testing"
)

func TestNames(t *testing.T) {
	seen := map[string]bool{}
	for i := Generic; i <= AVX512; i++ {
		if i.String() == "" || seen[i.String()] {
			t.Errorf("implementation %d is named %q", uint8(i), i)
		}
		seen[i.String()] = true
	}
	for k := range Kind(Kinds) {
		if k.String() == "" || seen[k.String()] {
			t.Errorf("kind %d is named %q", uint8(k), k)
		}
		seen[k.String()] = true
	}
	if len(names) != int(AVX512)+1 || len(kindNames) != Kinds {
		t.Errorf("%d names of implementations, want %d; %d names of kinds, want %d", len(names), AVX512+1, len(kindNames), Kinds)
	}
}

func TestAvailable(t *testing.T) {
	a := Available()
	if a[len(a)-1] != Generic {
		t.Errorf("Available() = %v, want generic as the last", a)
	}
	if !slices.IsSortedFunc(a, func(x, y Implementation) int { return int(y) - int(x) }) {
		t.Errorf("Available() = %v, want widest first", a)
	}
	if len(slices.Compact(slices.Clone(a))) != len(a) {
		t.Errorf("Available() = %v, want each once", a)
	}
	cached, past, staggered := preferred()
	for _, choice := range []Choice{cached, past, staggered} {
		for k, i := range choice {
			if !slices.Contains(a, i) {
				t.Errorf("the choice for %v is %v, which is not one of %v", Kind(k), i, a)
			}
		}
	}
}

// TestStaggered: what is preferred is what is set, and for float32 alone, for which there is a kernel.
func TestStaggered(t *testing.T) {
	_, _, want := preferred()
	if Staggered != want {
		t.Errorf("Staggered is %v, want %v", Staggered, want)
	}
	want[Float32] = Generic
	if want != all(Generic) {
		t.Errorf("preferred is %v beside float32, want none", want)
	}
}

func TestForce(t *testing.T) {
	original, originalPast := Chosen, ChosenPast
	defer func() { Chosen, ChosenPast = original, originalPast }()
	mixed, past, _ := preferred()
	mixed[Float32] = Generic // so that it is not what Force sets
	past[Float64] = Generic
	for _, i := range Available() {
		Chosen, ChosenPast = mixed, past
		restore, err := Force(i.String())
		if err != nil {
			t.Fatal(err)
		}
		if Chosen != all(i) || ChosenPast != all(i) || Widest() != i {
			t.Errorf("Force(%q): choice %v and %v, widest %v", i, Chosen, ChosenPast, Widest())
		}
		inner, err := Force("generic")
		if err != nil {
			t.Fatal(err)
		}
		if Chosen != all(Generic) || ChosenPast != all(Generic) {
			t.Errorf("forced twice: choice %v and %v", Chosen, ChosenPast)
		}
		inner()
		if Chosen != all(i) || ChosenPast != all(i) {
			t.Errorf("after the inner restore: choice %v and %v, want all %v", Chosen, ChosenPast, i)
		}
		restore()
		if Chosen != mixed || ChosenPast != past {
			t.Errorf("after restore: choice %v and %v, want %v and %v", Chosen, ChosenPast, mixed, past)
		}
	}
	for _, name := range []string{"", "sse", "AVX2", "generic "} {
		Chosen, ChosenPast = mixed, past
		restore, err := Force(name)
		want := fmt.Sprintf("implementation %q is not available here, want one of %v", name, Available())
		if err == nil || err.Error() != want || restore != nil {
			t.Errorf("Force(%q) = %v, want %q", name, err, want)
		}
		if Chosen != mixed || ChosenPast != past {
			t.Errorf("Force(%q) changed the choice to %v and %v", name, Chosen, ChosenPast)
		}
	}
}

func TestWidest(t *testing.T) {
	original, originalPast := Chosen, ChosenPast
	defer func() { Chosen, ChosenPast = original, originalPast }()
	Chosen, ChosenPast = all(Generic), all(Generic)
	if Widest() != Generic {
		t.Errorf("Widest() = %v, want generic", Widest())
	}
	Chosen[BFloat16] = AVX512
	Chosen[Float64Wider] = AVX2
	if Widest() != AVX512 {
		t.Errorf("Widest() = %v, want avx512", Widest())
	}
}

func TestCaches(t *testing.T) {
	if size := LastLevelCache(); size < 0 {
		t.Errorf("LastLevelCache() = %d, want 0 or more", size)
	}
	if size := SecondLevelCache(); size < 0 {
		t.Errorf("SecondLevelCache() = %d, want 0 or more", size)
	}
}
