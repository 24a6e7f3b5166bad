package tier

import (
	"errors"
	"maps"
	"sync/atomic"
	"time"

	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/fence"
)

// What one member knows of another, and how that changes
//
// In the first table each row is a state. logbook.mu guards all of it. next (outgoing.go) decides what a member's pump
// does in each state.
//
//	state     condition                              the pump                      reads
//	unknown   known is nil, not hollow               has an exchange               wait for an exchange before they ask
//	current   known is set, nothing is due           sleeps                        carry at most the mark that is owed
//	behind    known is set, own top > confirmed.all  sends what is missing         carry the mark, or have an exchange first
//	broken    resync: a gap, or the log is short     has an exchange               as behind
//	hollow    the member has no such cache           asks again when an            have an exchange first
//	                                                 invalidation is started
//	outside   via: only that member sees it          relays what a waiter needs    never ask it
//	gone      out of the view                        ends                          never ask it
//
//	event                                            from             to        confirmed
//	the member comes into the view                   -, outside       unknown   nothing; from outside: unchanged
//	its node's incarnation changes                   any in view      unknown   unchanged: its cache is a new one, and empty
//	an exchange ends                                 any in view      current   all up to own top when the exchange began
//	this cache starts an invalidation                current          behind    unchanged
//	it confirms a frame                              behind           current,  the numbers of the frame, and only those
//	                                                                  behind
//	it confirms a frame through another member       behind, outside  the same  the numbers of the frame, and only those
//	it says that it lacks something earlier          behind           broken    the numbers of the frame
//	a list of retired positions is due, and there
//	was no exchange since it began (retire.go)       behind           broken    unchanged
//	it says that it has no such cache                any              hollow    all up to the last number that it was sent
//	it answers as another cache                      current, behind  unknown   the numbers of the frame
//	it does not answer                               any              the same  unchanged; retried, and relayed if a waiter needs it
//	another member names it                          -                outside   nothing
//	nobody names it for outsideFor                   outside          gone      each Invalidate that it has not confirmed in full
//	                                                                            names it
//	it leaves the view                               any in view      gone      the same
//
// The confirmed invalidations are a set of numbers (confirmed.go), so an event confirms only the numbers that it is
// about. An Invalidate ends when all of it has been started and every member that is not gone has confirmed each of its
// numbers.

const (
	// youngFor is how long, in ns, a new cache waits at most for an exchange with every member before it keeps what
	// others give it. It is longer than any Invalidate that began before the cache was opened.
	youngFor = int64(MaxInvalidateTimeout) * 3 / 2
	// settleWait is how long, in ns, the first reads of a new cache wait for these exchanges.
	settleWait = int64(100 * time.Millisecond)
	// exchangeEvery is how often, in ns, members have an exchange without need while there are invalidations.
	exchangeEvery = int64(2 * time.Second)
	// outsideFor is how long, in ns, a member that only others know is remembered.
	outsideFor = int64(15 * time.Second)
)

// known is what another member's cache is known to have applied. It never changes.
type known struct {
	fence.Watermark
	total, own uint64 // the logbook's total and this cache's own top when the watermark was taken
}

// watermark returns k's watermark, or nil if k is nil.
func (k *known) watermark() *fence.Watermark {
	if k == nil {
		return nil
	}
	return &k.Watermark
}

// A mate is what this cache knows of another member.
type mate struct {
	name  string
	known atomic.Pointer[known]     // nil: there was no exchange yet, or the member's cache is gone
	wake  chan struct{}             // wakes the pump
	said  atomic.Pointer[shareWord] // its last word on its share of the cap, nil: none

	// guarded by logbook.mu
	member  ring.Member // zero while via is set: its address is unknown here
	via     string      // the member that has it in its view while this node has not; "": it is in this node's view
	entered int64       // when it came into the view, or via last named it; ns on the cache's clock
	settled bool        // since it entered there was an exchange, or it was found to have no cache
	// acquainted: since it entered it has had the same view as this node, so it has seen this node.
	acquainted bool
	gone       bool // out of the view
	// confirmed are this cache's own numbers that the member has applied, or that were started before it was found to
	// have no cache.
	confirmed confirmed
	hollow    bool // it had no cache when last asked
	resync    bool // it lacks something earlier, or the log cannot send all that it lacks
	dirty     bool // an exchange is due
	exchanged int64
	exchange  *exchange // in progress, nil: none
	pumping   bool
	err       error // how the last attempt ended

	// of the pump
	backoff, relayBackoff int64
	retry, relayRetry     int64 // no attempt before this; ns on the cache's clock
}

// relays reports whether m can be asked to relay to another member: this node sees it, and the last attempt reached it.
// The address of a member that only others see is unknown here. The caller holds logbook.mu.
func (m *mate) relays() bool { return m.via == "" && !m.gone && m.err == nil && !m.hollow }

// mateBook is the part of the logbook about other members; the same lock guards it.
type mateBook struct {
	view    *ring.View
	mates   map[string]*mate // replaced, never changed; published in Cache.mates
	formers map[string]*mate // have gone from the view; their entered is when that was noticed
	waiters []*waiter
	ready   chan struct{} // closed when all mates are settled, nil: all are settled
}

var errGone = errors.New("weir: gone from the view")

// mate returns what is known of a member, or nil if it is not in the view. It takes no lock if the member is known.
func (c *Cache[V]) mate(name string) *mate {
	if m := (*c.mates.Load())[name]; m != nil {
		return m
	}
	c.log.mu.Lock()
	defer c.log.mu.Unlock()
	c.refresh()
	return c.log.mates[name]
}

