package journal

import (
	"context"
	"time"
)

// A new cache may have missed invalidations whose callers have not returned yet. Until it has had an exchange with every
// member of the view, it keeps nothing that others give it and counts as opening. The members that have not seen it
// do not tell it of invalidations, so it also counts those that have not had the same view.

// openingWait is how long, in ns, the first reads of a new cache wait for the exchanges.
const openingWait = int64(100 * time.Millisecond)

// IsNew reports whether an Invalidate from before the cache was opened may not have returned yet.
func (j *Journal) IsNew() bool { return j.isNew.Load() }

// IsOpening reports whether the cache is new and has not had an exchange with every member of the view, or has not seen a
// view yet.
func (j *Journal) IsOpening() bool { return j.pending.Load() }

// WaitOpen waits while the cache is opening, until ctx ends, but not for longer than openingWait after the cache was
// opened. It reports whether the cache is open.
func (j *Journal) WaitOpen(ctx context.Context) bool {
	if !j.IsOpening() {
		return true
	}
	j.mu.Lock()
	ready := j.ready
	j.mu.Unlock()
	if left := openingWait - (j.now() - j.opened); ready != nil && left > 0 {
		t := time.NewTimer(time.Duration(left))
		defer t.Stop()
		select {
		case <-ready:
		case <-t.C:
		case <-ctx.Done():
		}
	}
	return !j.IsOpening()
}

// IsAcquainted reports whether every member of the view is known to have seen this node, or the cache is no longer new.
func (j *Journal) IsAcquainted() bool { return !j.unseen.Load() }

// SameView notes that m has had the same view as this node, so it has seen this node.
func (j *Journal) SameView(m *Member) {
	if j.IsAcquainted() {
		return
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	m.acquainted = true
	j.notePending()
}

// Pending names the members with which a new cache has not had an exchange yet, and none once it is no longer new.
func (j *Journal) Pending() (names []string) {
	if !j.IsNew() {
		return nil
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	j.applyView()
	for name, m := range j.members {
		if !m.compared {
			names = append(names, name)
		}
	}
	return names
}

// notePending notes, for a new cache, whether there are members that it has had no exchange with, and members that may
// not have seen it. The caller holds mu.
func (j *Journal) notePending() {
	pending, unseen := false, false
	if j.isNew.Load() {
		for _, m := range j.members {
			pending = pending || !m.compared
			unseen = unseen || !m.acquainted && !m.empty && m.via == ""
		}
	}
	j.unseen.Store(unseen)
	switch {
	case pending && j.ready == nil:
		j.ready = make(chan struct{})
	case !pending && j.ready != nil:
		close(j.ready)
		j.ready = nil
	}
	j.pending.Store(pending)
}
