//go:build linux

package peertest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/weircache/weir/tier"
)

const (
	splitKeys     = 60
	splitPatience = 15 * time.Second // of a caller: no read needs it
	splitReads    = 60               // on each node, before the next thing happens
)

func splitKey(i int) string { return fmt.Sprintf("k%d", i) }

// word is an invalidation that some members say they have applied. It is a lower bound of what they know.
type word struct {
	key   string
	began uint64   // a load that began before is too old
	ended uint64   // for reads that begin later
	by    []string // the members
}

// split is the split of a lab of five.
type split struct {
	*lab
	sides [2][]int

	told []word // by the test's own goroutine
}

// stamp is a moment, for what begins later.
func (l *lab) stamp() uint64 {
	l.history.mu.Lock()
	defer l.history.mu.Unlock()
	return l.history.next()
}

// reads are those that began between two stamps and have ended.
func (l *lab) reads(from, to uint64) (out []*Read) {
	l.history.mu.Lock()
	defer l.history.mu.Unlock()
	for _, r := range l.history.reads {
		if r.Began > from && r.Began < to {
			out = append(out, r)
		}
	}
	return out
}

// served waits until every node has answered enough reads that begin from now on.
func (s *split) served() {
	s.Helper()
	from, began := s.stamp(), time.Now()
	for {
		count := make(map[string]int)
		for _, r := range s.reads(from, ^uint64(0)) {
			if r.Err == nil {
				count[r.Node]++
			}
		}
		if !slices.ContainsFunc(s.procs, func(p *process) bool { return count[p.name] < splitReads }) {
			return
		}
		if time.Since(began) > 30*time.Second {
			s.Fatalf("after %v the nodes have answered so many reads: %v", time.Since(began), count)
		}
		sleep(s.Context(), 20*time.Millisecond)
	}
}

// names are those of a side's nodes.
func (s *split) names(side int) (out []string) {
	for _, i := range s.sides[side] {
		out = append(out, s.procs[i].name)
	}
	return out
}

// change writes a key at the origin and, in the split, invalidates it from the first node of a side.
func (s *split) change(side int, key string) {
	s.Helper()
	p := s.procs[s.sides[side][0]]
	s.origin.write(key, false)
	inv := s.history.beginInvalidation(tier.Change{Keys: []string{key}}, p.name, s.names(side))
	var a InvalidateReply
	if !s.call(p, p.callable(), "Node.Invalidate", key, &a) {
		s.FailNow()
	}
	s.history.endInvalidation(inv, tier.Token{}, len(a.Before) == s.world.Nodes && len(a.After) == s.world.Nodes, failure(a.Failed))
	if a.Failed != "" && len(a.Unreached) == 0 {
		s.Fatalf("the invalidation of %s from %s: %s", key, p.name, a.Failed)
	}
	// The network is cut: who is in its view on the other side cannot have been reached.
	for _, name := range s.names(1 - side) {
		if slices.Contains(a.Before, name) && slices.Contains(a.After, name) && !slices.Contains(a.Unreached, name) {
			s.Errorf("%s invalidated %s while %s was in its view and cut off, and named %v", p.name, key, name, a.Unreached)
		}
	}
	by := slices.DeleteFunc(s.names(side), func(name string) bool { return slices.Contains(a.Unreached, name) })
	s.told = append(s.told, word{key, inv.Began, inv.Ended, by})
}

// outdated tells of a read that ought to have known better, if any: of the invalidations that these members were
// told of, and with everybody of all.
func (s *split) outdated(reads []*Read, everybody bool) *Read {
	for _, r := range reads {
		if r.Err == nil && slices.ContainsFunc(s.told, func(i word) bool {
			return i.key == r.Key && i.ended < r.Began && r.Value.Load < i.began && (everybody || slices.Contains(i.by, r.Node))
		}) {
			return r
		}
	}
	return nil
}

// sweep reads every key on every node, and returns the reads.
func (s *split) sweep() []*Read {
	from := s.stamp()
	var wg sync.WaitGroup
	for i := range s.procs {
		wg.Go(func() {
			for k := range splitKeys {
				s.read(i, splitKey(k), tier.AnyAge, splitPatience)
			}
		})
	}
	wg.Wait()
	return s.reads(from, ^uint64(0))
}

// sums adds up what the nodes say of replays and flushes.
func (s *split) sums() (replayed, flushed int64) {
	s.Helper()
	for _, p := range s.procs {
		var a StatusReply
		if !s.call(p, p.callable(), "Node.Status", struct{}{}, &a) {
			s.FailNow()
		}
		replayed, flushed = replayed+a.Replayed, flushed+a.Flushed
	}
	return replayed, flushed
}

// peaks are the most loads that each node had at the origin at once.
func (l *lab) peaks() map[string]int {
	l.history.mu.Lock()
	defer l.history.mu.Unlock()
	out := make(map[string]int)
	for _, at := range l.history.loads {
		n := 0
		for _, o := range l.history.loads {
			if o.Node == at.Node && o.Began <= at.Began && (o.Ended == 0 || o.Ended > at.Began) {
				n++
			}
		}
		out[at.Node] = max(out[at.Node], n)
	}
	return out
}

