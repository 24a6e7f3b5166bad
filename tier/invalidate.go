package tier

import (
	"context"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/journal"
	"github.com/weircache/weir/tier/internal/owner"
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
	if err := owner.CheckKeys(keys); err != nil {
		return err
	}
	_, err := c.spread(ctx, 0, nil, journal.Part{Scope: codec.ScopeKeys, Names: keys})
	return err
}

// InvalidateTag is Invalidate for every value that a loader has given one of the tags with Fill.Tag, without the caller
// knowing their keys. It takes as long for a million values as for one. A tag that no value has is not an error. In
// addition to the errors of Invalidate it returns ErrBadTag, before anything is done.
func (c *Cache[V]) InvalidateTag(ctx context.Context, tags ...string) error {
	if err := owner.CheckTags(tags); err != nil {
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

// A Change says what a write to the origin has made out of date, for Apply.
type Change struct {
	Keys []string
	Tags []string
	All  bool // the whole namespace
	// Version, if not 0, is the origin's version of the Keys after the write, as loaders report it with
	// Fill.SetVersion. A value that is loaded later and has a lower version, from a replica that lags, is not kept. The
	// version is remembered for at least half a minute, for about the last 190,000 keys. It does not apply to Tags and
	// All.
	Version uint64
}

// At returns the Change of keys whose version at the origin is now this one.
func At(version uint64, keys ...string) Change { return Change{Keys: keys, Version: version} }

// Apply is Invalidate, InvalidateTag and InvalidateAll in one call, with the same errors. The Token names these
// invalidations; it is valid even if the error is an *InvalidateError.
func (c *Cache[V]) Apply(ctx context.Context, ch Change) (Token, error) {
	return c.applyChange(ctx, ch)
}

func (c *core) applyChange(ctx context.Context, ch Change) (Token, error) {
	if err := errors.Join(owner.CheckKeys(ch.Keys), owner.CheckTags(ch.Tags)); err != nil {
		return Token{}, err
	}
	parts := []journal.Part{{Scope: codec.ScopeKeys, Names: ch.Keys}, {Scope: codec.ScopeTags, Names: ch.Tags}}
	if ch.All {
		parts = append(parts, everything)
	}
	return c.spread(ctx, ch.Version, nil, parts...)
}

// A Token names invalidations. Hand it to another service, for example in an HTTP header, and give it to Read there as
// ReadOptions.After. What that Read returns was loaded after the invalidations were started, even on a member that has
// not heard of them, and even in a cluster of other processes. A Token covers each key that it is given with; for a key
// that was not invalidated it costs one fill at most.
//
// The zero Token names no invalidation. A Token is a small value: copy it, compare it with ==. Its text form has about
// 40 characters, all of them safe in a URL.
type Token struct {
	namespace uint64
	mark      codec.Mark
}

// ErrBadToken says that a text is not a Token, or that a Token belongs to another namespace.
var ErrBadToken = owner.ErrBadToken

func (t Token) zero() bool { return t.mark.Seq == 0 }

// String returns the text form; "" for the zero Token.
func (t Token) String() string {
	b, _ := t.MarshalText() // which never fails
	return string(b)
}

// MarshalText implements encoding.TextMarshaler. The error is always nil.
func (t Token) MarshalText() ([]byte, error) {
	if t.zero() {
		return []byte{}, nil
	}
	b := binary.BigEndian.AppendUint64(nil, t.namespace)
	b = binary.BigEndian.AppendUint64(b, t.mark.Incarnation)
	b = binary.AppendUvarint(b, t.mark.Seq)
	return base64.RawURLEncoding.AppendEncode(nil, b), nil
}

// UnmarshalText implements encoding.TextUnmarshaler. An error wraps ErrBadToken and leaves t unchanged.
func (t *Token) UnmarshalText(text []byte) error {
	if len(text) == 0 {
		*t = Token{}
		return nil
	}
	const head, most = 16, 16 + binary.MaxVarintLen64
	if len(text) > base64.RawURLEncoding.EncodedLen(most) {
		return fmt.Errorf("%w: %d characters", ErrBadToken, len(text))
	}
	b, err := base64.RawURLEncoding.Strict().AppendDecode(nil, text)
	if err != nil || len(b) <= head {
		return fmt.Errorf("%w: %q", ErrBadToken, text)
	}
	seq, n := binary.Uvarint(b[head:])
	if n != len(b)-head || seq == 0 {
		return fmt.Errorf("%w: %q", ErrBadToken, text)
	}
	*t = Token{binary.BigEndian.Uint64(b), codec.Mark{Incarnation: binary.BigEndian.Uint64(b[8:]), Seq: seq}}
	return nil
}

// after makes sure that a read of key returns nothing from before the token's invalidations.
func (c *core) after(key string, t Token) error {
	if err := owner.CheckKey(key); err != nil {
		return err
	}
	if t.namespace != c.tokenOf {
		return fmt.Errorf("%w: it is not of namespace %q", ErrBadToken, c.cfg.Namespace)
	}
	c.own.Note(key, ring.Hash(key), t.mark, 0) // as if a request for the key had brought it
	return nil
}
