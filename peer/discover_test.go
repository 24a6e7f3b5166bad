package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

var errNoName = &net.DNSError{Err: "no such host", IsNotFound: true}

// services is a resolver of services.
type services map[string][]*net.SRV

func (s services) lookup(_ context.Context, name string) ([]*net.SRV, error) {
	if records, ok := s[name]; ok {
		return records, nil
	}
	return nil, errNoName
}

// texts writes candidates as "address/priority".
func texts(all []candidate) string {
	var out []string
	for _, c := range all {
		out = append(out, fmt.Sprintf("%s/%d", c.addr, c.priority))
	}
	return strings.Join(out, " ")
}

func TestSeedForms(t *testing.T) {
	for seed, ok := range map[string]bool{
		"10.0.0.1:7946": true, "[::1]:7946": true, "weir.svc:7946": true, "_weir._tcp.svc": true, "_weir._tcp.weir.default.svc.": true,
		"10.0.0.1": false, "10.0.0.1:0": false, "weir.svc": false, ":7946": false, "": false,
		"_weir._tcp.svc:7946": false, "_weir._tcp": false, "_weir.tcp.svc": false, "_weir._tcp..svc": false, "_": false,
		"_weir._tcp.s vc": false, "_weir._tcp.svc\x00": false, "_weir._tcp." + strings.Repeat("a", maxDNSName): false,
	} {
		err := Config{Join: []string{seed}}.Check()
		if (err == nil) != ok || err != nil && !strings.Contains(err.Error(), "Join[0]") {
			t.Errorf("%q: %v", seed, err)
		}
	}
}

// Ports and priorities come from the records, all addresses of a name count, and what
// fails leaves the last good answer.
func TestFinder(t *testing.T) {
	world := newMemNet()
	world.SetName("a.svc", "10.0.0.1", "fd00::1")
	world.SetName("b.svc", "10.0.0.2")
	var lookup atomic.Pointer[func(context.Context, string) ([]*net.SRV, error)]
	good := services{"_weir._tcp.svc": {
		{Target: "b.svc", Port: 2, Priority: 20}, {Target: "a.svc", Port: 1, Priority: 10}, {Target: "10.0.0.9", Port: 9, Priority: 5},
		{Target: "gone.svc", Port: 1}, {Target: ".", Port: 1}, {Target: "a.svc", Port: 0}, nil,
	}}.lookup
	lookup.Store(&good)
	f := &finder{
		network: world.host("10.0.0.7"), fixed: []string{"_weir._tcp.svc", "_none._tcp.svc", "b.svc:2", "b.svc:3", "none.svc:1"},
		lookupSRV: func(ctx context.Context, name string) ([]*net.SRV, error) { return (*lookup.Load())(ctx, name) },
	}
	const want = "10.0.0.2:2/0 10.0.0.2:3/0 10.0.0.9:9/5 10.0.0.1:1/10 [fd00::1]:1/10"
	if all, err := f.find(t.Context()); err != nil || texts(all) != want {
		t.Errorf("found %s, %v", texts(all), err)
	}
	bad := func(context.Context, string) ([]*net.SRV, error) { return nil, errors.New("the resolver is down") }
	lookup.Store(&bad)
	for range 2 {
		if all, err := f.find(t.Context()); err == nil || !strings.Contains(err.Error(), "_weir._tcp.svc: the resolver is down") || texts(all) != want {
			t.Errorf("without the resolver: %s, %v", texts(all), err)
		}
	}
	none := services{}.lookup
	lookup.Store(&none)
	if all, err := f.find(t.Context()); err != nil || texts(all) != "10.0.0.2:2/0 10.0.0.2:3/0" {
		t.Errorf("without the service: %s, %v", texts(all), err)
	}
	many := services{"_weir._tcp.svc": nil}
	for i := range 3 * maxTargets {
		many["_weir._tcp.svc"] = append(many["_weir._tcp.svc"], &net.SRV{Target: fmt.Sprint("10.1.0.", i), Port: 1, Priority: uint16(3 * maxTargets / (i + 1))})
	}
	lots := many.lookup
	lookup.Store(&lots)
	if all, err := f.find(t.Context()); err != nil || len(all) != maxTargets+2 || all[2].priority > all[len(all)-1].priority {
		t.Errorf("of many records: %d, %v", len(all), err)
	}
}

// A cluster is found through SRV records, although the addresses that come first are dead.
func TestJoinService(t *testing.T) {
	bubble(t, func(t *testing.T) {
		world := newMemNet()
		records := []*net.SRV{{Target: "10.0.0.1", Port: 7946, Priority: 7}}
		for i := range 3 * seedsAtOnce {
			records = append(records, &net.SRV{Target: fmt.Sprint("10.0.9.", i+1), Port: 7946})
		}
		cfg := Config{Join: []string{"_weir._tcp.svc"}, LookupSRV: services{"_weir._tcp.svc": records}.lookup}
		n1 := simulated(t, world, 1, cfg)
		n2 := simulated(t, world, 2, cfg)
		if n2.View().Len() != 2 { // at once, not after the next attempt
			t.Errorf("n2 starts with %s", viewNames(n2.View()))
		}
		awaitNames(t, "n1 n2", n1, n2)
	})
}

