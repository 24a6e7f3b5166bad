package tier

import (
	"context"
	"sync"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
)

// A member's share of the origin's cap is what Cluster.Divisor gives it. When a member joins, the others take lower shares at once,
// but loads that they have begun before may run on, for longer than any timer. So the newcomer takes its share when they say that
// their loads fit theirs, not when some time has passed:
//
//	state     event                                                                next
//	none      every other member of the present view has said, under that view,
//	          that its loads fit its share, or has no such cache and no
//	          SharedOrigin for others                                              taken
//	          a member that has not said anything keeps silent for silentFor,
//	          is of a version that does not speak of it, or has no such cache but
//	          perhaps another one of the SharedOrigin; or an earlier start of this
//	          node's name, which is in no view, may be alive                       as if it had said so
//	          a member says that its loads do not fit                              none, however long that lasts
//	none      the cache closes, and another one with the same origin waits or comes none
//	taken     all caches of the origin are closed, and one on a cluster is opened  none
//
// Until then fills queue, as if all permits were in use. A member says so with each exchange of positions, and only to one
// whose view is its own: then it counts the newcomer, and begins no load beyond the lower share. Newcomers that do not know each
// other yet have different views than the members that know both.
//
// A higher share after a leave needs no word: the leaver counts until its loads have ended, see peer.Node.Leave.
//
// What this does not cover: loads that overrun Origin.Timeout on a node that leaves, until they return or its process ends; those of a process that has
// crashed, if the origin works on for longer than Origin.Timeout and some seconds (peer, ended.go); nodes that see nobody and divide by one, as
// nodes that start apart do with peer.Config.MinMembers at 1; and members that are added while others are behind a partition, which do not count them.
//
// A word holds for all loads of its member: a caller that has asked Cluster.Divisor before the word, and comes to the governor after it, asks
// again (governor.enter). Of several caches with one SharedOrigin each asks the members, and the last answer takes the share.

// word is what a member has said of its loads under the present view.
type word uint8

const (
	wordNone   word = iota // it has not answered, or has another view, or does not speak of it
	wordFits               // its loads fit its share
	wordBeyond             // they do not
)

// shareWord is the last word of a member.
type shareWord struct {
	view uint64 // the fingerprint under which it was said
	word word
}

// shareGrace is how much longer than Origin.Timeout a silent member is waited for.
const shareGrace = 2 * time.Second

// mayTake decides whether a newcomer may take its share after it has waited for so long. silentFor is for how
// long silent members are waited for.
func mayTake(words []word, waited, silentFor time.Duration) bool {
	for _, w := range words {
		if w == wordBeyond || w == wordNone && waited < silentFor {
			return false
		}
	}
	return true
}

// shareSpeaker is a Cluster whose members' caches wait for one another's words. One that is not has a fixed Divisor.
type shareSpeaker interface{ SharesMove() bool }

// doubled is a Cluster that knows whether an earlier start of this node's name may be alive.
type doubled interface{ EarlierStart() bool }

// wordOf is what m said, if it said it under the view.
func (m *mate) wordOf(view uint64) word {
	if s := m.said.Load(); s != nil && s.view == view {
		return s.word
	}
	return wordNone
}

// heard notes what an answer to an exchange, asked under the view, says of m's loads.
func (m *mate) heard(view uint64, flags uint8) {
	w := wordNone
	if flags&codec.FlagSameView != 0 && flags&codec.FlagShare != 0 {
		if w = wordBeyond; flags&codec.FlagFits != 0 {
			w = wordFits
		}
	}
	m.said.Store(&shareWord{view, w})
}

// wordOfNone is what it means that a member has no cache of this namespace: it has no loads, and will ask when it has such a cache. But other caches that read
// the same SharedOrigin may have loads there, of which it does not speak under this name.
func (c *Cache[V]) wordOfNone() word {
	if c.cfg.SharedOrigin != nil {
		return wordNone
	}
	return wordFits
}

// shareFlags is what this node says to a member whose view is its own.
func (c *Cache[V]) shareFlags() uint8 {
	if c.gov.FitsShare() {
		return codec.FlagShare | codec.FlagFits
	}
	return codec.FlagShare
}

// takeShare waits until this node may take its share of the cap, and takes it.
func (c *Cache[V]) takeShare() {
	defer c.life.end()
	const shortest, longest = 10 * time.Millisecond, 250 * time.Millisecond
	silentFor := c.origin.o.Timeout + shareGrace
	for again := shortest; ; again = min(2*again, longest) {
		changed := c.cfg.Cluster.ViewChanged()
		view := c.cfg.Cluster.View()
		if mayTake(c.askShares(view), time.Duration(c.clock.Now()-c.opened), silentFor) && c.cfg.Cluster.View() == view {
			c.gov.AllowShare()
			return
		}
		t := time.NewTimer(again)
		select {
		case <-t.C:
		case <-changed:
			again = shortest
		case <-c.ctx.Done():
		}
		t.Stop()
		if c.ctx.Err() != nil {
			c.gov.WaiveShare()
			return
		}
	}
}

// askShares asks every other member of the view that has not said that its loads fit, and returns what all say. An earlier start
// of this node's name says nothing.
func (c *Cache[V]) askShares(view *ring.View) []word {
	ctx, cancel := context.WithTimeout(c.ctx, shareGrace)
	defer cancel()
	print := view.Fingerprint()
	var words []word
	var wg sync.WaitGroup
	var mu sync.Mutex // guards words
	places := make(chan struct{}, maxSingles)
	for _, member := range view.Members() {
		if member.Name == c.self {
			continue
		}
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			w := wordNone
			if m := c.mate(member.Name); m != nil {
				if w = m.wordOf(print); w != wordFits {
					_ = c.exchangeWith(ctx, m) // a member without such a cache says so with an error
					w = m.wordOf(print)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			words = append(words, w)
		})
	}
	wg.Wait()
	if d, ok := c.cfg.Cluster.(doubled); ok && d.EarlierStart() {
		words = append(words, wordNone)
	}
	return words
}
