package journal_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/internal/simtime"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/journal"
)

var seedFlag = flag.Uint64("seed", 0, "the only seed that TestNetwork runs; 0: random ones")

// A network is several journals and the links between them. It runs in a bubble.
type network struct {
	t     *testing.T
	began time.Time
	rng   *rand.Rand
	names []string
	calls atomic.Int64

	mu      sync.Mutex // guards the rest, and the nodes' maps
	nodes   map[string]*node
	lost    map[[2]string]bool   // links that lose everything, by sender and receiver
	delay   time.Duration        // the longest of a call
	started map[string]time.Time // invalidations, by key
}

// A node is one start of a member and its journal.
type node struct {
	*journal.Journal
	net         *network
	name        string
	incarnation uint64
	opened      time.Time
	fences      *fence.Fences
	view        atomic.Pointer[ring.View]
	cancel      context.CancelFunc
	running     sync.WaitGroup

	// guarded by network.mu
	closed  bool
	own     []string                // keys and tags that it has begun to invalidate
	applied map[string]fence.Stamps // by key, when it was applied
	wiped   map[string]bool         // keys that were started before everything was fenced
}

func newNetwork(t *testing.T, rng *rand.Rand, members int) *network {
	n := &network{t: t, began: time.Now(), rng: rng, nodes: make(map[string]*node), lost: make(map[[2]string]bool), started: make(map[string]time.Time)}
	for i := range members {
		n.names = append(n.names, fmt.Sprint("n", i))
	}
	return n
}

func viewOf(t *testing.T, names ...string) *ring.View {
	var members []ring.Member
	for _, name := range names {
		members = append(members, ring.Member{Name: name, Addr: name + ":1"})
	}
	v, err := ring.New(members, ring.Config{Partitions: 7})
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (n *network) random() uint64 {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.rng.Uint64()
}

// open starts a member with a view of all.
func (n *network) open(name string, limits journal.Limits) *node {
	x := &node{
		net: n, name: name, incarnation: n.random() | 1, opened: time.Now(),
		applied: make(map[string]fence.Stamps), wiped: make(map[string]bool),
	}
	x.view.Store(viewOf(n.t, n.names...))
	ctx, cancel := context.WithCancel(context.Background())
	x.cancel = cancel
	x.fences = fence.New(x.now, int64(30*time.Second), x.incarnation)
	x.Journal = journal.New(ctx, journal.Config{
		Self: name, Namespace: []byte("test"), Incarnation: x.incarnation, Peers: x, Copies: x, Fences: x.fences, Now: x.now,
		Spawn: x.spawn, Closed: errClosed, Life: time.Hour, Timeout: time.Second, NewFor: 15 * time.Second, Limits: limits,
	})
	n.mu.Lock()
	n.nodes[name] = x
	n.mu.Unlock()
	x.ViewChanged()
	x.spawn(func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				x.Tick()
			case <-ctx.Done():
				return
			}
		}
	})
	return x
}

var errClosed = errors.New("closed")

func (x *node) now() int64 { return int64(time.Since(x.net.began)) }

func (x *node) spawn(f func()) bool {
	x.net.mu.Lock()
	defer x.net.mu.Unlock()
	if x.closed {
		return false
	}
	x.running.Go(f)
	return true
}

// close ends the member and waits for all that it has started.
func (x *node) close() {
	x.net.mu.Lock()
	x.closed = true
	x.net.mu.Unlock()
	x.cancel()
	x.running.Wait()
}

func (n *network) close() {
	for _, x := range n.all() {
		x.close()
	}
}

func (n *network) all() []*node {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.SortedFunc(maps.Values(n.nodes), func(a, b *node) int { return int(a.name[1]) - int(b.name[1]) })
}

// View implements journal.Peers.
func (x *node) View() *ring.View { return x.view.Load() }

var errLost = errors.New("the link is down")

// Call implements journal.Peers.
func (x *node) Call(ctx context.Context, to ring.Member, req *codec.Request, resp *codec.Response) error {
	n := x.net
	n.calls.Add(1)
	ctx, cancel := context.WithTimeout(ctx, req.Timeout)
	defer cancel()
	deliver := func(from, to string) error {
		n.mu.Lock()
		lost, delay := n.lost[[2]string{from, to}], time.Duration(0)
		if n.delay > 0 {
			delay = time.Duration(n.rng.Int64N(int64(n.delay)))
		}
		n.mu.Unlock()
		if lost && delay%2 == 0 {
			return errLost
		}
		t := time.NewTimer(delay)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			return ctx.Err()
		}
		if lost {
			<-ctx.Done() // silent
			return ctx.Err()
		}
		return nil
	}
	if err := deliver(x.name, to.Name); err != nil {
		return err
	}
	n.mu.Lock()
	y := n.nodes[to.Name]
	n.mu.Unlock()
	if y == nil {
		resp.Status = codec.StatusUnknown
		return nil
	}
	if err := y.serve(ctx, req, resp); err != nil {
		return err
	}
	return deliver(to.Name, x.name)
}