// TestNamespacesSplitLong splits five processes on real sockets into three and two, under load. Both sides serve, with
// what each may ask of the origin, and invalidate; nothing expires meanwhile. When the network is whole again, all
// see all, have what the other side has invalidated, and never serve what is older. It takes about 20 seconds.
func TestNamespacesSplitLong(t *testing.T) {
	if testing.Short() {
		t.Skip("this test takes half a minute and needs root and iproute2")
	}
	const seed = 1
	t.Logf("seed %d", seed)
	lasting := tier.Freshness{TTL: 4 * time.Hour, NearTTL: time.Minute, RefreshAhead: -1, Jitter: -1}
	s := &split{lab: newLab(t, seed, world{Nodes: 5, Freshness: lasting}), sides: [2][]int{{0, 1, 2}, {3, 4}}}
	for _, p := range s.procs {
		s.start(p)
	}
	everyone := []string{"n0", "n1", "n2", "n3", "n4"}
	s.sees(20*time.Second, everyone, false, 0, 1, 2, 3, 4)
	s.sweep() // near and owned copies everywhere

	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for i := range s.procs {
		for k := range 2 {
			dice := rand.New(rand.NewPCG(seed, uint64(100*i+k)))
			clients.Go(func() {
				for ctx.Err() == nil {
					s.read(i, splitKey(dice.IntN(splitKeys)), tier.AnyAge, splitPatience)
					sleep(ctx, time.Duration(dice.Int64N(int64(20*time.Millisecond))))
				}
			})
		}
	}
	defer clients.Wait()
	defer func() { // before the wait, if the test has failed
		cancel()
		for _, p := range s.procs {
			s.end(p, (*process).kill)
		}
	}()
	s.served()
	s.schedule(everyone)
	cancel()
	clients.Wait()
	s.sees(10*time.Second, everyone, true, 0, 1, 2, 3, 4)
	for _, p := range s.procs {
		s.end(p, (*process).close)
	}

	all := s.reads(0, ^uint64(0))
	for _, r := range all {
		if r.Err != nil {
			t.Errorf("a read of %s on %s failed after %v: %v", r.Key, r.Node, r.EndedAt.Sub(r.BeganAt), r.Err)
		}
	}
	if r := s.outdated(all, false); r != nil {
		t.Errorf("%s knew of an invalidation of %s, and read load %d at %d", r.Node, r.Key, r.Value.Load, r.Began)
	}
	peaks := s.peaks()
	t.Logf("%+v; loads at once: %v", s.history.Figures(), peaks)
	for name, n := range peaks {
		if n > s.world.concurrency()/s.world.Nodes {
			t.Errorf("%s had %d loads at once, its share is %d", name, n, s.world.concurrency()/s.world.Nodes)
		}
	}
	for _, v := range s.history.Check(Rules{Freshness: lasting, Concurrency: s.world.concurrency(), Timeout: loadTimeout, Slack: 5 * time.Second}) {
		t.Errorf("seed %d: %v", seed, v)
	}
}

// schedule is the one of TestNamespacesSplitLong.
func (s *split) schedule(everyone []string) {
	s.Helper()
	before, flushed := s.sums()
	s.Log("n3 and n4 are cut off from the others")
	s.move("annex", s.sides[1]...)
	s.change(0, splitKey(0)) // when nobody has noticed
	s.change(1, splitKey(2))
	s.wantDial(0, 4, false)
	s.wantDial(4, 3, true)
	for side, nodes := range s.sides {
		s.sees(20*time.Second, s.names(side), false, nodes...)
	}
	s.served()
	for k := 10; k < splitKeys; k += 10 { // one in ten by either side, one by both, the rest by nobody
		s.change(0, splitKey(k))
		s.change(1, splitKey(k+2))
		s.change(0, splitKey(k+4))
		s.change(1, splitKey(k+4))
	}
	s.served()
	s.Log("the network is whole again")
	s.move("hub", s.sides[1]...)
	healed := time.Now()
	s.sees(20*time.Second, everyone, false, 0, 1, 2, 3, 4)
	for {
		r := s.outdated(s.sweep(), true)
		if r == nil {
			break
		}
		if time.Since(healed) > 30*time.Second {
			s.Fatalf("%v after the network is whole, %s still has load %d of %s", time.Since(healed), r.Node, r.Value.Load, r.Key)
		}
	}
	s.Logf("all have all invalidations %v after", time.Since(healed).Round(10*time.Millisecond))
	from := s.stamp()
	s.served()
	s.sweep()
	if r := s.outdated(s.reads(from, ^uint64(0)), true); r != nil {
		s.Errorf("%s read load %d of %s when all had all invalidations", r.Node, r.Value.Load, r.Key)
	}
	replayed, after := s.sums()
	s.Logf("%d invalidations in the split, %d times one was replayed, %d flushes", len(s.told), replayed-before, after-flushed)
	if replayed == before || after != flushed {
		s.Errorf("%d invalidations were replayed, and %d nodes flushed", replayed-before, after-flushed)
	}
}
