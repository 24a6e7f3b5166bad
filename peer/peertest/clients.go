package peertest

import (
	"context"
	"slices"
	"time"

	"github.com/weircache/weir/tier"
)

// Read is a recorded read of key on the i-th node with a timeout. It returns false if the node is down.
func (c *Cluster) Read(i int, key string, maxAge, timeout time.Duration) bool {
	return c.read(i, &Read{Key: key, MaxAge: maxAge}, timeout)
}

// Get is a recorded Get of key on the i-th node with a timeout. It returns false if the node is down.
func (c *Cluster) Get(i int, key string, timeout time.Duration) bool {
	return c.read(i, &Read{Key: key, MaxAge: tier.AnyAge, Plain: true}, timeout)
}

func (c *Cluster) read(i int, r *Read, timeout time.Duration) bool {
	n, cache := c.serving(i)
	if cache == nil {
		return false
	}
	ctx := context.WithValue(context.Background(), readKey{}, r)
	var cancel context.CancelFunc
	if r.Leaves {
		ctx, cancel = context.WithCancel(ctx)
		defer time.AfterFunc(timeout, cancel).Stop()
	} else {
		ctx, cancel = context.WithTimeout(ctx, timeout)
	}
	defer cancel()
	r.Node = n.Name()
	c.History.BeginRead(r)
	r.Deadline = r.BeganAt.Add(timeout)
	if r.Plain {
		r.Value, r.Err = cache.Get(ctx, r.Key)
	} else {
		var a tier.Answer[Value]
		o := tier.ReadOptions{MaxAge: r.MaxAge}
		if r.After != nil {
			o.After = r.After.Token
		}
		a, r.Err = cache.Read(ctx, r.Key, o)
		r.Value, r.Age, r.Source = a.Value, a.Age, a.Source
	}
	c.History.EndRead(r)
	return true
}

// Write changes key at the origin, where it is gone afterwards or has a new version, and invalidates it through the i-th
// node. If that node is down, Write does nothing and returns false.
func (c *Cluster) Write(i int, key string, gone bool) bool {
	return c.Change(i, gone, tier.Change{Keys: []string{key}})
}

// Change writes keys at the origin and applies the change through the i-th node. The keys are those of the change plus
// more, which its tags or its scope should cover. If the node is down, Change does nothing and returns false.
func (c *Cluster) Change(i int, gone bool, change tier.Change, more ...string) bool {
	n, cache := c.serving(i)
	if cache == nil {
		return false
	}
	for _, key := range slices.Concat(change.Keys, more) {
		c.Origin.Write(key, gone)
	}
	var told []string
	for _, m := range n.View().Members() {
		told = append(told, m.Name)
	}
	inv := c.History.BeginInvalidation(change, n.Name(), told)
	token, err := cache.Apply(context.Background(), change)
	c.History.EndInvalidation(inv, token, c.seesAll(n), err)
	return true
}

// WriteOutside writes keys at the origin from a process outside the cluster. The nodes learn of it only from the token that
// reads bring them.
func (c *Cluster) WriteOutside(gone bool, keys ...string) {
	if c.outsider == nil {
		return
	}
	for _, key := range keys {
		c.Origin.Write(key, gone)
	}
	change := tier.Change{Keys: keys}
	inv := c.History.BeginInvalidation(change, Outside, nil)
	token, err := c.outsider.Apply(context.Background(), change)
	c.History.EndInvalidation(inv, token, false, err)
}

// Put writes key at the origin and puts a value with its own TTL through the i-th node. If the node is down, Put does
// nothing and returns false.
func (c *Cluster) Put(i int, key string, ttl time.Duration) bool {
	n, cache := c.serving(i)
	if cache == nil {
		return false
	}
	var told []string
	for _, m := range n.View().Members() {
		told = append(told, m.Name)
	}
	inv := c.History.BeginInvalidation(tier.Change{Keys: []string{key}}, n.Name(), told)
	l := c.History.BeginPut(key, func() uint64 { return c.Origin.Write(key, false) })
	v := Value{Key: key, Version: l.Version, Load: l.Began, At: l.BeganAt.UnixNano(), TTL: ttl}
	err := cache.Put(context.Background(), key, v, tier.PutOptions{Version: l.Version, TTL: ttl, Tags: []string{TagOf(key)}})
	c.History.EndInvalidation(inv, tier.Token{}, c.seesAll(n), err)
	return true
}