// Discover is asked again and again; its errors, its nonsense and its panics change nothing.
func TestDiscover(t *testing.T) {
	bubble(t, func(t *testing.T) {
		world, book := newMemNet(), &logBook{}
		var calls atomic.Int64
		n1 := simulated(t, world, 1, Config{})
		n2 := simulated(t, world, 2, Config{Logger: book.logger(), Discover: func(ctx context.Context) ([]string, error) {
			if _, bounded := ctx.Deadline(); !bounded {
				t.Error("no deadline")
			}
			switch n := calls.Add(1); {
			case n == 1:
				return []string{"nonsense", "10.0.0.1:7946", "\x00:1"}, nil
			case n%3 == 0:
				return nil, errors.New("the registry is down")
			case n%3 == 1:
				return []string{"nothing", "good"}, nil
			}
			panic("a bug")
		}})
		awaitNames(t, "n1 n2", n1, n2)
		if text := book.String(); !strings.Contains(text, "nonsense") {
			t.Errorf("nonsense is not logged:\n%s", text)
		}
		world.split("10.0.0.2")
		awaitNames(t, "n1", n1)
		awaitNames(t, "n2", n2)
		pause(t.Context(), 3*time.Minute) // long after memberlist has forgotten
		world.split()
		awaitNames(t, "n1 n2", n1, n2)
		for _, want := range []string{"the registry is down", "it panicked: a bug", "no \\\"host:port\\\""} {
			if !strings.Contains(book.String(), want) {
				t.Errorf("the log has no %q:\n%s", want, book.String())
			}
		}
		if n := calls.Load(); n < 15 || n > 40 {
			t.Errorf("%d calls in more than three minutes, one in ten seconds is due", n)
		}
	})
}

// A Discover that does not end holds neither Start nor Close up, is not called twice at
// once, and its late answer counts.
func TestDiscoverHangs(t *testing.T) {
	bubble(t, func(t *testing.T) {
		world := newMemNet()
		n1 := simulated(t, world, 1, Config{})
		var inside, most atomic.Int64
		hang, end := make(chan struct{}), make(chan struct{})
		began := time.Now()
		n2 := simulated(t, world, 2, Config{Discover: func(context.Context) ([]string, error) {
			most.Store(max(most.Load(), inside.Add(1)))
			defer inside.Add(-1)
			select {
			case <-hang:
			case <-end:
				return nil, errors.New("never mind")
			}
			hang = nil // the next one hangs until the end
			return []string{n1.Addr()}, nil
		}})
		if d := time.Since(began); d > startWait {
			t.Errorf("Start took %v", d)
		}
		pause(t.Context(), 2*time.Minute)
		if n := most.Load(); n != 1 || n2.View().Len() != 1 {
			t.Errorf("%d at once; the view has %s", n, viewNames(n2.View()))
		}
		close(hang)
		awaitNames(t, "n1 n2", n1, n2)
		pause(t.Context(), time.Minute)
		began = time.Now()
		if err := n2.Close(); err != nil || time.Since(began) > time.Second {
			t.Errorf("Close took %v, %v", time.Since(began), err)
		}
		if inside.Load() != 1 {
			t.Errorf("%d calls are left", inside.Load())
		}
		close(end)
		synctest.Wait()
	})
}

// An answer without an error counts even if it is empty, and late errors do not stop the next call.
func TestDiscoverAnswers(t *testing.T) {
	answers := []discovered{
		{seeds: []string{"10.0.0.1:1", "10.0.0.2:1"}}, {err: errors.New("down")}, {seeds: []string{"bad"}},
		{seeds: []string{"10.0.0.3:1", "bad"}}, {}, {seeds: make([]string, 2*maxDiscovered)},
	}
	wants := []string{"10.0.0.1:1/0 10.0.0.2:1/0", "10.0.0.1:1/0 10.0.0.2:1/0", "10.0.0.1:1/0 10.0.0.2:1/0", "10.0.0.3:1/0", "", ""}
	next := 0
	f := &finder{network: newMemNet().host("10.0.0.7"), discover: func(context.Context) ([]string, error) {
		a := answers[next]
		next++
		return a.seeds, a.err
	}}
	for i, want := range wants {
		all, err := f.find(t.Context())
		if texts(all) != want || (err == nil) != (i == 0 || i == 4) {
			t.Errorf("answer %d: %s, %v", i, texts(all), err)
		}
	}
}
