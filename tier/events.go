package tier

import (
	"sync"
	"sync/atomic"
	"time"
)

// Events are lines of the log with one of these names in the attribute "event". A *peer.Node's Logger keeps
// them for the stats endpoint and its page. The texts may change, the names stay.
const (
	eventBreakerOpened = "breaker_opened"
	eventBreakerClosed = "breaker_closed"
	eventDrillBegun    = "drill_begun"
	eventDrillEnded    = "drill_ended"
	eventFlushed       = "cache_flushed"
	eventIsolated      = "isolated"
	eventConnected     = "isolation_ended"
	eventUnconfirmed   = "invalidation_unconfirmed"
)

// unconfirmedEvery is how often, at most, the log says that an invalidation did not reach every member: during a
// partition none does.
const unconfirmedEvery = int64(time.Minute)

// eventLog records what the log has said about the breaker and about invalidations.
type eventLog struct {
	turn        atomic.Uint64 // the breaker's generation at the last look
	unconfirmed atomic.Int64  // no other one is logged until then, ns on the cache's clock

	mu       sync.Mutex // guards the rest
	open     bool
	openings int64
	since    int64 // when it opened
}

// logBreaker logs that the breaker has opened or closed. It is called after loads and once a second.
func (c *core) logBreaker() {
	t, turn := &c.logged, c.gov.BreakerGeneration()
	if t.turn.Swap(turn) == turn {
		return
	}
	isClosed, openings := c.gov.Breaker()
	now := c.clock.Now()
	t.mu.Lock()
	opened := openings > t.openings && !t.open
	if opened {
		t.since = now
	}
	closed := isClosed && (t.open || opened)
	lasted := time.Duration(now - t.since)
	t.open, t.openings = !isClosed, openings
	t.mu.Unlock()
	if opened {
		c.cfg.Logger.Error("the breaker has opened: the origin fails, and loads are rejected", "event", eventBreakerOpened, "namespace", c.cfg.Namespace)
	}
	if closed {
		c.cfg.Logger.Info("the breaker has closed: the origin answers again", "event", eventBreakerClosed, "namespace", c.cfg.Namespace, "after", lasted.Round(time.Millisecond))
	}
}

// logUnconfirmed logs an invalidation that did not reach every member, unless another one was logged recently.
func (c *core) logUnconfirmed(err error) {
	now, until := c.clock.Now(), c.logged.unconfirmed.Load()
	if now >= until && c.logged.unconfirmed.CompareAndSwap(until, now+unconfirmedEvery) {
		c.cfg.Logger.Warn("an invalidation has not reached every member", "event", eventUnconfirmed, "namespace", c.cfg.Namespace, "error", err)
	}
}
