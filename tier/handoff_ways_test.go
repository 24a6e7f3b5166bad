package tier

import (
	"fmt"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier/internal/store"
)

// fresh holds copies for an hour and never keeps them near.
var fresh = Freshness{TTL: time.Hour, NearTTL: -1, RefreshAhead: -1, Jitter: -1}

// fill reads keys on n0, so that each owner has its keys.
func (m *moving) fill(keys int) {
	m.t.Helper()
	for i := range keys {
		m.read("n0", fmt.Sprintf("k%d", i))
	}
	m.loads(int64(keys))
}

// A member that a leaving node cannot reach for a while gets the node's copies if it can be reached in time.
func TestLeaveWaitsForTheLink(t *testing.T) {
	for _, silent := range []bool{false, true} {
		bubble(t, func(t *testing.T) {
			m := newLeaving(t, Config[simValue]{Freshness: fresh})
			defer m.end()
			m.fill(200)
			m.unsee("n0", "n1", "n2")
			back := time.Now().Add(2500 * time.Millisecond)
			m.setRule(func(from, to string, kind codec.Kind, answer bool) hop {
				return hop{lost: kind == codec.KindPush && to == "n0" && time.Now().Before(back), silent: silent}
			})
			if took := m.drain(10 * time.Second); took < 2500*time.Millisecond || took > 5*time.Second {
				t.Errorf("silent %v: took %v", silent, took)
			}
			m.handedOver(200)
		})
	}
}

// handedOver checks that the node that left has handed over n keys: none is loaded again.
func (m *moving) handedOver(n int) {
	m.t.Helper()
	m.gone()
	m.fill(n)
	m.loads(int64(n))
}

// A node that leaves and cannot reach one member hands its copies to it through another.
func TestLeaveAroundACutLink(t *testing.T) {
	for _, silent := range []bool{false, true} {
		bubble(t, func(t *testing.T) {
			m := newLeaving(t, Config[simValue]{Freshness: fresh})
			defer m.end()
			m.fill(200)
			m.unsee("n0", "n1", "n2")
			cut := func(from, to string) bool { return from == "n2" && to == "n0" || from == "n0" && to == "n2" }
			m.setRule(func(from, to string, kind codec.Kind, answer bool) hop {
				return hop{lost: cut(from, to), silent: silent}
			})
			apply(m.caches["n0"], "another", mark(1)) // n2 must be told of it before n0 takes anything from n2
			if took := m.drain(10 * time.Second); took > 5*time.Second {
				t.Errorf("silent %v: took %v", silent, took)
			}
			m.handedOver(200)
		})
	}
}

// A member of an earlier version treats a push that it should relay as a push to itself. It keeps nothing of it, and
// its answer is not mistaken for the target's.
func TestLeaveAroundThroughAnEarlierVersion(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newLeaving(t, Config[simValue]{Freshness: fresh})
		defer m.end()
		m.fill(200)
		m.unsee("n0", "n1", "n2")
		m.simNet.mu.Lock()
		m.tweak = func(from, to string, req *codec.Request) {
			if to == "n1" && req.Kind == codec.KindPush {
				req.Flags &^= codec.FlagRelay
			}
		}
		m.simNet.mu.Unlock()
		m.setRule(func(from, to string, kind codec.Kind, answer bool) hop { return hop{lost: from == "n2" && to == "n0"} })
		kept := m.caches["n1"].own.Owned.Len()
		mine := 0
		for _, x := range m.caches["n2"].own.Hottest(func(string, *store.Entry) bool { return true }) {
			if m.old.Owner(x.Key).Name == "n1" {
				mine++
			}
		}
		if took := m.drain(3 * time.Second); took != 3*time.Second {
			t.Errorf("took %v: it may be asked for what it has until its time is over", took)
		}
		if n := m.caches["n1"].own.Owned.Len(); n != kept+mine || mine == 0 {
			t.Errorf("n1 keeps %d copies, had %d and was to be given %d", n, kept, mine)
		}
	})
}
