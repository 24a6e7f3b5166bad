//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/weircache/weir/peer/peertest"
	"github.com/weircache/weir/tier"
)

const (
	splitKeys     = 60
	splitPatience = 15 * time.Second // of a caller: long enough for every read
	splitReads    = 60               // on each node, before the next step
)

// word is an invalidation that some members say they have applied. It is a lower bound on what they know.
type word struct {
	key   string
	began uint64   // data of a load that began before is too old
	ended uint64   // for reads that begin later
	by    []string // the members
}

// halves is the split of a lab of five.
type halves struct {
	*testing.T
	*lab
	sides [2][]int

	told []word // accessed by the test's own goroutine only
}

// must ends the test if there is an error.
func (s *halves) must(err error) {
	s.Helper()
	if err != nil {
		s.Fatal(err)
	}
}

// served waits until every node has answered enough reads that began after the call.
func (s *halves) served() {
	s.Helper()
	from, began := s.history.Stamp(), time.Now()
	for {
		count := make(map[string]int)
		for _, r := range s.history.Reads(from, ^uint64(0)) {
			if r.Err == nil {
				count[r.Node]++
			}
		}
		if !slices.ContainsFunc(s.procs, func(p *process) bool { return count[p.name] < splitReads }) {
			return
		}
		if time.Since(began) > patience {
			s.Fatalf("after %v the nodes have answered so many reads: %v", time.Since(began), count)
		}
		sleep(s.Context(), 20*time.Millisecond)
	}
}

// sees waits until these nodes have one view of exactly themselves.
func (s *halves) sees(idle bool, nodes ...int) {
	s.Helper()
	took, err := s.settled(s.Context(), idle, nodes...)
	s.must(err)
	s.Logf("%v see each other alone after %v", nodes, took.Round(10*time.Millisecond))
}

// names returns the names of one side's nodes.
func (s *halves) names(side int) (out []string) {
	for _, i := range s.sides[side] {
		out = append(out, s.procs[i].name)
	}
	return out
}

// change writes a key at the origin and, in the split, invalidates it from the first node of a side.
func (s *halves) change(side int, key string) {
	s.Helper()
	p := s.procs[s.sides[side][0]]
	inv, a, ok := s.apply(s.sides[side][0], false, tier.Change{Keys: []string{key}})
	if !ok || a.Failed.Text != "" && !a.Failed.Invalidate {
		s.Fatalf("the invalidation of %s from %s: %t %s", key, p.name, ok, a.Failed.Text)
	}
	// The network is cut: a node of the other side that is in the view cannot have been reached.
	for _, name := range s.names(1 - side) {
		if slices.Contains(a.Before, name) && slices.Contains(a.After, name) && !slices.Contains(a.Failed.Unreached, name) {
			s.Errorf("%s invalidated %s while %s was in its view and cut off, and named %v", p.name, key, name, a.Failed.Unreached)
		}
	}
	by := slices.DeleteFunc(s.names(side), func(name string) bool { return slices.Contains(a.Failed.Unreached, name) })
	s.told = append(s.told, word{key, inv.Began, inv.Ended, by})
}

// outdated returns a read that is older than it may be, or nil. It considers the invalidations that the read's member was
// told of, or with everybody all invalidations.
func (s *halves) outdated(reads []*peertest.Read, everybody bool) *peertest.Read {
	for _, r := range reads {
		if r.Err == nil && slices.ContainsFunc(s.told, func(i word) bool {
			return i.key == r.Key && i.ended < r.Began && r.Value.Load < i.began && (everybody || slices.Contains(i.by, r.Node))
		}) {
			return r
		}
	}
	return nil
}

// sweep reads every key on every node and returns the reads.
func (s *halves) sweep() []*peertest.Read {
	from := s.history.Stamp()
	var wg sync.WaitGroup
	for i := range s.procs {
		wg.Go(func() {
			for k := range splitKeys {
				s.read(i, &peertest.Read{Key: keyOf(k), MaxAge: tier.AnyAge}, splitPatience)
			}
		})
	}
	wg.Wait()
	return s.history.Reads(from, ^uint64(0))
}

// sums adds up the replays and flushes of all nodes.
func (s *halves) sums() (replayed, flushed int64) {
	s.Helper()
	for _, p := range s.procs {
		var a StatusReply
		if !s.call(p, p.callable(), "Node.Status", StatusCall{}, &a) {
			s.FailNow()
		}
		replayed, flushed = replayed+a.Replayed, flushed+a.Flushed
	}
	return replayed, flushed
}

