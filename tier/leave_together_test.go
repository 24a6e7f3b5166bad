package tier

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
)

// leaveAt drains the caches at the same time and returns how long the slowest took.
func (m *moving) leaveAt(names ...string) (took time.Duration) {
	ctx, cancel := context.WithTimeout(m.t.Context(), 10*time.Second)
	defer cancel()
	began := time.Now()
	var wg sync.WaitGroup
	for _, name := range names {
		wg.Go(func() { newHandler(m.caches[name]).Drain(ctx) })
	}
	wg.Wait()
	return time.Since(began)
}

// When all members leave at once, no member is left to take copies, and no leaving member waits for one.
func TestAllLeave(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := newLeaving(t, Config[simValue]{Freshness: Freshness{TTL: time.Hour}})
		defer m.end()
		for i := range 60 {
			m.read("n0", fmt.Sprintf("k%d", i))
		}
		m.nodes["n0"].setView(aged(t, "n1", "n2")) // while the news spreads, each believes that others stay
		m.nodes["n1"].setView(aged(t, "n2"))
		m.nodes["n2"].setView(aged(t, "n1"))
		if took := m.leaveAt("n0", "n1", "n2"); took > time.Second {
			t.Errorf("took %v", took)
		}
	})
}

// When two members leave at once, the copies that one would have pushed to the other go to the member that stays.
func TestTwoLeave(t *testing.T) {
	bubble(t, func(t *testing.T) {
		const keys = 200
		m := newLeaving(t, Config[simValue]{Freshness: Freshness{TTL: time.Hour, RefreshAhead: -1, Jitter: -1}})
		defer m.end()
		for i := range keys {
			m.read("n0", fmt.Sprintf("k%d", i))
		}
		stays := aged(t, "n0")
		m.nodes["n0"].setView(stays)
		m.nodes["n1"].setView(aged(t, "n0", "n2"))
		m.nodes["n2"].setView(aged(t, "n0", "n1"))
		heard := time.AfterFunc(time.Second, func() {
			m.nodes["n1"].setView(stays)
			m.nodes["n2"].setView(stays)
		})
		defer heard.Stop()
		if took := m.leaveAt("n1", "n2"); took > 3*time.Second {
			t.Errorf("took %v", took)
		}
		m.setRule(func(from, to string, kind codec.Kind, answer bool) hop { return hop{lost: from != to} })
		for i := range keys {
			m.read("n0", fmt.Sprintf("k%d", i))
		}
		m.loads(keys)
	})
}
