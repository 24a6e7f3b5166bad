package owner

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/weircache/weir/tier/internal/journal"
)

// newJournal returns the journal of the invalidations.
func (c *Owner) newJournal(incarnation uint64) *journal.Journal {
	cfg := journal.Config{
		Self: c.Self, Namespace: c.NamespaceBytes, Schema: c.Config.Schema, Incarnation: incarnation,
		Copies: Copies{c}, Fences: c.Fences, Now: c.Clock.Now, Spawn: c.Spawn, Closed: ErrClosed,
		OnFlush: func() {
			c.Config.Logger.Warn("cache flushed: this node missed invalidations that no member's log still has", "event", EventFlushed, "namespace", c.Config.Namespace)
		},
		Life: max(c.Config.Freshness.Bound(), c.Config.Freshness.NegativeTTL), Timeout: c.Config.InvalidateTimeout, NewFor: NewFor, Limits: c.Config.Limits,
	}
	if c.Config.Cluster != nil {
		cfg.Peers = c.Config.Cluster
	}
	if c.Config.Faulty != nil {
		cfg.Copies = c.Config.Faulty(cfg.Copies)
	}
	return journal.New(c.Ctx, cfg)
}

// Spawn runs f in a goroutine that Close waits for. It returns false, and does nothing, once the cache is closed.
func (c *Owner) Spawn(f func()) bool {
	if !c.Life.Begin() {
		return false
	}
	go func() {
		defer c.Life.End()
		f()
	}()
	return true
}

// maintain does the periodic work that no caller does. It ends with c.Ctx.
func (c *Owner) maintain() {
	tick := time.NewTicker(SweepEvery)
	defer tick.Stop()
	var changed <-chan struct{}
	if c.Config.Cluster != nil {
		changed = c.Config.Cluster.ViewChanged()
		c.views.Observe(c.Config.Cluster.View(), c.Clock.Now())
		c.checkIsolation()
	}
	for {
		select {
		case <-c.Ctx.Done():
			return
		case <-changed:
			changed = c.Config.Cluster.ViewChanged()
			c.views.Observe(c.Config.Cluster.View(), c.Clock.Now())
			c.Journal.Tick()
			c.checkIsolation()
		case <-tick.C:
			c.Clock.Tick()
			c.Fences.Sweep()
			c.logBreaker()
			c.Journal.Tick()
			if c.Config.Cluster != nil {
				c.checkIsolation()
			}
			c.Demand.Mark(c.NearHits(), c.Clock.Now())
			c.Stats.Ages.Mark(c.Clock.Now())
			c.Reuse.Halve(c.Clock.Now(), c.Stats.OwnedReads())
			c.Stats.Ledger.Mark(c.Reads(), c.Stats.Loads(), c.Clock.Now())
		}
		c.Governor.Recheck()
	}
}

// chainID identifies a fill of this namespace among the fills that wait for one another.
func (c *Owner) chainID(hash uint64) uint64 { return hash ^ c.nsHash*0x9E3779B97F4A7C15 }

// lifetime counts what Close has to wait for.
type lifetime struct {
	closed atomic.Bool // set under mu

	mu   sync.Mutex // guards the rest
	n    int
	idle chan struct{} // closed when n reaches 0 after close
}

// Begin counts one more. It returns false after close.
func (l *lifetime) Begin() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed.Load() {
		return false
	}
	l.n++
	return true
}

func (l *lifetime) End() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.n--
	if l.closed.Load() && l.n == 0 {
		close(l.idle)
	}
}

func (l *lifetime) IsClosed() bool { return l.closed.Load() }

// Close makes Begin return false from now on. It returns true the first time.
func (l *lifetime) Close() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed.Swap(true) {
		return false
	}
	l.idle = make(chan struct{})
	if l.n == 0 {
		close(l.idle)
	}
	return true
}

func (l *lifetime) Wait(ctx context.Context) error {
	select {
	case <-l.idle:
		return nil
	default:
	}
	select {
	case <-l.idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// rng is the source of the cache's random choices: the global one, or a seeded one. It is safe for concurrent use.
type rng struct {
	mu  sync.Mutex // guards src
	src *rand.Rand // nil: the global source
}

func newRNG(seed uint64) *rng {
	if seed == 0 {
		return &rng{}
	}
	return &rng{src: rand.New(rand.NewPCG(seed, seed))}
}

// Float64 returns a number in [0, 1).
func (r *rng) Float64() float64 {
	if r.src == nil {
		return rand.Float64()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.src.Float64()
}

func (r *rng) uint64() uint64 {
	if r.src == nil {
		return rand.Uint64()
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.src.Uint64()
}

// IsContext reports whether err is the end of ctx itself. A deadline that has passed counts even if the timer has not
// fired yet: a nested read does not wait for the timer.
func IsContext(ctx context.Context, err error) bool {
	return Ended(ctx) && (errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded))
}

// Ended reports whether ctx has ended. A deadline that has passed counts even if the timer has not fired yet.
func Ended(ctx context.Context) bool {
	deadline, ok := ctx.Deadline()
	return ctx.Err() != nil || ok && time.Until(deadline) <= 0
}

// BytesOf returns the bytes of s without copying. They must only be read.
func BytesOf(s string) []byte { return unsafe.Slice(unsafe.StringData(s), len(s)) }

// stringOf returns b as a string without copying: valid only as long as b is not changed.
func stringOf(b []byte) string { return unsafe.String(unsafe.SliceData(b), len(b)) }

// AddTo adds to a counter, unless there is nothing to add: the counter is shared by all processors.
func AddTo(n *atomic.Int64, more int64) {
	if more != 0 {
		n.Add(more)
	}
}
