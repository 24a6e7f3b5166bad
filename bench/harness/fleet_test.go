package harness

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

const (
	fleetNodes    = 5
	fleetKeys     = 1000
	fleetDeadline = 10 * time.Second // of a caller: far more than any call needs, even on a busy machine
	fleetPatience = time.Minute      // of the test
)

// fleet is five nodes in separate processes, where nothing expires, with callers that use the nodes that are up.
type fleet struct {
	*testing.T
	c     *processes
	loads atomic.Int64 // at the origin

	// Each gate says whether a node receives callers. A caller holds it for reading during its call.
	gates [fleetNodes]struct {
		sync.RWMutex
		shut bool
	}

	mu      sync.Mutex // guards the rest
	calls   int
	lost    int           // calls whose own node was killed
	slowest time.Duration // among the other calls
	slow    time.Time     // when the last call that took more than a tenth of a second ended
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	f := &fleet{T: t}
	s := parse(t, fmt.Sprintf(`
duration: 1m
cluster: {kind: processes, nodes: %d, concurrency: 50, freshness: {ttl: 4h, near_ttl: 100ms, jitter: -1, refresh_ahead: -1}}
load: [{}]
`, fleetNodes))
	ctx, cancel := context.WithTimeout(t.Context(), fleetPatience)
	defer cancel()
	c, err := startProcesses(ctx, Env{Scenario: s, Load: func(ctx context.Context, key string) ([]byte, error) {
		f.loads.Add(1)
		work := time.NewTimer(5 * time.Millisecond)
		defer work.Stop()
		select {
		case <-work.C:
			return []byte("the value of " + key), nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}}, []string{self})
	if err != nil {
		t.Fatal(err)
	}
	f.c = c.(*processes)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), fleetPatience)
		defer cancel()
		if err := c.Close(ctx); err != nil {
			t.Error(err)
		}
	})
	f.settle(ctx, fleetNodes)
	f.sweep(t.Context(), 1)
	if n := f.owned(); n < fleetKeys || f.loads.Load() != fleetKeys {
		t.Fatalf("%d entries after %d loads for %d keys", n, f.loads.Load(), fleetKeys)
	}
	return f
}

// settle waits until all running nodes see the given number of members and take part.
func (f *fleet) settle(ctx context.Context, members int) {
	f.Helper()
	for i := range fleetNodes {
		if f.c.nodes[i].Load() == nil {
			continue
		}
		if _, err := f.c.do(ctx, i, "await", strconv.Itoa(members)); err != nil {
			f.Fatal(err)
		}
		if _, err := f.c.do(ctx, i, "ready"); err != nil {
			f.Fatal(err)
		}
	}
}

// owned returns how many entries the running nodes own; an entry on several nodes counts on each.
func (f *fleet) owned() (n int) {
	f.Helper()
	for i := range fleetNodes {
		if f.c.nodes[i].Load() != nil {
			n += f.ownedBy(i)
		}
	}
	return n
}

func (f *fleet) ownedBy(i int) int {
	f.Helper()
	all, err := f.c.counters(i)
	if err != nil {
		f.Fatal(err)
	}
	return int(all["owned_entries"])
}

// shut keeps callers away from a node and waits for its current callers; open readmits them.
func (f *fleet) shut(i int) { f.gates[i].Lock(); f.gates[i].shut = true; f.gates[i].Unlock() }
func (f *fleet) open(i int) { f.gates[i].Lock(); f.gates[i].shut = false; f.gates[i].Unlock() }

// get reads a key on a node, if the node receives callers. The node learns the caller's deadline, and get verifies
// from outside that the deadline is kept.
func (f *fleet) get(i, key int) {
	g := &f.gates[i]
	g.RLock()
	defer g.RUnlock()
	p := f.c.nodes[i].Load()
	if g.shut || p == nil {
		return
	}
	watch, cancel := context.WithTimeout(context.Background(), fleetDeadline+fleetPatience)
	defer cancel()
	name := fmt.Sprintf("k%d", key)
	began := time.Now()
	b, err := one(call(watch, p.client, "Node.Do", Call{"get", []string{name}, fleetDeadline}))
	took := time.Since(began)
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.calls++; err != nil && f.c.nodes[i].Load() != p {
		f.lost++ // it was killed with its callers
		return
	}
	if f.slowest = max(f.slowest, took); took > time.Second/10 {
		f.slow = time.Now()
	}
	switch {
	case err != nil:
		f.Errorf("node %d, %s, after %v: %v", i, name, took, err)
	case string(b) != "the value of "+name:
		f.Errorf("node %d, %s: %q", i, name, b)
	case took > 2*fleetDeadline: // the call ends; a busy machine may exceed the deadline
		f.Errorf("node %d, %s: it took %v, and the deadline was after %v", i, name, took, fleetDeadline)
	}
}

