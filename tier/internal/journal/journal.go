package journal

import (
	"context"
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/fence"
)

// Peers is what a journal needs of the network.
type Peers interface {
	// View is the newest view; never nil.
	View() *ring.View
	// Call sends req to a member and fills resp with the answer, which the caller must Release.
	Call(ctx context.Context, to ring.Member, req *codec.Request, resp *codec.Response) error
}

// Copies are this node's copies, and the work that may bring more, to which a journal applies invalidations. The journal
// calls them with its lock held, so they must not call the journal.
type Copies interface {
	// FenceKey makes the copies of key unusable. hash is ring.Hash(key). It keeps key.
	FenceKey(key string, hash uint64, mark codec.Mark, version uint64)
	// FenceTags makes the copies that have one of the tags unusable.
	FenceTags(tags []string)
	// FenceAll makes all copies unusable. own: this node starts the invalidation.
	FenceAll(own bool)
}

// Config is what a journal is made of.
type Config struct {
	Self        string // this node's name
	Namespace   []byte
	Schema      uint64 // of the contract, as requests carry it
	Incarnation uint64 // of this cache: random, not 0
	Peers       Peers  // nil: there are no other members
	Copies      Copies
	Fences      *fence.Fences // of Copies
	Now         func() int64  // ns on the cache's clock
	// Spawn runs f in a goroutine that the cache's Close waits for. It returns false, and does nothing, once the cache is
	// closed.
	Spawn   func(f func()) bool
	Closed  error         // why a Wait fails when the cache is closed
	OnFlush func()        // called after everything was treated as invalidated on another member's word; nil: not called
	Life    time.Duration // how long copies live by the contract, from the start of a load to hard expiry
	Timeout time.Duration // of a Wait, from which that of one request derives
	NewFor  time.Duration // for how long the cache counts as new: longer than any Wait that began before it was opened
	Limits  Limits
}

// Counts are what a journal has done.
type Counts struct {
	Exchanges atomic.Int64 // exchanges with other members
	Replayed  atomic.Int64 // invalidations that exchanges sent to others
	Relayed   atomic.Int64 // batches that went through another member
	Flushed   atomic.Int64 // times that this node treated everything as invalidated
}

// A Journal carries the invalidations of one cache. Its methods are safe for concurrent use.
type Journal struct {
	ctx       context.Context
	self      string
	namespace []byte
	schema    uint64
	peers     Peers // nil: there are no other members
	copies    Copies
	fences    *fence.Fences
	now       func() int64
	spawn     func(func()) bool
	closed    error
	onFlush   func()
	timeout   time.Duration
	newFor    int64 // ns
	opened    int64 // ns on the cache's clock

	isNew     atomic.Bool
	pending   atomic.Bool                        // while new, a member has had no exchange so far
	unseen    atomic.Bool                        // while new, a member may not have seen this one
	published atomic.Pointer[map[string]*Member] // members, for readers without mu
	counts    Counts

	// mu guards the rest, and orders invalidations. Every invalidation, except a mark that a request carries, is applied
	// with mu held, so a goroutine that holds mu never sees one half applied. The locks of the copies may be taken with mu
	// held, never the other way round.
	mu       sync.Mutex
	log      log
	view     *ring.View
	members  map[string]*Member // replaced, never changed
	departed map[string]*Member // members that have left the view; their entered is when that was noticed
	waits    []*Wait
	ready    chan struct{} // closed when there was an exchange with all members, nil: there was
}

// New returns a journal, which counts as opening until ViewChanged is called. Its work ends with ctx. Call Tick about once a
// second and whenever the view has changed.
func New(ctx context.Context, cfg Config) *Journal {
	j := &Journal{
		ctx: ctx, self: cfg.Self, namespace: cfg.Namespace, schema: cfg.Schema, peers: cfg.Peers, copies: cfg.Copies, fences: cfg.Fences,
		now: cfg.Now, spawn: cfg.Spawn, closed: cfg.Closed, onFlush: cfg.OnFlush,
		timeout: cfg.Timeout, newFor: int64(cfg.NewFor), opened: cfg.Now(),
	}
	j.log.init(cfg.Incarnation, int64(cfg.Life), cfg.Fences.Retention(), cfg.Limits)
	j.published.Store(&map[string]*Member{})
	if cfg.Peers != nil { // until it has taken note of a view, any member of it may lack an exchange and not have seen this node
		j.isNew.Store(true)
		j.pending.Store(true)
		j.unseen.Store(true)
	}
	return j
}

// Incarnation returns this cache's incarnation.
func (j *Journal) Incarnation() uint64 { return j.log.self }

// Counts returns the counters, which change as the journal works.
func (j *Journal) Counts() *Counts { return &j.counts }

// StoredLife notes that a copy that lives for life, in ns from the start of its load to hard expiry, was stored here.
func (j *Journal) StoredLife(life int64) { j.log.lives.stored(life) }

// LongestLife returns how long any copy lives on any member, as far as they have told.
func (j *Journal) LongestLife() time.Duration { return time.Duration(j.log.lives.cluster.Load()) }

// HasApplied reports whether the invalidation m itself, not just its mark for one key, and all before it of its
// incarnation are known to have been applied here.
func (j *Journal) HasApplied(m codec.Mark) bool {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.log.hasAll(m.Incarnation, m.Seq)
}

// ViewChanged takes note of the newest view.
func (j *Journal) ViewChanged() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.applyView()
}

// Tick does what no event triggers: it drops old entries, starts exchanges that are due and gives up members that no
// other member names any more.
func (j *Journal) Tick() {
	j.mu.Lock()
	defer j.mu.Unlock()
	now := j.now()
	j.log.sweep(now)
	if j.peers == nil {
		return
	}
	j.applyView()
	j.retire(now)
	j.forgetDeparted(now)
	if j.isNew.Load() && now-j.opened > j.newFor {
		j.isNew.Store(false)
		j.notePending()
	}
	next, lives := j.members, &j.log.lives
	grown := lives.own.Load() > lives.sent
	lives.sent = lives.own.Load()
	for name, m := range j.members {
		if m.via != "" {
			if now-m.entered > outsideFor {
				next = maps.Clone(next)
				delete(next, name)
				j.remove(m)
			}
		} else if grown || j.isExchangeDue(m, now) {
			m.exchangeDue = true
			j.startPump(m)
		}
	}
	if len(next) != len(j.members) {
		j.publish(next)
	}
	j.endWaits()
}

// isExchangeDue reports whether m, whose watermark is known, should have an exchange without need: invalidations came
// here since the last one, or m may not have seen this node. The caller holds mu.
func (j *Journal) isExchangeDue(m *Member, now int64) bool {
	w := m.watermark.Load()
	return w != nil && (w.total != j.log.total && now-m.exchanged >= exchangeEvery || j.isNew.Load() && !m.acquainted)
}

// Sizes are how much a journal remembers.
type Sizes struct {
	Logged  int    // invalidations in the log
	Tracks  int    // incarnations whose positions are kept
	Retired int    // positions of caches that have gone
	Own     uint64 // invalidations that this cache has started
}

// Sizes returns how much j remembers.
func (j *Journal) Sizes() Sizes {
	j.mu.Lock()
	defer j.mu.Unlock()
	return Sizes{Logged: len(j.log.entries), Tracks: len(j.log.tracks), Retired: len(j.log.retired), Own: j.log.own().top}
}
