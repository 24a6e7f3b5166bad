package tier

import (
	"context"
	"errors"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier/internal/journal"
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
	_, err := c.spread(ctx, 0, nil, journal.Part{Scope: codec.ScopeKeys, Names: keys})
	return err
}

// InvalidateTag is Invalidate for every value that a loader has given one of the tags with Fill.Tag, without the caller
// knowing their keys. It takes as long for a million values as for one. A tag that no value has is not an error. In
// addition to the errors of Invalidate it returns ErrBadTag, before anything is done.
func (c *Cache[V]) InvalidateTag(ctx context.Context, tags ...string) error {
	if err := checkTags(tags); err != nil {
		return err
	}
	_, err := c.spread(ctx, 0, nil, journal.Part{Scope: codec.ScopeTags, Names: tags})
	return err
}

// InvalidateAll is Invalidate for everything in the namespace. Every key that is wanted afterwards has to be read from
// the origin again.
func (c *Cache[V]) InvalidateAll(ctx context.Context) error {
	_, err := c.spread(ctx, 0, nil, everything)
	return err
}

// everything is the whole namespace.
var everything = journal.Part{Scope: codec.ScopeAll, Names: []string{""}}

// spread starts invalidations and waits until every member has applied them. It returns their token even if not all
// members have confirmed. If then is not nil, spread calls it with the token once everything is being sent.
func (c *core) spread(ctx context.Context, version uint64, then func(context.Context, Token), parts ...journal.Part) (Token, error) {
	if err := ctx.Err(); err != nil {
		return Token{}, err
	}
	if !c.own.Life.Begin() {
		return Token{}, ErrClosed
	}
	defer c.own.Life.End()
	w := journal.NewWait()
	if c.cfg.Cluster != nil {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, c.cfg.InvalidateTimeout)
		defer cancel()
	}
	token := c.begin(ctx, w, version, parts...)
	if then != nil {
		then(ctx, token)
	}
	if c.cfg.Cluster == nil || token.zero() {
		return token, nil
	}
	err := c.unreached(c.own.Journal.Wait(ctx, w))
	if err == nil {
		return token, nil
	}
	c.own.Stats.Unconfirmed.Add(1)
	c.own.LogUnconfirmed(err)
	return token, err
}

// begin applies invalidations here and has the journal send them. w then waits for them; nil means that nobody waits.
func (c *core) begin(ctx context.Context, w *journal.Wait, version uint64, parts ...journal.Part) Token {
	for _, p := range parts {
		c.own.Stats.Invalidated.Add(int64(len(p.Names)))
	}
	last := c.own.Journal.Begin(ctx, w, version, parts...)
	if last.Seq == 0 {
		return Token{}
	}
	return Token{namespace: c.tokenOf, mark: last}
}

// confirmAll waits until every member has applied all that this cache has started so far, for as long as Invalidate
// would wait.
func (c *core) confirmAll(ctx context.Context) error {
	if c.cfg.Cluster == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.InvalidateTimeout)
	defer cancel()
	return c.unreached(c.own.Journal.WaitAll(ctx))
}

// unreached returns the error of Invalidate for that of the journal.
func (c *core) unreached(err error) error {
	u, ok := errors.AsType[*journal.Unconfirmed](err)
	if !ok {
		return err
	}
	return &InvalidateError{
		Namespace: c.cfg.Namespace, Unreached: u.Members, Err: u.Err,
		CleanBy: wallClock(c.cfg.Now).Add(c.own.Journal.LongestLife()),
	}
}
