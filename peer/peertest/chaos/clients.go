//go:build linux

package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"github.com/weircache/weir/peer/peertest"
	"github.com/weircache/weir/tier"
)

// read makes a recorded read on the i-th node. r has Key, MaxAge, After and Plain set. read returns nil if there was no
// answer: the process is stopped or down, or died meanwhile.
func (l *lab) read(i int, r *peertest.Read, timeout time.Duration) *peertest.Read {
	p := l.procs[i]
	client := p.callable()
	if client == nil {
		return nil
	}
	r.Node = p.called()
	c := ReadCall{Key: r.Key, Plain: r.Plain, MaxAge: r.MaxAge, Timeout: timeout}
	if r.After != nil {
		c.After = r.After.Token.String()
	}
	l.history.BeginRead(r)
	var a ReadReply
	if !l.call(p, client, "Node.Read", c, &a) {
		return nil
	}
	r.Deadline, r.Stopped = r.BeganAt.Add(timeout), p.stoppedSince(r.BeganAt)
	r.Value, r.Age, r.Source, r.Err = a.Value, a.Age, a.Source, a.Failed.err()
	l.history.EndRead(r)
	return r
}

// apply changes keys at the origin and applies the change from the i-th node. The keys are those of the change plus more,
// which its tags or its scope should cover.
func (l *lab) apply(i int, gone bool, change tier.Change, more ...string) (*peertest.Invalidation, ApplyReply, bool) {
	return l.spread(i, change, func() ApplyCall {
		for _, key := range slices.Concat(change.Keys, more) {
			l.origin.Write(key, gone)
		}
		return ApplyCall{Change: change}
	})
}

// put changes a key at the origin and puts its value from the i-th node.
func (l *lab) put(i int, key string) {
	l.spread(i, tier.Change{Keys: []string{key}}, func() ApplyCall {
		made := l.history.BeginPut(key, func() uint64 { return l.origin.Write(key, false) })
		return ApplyCall{Put: &peertest.Value{Key: key, Version: made.Version, Load: made.Began, At: made.BeganAt.UnixNano()}}
	})
}

func (l *lab) spread(i int, change tier.Change, write func() ApplyCall) (inv *peertest.Invalidation, a ApplyReply, ok bool) {
	p := l.procs[i]
	client := p.callable()
	if client == nil {
		return nil, a, false
	}
	inv = l.history.BeginInvalidation(change, p.called(), nil)
	c := write()
	up := l.up()
	if !l.call(p, client, "Node.Apply", c, &a) {
		return inv, a, false
	}
	var token tier.Token
	if a.Token != "" {
		if err := token.UnmarshalText([]byte(a.Token)); err != nil {
			l.problem(err)
			return inv, a, false
		}
	}
	l.history.Tell(inv, a.Before)
	l.history.EndInvalidation(inv, token, contains(a.Before, up) && contains(a.After, l.up()), a.Failed.err())
	return inv, a, true
}

func contains(all, some []string) bool {
	return !slices.ContainsFunc(some, func(s string) bool { return !slices.Contains(all, s) })
}

// clients call the nodes.
type clients struct {
	*lab
	keys, perNode int
	pace          time.Duration // between two calls of a client, on average
	outside       *tier.Cache[peertest.Value]
}

func keyOf(k int) string { return fmt.Sprintf("k%d", k) }

// run lets clients call all nodes until ctx ends.
func (c *clients) run(ctx context.Context, seed uint64) (wait func()) {
	var wg sync.WaitGroup
	for i := range c.procs {
		for k := range c.perNode {
			dice := rand.New(rand.NewPCG(seed, uint64(100*i+k)))
			wg.Go(func() {
				for ctx.Err() == nil {
					c.one(i, dice)
					sleep(ctx, time.Duration(dice.Int64N(int64(2*c.pace))))
				}
			})
		}
	}
	return wg.Wait
}

// one makes one call to the i-th node.
func (c *clients) one(i int, dice *rand.Rand) {
	key := keyOf(min(dice.IntN(c.keys), dice.IntN(c.keys))) // some keys are hotter
	if dice.IntN(20) == 0 {
		c.write(i, key, dice)
		return
	}
	brief := 8 * time.Millisecond << dice.IntN(9) // may be shorter than a load
	switch at := dice.Float64(); {
	case at < 0.1:
		c.read(i, &peertest.Read{Key: key}, time.Second)
	case at < 0.2:
		c.read(i, &peertest.Read{Key: key, MaxAge: time.Duration(dice.Int64N(int64(3 * time.Second)))}, 2*time.Second)
	case at < 0.35:
		c.readAfter(i, key, dice)
	case at < 0.7:
		c.read(i, &peertest.Read{Key: key, MaxAge: tier.AnyAge, Plain: true}, brief)
	default:
		c.read(i, &peertest.Read{Key: key, MaxAge: tier.AnyAge}, 2*time.Second)
	}
}

// readAfter reads with the token of one of the key's last invalidations, wherever it was started and whichever members have
// heard of it.
func (c *clients) readAfter(i int, key string, dice *rand.Rand) {
	r := &peertest.Read{Key: key, MaxAge: tier.AnyAge}
	if list := c.history.Tokens(key); len(list) > 0 {
		r.After = list[dice.IntN(len(list))]
	}
	c.read(i, r, 2*time.Second)
}

func (c *clients) write(i int, key string, dice *rand.Rand) {
	gone := dice.IntN(7) == 0
	other := keyOf(dice.IntN(c.keys))
	switch at := dice.Float64(); {
	case at < 0.02:
		c.apply(i, gone, tier.Change{All: true}, key)
	case at < 0.12:
		c.apply(i, gone, tier.Change{Tags: []string{peertest.TagOf(key)}}, key)
	case at < 0.22:
		c.apply(i, gone, tier.Change{Keys: []string{key, other}})
	case at < 0.32:
		c.put(i, key)
	case at < 0.4:
		c.writeOutside(key, gone)
	default:
		c.apply(i, gone, tier.Change{Keys: []string{key}})
	}
}

// writeOutside writes from a process outside the cluster. The nodes learn of it only from the token that reads bring them.
func (c *clients) writeOutside(key string, gone bool) {
	change := tier.Change{Keys: []string{key}}
	inv := c.history.BeginInvalidation(change, peertest.Outside, nil)
	c.origin.Write(key, gone)
	token, err := c.outside.Apply(context.Background(), change)
	c.history.EndInvalidation(inv, token, false, err)
}
