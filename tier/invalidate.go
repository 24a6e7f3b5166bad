package tier

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/weircache/weir/codec"
)

// Invalidate makes every copy of the keys, on every member, unusable. Call it after the
// write to the origin has committed. When it returns nil, no Get or Read that starts later on
// any member of the view returns data whose load started before the call.
//
// Invalidate takes any number of keys: pass many keys in one call. Concurrent calls share what is sent. Safe for
// concurrent use.
//
// If some members do not confirm within Config.InvalidateTimeout, or before ctx ends, the error is an *InvalidateError.
// It names them and says when their copies are gone. The keys are still invalidated everywhere else, and those members
// are told as soon as they can be reached, before they exchange data with any member that has been told. An empty or
// too large key, a closed cache and an ended ctx are errors before anything is done.
func (c *Cache[V]) Invalidate(ctx context.Context, keys ...string) error {
	if err := checkKeys(keys); err != nil {
		return err
	}
	_, err := c.spread(ctx, 0, nil, piece{codec.ScopeKeys, keys})
	return err
}

// InvalidateTag is Invalidate for every value that a loader has given one of the tags with Fill.Tag, without the caller
// knowing their keys. It takes as long for a million values as for one. A tag that no value has is not an error. In
// addition to the errors of Invalidate it returns ErrBadTag, before anything is done.
func (c *Cache[V]) InvalidateTag(ctx context.Context, tags ...string) error {
	if err := checkTags(tags); err != nil {
		return err
	}
	_, err := c.spread(ctx, 0, nil, piece{codec.ScopeTags, tags})
	return err
}

// InvalidateAll is Invalidate for everything in the namespace. Every key that is wanted afterwards has to be read from
// the origin again.
func (c *Cache[V]) InvalidateAll(ctx context.Context) error {
	_, err := c.spread(ctx, 0, nil, piece{codec.ScopeAll, []string{""}})
	return err
}

// piece is the part of a change that has one scope.
type piece struct {
	scope codec.Scope
	names []string
}

// spread starts invalidations and waits until every member has applied them. It returns their token even if not all
// members have confirmed. If then is not nil, spread calls it with the token once everything is being sent.
func (c *Cache[V]) spread(ctx context.Context, version uint64, then func(context.Context, Token), parts ...piece) (Token, error) {
	if err := ctx.Err(); err != nil {
		return Token{}, err
	}
	if !c.life.begin() {
		return Token{}, ErrClosed
	}
	defer c.life.end()
	w := &waiter{done: make(chan struct{})}
	if c.cfg.Cluster != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.cfg.InvalidateTimeout)
		defer cancel()
	}
	token := c.start(ctx, w, version, parts)
	if then != nil {
		then(ctx, token)
	}
	if c.cfg.Cluster == nil || token.zero() {
		return token, nil
	}
	err := c.confirmed(ctx, w)
	if err == nil {
		return token, nil
	}
	c.stats.unconfirmed.Add(1)
	c.tellUnconfirmed(err)
	return token, err
}

// confirmAll waits until every member has applied all that this cache has started so far, for as long as Invalidate
// would wait.
func (c *Cache[V]) confirmAll(ctx context.Context) error {
	if c.cfg.Cluster == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.InvalidateTimeout)
	defer cancel()
	l := c.log
	l.mu.Lock()
	w := &waiter{waits: upTo(l.own().top), done: make(chan struct{})}
	if w.waits.last == 0 {
		l.mu.Unlock()
		return nil
	}
	l.waiters = append(l.waiters, w)
	c.resolve()
	for _, m := range l.mates {
		c.kick(m)
	}
	l.mu.Unlock()
	return c.confirmed(ctx, w)
}

