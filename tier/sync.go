package tier

import (
	"context"
	"fmt"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/fence"
)

// An exchange compares what two members have applied. This node asks the other for its positions and for what this
// node lacks, applies that, and sends the other what that member lacks. When the other has confirmed, this node knows
// what it has applied. All callers that need one at the same time share it.
type exchange struct {
	done chan struct{}
	err  error // read after done is closed
}

// exchangeWith runs an exchange with m, or joins the one in progress. It returns when that exchange or ctx has ended.
func (c *Cache[V]) exchangeWith(ctx context.Context, m *mate) error {
	c.log.mu.Lock()
	x := m.exchange
	if m.via != "" {
		c.refresh() // m may have come into the view since
	}
	if x == nil {
		if m.gone || m.via != "" || !c.life.begin() {
			c.log.mu.Unlock()
			return errGone
		}
		x = &exchange{done: make(chan struct{})}
		m.exchange = x
		go func() {
			defer c.life.end()
			err := c.sync(m)
			c.log.mu.Lock()
			m.exchange = nil
			c.log.mu.Unlock()
			x.err = err
			close(x.done)
		}()
	}
	c.log.mu.Unlock()
	select {
	case <-x.done:
		return x.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// sync runs an exchange with m.
func (c *Cache[V]) sync(m *mate) error {
	var lack *lag
	var incarnation uint64
	var before *known
	var applied uint64
	for {
		asked, news, number, err := c.inquire(m)
		if err != nil {
			return err
		}
		before, incarnation = asked, number
		applied = c.receive(news)
		if !news.More || applied == 0 { // 0: m only has numbers beyond a gap of its own
			lack = lagOf(news)
			break
		}
	}
	for more := true; more; {
		var news codec.News
		c.log.mu.Lock()
		more = c.log.tell(lack, &news, c.clock.Now())
		c.log.mu.Unlock()
		if len(news.Bases)+len(news.Invalidations) == 0 {
			break
		}
		ack, without, err := c.post(c.ctx, m, "", &news)
		if err != nil {
			return err
		}
		if without || ack.Incarnation != incarnation {
			return fmt.Errorf("%w: the cache at %s has changed", errAnswer, m.name)
		}
		c.stats.replayed.Add(int64(len(news.Invalidations)))
	}
	c.stats.exchanges.Add(1)

	l := c.log
	l.mu.Lock()
	defer l.mu.Unlock()
	k := before
	k.Incarnation = incarnation
	if l.total == before.total+applied { // everything new came from m
		k = c.snapshot(incarnation)
	}
	m.known.Store(k)
	m.exchanged = c.clock.Now()
	m.confirmed.add(upTo(before.own))
	m.hollow, m.dirty, m.settled = false, false, true
	c.settle()
	c.resolve()
	return nil
}

// inquire asks m for its positions and for what this node lacks.
func (c *Cache[V]) inquire(m *mate) (before *known, news *codec.News, incarnation uint64, err error) {
	ctx, cancel, timeout := c.attempt(c.ctx)
	defer cancel()
	ask := &codec.News{Life: time.Duration(c.log.lives.own.Load())}
	c.log.mu.Lock()
	to := m.member
	before = c.snapshot(0)
	m.resync = false
	view := uint64(0)
	if c.log.view != nil {
		view = c.log.view.Fingerprint()
	}
	ask.Positions = c.log.positions(nil, c.clock.Now())
	c.log.mu.Unlock()
	req := codec.Request{Kind: codec.KindSync, Namespace: c.ns, Schema: c.schema, View: view, Timeout: timeout, News: ask}
	var resp codec.Response
	if err := c.cfg.Cluster.Call(ctx, to, &req, &resp); err != nil {
		return nil, nil, 0, err
	}
	defer resp.Release()
	switch resp.Status {
	case codec.StatusSynced:
		m.heard(view, resp.Flags)
		if resp.Flags&codec.FlagSameView != 0 {
			c.meet(m)
		}
	case codec.StatusUnknown, codec.StatusClosed:
		m.said.Store(&shareWord{view, c.wordOfNone()})
		c.log.mu.Lock()
		defer c.log.mu.Unlock()
		m.confirmed.add(upTo(before.own))
		c.vacate(m)
		c.resolve()
		return nil, nil, 0, errHollow
	default:
		return nil, nil, 0, fmt.Errorf("%w: status %d: %s", errAnswer, resp.Status, resp.Text)
	}
	news = new(codec.News)
	if err := codec.DecodeNews(news, append([]byte(nil), resp.Value...)); err != nil {
		return nil, nil, 0, err
	}
	c.log.lives.heard(news.Life)
	return before, news, resp.Incarnation, nil
}

// receive applies what another member has sent, and reports how much of it was new here. It does not keep n.
func (c *Cache[V]) receive(n *codec.News) (applied uint64) {
	applied, flushed := c.takeNews(n)
	if flushed {
		c.cfg.Logger.Warn("cache flushed: invalidations were missed that no member can tell any more", "event", eventFlushed, "namespace", c.cfg.Namespace)
	}
	return applied
}

// takeNews is receive. It also reports whether everything here had to be treated as invalidated.
func (c *Cache[V]) takeNews(n *codec.News) (applied uint64, flush bool) {
	l := c.log
	l.mu.Lock()
	defer l.mu.Unlock()
	before := l.total
	now := c.clock.Now()
	when := l.appliedBy(n, now)
	for i := range n.Bases {
		b := &n.Bases[i]
		if b.Incarnation == l.self {
			continue
		}
		if l.hasAll(b.Incarnation, b.Seq) {
			continue
		}
		t, at := l.track(b.Incarnation), when.at(b.Incarnation)
		if t.heard(at); b.Flush {
			flush = true
			t.cut, t.cutAt = b.Seq, at
		} else {
			t.aged, t.agedAt = b.Seq, min(at, now-l.lives.own.Load()) // they were started before that
		}
		t.reach(b.Seq)
	}
	if flush {
		c.flush()
		l.total++
	}
	for i := range n.Invalidations {
		v := &n.Invalidations[i]
		if v.Mark.Incarnation == l.self {
			continue
		}
		if l.has(v.Mark.Incarnation, v.Mark.Seq) {
			continue
		}
		t, at := l.track(v.Mark.Incarnation), when.at(v.Mark.Incarnation)
		names := make([]string, len(v.Names))
		for j, name := range v.Names {
			names[j] = string(name)
		}
		flush = c.enter(logged{mark: v.Mark, scope: v.Scope, version: v.Version, names: names, at: at}) || flush
		t.heard(at)
		t.note(v.Mark.Seq)
	}
	c.bound(now)
	return l.total - before, flush
}

// begin starts an invalidation of this cache's own. The caller holds log.mu.
func (c *Cache[V]) begin(scope codec.Scope, names []string, version uint64) (seq uint64) {
	l, now := c.log, c.clock.Now()
	t := l.own()
	seq = t.top + 1
	c.enter(logged{mark: codec.Mark{Incarnation: l.self, Seq: seq}, scope: scope, version: version, names: names, at: now})
	t.reach(seq)
	t.last = now
	for _, m := range l.mates {
		c.kick(m)
	}
	return seq
}

// enter applies an invalidation and puts it into the log. It reports whether everything here had to be treated as
// invalidated, because what was invalidated is unknown. The caller holds log.mu.
func (c *Cache[V]) enter(e logged) (flushed bool) {
	switch {
	case e.isList():
		c.log.list(&e)
	case e.isRetire():
		switch {
		case c.log.retire(e.mark, e.at):
		case c.young.Load() && c.unsettled.Load() > 0: // a new cache has missed what came before it, and has next to nothing
			c.wipe(false)
		default:
			c.flush()
			flushed = true
		}
	case e.scope == codec.ScopeKeys:
		for _, key := range e.names {
			c.fence(key, ring.Hash(key), e.mark, e.version)
		}
	case e.scope == codec.ScopeTags:
		c.fences.ApplyTags(e.names)
		c.flights.detachTags(c.fences)
		c.stats.fences.Add(int64(len(e.names)))
	case e.scope == codec.ScopeAll:
		c.wipe(e.mark.Incarnation == c.log.self)
	}
	c.log.add(e)
	return flushed
}

// flush treats everything here as invalidated, because no member can tell what was invalidated. The caller holds
// log.mu.
func (c *Cache[V]) flush() {
	c.wipe(false)
	c.stats.flushed.Add(1)
}

// wipe makes everything here unusable. own: this node starts the invalidation.
func (c *Cache[V]) wipe(own bool) {
	c.fences.Wipe(own)
	c.flights.detachAll(c.fences)
	c.asks.detachAll(c.fences)
	c.stats.fences.Add(1)
}

// fence applies an invalidation of the log to key: this node's copies of key become unusable. It keeps key.
func (c *Cache[V]) fence(key string, hash uint64, mark codec.Mark, version uint64) {
	at, applied := c.fences.Apply(key, hash, mark, version, c.dropping(key))
	if !applied && version != 0 { // a request had brought the mark without the version
		c.fences.Update(hash, func() {
			if e, ok := c.owned.Get(key); ok && e.Version != 0 && e.Version < version {
				c.owned.Delete(key)
			}
		})
	}
	c.overtake(key, hash, at, applied)
}

// note applies a mark that a request or a token has carried to key, unless the log has it. It reports whether that
// made copies unusable. It does not keep key. If the table has no room for the mark, this node starts an invalidation
// of its own that stands for it and for all other marks of the key. The caller does not hold log.mu.
func (c *Cache[V]) note(key string, hash uint64, mark codec.Mark, version uint64) (applied bool) {
	if c.log.applied(mark) { // the fence may already be forgotten
		return false
	}
	key = cloneString(key)
	at, n := c.fences.Note(key, hash, mark, version, c.dropping(key))
	if n == fence.NoRoom {
		c.log.mu.Lock()
		defer c.log.mu.Unlock()
		c.begin(codec.ScopeKeys, []string{key}, version)
		return true
	}
	c.overtake(key, hash, at, n == fence.Applied)
	return n == fence.Applied
}

// dropping removes the owned entry of key that a fence covers.
func (c *Cache[V]) dropping(key string) fence.Dropping {
	return func(loaded bool) {
		if !loaded {
			if e, ok := c.owned.Get(key); !ok || !e.Handed {
				return
			}
		}
		c.owned.Delete(key)
	}
}

// overtake keeps callers from joining work that began before a fence of the key. It also runs for a fence that
// existed before: the goroutine that left that fence may not have come this far.
func (c *Cache[V]) overtake(key string, hash uint64, at fence.Stamps, applied bool) {
	c.flights.detach(key, hash, at.Loads)
	c.asks.detach(key, hash, at.Copies)
	if applied {
		c.stats.fences.Add(1)
	}
}
