package peer

import (
	"slices"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
)

// Two members can have different views for a long time. After a partition of some seconds one side may have dropped a
// member that noticed nothing itself. That member still sees the others, but they no longer see it and send it no
// invalidations. Nobody gossips to a member that is believed dead, and the next exchange of states may be pushPullInterval
// away.
//
// Every answer, however, says whether the answering member has the same view. If it has not, and the view here is not brand
// new, this node exchanges states with that member and tells it that this node is alive. The member then learns that it is
// believed dead, and contradicts.
const (
	// doubtAfter is how old a view must be before a difference is worth an exchange: gossip takes that long.
	doubtAfter = time.Second
	// doubtMin is the shortest pause between two exchanges. While the view does not change, the pause doubles each time up
	// to pushPullInterval.
	doubtMin = time.Second
)

// compare checks the view that an answer reports, and notes a member that has another view.
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
		return // it says nothing about the view
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
			n.logger.Debug("states exchanged with a member that has a different view", "member", to.Name)
		}
		// It may believe that this node has left. An exchange of states does not correct that.
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

// Bypassed reports whether a member refuses connections or is silent, so that calls to it fail at once.
func (n *Node) Bypassed(name string) bool {
	p := (*n.data.peers.Load())[name]
	if p == nil {
		return false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.breaker.open
}
