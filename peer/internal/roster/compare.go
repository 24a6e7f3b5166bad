package roster

import (
	"slices"
	"time"

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
	// exchangeAfter is how old a view must be before a difference is worth an exchange: gossip takes that long.
	exchangeAfter = time.Second
	// exchangeMin is the shortest pause between two exchanges. While the view does not change, the pause doubles each time up
	// to pushPullInterval.
	exchangeMin = time.Second
)

// Compare records what a member's answer says of its view: whether it is the one with this fingerprint.
func (r *Roster) Compare(to ring.Member, view uint64, same bool) {
	if same {
		r.differ.note(to.Name, true, time.Time{})
		return
	}
	p, now := r.published.Load(), time.Now()
	if view != p.view.Fingerprint() || now.Sub(p.at) < exchangeAfter {
		return
	}
	if r.differ.note(to.Name, false, now) {
		r.table.signal()
	}
	select {
	case r.exchanges <- to:
	default: // there is one already
	}
}

// exchangeStates exchanges states with members that have another view, until the node closes.
func (r *Roster) exchangeStates() {
	var view *ring.View
	wait := exchangeMin
	for {
		var to ring.Member
		select {
		case to = <-r.exchanges:
		case <-r.ctx.Done():
			return
		}
		now := r.View()
		if in, ok := now.Member(to.Name); !ok || in.Incarnation != to.Incarnation {
			continue
		}
		if now != view {
			view, wait = now, exchangeMin
		}
		if _, err := r.gossip.Join([]string{to.Addr}); err != nil {
			r.logger.Debug("no exchange of states", "member", to.Name, "error", unwrapOne(err))
		} else {
			r.logger.Debug("states exchanged with a member that has a different view", "member", to.Name)
		}
		// It may believe that this node has left. An exchange of states does not correct that.
		others := r.table.others()
		r.announce(r.ctx, slices.DeleteFunc(others, func(o peerAddress) bool { return o.addr.String() != to.Addr }))
		if !sleep(r.ctx, wait+r.rng.jitter(wait*4/10)) {
			return
		}
		wait = min(2*wait, pushPullInterval)
	}
}
