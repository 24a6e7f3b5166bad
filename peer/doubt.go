package peer

import (
	"slices"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
)

// Two members can have different views for long. After a partition of some seconds one side has dropped a
// member that has not noticed anything itself: it sees the others, and they, who do not see it, tell it
// of no invalidation. Nobody gossips to who is believed to be dead, and the next exchange of states may be
// pushPullInterval away. But an answer says whether the member that gave it has the same view. If it has not, and
// the view here is not a new one, this node exchanges states with it, and tells it that it is alive: it then hears that it is
// believed to be dead, and contradicts.
const (
	// doubtAfter is how old a view must be for a difference to be worth an exchange: gossip takes so long.
	doubtAfter = time.Second
	// An exchange of doubtMin at the earliest after the one before, then twice as long each time up to pushPullInterval
	// while the view does not change.
	doubtMin = time.Second
)

// compare looks at an answer, and notes if its giver has another view.
func (n *Node) compare(to ring.Member, req *codec.Request, resp *codec.Response) {
	if req.Kind != codec.KindGet && req.Kind != codec.KindSync {
		return
	}
	if resp.Flags&codec.FlagSameView != 0 {
		n.differ.note(to.Name, true, time.Time{})
		return
	}
	switch resp.Status {
	case codec.StatusValue, codec.StatusNotFound, codec.StatusSame, codec.StatusMoved, codec.StatusSynced:
	default:
		return // it tells nothing of the view
	}
	p, now := n.published.Load(), time.Now()
	if req.View != p.view.Fingerprint() || now.Sub(p.at) < doubtAfter {
		return
	}
	if n.differ.note(to.Name, false, now) {
		n.roster.signal()
	}
	select {
	case n.doubts <- to:
	default: // there is one already
	}
}

// settleDoubts exchanges states with members that have another view, until the node closes.
func (n *Node) settleDoubts() {
	var view *ring.View
	wait := doubtMin
	for {
		var to ring.Member
		select {
		case to = <-n.doubts:
		case <-n.ctx.Done():
			return
		}
		now := n.View()
		if in, ok := now.Member(to.Name); !ok || in.Incarnation != to.Incarnation {
			continue
		}
		if now != view {
			view, wait = now, doubtMin
		}
		if _, err := n.gossip.Join([]string{to.Addr}); err != nil {
			n.logger.Debug("no exchange of states", "member", to.Name, "error", unwrapOne(err))
		} else {
			n.logger.Debug("states exchanged with a member that has another view", "member", to.Name)
		}
		// It may believe that this node has left, which an exchange of states does not tell.
		others := n.roster.others()
		n.announce(n.ctx, slices.DeleteFunc(others, func(o peerAddress) bool { return o.addr.String() != to.Addr }))
		n.rndMu.Lock()
		jitter := time.Duration(n.rnd.Float64() * 0.4 * float64(wait))
		n.rndMu.Unlock()
		if !pause(n.ctx, wait+jitter) {
			return
		}
		wait = min(2*wait, pushPullInterval)
	}
}

// Bypassed reports whether a member refuses or is silent, so that calls to it fail at once.
func (n *Node) Bypassed(name string) bool {
	p := (*n.data.peers.Load())[name]
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.breaker.open
}
