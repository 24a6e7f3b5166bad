package roster_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/weircache/weir/peer/internal/roster"
	"github.com/weircache/weir/peer/internal/wiretest"
	"github.com/weircache/weir/peer/netsim"
)

// A joins is an address that a node joins, and how long after its first attempt began; 0: it does not matter.
type joins struct {
	at time.Duration
	to string
}

// An answer is how a call of Discover ends.
type answer struct {
	after time.Duration
	seeds []string
	err   error
}

// A directory is a Discover whose calls end as in answers, and the last ones as the last of these.
type directory struct {
	answers []answer

	mu    sync.Mutex // guards the rest
	calls int
	limit time.Duration // that the last call has
}

// called returns how often it has been called, and how long the last call may take.
func (d *directory) called() (int, time.Duration) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.calls, d.limit
}

// configure makes it the node's Discover until the test ends. Its calls ignore their contexts.
func (d *directory) configure(t *testing.T) func(*roster.Config) {
	ends, end := context.WithCancel(context.Background())
	return func(c *roster.Config) {
		t.Cleanup(end)
		c.Seeds.Discover = func(ctx context.Context) ([]string, error) {
			d.mu.Lock()
			a := d.answers[min(d.calls, len(d.answers)-1)]
			d.calls++
			if end, ok := ctx.Deadline(); ok {
				d.limit = time.Until(end)
			}
			d.mu.Unlock()
			wiretest.Pause(ends, a.after)
			return a.seeds, a.err
		}
	}
}

// TestDiscover checks that an attempt to join waits only briefly for Discover, that a late answer starts an attempt of its
// own, that what was found last counts while it fails, and what an operator learns of each.
func TestDiscover(t *testing.T) {
	const (
		discoverWait, discoverLimit = 2 * time.Second, 10 * time.Second

		first, second = "10.0.0.5:7946", "10.0.0.6:7946"
		failing       = "seeds cannot be resolved"
		again         = "all seeds can be resolved again"
	)
	one, two := []string{first}, []string{second}
	for _, c := range []struct {
		name    string
		answers []answer
		until   time.Duration // that the test looks at
		joins   []joins       // the first ones; nil: none at all
		calls   int
		joined  bool
		log     map[string]int
	}{
		{"nothing", []answer{{}}, time.Second, nil, 1, true, map[string]int{failing: 0}},
		{"in time", []answer{{discoverWait - 1, one, nil}}, discoverWait, []joins{{discoverWait - 1, first}}, 1, false,
			map[string]int{failing: 0}},
		{"late", []answer{{discoverWait + 1, one, nil}, {0, two, nil}}, discoverWait + rejoinEvery*6/5,
			[]joins{{discoverWait + 1, first}, {0, second}}, 2, false,
			map[string]int{failing: 1, `"Discover: no answer for 2s"`: 2, again: 1}}, // it is in the line that the node goes on alone as well
		{"a failure", []answer{{0, one, nil}, {0, nil, errors.New("no such service")}}, rejoinEvery * 6 / 5,
			[]joins{{0, first}, {0, first}}, 2, false, map[string]int{`"Discover: no such service"`: 1, again: 0}},
		{"a late failure, and a slow call", []answer{{discoverWait + 1, nil, errors.New("no such service")}, {after: time.Hour}}, 2 * time.Minute, nil, 2, false,
			map[string]int{failing: 2, `"Discover: no such service"`: 2, "no answer": 2}}, // the log has each at most once a minute
		{"nothing for long", []answer{{after: time.Hour}}, 10 * time.Minute, nil, 1, false,
			map[string]int{failing: 2, "addresses are used\" error=\"Discover: no answer for 1m": 1}},
	} {
		bubble(t, func(t *testing.T) {
			d, calls := &directory{answers: c.answers}, new(refusals)
			n := in(t, netsim.New(1), "a", 1, d.configure(t), calls.to)
			began := time.Now()
			n.Join()
			pause(c.until)
			if made, limit := d.called(); made != c.calls || limit != discoverLimit {
				t.Errorf("%s: %d calls; the last one may take %v", c.name, made, limit)
			}
			got := calls.take()
			if len(got) < len(c.joins) || c.joins == nil && len(got) > 0 || n.Joined() != c.joined {
				t.Fatalf("%s: it joins %v; joined: %v", c.name, got, n.Joined())
			}
			for i, want := range c.joins {
				if at := got[i].at.Sub(began); got[i].to != want.to || want.at > 0 && at != want.at {
					t.Errorf("%s: it joins %s at %v, want %s at %v", c.name, got[i].to, at, want.to, want.at)
				}
			}
			for text, times := range c.log {
				if n.lines(text) != times {
					t.Errorf("%s: want %q %d times; the log has %s", c.name, text, times, n.log)
				}
			}
		})
	}
}

// TestDiscoverEnds checks that a node that shuts down waits briefly for a call that goes on, and not for one that has ended.
func TestDiscoverEnds(t *testing.T) {
	const discoverGrace, line = time.Second, "Discover still runs although its context has ended"
	for _, c := range []struct {
		takes time.Duration // from Shutdown on
		waits time.Duration
		line  int
	}{
		{-1, 0, 0}, {discoverGrace - 1, discoverGrace - 1, 0}, {discoverGrace + 1, discoverGrace, 1},
	} {
		bubble(t, func(t *testing.T) {
			d := &directory{answers: []answer{{after: time.Second + c.takes}}}
			n := in(t, netsim.New(1), "a", 1, d.configure(t))
			n.Join()
			pause(time.Second)
			began := time.Now()
			n.Shutdown()
			n.Wait()
			if took := time.Since(began); took != c.waits || n.lines(line) != c.line {
				t.Errorf("a call that takes %v: it waits for %v; the log has %s", c.takes, took, n.log)
			}
		})
	}
}
