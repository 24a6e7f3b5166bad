package owner

import (
	"context"
	"sync"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/journal"
)

// A member's share of the origin's cap is what Cluster.Divisor gives it. When a member joins, the others take lower
// shares at once, but loads that they began earlier may run on, for longer than any timer. So the joining node takes
// its share when the others say that their loads fit theirs, not after a certain time:
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
// Until then fills queue, as if all permits were in use. A member gives its word with each exchange of positions, and
// only to a member with the same view. It counts the joining node then, and begins no load beyond the lower share.
// Joining nodes that do not know each other yet have views that differ from those of the members that know both.
//
// A higher share after a leave needs no word: the leaving node counts until its loads have ended, see
// peer.Node.Leave.
//
// This does not cover the following:
//
//   - Loads that overrun Origin.Timeout on a node that leaves, until they return or its process ends.
//   - Loads of a crashed process, if the origin works on for longer than Origin.Timeout and some seconds
//     (peer/internal/roster, ended.go).
//   - Nodes that see no other and divide by one, as nodes that start apart do with peer.Config.MinMembers at 1.
//   - Members that are added while others are behind a partition. Those others do not count them.
//
// A word holds for all loads of its member: a caller that called Cluster.Divisor before the word and enters the
// governor after it calls again (governor.enter). If several caches have one SharedOrigin, each asks the members, and
// the last answer takes the share.

// word is what a member has said about its loads under the present view.
type word uint8

const (
	wordNone   word = iota // it has not answered, has another view, or is of a version that does not speak of it
	wordFits               // its loads fit its share
	wordBeyond             // they do not
)

// ShareGrace is how much longer than Origin.Timeout this node waits for a silent member.
const ShareGrace = 2 * time.Second

// mayTake decides whether a joining node that has waited for so long may take its share. silentFor is how long it
// waits for silent members.
func mayTake(words []word, waited, silentFor time.Duration) bool {
	for _, w := range words {
		if w == wordBeyond || w == wordNone && waited < silentFor {
			return false
		}
	}
	return true
}

// shareSpeaker is a Cluster whose members' caches wait for one another's words. Any other Cluster has a fixed
// Divisor.
type shareSpeaker interface{ SharesMove() bool }

// earlierStarter is a Cluster that knows whether an earlier start of this node's name may be alive.
type earlierStarter interface{ EarlierStart() bool }

// wordOf returns what m's last reply to an exchange says about its loads under the view.
func (c *Owner) wordOf(m *journal.Member, view uint64) word {
	a := m.Reply()
	switch {
	case a == nil || a.View != view:
		return wordNone
	case a.Empty:
		return c.wordOfNone()
	case a.Flags&codec.FlagSameView == 0 || a.Flags&codec.FlagShare == 0:
		return wordNone
	case a.Flags&codec.FlagFits != 0:
		return wordFits
	}
	return wordBeyond
}

// wordOfNone returns what it means that a member has no cache of this namespace. The member has no loads, and asks
// when it opens such a cache. But other caches that read the same SharedOrigin may have loads there, which it does
// not report under this name.
func (c *Owner) wordOfNone() word {
	if c.Config.SharesOrigin {
		return wordNone
	}
	return wordFits
}

// shareFlags returns what this node says to a member with the same view.
func (c *Owner) shareFlags() uint8 {
	if c.Governor.FitsShare() {
		return codec.FlagShare | codec.FlagFits
	}
	return codec.FlagShare
}

// takeShare waits until this node may take its share of the cap and then takes it.
func (c *Owner) takeShare() {
	const shortest, longest = 10 * time.Millisecond, 250 * time.Millisecond
	silentFor := c.Config.Origin.Timeout + ShareGrace
	for again := shortest; ; again = min(2*again, longest) {
		changed := c.Config.Cluster.ViewChanged()
		view := c.Config.Cluster.View()
		if mayTake(c.askShares(view), time.Duration(c.Clock.Now()-c.opened), silentFor) && c.Config.Cluster.View() == view {
			c.Governor.AllowShare()
			return
		}
		t := time.NewTimer(again)
		select {
		case <-t.C:
		case <-changed:
			again = shortest
		case <-c.Ctx.Done():
		}
		t.Stop()
		if c.Ctx.Err() != nil {
			c.Governor.WaiveShare()
			return
		}
	}
}

// askShares asks every other member of the view that has not yet said that its loads fit, and returns all words. An
// earlier start of this node's name counts as silent.
func (c *Owner) askShares(view *ring.View) []word {
	ctx, cancel := context.WithTimeout(c.Ctx, ShareGrace)
	defer cancel()
	print := view.Fingerprint()
	var words []word
	var wg sync.WaitGroup
	var mu sync.Mutex // guards words
	places := make(chan struct{}, MaxSingles)
	for _, member := range view.Members() {
		if member.Name == c.Self {
			continue
		}
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			w := wordNone
			if m := c.Journal.Member(member.Name); m != nil {
				if w = c.wordOf(m, print); w != wordFits {
					_ = c.Journal.Exchange(ctx, m) // a member without such a cache says so with an error
					w = c.wordOf(m, print)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			words = append(words, w)
		})
	}
	wg.Wait()
	if d, ok := c.Config.Cluster.(earlierStarter); ok && d.EarlierStart() {
		words = append(words, wordNone)
	}
	return words
}
