package main

import (
	"testing"
	"time"
)

func TestTimeLeft(t *testing.T) {
	for _, test := range []struct {
		elapsed     time.Duration
		done, total int64
		want        string
	}{
		{time.Second, 0, 100, ""},
		{time.Second, 50, 100, "1s left"},
		{time.Second, 1e9, 4e9, "3s left"}, // a nanosecond for each byte
		{time.Second, 4e9, 16e9, "3s left"},
		{time.Second, 1e9, 3.1e9, "3s left"},
		{time.Minute, 1e9, 62e9, "1h1m0s left"},
		{time.Second, 100, 100, "0s left"},
		{time.Hour, 1, 1 << 62, "277777h46m40s left"},
	} {
		if got := timeLeft(test.elapsed, test.done, test.total); got != test.want {
			t.Errorf("%v, %d of %d: got %q, want %q", test.elapsed, test.done, test.total, got, test.want)
		}
	}
}
