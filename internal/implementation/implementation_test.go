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
	for k, i := range preferred() {
		if !slices.Contains(a, i) {
			t.Errorf("the choice for %v is %v, which is not one of %v", Kind(k), i, a)
		}
	}
}

func TestForce(t *testing.T) {
	original := Chosen
	defer func() { Chosen = original }()
	mixed := preferred()
	mixed[Float32] = Generic // so that it is not what Force sets
	for _, i := range Available() {
		Chosen = mixed
		restore, err := Force(i.String())
		if err != nil {
			t.Fatal(err)
		}
		if Chosen != all(i) || Widest() != i {
			t.Errorf("Force(%q): choice %v, widest %v", i, Chosen, Widest())
		}
		inner, err := Force("generic")
		if err != nil {
			t.Fatal(err)
		}
		if Chosen != all(Generic) {
			t.Errorf("forced twice: choice %v", Chosen)
		}
		inner()
		if Chosen != all(i) {
			t.Errorf("after the inner restore: choice %v, want all %v", Chosen, i)
		}
		restore()
		if Chosen != mixed {
			t.Errorf("after restore: choice %v, want %v", Chosen, mixed)
		}
	}
	for _, name := range []string{"", "sse", "AVX2", "generic "} {
		Chosen = mixed
		restore, err := Force(name)
		want := fmt.Sprintf("implementation %q is not available here, want one of %v", name, Available())
		if err == nil || err.Error() != want || restore != nil {
			t.Errorf("Force(%q) = %v, want %q", name, err, want)
		}
		if Chosen != mixed {
			t.Errorf("Force(%q) changed the choice to %v", name, Chosen)
		}
	}
}

func TestWidest(t *testing.T) {
	original := Chosen
	defer func() { Chosen = original }()
	Chosen = all(Generic)
	if Widest() != Generic {
		t.Errorf("Widest() = %v, want generic", Widest())
	}
	Chosen[BFloat16] = AVX512
	Chosen[Float64Wider] = AVX2
	if Widest() != AVX512 {
		t.Errorf("Widest() = %v, want avx512", Widest())
	}
}

func TestLastLevelCache(t *testing.T) {
	if size := LastLevelCache(); size < 0 {
		t.Errorf("LastLevelCache() = %d, want 0 or more", size)
	}
}
