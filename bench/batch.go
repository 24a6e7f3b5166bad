package bench

import (
	"errors"
	"runtime"
	"slices"
	"sync"
	"time"
)

// Batch runs body concurrently in the given number of goroutines, each with its index, and counts each run as n
// calls. It is for calls that are too short for a Caller: body loops by itself, and calls are not timed
// individually.
func Batch(goroutines, n int, body func(g, n int) error) (Sample, error) {
	if goroutines < 1 || n < 1 {
		return Sample{}, errors.New("bench: a batch needs a goroutine and a call at least")
	}
	var (
		wg    sync.WaitGroup
		start = make(chan struct{})
		errs  = make([]error, goroutines)
	)
	for g := range goroutines {
		wg.Go(func() {
			<-start
			errs[g] = body(g, n)
		})
	}
	runtime.GC()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	began := time.Now()
	close(start)
	wg.Wait()
	elapsed := time.Since(began)
	runtime.ReadMemStats(&after)
	calls := int64(goroutines) * int64(n)
	return Sample{
		Calls: calls, Elapsed: elapsed,
		Allocs: float64(after.Mallocs-before.Mallocs) / float64(calls),
	}, errors.Join(errs...)
}

// HeapBytes returns the size of live objects after two collections: the first one empties pools.
func HeapBytes() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// Timed runs body concurrently in the given number of goroutines, n times in each, with the index of the goroutine
// and of the call, and times every call. It is for a fixed number of calls, whereas Callers are for a fixed time.
func Timed(goroutines, n int, body func(g, k int) error) (Sample, error) {
	if n < 1 {
		return Sample{}, errors.New("bench: timed calls need a call at least")
	}
	took := make([]time.Duration, max(0, goroutines)*n)
	s, err := Batch(goroutines, n, func(g, n int) error {
		for k := range n {
			began := time.Now()
			if err := body(g, k); err != nil {
				return err
			}
			took[g*n+k] = time.Since(began)
		}
		return nil
	})
	if err != nil {
		return s, err
	}
	slices.Sort(took)
	s.P50, s.P99 = took[len(took)/2], took[len(took)*99/100]
	return s, nil
}