// start applies the invalidations here, in as many steps as needed, and leaves the rest to the pumps. w then waits for
// them; nil means that nobody waits.
func (c *Cache[V]) start(ctx context.Context, w *waiter, version uint64, parts []piece) (token Token) {
	l := c.log
	left := 0
	for _, p := range parts {
		left += len(p.names)
	}
	c.stats.invalidated.Add(int64(left))
	for _, p := range parts {
		told := version
		if p.scope != codec.ScopeKeys { // a version only applies to keys; in other scopes retire.go uses the field
			told = 0
		}
		for names := p.names; len(names) > 0; {
			n, size := 0, 0
			for n < len(names) && n < codec.MaxKeysPerFrame && (n == 0 || size+len(names[n]) <= invalidateBatch) {
				size += len(names[n])
				n++
			}
			var some []string
			if p.scope != codec.ScopeAll {
				some = make([]string, n)
				for i := range some {
					some[i] = cloneString(names[i]) // the fences and the log keep it
				}
			}
			names, left = names[n:], left-n
			c.pace(ctx, int64(size))
			l.mu.Lock()
			if token.zero() && w != nil && c.cfg.Cluster != nil {
				w.waits.first, w.open = l.own().top+1, true
				l.waiters = append(l.waiters, w)
			}
			token = Token{namespace: c.tokenOf, mark: codec.Mark{Incarnation: l.self, Seq: c.begin(p.scope, some, told)}}
			if w != nil && c.cfg.Cluster != nil {
				if w.waits.last, w.open = token.mark.Seq, left > 0; !w.open {
					c.resolve()
				}
			}
			l.mu.Unlock()
		}
	}
	return token
}

// pace delays the start of size more bytes of names while these and what a reachable member has not confirmed would take
// more than half of the log: whatever fell out of the log would cost that member a flush.
func (c *Cache[V]) pace(ctx context.Context, size int64) {
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		c.log.mu.Lock()
		full, half := false, c.log.limit.bytes/2
		if c.log.bytes+size > half {
			for _, m := range c.log.mates {
				full = full || m.err == nil && m.via == "" && m.confirmed.all < c.log.own().top && c.log.backlog(m.confirmed.all)+size > half
			}
		}
		c.log.mu.Unlock()
		if !full || sleep(ctx, wait) != nil {
			return
		}
	}
}

// confirmed waits until every member has confirmed what w waits for.
func (c *Cache[V]) confirmed(ctx context.Context, w *waiter) error {
	for {
		over := false
		select {
		case <-w.done:
		case <-ctx.Done():
			over = true
		case <-c.ctx.Done():
			over = true
		}
		c.log.mu.Lock()
		if !c.outstanding(ctx, w, over) {
			c.log.leave(w)
			c.log.mu.Unlock()
			return c.unreached(w)
		}
		w.done = make(chan struct{}) // a member has come into the view meanwhile
		c.log.waiters = append(c.log.waiters, w)
		c.resolve()
		c.log.mu.Unlock()
	}
}

// outstanding reports whether a member has not yet confirmed what w waits for. over means that the wait has ended: such
// members then count as failed. The caller holds log.mu.
func (c *Cache[V]) outstanding(ctx context.Context, w *waiter, over bool) (any bool) {
	for name, m := range c.log.mates {
		switch {
		case w.by(m):
		case !over:
			any = true
		case c.ctx.Err() != nil:
			w.fail(name, errors.Join(ErrClosed, m.err))
		default:
			w.fail(name, errors.Join(ctx.Err(), m.err))
		}
	}
	return any
}

// unreached returns the error that names the members that have not confirmed, or nil if all have.
func (c *Cache[V]) unreached(w *waiter) error {
	if len(w.failed) == 0 {
		return nil
	}
	out := &InvalidateError{Namespace: c.cfg.Namespace}
	for name := range w.failed {
		out.Unreached = append(out.Unreached, name)
	}
	slices.Sort(out.Unreached)
	var errs []error
	for _, name := range out.Unreached {
		errs = append(errs, fmt.Errorf("%s: %w", name, w.failed[name]))
	}
	now := c.cfg.wallClock()
	out.Err, out.CleanBy = errors.Join(errs...), now.Add(time.Duration(c.log.lives.cluster.Load()))
	return out
}
