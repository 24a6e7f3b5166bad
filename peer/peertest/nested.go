package peertest

import (
	"context"
	"errors"
	"strings"

	"github.com/weircache/weir/tier"
)

// parentOf returns the key whose loader reads the given one.
func parentOf(key string) string { return "p" + key }

// fromKey is the context key of the stamp at which a load began to read another key.
type fromKey struct{}

// nested returns a loader that handles parents as well: for p3 it first reads 3 through the cache, for pp3 it reads p3.
func (c *Cluster) nested(node string, l tier.Loader[Value], cache func() *tier.Cache[Value]) tier.Loader[Value] {
	return func(ctx context.Context, fill *tier.Fill[Value]) (v Value, err error) {
		child, parent := strings.CutPrefix(fill.Key, "p")
		if !parent {
			return l(ctx, fill)
		}
		r := &Read{Key: child, Node: node, MaxAge: tier.AnyAge, Nested: true}
		own := context.WithValue(ctx, readKey{}, r)
		if c.opt.hidden {
			var cancel context.CancelFunc
			own, cancel = context.WithTimeout(context.WithValue(context.Background(), readKey{}, r), c.opt.Timeout)
			defer cancel()
		}
		c.History.BeginRead(r)
		r.Deadline, _ = ctx.Deadline()
		var a tier.Answer[Value]
		a, r.Err = cache().Read(own, child, tier.ReadOptions{MaxAge: tier.AnyAge})
		r.Value, r.Age, r.Source = a.Value, a.Age, a.Source
		c.History.EndRead(r)
		if r.Err != nil && !errors.Is(r.Err, tier.ErrNotFound) {
			return Value{}, r.Err
		}
		return l(context.WithValue(ctx, fromKey{}, r.Began), fill)
	}
}
