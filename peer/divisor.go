package peer

import "time"

// settleTime is how long a higher share must have been due before it is taken: longer
// than a change needs to reach all members, so that those who must take a lower share
// have done so before anyone takes a higher one. It says nothing of loads that run: a member that leaves counts until its
// own have ended, and a cache on a member that joins takes its share when the others' fit theirs (tier/share.go).
const settleTime = 2 * time.Second

// A share is this node's part of something that is divided among the members.
type share struct {
	members int // to divide by
	rank    int // of this node among them, from 0
}

// least is a share that is no higher than either: more members, and a later rank, so
// that the remainder of the division does not come on top.
func least(a, b share) share {
	return share{members: max(a.members, b.members), rank: max(a.rank, b.rank)}
}

// settling decides which share counts: a lower one at once, a higher one after
// settleTime without a change.
type settling struct {
	applied share
	target  share
	since   time.Time // when target became what it is
}

// observe takes in the share that is due now and returns the one that counts, and how
// long until it is to be asked again; 0: not before the next change.
func (s *settling) observe(target share, now time.Time) (share, time.Duration) {
	if target != s.target {
		s.target, s.since = target, now
	}
	s.applied = least(s.applied, target)
	if s.applied == target {
		return target, 0
	}
	if left := settleTime - now.Sub(s.since); left > 0 {
		return s.applied, left
	}
	s.applied = target
	return target, 0
}
