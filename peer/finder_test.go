package peer

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/internal/testlog"
)

// TestServiceMany checks that a live target is found behind many dead ones, after as many attempts as there are turns.
func TestServiceMany(t *testing.T) {
	bubble(t, func(t *testing.T) {
		world := newMemNet()
		var targets []string
		for i := range 3 * lookups {
			targets = append(targets, fmt.Sprintf("10.9.0.%d:7946", i+1))
		}
		world.SetService("_w._tcp.test", append(targets, "10.0.0.1:7946")...)
		n1 := simulated(t, world, 1, Config{})
		n2 := simulated(t, world, 2, Config{Join: []string{"_w._tcp.test"}})
		if n2.View().Len() != 1 {
			t.Errorf("the first attempt is not in order: %s", viewNames(n2.View()))
		}
		const turns = 4 // of lookups targets each
		pause(t.Context(), 2*turns*(n2.cfg.RejoinInterval*6/5)+time.Second)
		if names := viewNames(n2.View()); names != "n1 n2" {
			t.Errorf("after every target had its turn the view has %s", names)
		}
		awaitNames(t, "n1 n2", n1, n2)
	})
}

// TestAddressMany checks that a live address is found behind many dead ones of one name.
func TestAddressMany(t *testing.T) {
	bubble(t, func(t *testing.T) {
		world := newMemNet()
		var ips []string
		for i := range 2 * seedsPerRound {
			ips = append(ips, fmt.Sprintf("10.9.0.%d", i+1))
		}
		world.SetName("many.test", append(ips, "10.0.0.1")...)
		n1 := simulated(t, world, 1, Config{})
		n2 := simulated(t, world, 2, Config{Join: []string{"many.test:7946"}})
		const turns = 3 // of seedsPerRound addresses each
		pause(t.Context(), 2*turns*(n2.cfg.RejoinInterval*6/5)+time.Second)
		awaitNames(t, "n1 n2", n1, n2)
	})
}

// TestDiscoverPanics checks that a Discover that panics or ends its goroutine is treated like one that fails, and is called
// again.
func TestDiscoverPanics(t *testing.T) {
	bubble(t, func(t *testing.T) {
		world, logs := newMemNet(), new(testlog.Log)
		var calls atomic.Int64
		n1 := simulated(t, world, 1, Config{})
		n2 := simulated(t, world, 2, Config{Logger: logs.Logger(), Discover: func(ctx context.Context) ([]string, error) {
			switch calls.Add(1) {
			case 1:
				panic("a bug of mine")
			case 2:
				var bad *badError
				return nil, bad
			}
			return []string{"10.0.0.1:7946"}, nil
		}})
		pause(t.Context(), 30*time.Second)
		awaitNames(t, "n1 n2", n1, n2)
		if text := logs.String(); calls.Load() < 3 || !strings.Contains(text, "it panicked: a bug of mine") || !strings.Contains(text, "finder_test.go") {
			t.Errorf("%d calls; the log:\n%s", calls.Load(), text)
		}
	})
}

// badError is an error whose methods panic.
type badError struct{ text string }

func (e *badError) Error() string { return e.text }

// TestDiscoverHangs checks that a Discover that hangs delays neither Start nor joining by other seeds, and Close only
// briefly. Only one call runs at a time, and its late answer is used at once.
func TestDiscoverHangs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		world, logs := newMemNet(), new(testlog.Log)
		var inside, calls atomic.Int64
		hang := make(chan []string)
		n1 := simulated(t, world, 1, Config{})
		began := time.Now()
		n2 := simulated(t, world, 2, Config{Logger: logs.Logger(), Join: []string{"10.0.0.1:7946"}, Discover: func(ctx context.Context) ([]string, error) {
			if calls.Add(1); inside.Add(1) > 1 {
				t.Error("two calls at once")
			}
			defer inside.Add(-1)
			if end, ok := ctx.Deadline(); !ok || time.Until(end) != discoverLimit {
				t.Errorf("its context ends in %v", time.Until(end))
			}
			return <-hang, nil // even after its context has ended
		}})
		if d := time.Since(began); d > discoverWait || viewNames(n2.View()) != "n1 n2" {
			t.Errorf("Start took %v; the view has %s", d, viewNames(n2.View()))
		}
		// A split: the other seed is still joined.
		world.split("10.0.0.2")
		pause(t.Context(), 2*time.Minute)
		awaitNames(t, "n2", n2)
		world.split()
		awaitNames(t, "n1 n2", n1, n2)
		pause(t.Context(), 5*time.Minute)
		if n := strings.Count(logs.String(), "although its context ended"); calls.Load() != 1 || n != 1 {
			t.Errorf("%d calls; it is told %d times that it hangs:\n%s", calls.Load(), n, logs)
		}
		// The call returns much later: its answer is used before the next attempt is due.
		n3 := simulated(t, world, 3, Config{})
		pause(t.Context(), 30*time.Second)
		hang <- []string{"10.0.0.3:7946"}
		pause(t.Context(), 100*time.Millisecond)
		if n2.View().Len() != 3 {
			t.Errorf("the late answer does not count yet: %s", viewNames(n2.View()))
		}
		awaitNames(t, "n1 n2 n3", n1, n2, n3)

		// Close leaves the next call behind.
		pause(t.Context(), 15*time.Second)
		began = time.Now()
		if err := n2.Close(); err != nil || time.Since(began) > discoverGrace+time.Second {
			t.Errorf("Close took %v: %v", time.Since(began), err)
		}
		if inside.Load() != 1 || calls.Load() != 2 || !strings.Contains(logs.String(), "Close does not wait for it") {
			t.Errorf("%d of %d calls go on; the log:\n%s", inside.Load(), calls.Load(), logs)
		}
		close(hang)
		synctest.Wait()
	})
}

