package roster

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"slices"
	"time"
)

const (
	// discoverLimit is how long a call of Seeds.Discover may take. Then its context ends.
	discoverLimit = 10 * time.Second
	// discoverWait is how long an attempt to join waits for the call. A later answer starts an attempt of its own.
	discoverWait = 2 * time.Second
	// discoverGrace is how long Close waits for a call after its context has ended.
	discoverGrace = time.Second
	// maxDiscovered is how many seeds of one answer count, the first ones: as many as a view has members by default.
	maxDiscovered = 1024
)

// discovered is the result of a call of Seeds.Discover.
type discovered struct {
	seeds []string
	err   error
}

// A discovery calls Seeds.Discover in a goroutine of its own, one call at a time. Only the goroutine of rejoin uses it.
type discovery struct {
	call   func(context.Context) ([]string, error)
	answer chan discovered // receives the answer of the call in progress; nil: no call is in progress
	began  time.Time       // when that call started
	late   *discovered     // the answer of a call that no attempt waited for
	failed error           // error of such a call, returned if the next call is as slow
	last   []string        // what it last found
}

// ask returns what Discover finds, or what it last found if it fails or takes long. It makes no second call while one is in
// progress, and does not wait for that call again.
func (d *discovery) ask(ctx context.Context) ([]string, error) {
	if d.call == nil {
		return nil, nil
	}
	wait := time.Duration(0)
	if d.late == nil && d.answer == nil {
		d.start(ctx)
		wait = discoverWait
	}
	if d.late == nil {
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case a := <-d.answer:
			d.answer, d.late = nil, &a
		case <-t.C:
		case <-ctx.Done():
		}
	}
	switch a := d.late; {
	case a == nil && d.failed != nil:
		return d.last, d.failed
	case a == nil:
		return d.last, &slowError{time.Since(d.began)}
	case a.err != nil:
		d.late, d.failed = nil, nil
		return d.last, a.err
	default:
		d.late, d.failed = nil, nil
		return d.last, d.take(a.seeds)
	}
}

// start calls Discover. The goroutine ends when that function does. Close waits at most discoverGrace for it, since nothing
// can be done about a function that ignores its context.
func (d *discovery) start(ctx context.Context) {
	answer := make(chan discovered, 1)
	d.answer, d.began = answer, time.Now()
	ctx, cancel := context.WithTimeout(ctx, discoverLimit)
	go func() {
		defer cancel()
		a := discovered{err: errors.New("it has ended its goroutine")}
		defer func() {
			if p := recover(); p != nil {
				a = discovered{err: &panicError{fmt.Sprint(p), debug.Stack()}}
			}
			answer <- a
		}()
		seeds, err := d.call(ctx)
		if a = (discovered{slices.Clone(seeds), nil}); err != nil {
			a.err = errors.New(fmt.Sprint(err)) // its methods are called here, where they may panic
		}
	}()
}

// recordLate records the answer of a call that no attempt waited for. It reports whether the call succeeded, so that an
// attempt to join is due.
func (d *discovery) recordLate(a discovered) bool {
	if d.answer = nil; a.err != nil {
		d.failed = a.err
		return false
	}
	d.late = &a
	return true
}

// take keeps the valid seeds of an answer, if there are any, and returns what is wrong with the rest.
func (d *discovery) take(seeds []string) error {
	var good []string
	var errs []error
	if len(seeds) > maxDiscovered {
		errs = append(errs, fmt.Errorf("it found %d seeds; the first %d count", len(seeds), maxDiscovered))
		seeds = seeds[:maxDiscovered]
	}
	for _, seed := range seeds {
		if err := CheckSeed(seed); err != nil {
			errs = append(errs, err)
			continue
		}
		good = append(good, seed)
	}
	if len(good) > 0 || len(seeds) == 0 {
		d.last = good
	}
	return few(errs)
}

// end waits briefly for the call in progress, whose context has ended. It returns false if the call is still running.
func (d *discovery) end() bool {
	if d.answer == nil {
		return true
	}
	t := time.NewTimer(discoverGrace)
	defer t.Stop()
	select {
	case <-d.answer:
		d.answer = nil
		return true
	case <-t.C:
		return false
	}
}

// slowError says that a call of Discover has not returned yet.
type slowError struct{ since time.Duration }

func (e *slowError) Error() string {
	if e.since < discoverLimit {
		return fmt.Sprintf("no answer for %v", e.since.Round(time.Millisecond))
	}
	return fmt.Sprintf("no answer for %v, although its context ended after %v; it is not called again before it returns",
		e.since.Round(time.Second), discoverLimit)
}

// kind identifies the error without the parts that change.
func (e *slowError) kind() string {
	if e.since < discoverLimit {
		return "slow"
	}
	return "hangs"
}

// panicError says that Discover has panicked.
type panicError struct {
	text  string
	stack []byte
}

func (e *panicError) Error() string { return fmt.Sprintf("it panicked: %s\n%s", e.text, e.stack) }

func (e *panicError) kind() string { return e.text }
