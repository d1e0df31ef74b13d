package modelavg

import (
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestBoundary(t *testing.T) {
	for _, n := range []int{64, 100, 1000, 4097} {
		for lead := range 16 {
			for _, line := range []int{8, 16, 32} {
				if lead >= line {
					continue
				}
				for parts := 1; parts <= 7 && parts*line <= n-lead; parts++ {
					previous := 0
					for i := 0; i <= parts; i++ {
						b := boundary(i, parts, n, lead, line)
						switch {
						case i == 0 && b != 0, i == parts && b != n:
							t.Fatalf("n %d, lead %d, line %d, %d parts: boundary %d is %d", n, lead, line, parts, i, b)
						case i > 0 && i < parts && (b-lead)%line != 0:
							t.Fatalf("n %d, lead %d, line %d, %d parts: boundary %d is %d, inside a line", n, lead, line, parts, i, b)
						case b < previous || b-previous > (n-lead)/parts+2*line+lead:
							t.Fatalf("n %d, lead %d, line %d, %d parts: boundary %d is %d after %d", n, lead, line, parts, i, b, previous)
						}
						previous = b
					}
				}
			}
		}
	}
}

func TestParallelRunsEveryPart(t *testing.T) {
	for n := 1; n <= 9; n++ {
		var runs [9]atomic.Int32
		parallel(n, func(i int) { runs[i].Add(1) })
		for i := range runs {
			if got, want := runs[i].Load(), int32(1); i < n && got != want || i >= n && got != 0 {
				t.Errorf("%d parts: part %d ran %d times", n, i, got)
			}
		}
	}
}

func TestParallelRunsAtOnce(t *testing.T) {
	met := make(chan int)
	parallel(2, func(i int) {
		select { // each part waits for the other
		case met <- i:
		case <-met:
		case <-time.After(10 * time.Second):
			t.Errorf("part %d has not met the other", i)
		}
	})
}

var errTest = errors.New("fault in the work")

// A panic on any goroutine reaches the caller after all the others have ended.
func TestParallelPanics(t *testing.T) {
	for faulty := range 4 {
		var ended atomic.Int32
		value := func() (value any) {
			defer func() { value = recover() }()
			parallel(4, func(i int) {
				if i == faulty {
					panic(errTest)
				}
				time.Sleep(5 * time.Millisecond) // so that the fault comes first
				ended.Add(1)
			})
			return nil
		}()
		err, ok := value.(error)
		if !ok || !errors.Is(err, errTest) {
			t.Errorf("part %d: got panic %v, want one that wraps %q", faulty, value, errTest)
			continue
		}
		if faulty > 0 && !(strings.Contains(err.Error(), "fault in the work") && strings.Contains(err.Error(), "TestParallelPanics")) {
			t.Errorf("part %d: the panic does not carry the fault and the worker's stack: %v", faulty, err)
		}
		if got := ended.Load(); got != 3 {
			t.Errorf("part %d: %d others had ended, want 3", faulty, got)
		}
	}
}

// Without workers asked for, no goroutine is started, however long dst is; with many, a short dst has one.
func TestWorkersNeedWork(t *testing.T) {
	dst := make([]float32, 2*workerBytes/4-1)
	models := [][]float32{make([]float32, len(dst))}
	if n := testing.AllocsPerRun(5, func() { _ = Mean(dst, models, WithWorkers(100)) }); n != 0 {
		t.Errorf("just short of two workers' output: %v allocations, want 0, as from one worker", n)
	}
	dst = make([]float32, 2*workerBytes/4)
	models = [][]float32{make([]float32, len(dst))}
	if n := testing.AllocsPerRun(5, func() { _ = Mean(dst, models, WithWorkers(100)) }); n == 0 {
		t.Error("enough for two workers: no allocation, so no second worker")
	}
	if n := testing.AllocsPerRun(5, func() { _ = Mean(dst, models) }); n != 0 {
		t.Errorf("no workers asked for: %v allocations, want 0", n)
	}
}

func TestOptions(t *testing.T) {
	for _, test := range []struct {
		options []Option
		want    settings
	}{
		{nil, settings{1, DefaultAccumulation}},
		{[]Option{{}}, settings{1, DefaultAccumulation}},
		{[]Option{WithWorkers(5), WithAccumulation(Native)}, settings{5, Native}},
		{[]Option{WithWorkers(5), WithWorkers(2), WithAccumulation(Wider)}, settings{2, Wider}},
	} {
		if got, err := gather(test.options); err != nil || got != test.want {
			t.Errorf("gather(%v): got %v, %v, want %v", test.options, got, err, test.want)
		}
	}
	if got, err := gather([]Option{WithWorkers(0)}); err != nil || got.workers < 1 {
		t.Errorf("WithWorkers(0): got %v, %v, want at least one worker", got, err)
	}
}