// sweep reads every key on the given number of running nodes.
func (f *fleet) sweep(ctx context.Context, nodes int) {
	var wg sync.WaitGroup
	const callers = 8
	for w := range callers {
		wg.Go(func() {
			for key := w; key < fleetKeys && ctx.Err() == nil; key += callers {
				for i, asked := key%fleetNodes, 0; asked < nodes; i = (i + 1) % fleetNodes {
					if f.c.nodes[i].Load() != nil {
						f.get(i, key)
						asked++
					}
				}
			}
		})
	}
	wg.Wait()
}

// load lets callers on all nodes read arbitrary keys until stop is called, which waits for them.
func (f *fleet) load(seed uint64) (stop func()) {
	f.Logf("seed %d", seed)
	ctx, cancel := context.WithCancel(f.Context())
	var wg sync.WaitGroup
	for i := range fleetNodes {
		dice := rand.New(rand.NewPCG(seed, uint64(i)))
		wg.Go(func() {
			pace := time.NewTicker(4 * time.Millisecond)
			defer pace.Stop()
			for ctx.Err() == nil {
				f.get(i, dice.IntN(fleetKeys))
				select {
				case <-pace.C:
				case <-ctx.Done():
				}
			}
		})
	}
	return func() { cancel(); wg.Wait() }
}

// asked waits until the callers have made the given number of further calls.
func (f *fleet) asked(more int) {
	f.Helper()
	count := func() int { f.mu.Lock(); defer f.mu.Unlock(); return f.calls }
	poll := time.NewTicker(5 * time.Millisecond)
	defer poll.Stop()
	began := time.Now()
	for until := count() + more; count() < until; <-poll.C {
		if time.Since(began) > fleetPatience {
			f.Fatalf("after %v %d calls are missing", time.Since(began), until-count())
		}
	}
}

// TestRollingRestartOfProcessesLong restarts five processes one by one, under load: callers must not get errors,
// and at most one key in a hundred may be loaded from the origin.
func TestRollingRestartOfProcessesLong(t *testing.T) {
	f := newFleet(t)
	stop := f.load(1)
	defer stop()
	ctx, cancel := context.WithTimeout(t.Context(), fleetPatience)
	defer cancel()
	for i := range fleetNodes {
		f.asked(200)
		f.shut(i)
		began := time.Now()
		if err := f.c.Fault(ctx, Step{Do: StepLeave, Node: i}); err != nil {
			t.Fatal(err)
		}
		left := time.Since(began)
		if err := f.c.Fault(ctx, Step{Do: StepJoin, Node: i}); err != nil {
			t.Fatal(err)
		}
		f.settle(ctx, fleetNodes)
		f.open(i)
		t.Logf("node %d took %v to leave, and was back %v later; %d loads so far", i, left.Round(time.Millisecond), (time.Since(began) - left).Round(time.Millisecond), f.loads.Load()-fleetKeys)
	}
	f.asked(200)
	stop()
	f.sweep(t.Context(), 1) // the keys that the load has not requested
	caused := f.loads.Load() - fleetKeys
	t.Logf("%d calls, the slowest took %v; %d loads caused, %d keys", f.calls, f.slowest, caused, fleetKeys)
	if caused*100 > fleetKeys || f.lost > 0 {
		t.Errorf("%d loads for %d keys, %d calls lost", caused, fleetKeys, f.lost)
	}
}

// TestProcessIsKilledLong kills one of five processes under load: every key must be answered within the caller's
// deadline, and each of the dead node's keys is loaded once, or once for each time that its stand-in may keep it.
func TestProcessIsKilledLong(t *testing.T) {
	f := newFleet(t)
	const victim = 2
	stop := f.load(1)
	defer stop()
	ctx, cancel := context.WithTimeout(t.Context(), fleetPatience)
	defer cancel()
	f.asked(500)
	its := f.ownedBy(victim)
	if loads := f.loads.Load(); loads != fleetKeys {
		t.Errorf("%d loads before anything happened", loads-fleetKeys)
	}
	f.mu.Lock()
	f.slowest = 0
	f.mu.Unlock()
	killed := time.Now()
	if err := f.c.Fault(ctx, Step{Do: StepKill, Node: victim}); err != nil {
		t.Fatal(err)
	}
	f.sweep(ctx, fleetNodes-1) // before and while the other nodes notice
	swept := time.Since(killed)
	f.settle(ctx, fleetNodes-1)
	seen := time.Since(killed)
	f.asked(500)
	stop()
	f.sweep(ctx, fleetNodes-1)
	caused := int(f.loads.Load()) - fleetKeys
	felt := max(0, f.slow.Sub(killed))
	t.Logf("%d calls, %d lost with their node; the slowest took %v, the last over 100 ms ended %v after the kill; every key was answered by all after %v, all views were without it after %v; %d loads caused, it owned %d keys",
		f.calls, f.lost, f.slowest, felt, swept, seen, caused, its)
	// Until the views are without the dead node, a successor keeps what it fills for 5 seconds. On a busy machine,
	// where the views take longer, each key may cost another load per 5 seconds. Such a machine may also make
	// another node appear dead for a moment.
	if most := its*(1+int(seen/(5*time.Second))) + fleetKeys/100; its == 0 || caused > most {
		t.Errorf("%d loads caused by the death of a node that owned %d keys, want %d at most", caused, its, most)
	}
}