// serve answers a request, as a cache would.
func (x *node) serve(ctx context.Context, req *codec.Request, resp *codec.Response) error {
	switch {
	case req.Flags&codec.FlagRelay != 0:
		own := *req
		own.Flags &^= codec.FlagRelay
		target := string(req.Target)
		own.Target = nil
		to, ok := x.View().Member(target)
		if !ok {
			resp.Status = codec.StatusFailed
			return nil
		}
		if err := x.Call(ctx, to, &own, resp); err != nil {
			*resp = codec.Response{Status: codec.StatusFailed}
		} else {
			resp.Flags |= codec.FlagRelayed
		}
	case req.Kind == codec.KindInvalidate:
		x.ServeNews(req, resp)
	case req.Kind == codec.KindSync:
		if req.View == x.View().Fingerprint() {
			resp.Flags |= codec.FlagSameView
		}
		x.ServePositions(req, resp)
	default:
		return fmt.Errorf("request of kind %v", req.Kind)
	}
	return nil
}

// FenceKey implements journal.Copies.
func (x *node) FenceKey(key string, hash uint64, mark codec.Mark, version uint64) {
	at, _ := x.fences.Apply(key, hash, mark, version, func(bool) {})
	x.net.mu.Lock()
	defer x.net.mu.Unlock()
	if _, again := x.applied[key]; again && !x.wiped[key] {
		x.net.t.Errorf("%s has applied %s twice", x.name, key)
	}
	x.applied[key] = at
}

// FenceTags implements journal.Copies.
func (x *node) FenceTags(tags []string) {
	x.fences.ApplyTags(tags)
	x.net.mu.Lock()
	defer x.net.mu.Unlock()
	for _, tag := range tags {
		x.applied[tag] = fence.Stamps{}
	}
}

// FenceAll implements journal.Copies.
func (x *node) FenceAll(own bool) {
	x.fences.Wipe(own)
	x.net.mu.Lock()
	defer x.net.mu.Unlock()
	for key := range x.net.started {
		x.wiped[key] = true
	}
}

// has reports whether x has no copy from before the invalidation: it has applied it, or was opened after it.
func (x *node) has(key string) bool {
	x.net.mu.Lock()
	defer x.net.mu.Unlock()
	_, applied := x.applied[key]
	return applied || x.wiped[key] || x.opened.After(x.net.started[key])
}

// start notes that an invalidation begins.
func (n *network) start(names ...string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, name := range names {
		n.started[name] = time.Now()
	}
}

// invalidate invalidates names and waits until that is confirmed, or for a second.
func (x *node) invalidate(scope codec.Scope, names ...string) {
	x.net.start(names...)
	before := x.View()
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	w := journal.NewWait()
	x.Begin(ctx, w, 0, journal.Part{Scope: scope, Names: names})
	x.net.mu.Lock()
	x.own = append(x.own, names...)
	x.net.mu.Unlock()
	x.checkConfirmed(x.Wait(ctx, w), before, names)
}

// waitAll waits until all that x has started is confirmed, or for a second.
func (x *node) waitAll() {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	x.net.mu.Lock()
	names := slices.Clone(x.own)
	x.net.mu.Unlock()
	before := x.View()
	x.checkConfirmed(x.WaitAll(ctx), before, names)
}

// checkConfirmed checks that all members that were in the view all the time have applied names, and those that the error
// names need not.
func (x *node) checkConfirmed(err error, before *ring.View, names []string) {
	var missing []string
	if u, ok := errors.AsType[*journal.Unconfirmed](err); ok {
		missing = u.Members
	} else if err != nil {
		x.net.t.Errorf("%s waits: %v", x.name, err)
	}
	for _, m := range x.View().Members() {
		x.net.mu.Lock()
		y := x.net.nodes[m.Name]
		x.net.mu.Unlock()
		if _, stayed := before.Member(m.Name); !stayed || slices.Contains(missing, m.Name) {
			continue // it may have come after the wait
		}
		for _, name := range names {
			if y != nil && !y.has(name) {
				x.net.t.Errorf("%s counts %s as confirmed by %s, which has not applied it", x.name, name, y.name)
			}
		}
	}
}

// checkWatermarks checks that no member is taken to have applied what it has not. Nothing runs meanwhile.
func (n *network) checkWatermarks() {
	for _, x := range n.all() {
		for _, y := range n.all() {
			m := x.Member(y.name)
			if x == y || m == nil {
				continue
			}
			w := m.Watermark()
			if w == nil || w.Incarnation != y.incarnation {
				continue
			}
			n.mu.Lock()
			applied := maps.Clone(x.applied)
			n.mu.Unlock()
			for key, at := range applied {
				if at.Loads > 0 && at.Loads <= w.StampOf(ring.Hash(key)) && !y.has(key) {
					n.t.Errorf("%s takes %s to have applied %s", x.name, y.name, key)
				}
			}
		}
	}
}