// TestDiscoverClose checks that Close waits for a Discover that ends with its context, and does not call it again.
func TestDiscoverClose(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var inside atomic.Int64
		logs := new(testlog.Log)
		n := simulated(t, newMemNet(), 1, Config{Logger: logs.Logger(), Discover: func(ctx context.Context) ([]string, error) {
			inside.Add(1)
			defer inside.Add(-1)
			<-ctx.Done()
			pause(context.WithoutCancel(ctx), discoverGrace/2) // it has something to clean up
			return nil, ctx.Err()
		}})
		began := time.Now()
		if err := n.Close(); err != nil || inside.Load() != 0 || time.Since(began) > 2*discoverGrace || strings.Contains(logs.String(), "does not wait") {
			t.Errorf("Close took %v: %v; %d calls go on; the log:\n%s", time.Since(began), err, inside.Load(), logs)
		}
	})
}

// fallible is a network whose lookups fail while it is down.
type fallible struct {
	Network
	down atomic.Pointer[string] // why
}

func (f *fallible) LookupHost(ctx context.Context, host string) ([]string, error) {
	if why := f.down.Load(); why != nil {
		return nil, errors.New(*why)
	}
	return f.Network.LookupHost(ctx, host)
}

// TestFindFailuresAreLogged checks that seeds that cannot be found are logged once for each change, even if all members are
// known, and at most once a minute.
func TestFindFailuresAreLogged(t *testing.T) {
	bubble(t, func(t *testing.T) {
		world, logs := newMemNet(), new(testlog.Log)
		world.SetName("weir.test", "10.0.0.1", "10.0.0.2")
		n1 := simulated(t, world, 1, Config{})
		network := &fallible{Network: world.host("10.0.0.2")}
		n2 := start(t, Config{Name: "n2", Bind: "10.0.0.2:7946", Network: network, Logger: logs.Logger(), Join: []string{"weir.test:7946"}})
		awaitNames(t, "n1 n2", n1, n2)
		expect := func(want map[string]int) {
			t.Helper()
			got := make(map[string]int)
			for text := range want {
				got[text] = strings.Count(logs.String(), text)
			}
			if !maps.Equal(got, want) {
				t.Errorf("the log has %v, want %v:\n%s", got, want, logs)
			}
		}
		fail := func(why string) { network.down.Store(&why); pause(t.Context(), 20*time.Second) }
		const again = "all seeds can be resolved again"
		expect(map[string]int{"cannot be resolved": 0, again: 0})
		fail("no route to the resolver")
		expect(map[string]int{"cannot be resolved": 1, "no route": 1, again: 0})
		pause(t.Context(), 10*time.Minute)
		expect(map[string]int{"cannot be resolved": 1, again: 0})
		fail("another reason")
		expect(map[string]int{"cannot be resolved": 2, "another reason": 1, again: 0})
		network.down.Store(nil)
		pause(t.Context(), 5*time.Minute)
		expect(map[string]int{"cannot be resolved": 2, again: 1})
		for i := range 30 { // ten minutes of different reasons
			fail(fmt.Sprint("reason ", i))
		}
		if n := strings.Count(logs.String(), "cannot be resolved"); n < 2+8 || n > 2+11 {
			t.Errorf("%d lines in ten minutes", n-2)
		}
		if n2.View().Len() != 2 {
			t.Errorf("the view has %s", viewNames(n2.View()))
		}
	})
}
