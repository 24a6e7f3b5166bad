package owner

import (
	"sync"
	"sync/atomic"
	"time"
)

// Events are lines of the log with one of these names in the attribute "event". A *peer.Node's Logger keeps
// them for the stats endpoint and its page. The texts may change, the names stay.
const (
	EventBreakerOpened = "breaker_opened"
	EventBreakerClosed = "breaker_closed"
	EventDrillBegun    = "drill_begun"
	EventDrillEnded    = "drill_ended"
	EventFlushed       = "cache_flushed"
	eventIsolated      = "isolated"
	eventConnected     = "isolation_ended"
	EventUnconfirmed   = "invalidation_unconfirmed"
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
func (c *Owner) logBreaker() {
	t, turn := &c.logged, c.Governor.BreakerGeneration()
	if t.turn.Swap(turn) == turn {
		return
	}
	isClosed, openings := c.Governor.Breaker()
	now := c.Clock.Now()
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
		c.Config.Logger.Error("the breaker has opened: the origin fails, and loads are rejected", "event", EventBreakerOpened, "namespace", c.Config.Namespace)
	}
	if closed {
		c.Config.Logger.Info("the breaker has closed: the origin answers again", "event", EventBreakerClosed, "namespace", c.Config.Namespace, "after", lasted.Round(time.Millisecond))
	}
}

// LogUnconfirmed logs an invalidation that did not reach every member, unless another one was logged recently.
func (c *Owner) LogUnconfirmed(err error) {
	now, until := c.Clock.Now(), c.logged.unconfirmed.Load()
	if now >= until && c.logged.unconfirmed.CompareAndSwap(until, now+unconfirmedEvery) {
		c.Config.Logger.Warn("an invalidation has not reached every member", "event", EventUnconfirmed, "namespace", c.Config.Namespace, "error", err)
	}
}
