package roster

import "time"

// settleTime is how long a higher share must have been due before it is taken. It is longer than a change needs to reach
// all members, so the members that must take a lower share have done so before any takes a higher one. It says nothing
// about running loads: a member that leaves counts until its own have ended, and a cache on a joining member takes its
// share when the others' loads fit theirs (tier/internal/owner/share.go).
const settleTime = 2 * time.Second

// A Share is this node's part of something that is divided among the members.
type Share struct {
	Members int // to divide by
	Rank    int // of this node among them, from 0
}

// least returns a share that does not exceed either: the larger number of members and the later rank, so that the
// remainder of the division is not handed out twice.
func least(a, b Share) Share {
	return Share{Members: max(a.Members, b.Members), Rank: max(a.Rank, b.Rank)}
}

// settling decides which share counts: a lower one at once, a higher one after settleTime without a change.
type settling struct {
	applied Share
	target  Share
	since   time.Time // when target last changed
}

// observe takes in the share that is due now. It returns the share that counts and when to ask again, where 0 means at the
// next change.
func (s *settling) observe(target Share, now time.Time) (Share, time.Duration) {
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