// refresh applies a new view, if there is one. The caller holds log.mu.
func (c *Cache[V]) refresh() {
	l := c.log
	view := c.cfg.Cluster.View()
	if view == l.view {
		return
	}
	l.view = view
	now := c.clock.Now()
	next := make(map[string]*mate)
	for _, member := range view.Members() {
		if member.Name == c.self {
			continue
		}
		m := l.mates[member.Name]
		switch {
		case m == nil:
			m = newMate(member.Name, now)
		case m.via != "":
			m.via, m.entered = "", now
		case m.member.Incarnation != member.Incarnation:
			m.entered, m.settled, m.acquainted = now, false, false
			m.known.Store(nil)
		}
		if m.member != member { // its address may have changed
			m.member, m.retry, m.backoff = member, 0, 0
		}
		next[member.Name] = m
	}
	dismissed := false
	for name, m := range l.mates {
		if next[name] != nil {
			continue
		}
		if m.via != "" {
			next[name] = m
			continue
		}
		c.dismiss(m)
		dismissed = true
	}
	c.publish(next)
	for _, m := range next {
		c.kick(m)
	}
	if dismissed {
		c.resolve()
	}
}

func newMate(name string, now int64) *mate {
	return &mate{name: name, wake: make(chan struct{}, 1), entered: now}
}

// publish makes mates the map that readers see. The caller holds log.mu.
func (c *Cache[V]) publish(mates map[string]*mate) {
	c.log.mates = mates
	c.mates.Store(&mates)
	c.settle()
}

// dismiss gives a mate up. Each Invalidate that the member has not confirmed in full names it, including one that is
// still being started. The caller holds log.mu and removes m from the mates.
func (c *Cache[V]) dismiss(m *mate) {
	m.gone = true
	for _, w := range c.log.waiters {
		if !w.by(m) {
			w.fail(m.name, errors.Join(errGone, m.err))
		}
	}
	m.poke()
}

// outside notes the members that another member, via, has in its view. The caller holds log.mu.
func (c *Cache[V]) outside(names [][]byte, via string) {
	var next map[string]*mate
	now := c.clock.Now()
	for _, b := range names {
		name := string(b)
		m := c.log.mates[name]
		if name == c.self || m != nil && m.via == "" {
			continue
		}
		if m == nil {
			if next == nil {
				next = maps.Clone(c.log.mates)
			}
			m = newMate(name, now)
			m.settled = true // this node never asks it
			next[name] = m
		}
		m.via, m.entered = via, now
	}
	if next != nil {
		c.publish(next)
	}
	for _, m := range c.log.mates {
		if m.via != "" {
			c.kick(m)
		}
	}
}

// settle counts, for a new cache, the members that it has had no exchange with, and those that may not know it. The
// caller holds log.mu.
func (c *Cache[V]) settle() {
	open, strange := 0, 0
	if c.young.Load() {
		for _, m := range c.log.mates {
			if !m.settled {
				open++
			}
			if !m.acquainted && !m.hollow && m.via == "" {
				strange++
			}
		}
	}
	c.strangers.Store(int32(strange))
	switch {
	case open > 0 && c.log.ready == nil:
		c.log.ready = make(chan struct{})
	case open == 0 && c.log.ready != nil:
		close(c.log.ready)
		c.log.ready = nil
	}
	c.unsettled.Store(int32(open))
}

// PositionsDue names the members with which a new cache has not exchanged positions yet, and none once the cache is
// older than youngFor. A peer.Node is not ready while there are any.
func (h handler[V]) PositionsDue() (names []string) {
	c := h.c
	if !c.young.Load() || c.life.isClosed() {
		return nil
	}
	c.log.mu.Lock()
	defer c.log.mu.Unlock()
	c.refresh()
	for name, m := range c.log.mates {
		if !m.settled {
			names = append(names, name)
		}
	}
	return names
}

// look does what no event triggers: it drops old entries, starts exchanges that are due and gives up members that
// nobody names any more.
func (c *Cache[V]) look() {
	l := c.log
	l.mu.Lock()
	defer l.mu.Unlock()
	now := c.clock.Now()
	l.sweep(now)
	if c.cfg.Cluster == nil {
		return
	}
	c.refresh()
	c.retire(now)
	l.forgetFormers(now)
	if c.young.Load() && now-c.opened > youngFor {
		c.young.Store(false)
		c.settle()
	}
	next := l.mates
	grown := l.lives.own.Load() > l.lives.told
	l.lives.told = l.lives.own.Load()
	for name, m := range l.mates {
		k := m.known.Load()
		switch {
		case m.via == "" && grown:
			m.dirty = true
			c.kick(m)
		case m.via != "":
			if now-m.entered > outsideFor {
				next = maps.Clone(next)
				delete(next, name)
				c.dismiss(m)
			}
		case k != nil && k.total != l.total && now-m.exchanged >= exchangeEvery, k != nil && c.young.Load() && !m.acquainted:
			m.dirty = true
			c.kick(m)
		}
	}
	if len(next) != len(l.mates) {
		c.publish(next)
	}
	c.resolve()
}

// snapshot returns what this cache has applied by now, as what another member's cache is known to have applied. The
// caller holds log.mu.
func (c *Cache[V]) snapshot(incarnation uint64) *known {
	return &known{Watermark: c.fences.Watermark(incarnation), total: c.log.total, own: c.log.own().top}
}

// forget drops what is known of a member's cache, because another cache has answered under the member's name.
func (c *Cache[V]) forget(m *mate, k *known) {
	if m.known.CompareAndSwap(k, nil) {
		c.log.mu.Lock()
		defer c.log.mu.Unlock()
		c.kick(m)
	}
}

// poke wakes m's pump if it sleeps.
func (m *mate) poke() {
	select {
	case m.wake <- struct{}{}:
	default:
	}
}
