package bench

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A Caller is one of several concurrent callers. One goroutine at a time calls Call. Close, if not nil, is called
// once after the last Call.
type Caller struct {
	Call  func() error
	Close func()
}

// Sample is the result of Load.
type Sample struct {
	Calls   int64
	Elapsed time.Duration
	P50     time.Duration // of the timed calls
	P99     time.Duration
	Allocs  float64       // of this process, per call
	CPU     time.Duration // of all processes that take part, for all calls; 0: not measured
}

// PerSecond returns the number of calls per second.
func (s Sample) PerSecond() float64 { return float64(s.Calls) / s.Elapsed.Seconds() }

// timedEvery is the number of calls per timed call if there are many callers: two readings of the clock then cost
// less than a hundredth of a call over a network.
const timedEvery = 8

// Callers is a fixed number of warm callers. Its methods must not be called concurrently.
type Callers struct {
	all  []Caller
	took [][]time.Duration // by caller; kept from round to round, so that rounds do not allocate
}

// NewCallers makes n callers with next and lets each call once, which opens connections. Close releases them. After
// an error it closes those that it has made.
func NewCallers(n int, next func(i int) (Caller, error)) (*Callers, error) {
	if n < 1 {
		return nil, fmt.Errorf("bench: %d callers: at least 1 is needed", n)
	}
	c := &Callers{}
	for i := range n {
		one, err := next(i)
		if err == nil {
			c.all = append(c.all, one)
			err = one.Call()
		}
		if err != nil {
			c.Close()
			return nil, fmt.Errorf("bench: caller %d: %w", i, err)
		}
	}
	c.took = make([][]time.Duration, n)
	for i := range c.took {
		c.took[i] = make([]time.Duration, 0, max(1<<18/n, 64))
	}
	return c, nil
}

// Close closes all callers.
func (c *Callers) Close() {
	for _, one := range c.all {
		if one.Close != nil {
			one.Close()
		}
	}
	c.all = nil
}

// Load lets all callers call repeatedly for about d. The first error of any caller ends the load and is returned.
func (c *Callers) Load(d time.Duration) (Sample, error) {
	if len(c.all) == 0 {
		return Sample{}, errors.New("bench: no callers")
	}
	var (
		stop  atomic.Bool
		calls atomic.Int64
		start = make(chan struct{})
		errs  = make([]error, len(c.all))
		wg    sync.WaitGroup
	)
	every := timedEvery
	if len(c.all) == 1 {
		every = 1
	}
	for i, one := range c.all {
		c.took[i] = c.took[i][:0]
		wg.Go(func() {
			took, n := c.took[i], int64(0)
			<-start
			for k := 0; !stop.Load(); k++ {
				timed := k%every == 0 && len(took) < cap(took)
				var began time.Time
				if timed {
					began = time.Now()
				}
				if errs[i] = one.Call(); errs[i] != nil {
					stop.Store(true)
					break
				}
				if timed {
					took = append(took, time.Since(began))
				}
				n++
			}
			c.took[i] = took
			calls.Add(n)
		})
	}
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began := time.Now()
	end := time.AfterFunc(d, func() { stop.Store(true) })
	close(start)
	wg.Wait()
	elapsed := time.Since(began)
	runtime.ReadMemStats(&after)
	end.Stop()
	if err := errors.Join(errs...); err != nil {
		return Sample{}, fmt.Errorf("bench: a caller: %w", err)
	}
	all := slices.Concat(c.took...)
	if len(all) == 0 {
		return Sample{}, errors.New("bench: no call ended in time")
	}
	slices.Sort(all)
	n := calls.Load()
	return Sample{
		Calls: n, Elapsed: elapsed,
		P50: all[len(all)/2], P99: all[len(all)*99/100],
		Allocs: float64(after.Mallocs-before.Mallocs) / float64(n),
	}, nil
}
