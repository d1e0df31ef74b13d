package bytesize

import (
	"fmt"
	"testing"
)

func ExampleSize() {
	var s Size
	for _, text := range []string{"100", "30MB", "1.5 GiB"} {
		if err := s.Set(text); err != nil {
			fmt.Println(err)
		}
		fmt.Println(s)
	}
	// Output:
	// 100
	// 30000000
	// 1610612736
}

func TestSize(t *testing.T) {
	for text, want := range map[string]Size{
		"1": 1, "7b": 7, "2kB": 2000, "2KiB": 2048, "3tb": 3e12, "1TiB": 1 << 40, "0.5KB": 500, "1e3": 1000, "1.9": 1,
	} {
		var s Size
		if err := s.Set(text); err != nil || s != want {
			t.Errorf("%q: got %d, error %v, want %d", text, s, err, want)
		}
	}
	for _, text := range []string{"", "0", "-1", "GB", "5XB", "5GBs", "NaN", "Inf", "1e30", "10000000TB", "0.9"} {
		s := Size(42)
		if err := s.Set(text); err == nil || s != 42 {
			t.Errorf("%q: got %d, no error", text, s)
		}
	}
	if none, some := Size(0), Size(12); none.String() != "" || some.String() != "12" || some.Type() != "SIZE" {
		t.Errorf("got %q and %q of type %q", none.String(), some.String(), some.Type())
	}
}
