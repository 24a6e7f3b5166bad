package roster

import (
	"context"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/weircache/weir/ring"
)

// published is a view and the channel that closes when the next one is published.
type published struct {
	view    *ring.View
	at      time.Time
	changed chan struct{}
}

// Refresh brings view and share up to date now.
func (r *Roster) Refresh() {
	done := make(chan struct{})
	select {
	case r.refreshes <- done:
		<-done
	case <-r.ctx.Done():
	}
}

// watch keeps view and share up to date until the node closes.
func (r *Roster) watch(w watcher) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		var asked chan struct{}
		select {
		case <-r.ctx.Done():
			return
		case <-timer.C:
		case <-r.table.changed:
		case asked = <-r.refreshes:
		}
		wait := w.look(r, time.Now())
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
	failed   string            // why the last view could not be built
	used     map[string]uint64 // addresses as of the last look
	mostLost bool              // most of the members are lost
	prove    time.Time         // when to check next whether lost members have ended
}

// look publishes what has changed. It returns when to look again, or 0 to wait for the next signal.
func (w *watcher) look(r *Roster, now time.Time) time.Duration {
	s := r.table.look(now)
	for _, l := range s.notices {
		r.logger.Log(r.ctx, l.level, l.text, l.args...)
	}
	applied, wait := w.settling.observe(s.share, now)
	if old := r.share.Load(); *old != applied {
		r.share.Store(&applied)
	}
	r.superseded.Store(s.superseded)
	r.earlierStart.Store(s.earlierStart)
	if s.mustContradict {
		r.logger.Error("another node with this node's name has left; this node tells the others that it is alive: names must be unique")
		r.wg.Go(func() { r.announce(r.ctx, r.table.others()) })
	}
	if s.flaps != nil {
		r.wg.Go(func() {
			to := r.table.others()
			r.rng.shuffle(len(to), func(i, j int) { to[i], to[j] = to[j], to[i] })
			r.tell(r.ctx, to[:min(len(to), flapFanout)], s.flaps)
		})
	}

	if len(s.unproven) > 0 {
		if !now.Before(w.prove) {
			w.prove = now.Add(proofEvery)
			if r.proving.CompareAndSwap(false, true) {
				r.wg.Go(func() {
					defer r.proving.Store(false)
					r.lookForProof(s.unproven)
				})
			}
		}
		wait = soonest(wait, w.prove.Sub(now))
	}
	if !maps.Equal(w.used, s.used) {
		w.used = s.used
		r.noteAddrs(s.used)
	}
	r.host.Allow(s.reachable) // before callers can see them in a view
	// A node that leaves a cluster of one keeps its last view, because no member remains.
	old := r.published.Load()
	if len(s.members) > 0 && !slices.Equal(s.members, old.view.Members()) {
		view, err := r.build(s.members)
		switch {
		case err == nil:
			w.failed = ""
			r.changes.Add(1)
			r.published.Store(&published{view: view, at: now, changed: make(chan struct{})})
			close(old.changed)
			r.logger.Info("view changed", "members", view.Len(), "fingerprint", fmt.Sprintf("%016x", view.Fingerprint()))
			w.say(r, old.view, view)
		case w.failed != err.Error():
			w.failed = err.Error()
			r.logger.Error("the view cannot be rebuilt, the old one stays", "error", err)
		}
	}
	r.host.Confine(s.reachable)
	long, news, again := r.differ.look(r.View(), now)
	switch {
	case news && len(long) > 0:
		r.logger.Warn("members have had a different view for a long time", "members", strings.Join(long, " "), "for", differLong)
	case news:
		r.logger.Info("all members have the same view again")
	}
	wait = soonest(wait, again)
	return soonest(wait, s.expire)
}

// noteAddrs stores the members' addresses, "ip:port" each, for HasAddr.
func (r *Roster) noteAddrs(used map[string]uint64) {
	addrs := make(map[netip.Addr]bool, len(used))
	for a := range used {
		if ap, err := netip.ParseAddrPort(a); err == nil {
			addrs[ap.Addr().Unmap()] = true
		}
	}
	r.addrs.Store(&addrs)
}

// build builds the view that follows the current one.
func (r *Roster) build(members []ring.Member) (*ring.View, error) {
	if limit := r.table.limit; len(members) > limit {
		return nil, fmt.Errorf("%w: more than %d", ring.ErrTooManyMembers, limit)
	}
	return r.published.Load().view.Next(members)
}

// say logs which members have joined the view, and when most of the members are lost or back, as in a partition. The table
// says which members are gone, because it knows why.
func (w *watcher) say(r *Roster, old, now *ring.View) {
	for _, m := range now.Members() {
		if was, ok := old.Member(m.Name); (!ok || was.Incarnation != m.Incarnation) && m.Name != r.cfg.Self.Name {
			r.logger.Info("a member has joined", "member", m.Name, "address", m.Addr)
		}
	}
	lost := r.table.lostCount()
	was := w.mostLost
	switch w.mostLost = lost > now.Len(); {
	case w.mostLost && !was:
		r.logger.Error("most members are lost: this node is cut off, or they have crashed", "lost", lost, "members", now.Len())
	case !w.mostLost && was:
		r.logger.Info("most members are back", "lost", lost, "members", now.Len())
	}
}

// lookForProof asks of each lost member whether its process has ended.
func (r *Roster) lookForProof(starts []ring.Member) {
	var wg sync.WaitGroup
	places := make(chan struct{}, proofTogether)
	for _, m := range starts {
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			ctx, cancel := context.WithTimeout(r.ctx, proofTimeout)
			defer cancel()
			if r.host.HasEnded(ctx, m) {
				r.Proven(m)
			}
		})
	}
	wg.Wait()
}