// newTestLab makes a lab for a test and starts its nodes.
func newTestLab(t *testing.T, seed uint64, w world) *lab {
	t.Helper()
	l, err := newLab(seed, w, t.Logf)
	if err != nil {
		t.Fatalf("%v\nLeave this test out with -short", err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			for _, p := range l.procs {
				l.tellLog(p)
			}
		}
		if err := l.close(); err != nil {
			t.Error(err)
		}
	})
	for _, p := range l.procs {
		if err := l.start(p, p.name); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// dials checks whether from can open a connection to another node.
func dials(t *testing.T, l *lab, from, to int, want bool) {
	t.Helper()
	began := time.Now()
	for {
		var open bool
		addr := fmt.Sprintf("%s:%d", addressOf(to), nodePort)
		err := l.procs[from].callable().Call("Node.Dial", addr, &open)
		if err == nil && open == want {
			return
		}
		if err != nil || time.Since(began) > patience {
			t.Fatalf("a connection from n%d to n%d: %t, want %t (%v)", from, to, open, want, err)
		}
	}
}

// TestChaosSplitLong splits five processes on real sockets into three and two, under load. Both sides serve, load from the
// origin within their limits, and invalidate. Nothing expires meanwhile. Once the network is whole again, all nodes see
// each other, know what the other side has invalidated, and never serve older data. It takes about 20 seconds.
func TestChaosSplitLong(t *testing.T) {
	if testing.Short() {
		t.Skip("this test takes half a minute and needs root and iproute2")
	}
	const seed = 1
	t.Logf("seed %d", seed)
	lasting := tier.Freshness{TTL: 4 * time.Hour, NearTTL: time.Minute, NegativeTTL: time.Second, RefreshAhead: -1, Jitter: -1}
	w := world{Nodes: 5, MinMembers: 5, Freshness: lasting, Cap: 10, Timeout: time.Second}
	s := &halves{T: t, lab: newTestLab(t, seed, w), sides: [2][]int{{0, 1, 2}, {3, 4}}}
	s.sees(false, 0, 1, 2, 3, 4)
	s.sweep() // near and owned copies everywhere

	ctx, cancel := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	for i := range s.procs {
		for k := range 2 {
			dice := rand.New(rand.NewPCG(seed, uint64(100*i+k)))
			clients.Go(func() {
				for ctx.Err() == nil {
					s.read(i, &peertest.Read{Key: keyOf(dice.IntN(splitKeys)), MaxAge: tier.AnyAge}, splitPatience)
					sleep(ctx, time.Duration(dice.Int64N(int64(20*time.Millisecond))))
				}
			})
		}
	}
	defer clients.Wait()
	defer func() { // runs before the wait if the test has failed
		cancel()
		for _, p := range s.procs {
			s.end(p, (*process).kill)
		}
	}()
	s.served()
	s.schedule()
	cancel()
	clients.Wait()
	s.sees(true, 0, 1, 2, 3, 4)
	for _, p := range s.procs {
		s.end(p, (*process).shut)
	}

	all := s.history.Reads(0, ^uint64(0))
	for _, r := range all {
		if r.Err != nil {
			t.Errorf("a read of %s on %s failed after %v: %v", r.Key, r.Node, r.EndedAt.Sub(r.BeganAt), r.Err)
		}
	}
	if r := s.outdated(all, false); r != nil {
		t.Errorf("%s knew of an invalidation of %s, and read load %d at %d", r.Node, r.Key, r.Value.Load, r.Began)
	}
	peaks := s.history.Peaks()
	t.Logf("%+v; loads at once: %v", s.history.Figures(), peaks)
	for name, n := range peaks {
		if n > w.Cap/w.Nodes {
			t.Errorf("%s had %d loads at once, its share is %d", name, n, w.Cap/w.Nodes)
		}
	}
	for _, v := range s.history.Check(settings{world: w}.rules()) {
		t.Errorf("seed %d: %v", seed, v)
	}
	s.must(s.lab.failed())
}

// schedule is the schedule of TestChaosSplitLong.
func (s *halves) schedule() {
	s.Helper()
	before, flushed := s.sums()
	s.Log("n3 and n4 are cut off from the others")
	heal := s.split(s.sides[1]...)
	s.change(0, keyOf(0)) // before any node has noticed
	s.change(1, keyOf(2))
	dials(s.T, s.lab, 0, 4, false)
	dials(s.T, s.lab, 4, 3, true)
	for _, nodes := range s.sides {
		s.sees(false, nodes...)
	}
	s.served()
	for k := 10; k < splitKeys; k += 10 { // each side writes one key in ten, both sides write one in ten, the rest is unchanged
		s.change(0, keyOf(k))
		s.change(1, keyOf(k+2))
		s.change(0, keyOf(k+4))
		s.change(1, keyOf(k+4))
	}
	s.served()
	s.Log("the network is whole again")
	heal()
	healed := time.Now()
	s.sees(false, 0, 1, 2, 3, 4)
	for {
		r := s.outdated(s.sweep(), true)
		if r == nil {
			break
		}
		if time.Since(healed) > patience {
			s.Fatalf("%v after the network is whole, %s still has load %d of %s", time.Since(healed), r.Node, r.Value.Load, r.Key)
		}
	}
	s.Logf("all have all invalidations %v after", time.Since(healed).Round(10*time.Millisecond))
	from := s.history.Stamp()
	s.served()
	s.sweep()
	if r := s.outdated(s.history.Reads(from, ^uint64(0)), true); r != nil {
		s.Errorf("%s read load %d of %s when all had all invalidations", r.Node, r.Value.Load, r.Key)
	}
	replayed, after := s.sums()
	s.Logf("%d invalidations in the split, %d times one was replayed, %d flushes", len(s.told), replayed-before, after-flushed)
	if replayed == before || after != flushed {
		s.Errorf("%d invalidations were replayed, and %d nodes flushed", replayed-before, after-flushed)
	}
}