// heal restores all links and views, and waits until nothing should be due any more.
func (n *network) heal() {
	n.mu.Lock()
	clear(n.lost)
	n.mu.Unlock()
	for _, x := range n.all() {
		x.view.Store(viewOf(n.t, n.names...))
		x.ViewChanged()
	}
	time.Sleep(3 * time.Minute) // positions of caches that have gone are retired after one
}

// checkConverged checks that every member has everything that one of them has, and that the members then keep silent.
func (n *network) checkConverged() {
	applied := make(map[string]bool) // what only members that have ended had applied is lost
	for _, x := range n.all() {
		n.mu.Lock()
		for key := range x.applied {
			applied[key] = true
		}
		n.mu.Unlock()
	}
	for _, x := range n.all() {
		for _, key := range slices.Sorted(maps.Keys(applied)) {
			if !x.has(key) {
				n.t.Errorf("%s lacks %s after the heal", x.name, key)
			}
		}
		if names := x.Pending(); len(names) > 0 {
			n.t.Errorf("%s is still due with %v", x.name, names)
		}
	}
	calls := n.calls.Load()
	if time.Sleep(30 * time.Second); n.calls.Load() != calls {
		n.t.Errorf("%d calls in half a minute without an invalidation", n.calls.Load()-calls)
	}
}

// Journals alone, in a network that loses links, partitions and restarts members: no caller is told that an invalidation
// was confirmed by a member that has not applied it, no watermark says more than its member has applied, nothing is
// applied twice, and after the last fault every member gets everything and then the network is silent.
func TestNetwork(t *testing.T) {
	first, count := rand.Uint64N(1<<32), uint64(24)
	if *seedFlag > 0 {
		first, count = *seedFlag, 1
	}
	for seed := first; seed < first+count; seed++ {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			simtime.Test(t, func(t *testing.T) { runNetwork(t, seed) })
		})
	}
}

func runNetwork(t *testing.T, seed uint64) {
	t.Logf("repeat its faults with: go test ./tier/internal/journal -run TestNetwork -seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	n := newNetwork(t, rand.New(rand.NewPCG(seed, 2)), 3+rng.IntN(3))
	defer n.close()
	small := rng.IntN(2) == 0
	limits := journal.Limits{}
	if small {
		limits = journal.Limits{Bytes: 4 << 10, Tracks: 16}
	}
	n.delay = []time.Duration{0, 5 * time.Millisecond, 100 * time.Millisecond}[rng.IntN(3)]
	for _, name := range n.names {
		n.open(name, limits)
	}
	var wg sync.WaitGroup
	any := func() *node { return n.nodes[n.names[rng.IntN(len(n.names))]] }
	for op := range 150 {
		switch rng.IntN(11) {
		case 0, 1, 2, 3:
			x, key := any(), fmt.Sprint("key ", op)
			wg.Go(func() { x.invalidate(codec.ScopeKeys, key) })
		case 4:
			x := any()
			names := make([]string, 1+rng.IntN(40))
			for i := range names {
				names[i] = fmt.Sprint("key ", op, ".", i)
			}
			wg.Go(func() { x.invalidate(codec.ScopeKeys, names...) })
		case 5:
			x, tag := any(), fmt.Sprint("tag ", op)
			wg.Go(func() { x.invalidate(codec.ScopeTags, tag) })
		case 6: // one direction of a link
			n.mu.Lock()
			link := [2]string{any().name, any().name}
			n.lost[link] = !n.lost[link]
			n.mu.Unlock()
		case 7: // a partition, which the views show; or its end
			n.mu.Lock()
			clear(n.lost)
			side := make(map[string]bool)
			for _, name := range n.names {
				side[name] = rng.IntN(3) > 0
			}
			for _, a := range n.names {
				for _, b := range n.names {
					if side[a] != side[b] {
						n.lost[[2]string{a, b}] = true
					}
				}
			}
			n.mu.Unlock()
			for _, x := range n.all() {
				var seen []string
				for _, name := range n.names {
					if side[name] == side[x.name] {
						seen = append(seen, name)
					}
				}
				x.view.Store(viewOf(t, seen...))
				x.ViewChanged()
			}
		case 8:
			wg.Go(any().waitAll)
		case 9: // another start of a member
			x := any()
			x.close()
			n.open(x.name, limits)
		}
		time.Sleep(time.Duration(rng.Int64N(int64(2 * time.Second))))
		synctest.Wait()
		n.checkWatermarks()
	}
	wg.Wait()
	n.heal()
	n.checkWatermarks()
	n.checkConverged()
	for _, x := range n.all() {
		if f := x.Counts().Flushed.Load(); f > 0 && !small {
			t.Errorf("%s was flushed %d times although no log was full", x.name, f)
		}
	}
}
