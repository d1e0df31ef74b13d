package merge

import (
	"fmt"
	"strings"
	"time"
)

// A Report says what a run did.
type Report struct {
	Path         string        // the file written
	Averaged     []string      // names of the averaged tensors, sorted
	Copied       []string      // names of the copied tensors, sorted
	CopiedFrom   string        // the file they were copied from
	BytesRead    int64         // tensor data read
	BytesWritten int64         // tensor data written
	Duration     time.Duration // until the file stood in its place
}

// String returns the report for people, in two lines.
func (r *Report) String() string {
	return fmt.Sprintf("%s: %s\nread %s, wrote %s in %v\n", r.Path,
		tensorCounts(len(r.Averaged), r.Copied, r.CopiedFrom),
		formatBytes(r.BytesRead), formatBytes(r.BytesWritten), r.Duration.Round(time.Millisecond))
}

// tensorCounts returns how many tensors are averaged and which are copied.
func tensorCounts(averaged int, copied []string, from string) string {
	s := plural(averaged, "tensor") + " averaged"
	if len(copied) > 0 {
		s += fmt.Sprintf(", %d copied from %s: %s", len(copied), from, strings.Join(copied, ", "))
	}
	return s
}

// plural returns the number and the noun, with an s unless it is one.
func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// formatBytes returns a size in decimal units, with three digits, as in "1.25 GB".
func formatBytes(n int64) string {
	if n < 1000 {
		return fmt.Sprintf("%d B", n)
	}
	x, unit := float64(n)/1000, 0
	for x >= 999.5 && unit < 5 {
		x /= 1000
		unit++
	}
	return fmt.Sprintf("%.3g %cB", x, "kMGTPE"[unit])
}
