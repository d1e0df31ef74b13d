package main

import (
	"io"
	"math"
	"time"

	"github.com/vbauerster/mpb/v8"
	"github.com/vbauerster/mpb/v8/decor"
)

// A progress is a bar on a terminal; where out is none it writes nothing.
type progress struct {
	container *mpb.Progress
	bar       *mpb.Bar
}

// newProgress shows a bar for so many bytes to read.
func newProgress(out io.Writer, total int64) *progress {
	start := time.Now()
	container := mpb.New(mpb.WithOutput(out))
	// A bar that begins without a total is not complete when it gets there: it stays while the file is being flushed.
	bar := container.AddBar(
		0,
		mpb.PrependDecorators(decor.CountersKiloByte("% .1f / % .1f ")),
		mpb.AppendDecorators(
			decor.NewAverageSpeed(decor.SizeB1000(0), " % .1f ", start),
			decor.Any(func(s decor.Statistics) string { return timeLeft(time.Since(start), s.Current, s.Total) }),
		),
	)
	bar.SetTotal(total, false)
	return &progress{container, bar}
}

// timeLeft returns how long the rest takes if it goes on like this, in whole seconds, rounded up. The bar's library counts
// whole nanoseconds for each unit, which is none for a byte.
func timeLeft(elapsed time.Duration, done, total int64) string {
	if done <= 0 {
		return ""
	}
	left := elapsed.Seconds() * float64(total-done) / float64(done)
	return (time.Duration(math.Ceil(min(left, 1e9))) * time.Second).String() + " left"
}

// update moves the bar.
func (p *progress) update(done, _ int64) { p.bar.SetCurrent(done) }

// updateOf moves the bar, and sets the total.
func (p *progress) updateOf(done, total int64) {
	p.bar.SetTotal(total, false)
	p.bar.SetCurrent(done)
}

// add moves the bar by what has been read since.
func (p *progress) add(bytes int64) { p.bar.IncrInt64(bytes) }

// close takes the bar away; the report or the error says the rest.
func (p *progress) close() {
	p.bar.Abort(true)
	p.container.Wait()
}
