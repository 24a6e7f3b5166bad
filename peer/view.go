package peer

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/weircache/weir/ring"
)

// published is a view and the channel that closes when the next one is published.
type published struct {
	view    *ring.View
	at      time.Time
	changed chan struct{}
}

// refresh brings view and share up to date now.
func (n *Node) refresh() {
	done := make(chan struct{})
	select {
	case n.refreshes <- done:
		<-done
	case <-n.ctx.Done():
	}
}

// watch keeps view and share up to date until the node closes.
func (n *Node) watch(w watcher) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		var asked chan struct{}
		select {
		case <-n.ctx.Done():
			return
		case <-timer.C:
		case <-n.roster.changed:
		case asked = <-n.refreshes:
		}
		wait := w.look(n, time.Now())
		if wait == 0 {
			wait = time.Hour
		}
		timer.Reset(wait)
		if asked != nil {
			close(asked)
		}
	}
}

// A watcher is the state of the goroutine of watch.
type watcher struct {
	settling settling
	failed   string          // why the last view could not be built
	used     map[string]bool // addresses as of the last look
	prove    time.Time       // when to check next whether lost members have ended
}

// look publishes what has changed. It returns when to look again, or 0 to wait for the next signal.
func (w *watcher) look(n *Node, now time.Time) time.Duration {
	s := n.roster.look(now)
	for _, l := range s.notices {
		n.logger.Log(n.ctx, l.level, l.text, l.args...)
	}
	applied, wait := w.settling.observe(s.share, now)
	if old := n.share.Load(); *old != applied {
		n.share.Store(&applied)
	}
	n.superseded.Store(s.superseded)
	n.doubled.Store(s.doubled)
	if s.mistaken {
		n.logger.Error("another node with this node's name has left; this node tells the others that it is alive: names must be unique")
		n.wg.Go(func() { n.announce(n.ctx, n.roster.others()) })
	}
	if s.flaps != nil {
		n.wg.Go(func() {
			to := n.roster.others()
			n.shuffle(len(to), func(i, j int) { to[i], to[j] = to[j], to[i] })
			n.tell(n.ctx, to[:min(len(to), flapFanout)], s.flaps)
		})
	}

	if len(s.unproven) > 0 {
		if !now.Before(w.prove) {
			w.prove = now.Add(proofEvery)
			if n.proving.CompareAndSwap(false, true) {
				n.wg.Go(func() {
					defer n.proving.Store(false)
					n.lookForProof(s.unproven)
				})
			}
		}
		wait = soonest(wait, w.prove.Sub(now))
	}
	if !maps.Equal(w.used, s.used) {
		w.used = s.used
		n.noteAddrs(s.used)
	}
	n.data.allow(s.reachable) // before callers can see them in a view
	// A node that leaves a cluster of one keeps its last view, because no member remains.
	old := n.published.Load()
	if len(s.members) > 0 && !slices.Equal(s.members, old.view.Members()) {
		view, err := n.build(s.members)
		switch {
		case err == nil:
			w.failed = ""
			n.viewChanges.Add(1)
			n.published.Store(&published{view: view, at: now, changed: make(chan struct{})})
			close(old.changed)
			n.logger.Info("view changed", "members", view.Len(), "fingerprint", fmt.Sprintf("%016x", view.Fingerprint()))
			n.viewEvents(old.view, view)
		case w.failed != err.Error():
			w.failed = err.Error()
			n.logger.Error("the view cannot be rebuilt, the old one stays", "error", err)
		}
	}
	n.data.confine(s.reachable)
	long, news, again := n.differ.look(n.View(), now)
	switch {
	case news && len(long) > 0:
		n.logger.Warn("members have had a different view for a long time", "members", strings.Join(long, " "), "for", differLong)
	case news:
		n.logger.Info("all members have the same view again")
	}
	wait = soonest(wait, again)
	return soonest(wait, s.expire)
}

// noteAddrs stores the members' addresses, "ip:port" each, for isMemberAddr.
func (n *Node) noteAddrs(used map[string]bool) {
	addrs := make(map[netip.Addr]bool, len(used))
	for a := range used {
		if ap, err := netip.ParseAddrPort(a); err == nil {
			addrs[ap.Addr().Unmap()] = true
		}
	}
	n.addrs.Store(&addrs)
}

// isMemberAddr reports whether a member has the address.
func (n *Node) isMemberAddr(a netip.Addr) bool {
	addrs := n.addrs.Load()
	return addrs != nil && (*addrs)[a]
}

// build builds the view that follows the current one.
func (n *Node) build(members []ring.Member) (*ring.View, error) {
	if limit := n.roster.limit; len(members) > limit {
		return nil, fmt.Errorf("%w: more than %d", ring.ErrTooManyMembers, limit)
	}
	return n.published.Load().view.Next(members)
}
