package roster_test

import (
	"testing"
	"time"

	"github.com/weircache/weir/peer/netsim"
	"github.com/weircache/weir/ring"
)

// TestExchangesSlowDown checks that answers with another view make a node exchange states with that member alone, with
// pauses that double up to the usual time between exchanges, until its own view changes.
func TestExchangesSlowDown(t *testing.T) {
	const shortest, longest = time.Second, 15 * time.Second
	bubble(t, func(t *testing.T) {
		calls := new(refusals)
		r := with(t, 2, calls.to)
		answersFor := func(d time.Duration) (waits []time.Duration) {
			calls.take()
			for began := time.Now(); time.Since(began) < d; pause(10 * time.Millisecond) {
				r.answers("b", false)
			}
			all := calls.take()
			for _, d := range all {
				if d.to != "10.0.0.2:7946" {
					t.Errorf("it calls %s", d.to)
				}
			}
			moments := times(all)
			if len(all) != 2*len(moments) { // the exchange, and the word that this node is alive
				t.Errorf("%d calls at %d times", len(all), len(moments))
			}
			for i := 1; i < len(moments); i++ {
				waits = append(waits, moments[i].Sub(moments[i-1]))
			}
			return waits
		}
		r.Compare(ring.Member{Name: "b", Addr: "10.0.0.2:7946", Incarnation: 10}, r.View().Fingerprint(), false) // the view is brand new
		if pause(time.Second); len(calls.take()) > 0 {
			t.Error("gossip had no time to bring the news")
		}
		r.Compare(ring.Member{Name: "b", Addr: "10.0.0.2:7946", Incarnation: 9}, r.View().Fingerprint(), false)
		r.Compare(ring.Member{Name: "x", Addr: "10.0.0.9:7946", Incarnation: 9}, r.View().Fingerprint(), false)
		r.Compare(ring.Member{Name: "b", Addr: "10.0.0.2:7946", Incarnation: 10}, r.View().Fingerprint()+1, false)
		if pause(time.Second); len(calls.take()) > 0 {
			t.Error("an answer from a start, or about a view, that is no longer the one here counts")
		}
		spread := false
		for round := range 2 {
			want := shortest
			waits := answersFor(4 * time.Minute)
			for i, wait := range waits {
				if wait < want || wait > want*15/10 {
					t.Errorf("round %d: pause %d is %v, want at least %v", round, i, wait, want)
				}
				spread = spread || wait > want*11/10
				want = min(2*want, longest)
			}
			if len(waits) < 10 || !spread {
				t.Errorf("the pauses are %v", waits)
			}
			r.NotifyJoin(gossiped("d", 10, 20, nil))
			r.Refresh()
		}
		if r.lines("no exchange of states") == 0 || r.lines("states exchanged") != 0 {
			t.Errorf("the log has %s", r.log)
		}
	})
}

// TestExchangeHelps checks that after a split that only one side has noticed, an answer of the other side is enough for the
// two to have one view again.
func TestExchangeHelps(t *testing.T) {
	bubble(t, func(t *testing.T) {
		world := netsim.New(1)
		a, b := in(t, world, "a", 1), in(t, world, "b", 2, seeds("10.0.0.1:7946"))
		b.join()
		pause(2 * time.Second)
		m, _ := b.View().Member("a")
		for _, gone := range a.Members() {
			if gone.Name == "b" {
				a.NotifyLeave(gossiped("b", gone.Incarnation, 2, nil))
			}
		}
		if got := a.view(); got != "a@10.0.0.1" {
			t.Fatalf("the view has %s", got)
		}
		b.Compare(m, b.View().Fingerprint(), false)
		pause(100 * time.Millisecond)
		if got := b.lines("states exchanged with a member that has a different view"); got != 1 || b.lines("no exchange") != 0 {
			t.Errorf("the log has %s", b.log)
		}
	})
}

// TestStatesAreExchanged checks that members exchange what they know without any other news.
func TestStatesAreExchanged(t *testing.T) {
	bubble(t, func(t *testing.T) {
		world, dead := netsim.New(1), gossiped("dead", 10, 9, nil)
		a, b := in(t, world, "a", 1), in(t, world, "b", 2, seeds("10.0.0.1:7946"))
		b.join()
		for _, n := range []*node{a, b} {
			n.host.loads(time.Hour)
			n.NotifyJoin(dead)
			n.Refresh()
			n.NotifyLeave(dead)
		}
		a.Proven(at(dead))
		if b.unproven() != "dead" {
			t.Error("it knows before it has heard of it")
		}
		pause(2 * 15 * time.Second)
		if b.unproven() != "" {
			t.Error("no exchange of states")
		}
	})
}
