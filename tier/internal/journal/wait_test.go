package journal_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier/internal/journal"
)

// keysOf returns n different names of this size.
func keysOf(n, size int) (names []string) {
	for i := range n {
		names = append(names, fmt.Sprintf("%0*d", size, i))
	}
	return names
}

// Names are begun in as few invalidations as frames allow, in order, and each once.
func TestNamesFillFrames(t *testing.T) {
	for name, c := range map[string]struct {
		names []string
		want  []int // names of each invalidation
	}{
		"none":                    {nil, nil},
		"one":                     {keysOf(1, 8), []int{1}},
		"as many as fit":          {keysOf(codec.MaxKeysPerFrame, 8), []int{codec.MaxKeysPerFrame}},
		"one more":                {keysOf(codec.MaxKeysPerFrame+1, 8), []int{codec.MaxKeysPerFrame, 1}},
		"as many bytes as fit":    {keysOf(256, 1024), []int{256}},
		"one byte more":           {append(keysOf(255, 1024), string(make([]byte, 1025))), []int{255, 1}},
		"more bytes":              {keysOf(600, 1024), []int{256, 256, 88}},
		"a name that never fits":  {keysOf(2, 1<<19), []int{1, 1}},
		"an empty one at the end": {append(keysOf(256, 1024), ""), []int{257}},
	} {
		x := newSolo(t, time.Hour, 0, journal.Limits{})
		last := x.Begin(t.Context(), journal.NewWait(), 0, journal.Part{Scope: codec.ScopeKeys, Names: c.names})
		if s := x.Sizes(); int(last.Seq) != len(c.want) || s.Own != last.Seq || len(x.copies.fenced) != len(c.names) {
			t.Errorf("%s: the last mark is %v, %+v, %d keys are fenced", name, last, s, len(x.copies.fenced))
			continue
		}
		i := 0
		for seq, n := range c.want {
			for range n {
				if want := fmt.Sprintf("key %s {1 %d} version 0", c.names[i], seq+1); x.copies.fenced[i] != want {
					t.Fatalf("%s: name %d is fenced by %.30q..., want number %d", name, i, x.copies.fenced[i], seq+1)
				}
				i++
			}
		}
	}
}

// A Wait that is started in several steps ends when all of them are confirmed, and not before the last one is started.
func TestWaitForSeveralSteps(t *testing.T) {
	const room = 200 << 10 // of which half is less than the two steps take
	for _, lost := range []bool{false, true} {
		onStage(t, func(cfg *journal.Config) { cfg.Limits.Bytes = room }, func(t *testing.T, s *script) {
			s.meet()
			var calls atomic.Int32
			s.set("n1", func(a *actor) {
				a.answered = func(*codec.Request, *codec.Response) {
					time.Sleep(10 * time.Millisecond) // the second step waits for the first one
					if calls.Add(1); lost {
						s.set("n1", func(a *actor) { a.lost = true })
					}
				}
			})
			w := journal.NewWait()
			ctx, cancel := context.WithTimeout(context.Background(), time.Second)
			defer cancel()
			s.Begin(ctx, w, 0, journal.Part{Scope: codec.ScopeKeys, Names: keysOf(codec.MaxKeysPerFrame, 2)}, journal.Part{Scope: codec.ScopeKeys, Names: []string{strings.Repeat("k", room/4)}})
			if n := s.Sizes().Own; calls.Load() == 0 || n != 2 {
				t.Errorf("%d calls are answered before the last of %d invalidations has begun", calls.Load(), n)
			}
			err := s.Wait(ctx, w)
			if u, ok := errors.AsType[*journal.Unconfirmed](err); ok != lost || err != nil && fmt.Sprint(u.Members) != "[n1]" || lost != (err != nil) {
				t.Errorf("lost %v: the wait ends with %v", lost, err)
			}
		}, "n1")
	}
}

// The end of one Wait does not end another one, and each says why it has ended.
func TestWaitsEndAlone(t *testing.T) {
	onStage(t, nil, func(t *testing.T, s *script) {
		s.meet()
		s.set("n1", func(a *actor) { a.lost = true })
		wait := func(w *journal.Wait, d time.Duration) chan error {
			done := make(chan error, 1)
			go func() {
				ctx, cancel := context.WithTimeout(context.Background(), d)
				defer cancel()
				done <- s.Wait(ctx, w)
			}()
			return done
		}
		short, long := journal.NewWait(), journal.NewWait()
		s.begin(short, "a")
		s.begin(long, "b")
		first, second := wait(short, time.Second), wait(long, time.Minute)
		err := <-first
		if u, ok := errors.AsType[*journal.Unconfirmed](err); !ok || !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, errDown) || errors.Is(err, errClosed) || !slices.Equal(u.Members, []string{"n1"}) {
			t.Errorf("the time is over: %v", err)
		}
		s.set("n1", func(a *actor) { a.lost = false })
		if err := <-second; err != nil || time.Since(s.began) > 3*time.Second {
			t.Errorf("confirmed: %v after %v", err, time.Since(s.began))
		}
		s.set("n1", func(a *actor) { a.lost = true })
		last := journal.NewWait()
		s.begin(last, "c")
		third := wait(last, time.Minute)
		s.pass(time.Second)
		s.cancel()
		if err := <-third; !errors.Is(err, errClosed) || errors.Is(err, context.Canceled) {
			t.Errorf("the cache is closed: %v", err)
		}
	}, "n1")
}

// Nothing that was started is nothing to wait for.
func TestWaitAll(t *testing.T) {
	onStage(t, nil, func(t *testing.T, s *script) {
		s.set("n1", func(a *actor) { a.lost = true })
		s.meet()
		if err := s.WaitAll(t.Context()); err != nil {
			t.Error(err)
		}
		s.begin(nil, "a")
		s.begin(nil, "b")
		s.pass(time.Minute)
		s.set("n1", func(a *actor) { a.lost = false })
		began := time.Now()
		if err := s.WaitAll(t.Context()); err != nil || time.Since(began) > time.Second {
			t.Errorf("err = %v after %v", err, time.Since(began))
		}
		x := newSolo(t, 0, 0, journal.Limits{})
		if x.BeginKey("a", 0); x.WaitAll(t.Context()) != nil {
			t.Error("there are no members to wait for")
		}
	}, "n1")
}

// A Begin waits while what a reachable member has not confirmed, and the new names, take more than half of the log. What
// other members have started counts only if it came after that, and a member that is not reached does not count.
func TestPace(t *testing.T) {
	const cost, half = 112 + 16 + 1, 2000 // cost: of an invalidation of one key of one byte
	others := func(n int) func(s *script) {
		return func(s *script) {
			for i := range n {
				s.Receive(&codec.News{Invalidations: []codec.Invalidation{ofKey(7, s.Sizes().Own*100+uint64(i+1))}})
			}
		}
	}
	own := func(s *script) { s.begin(nil, "k") }
	reached := func(yes bool) func(s *script) {
		return func(s *script) {
			s.set("n1", func(a *actor) { a.lost = !yes })
			s.pass(time.Minute)
		}
	}
	silent := func(s *script) {
		s.set("n1", func(a *actor) {
			a.answered = func(*codec.Request, *codec.Response) { time.Sleep(time.Hour) }
		})
	}
	for name, c := range map[string]struct {
		before []func(s *script)
		most   int // bytes of a name with which Begin does not wait
	}{
		"nothing is behind":            {[]func(s *script){own, reached(true), silent}, half + 1000},
		"one":                          {[]func(s *script){silent, own}, half - cost},
		"two":                          {[]func(s *script){silent, own, own}, half - 2*cost},
		"one, after one that is there": {[]func(s *script){own, reached(true), silent, own}, half - cost},
		"one, after others":            {[]func(s *script){others(20), reached(true), silent, own}, half - cost},
		"one, before others":           {[]func(s *script){silent, own, others(5)}, half - 6*cost},
		"two, and others all the time": {[]func(s *script){others(3), silent, own, others(3), own, others(3)}, half - 8*cost},
		"not reached":                  {[]func(s *script){own, reached(false), own, own}, half + 1000},
		"not reached, and then it is":  {[]func(s *script){own, reached(false), own, own, reached(true), silent, own}, half - cost},
	} {
		for _, size := range []int{c.most, c.most + 1} {
			onStage(t, func(cfg *journal.Config) { cfg.Limits.Bytes = 2 * half }, func(t *testing.T, s *script) {
				s.meet()
				for _, f := range c.before {
					f(s)
				}
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				began := time.Now()
				s.Begin(ctx, nil, 0, journal.Part{Scope: codec.ScopeKeys, Names: []string{strings.Repeat("n", size)}})
				want := time.Duration(0)
				if size > c.most && c.most <= half {
					want = time.Second
				}
				if waited := time.Since(began); waited != want {
					t.Errorf("%s: with %d bytes it waits for %v, want %v", name, size, waited, want)
				}
			}, "n1")
		}
	}
}
