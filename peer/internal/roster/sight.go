package roster

import (
	"cmp"
	"log/slog"
	"net/netip"
	"slices"
	"time"

	"github.com/weircache/weir/ring"
)

// A sight is the evaluated state of the roster at one moment.
type sight struct {
	members        []ring.Member     // of the view, sorted by name
	reachable      map[string]uint64 // live names, leaving ones included, and their incarnation
	used           map[string]uint64 // addresses of the members, leaving ones included, and the latest incarnation at each
	unproven       []ring.Member     // lost members that may be alive
	superseded     bool              // a later incarnation of this node's name is in the view
	earlierStart   bool              // an earlier incarnation of this node's name may be alive
	share          Share             // the share that is due
	expire         time.Duration     // when to look again; 0: at the next signal
	flaps          []byte            // a message for some of the others; nil: none
	mustContradict bool              // this node has to tell the others that it is alive
	notices        []notice
}

// look evaluates the roster.
func (t *table) look(now time.Time) sight {
	var longest time.Duration
	if t.longest != nil {
		longest = t.longest()
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	s := sight{reachable: make(map[string]uint64, len(t.records)), expire: t.decideDoubted(now)}

	chosen := make(map[string]*record, len(t.records)) // the newest that is not leaving, by name
	used := make(map[string]uint64, len(t.records))    // addresses, and the latest incarnation at each
	counts := make(map[startID]bool)                   // the incarnations that count in Share
	var spare []*record                                // those that are not chosen and not known to be gone
	for gossipName, rec := range t.records {
		if rec.refused != "" {
			continue
		}
		used[rec.addr] = max(used[rec.addr], rec.id.Incarnation)
		s.reachable[rec.id.Name] = max(s.reachable[rec.id.Name], rec.id.Incarnation)
		if rec.departing() { // it owns nothing, but may have running loads
			spare = append(spare, rec)
			continue
		}
		newest := chosen[rec.id.Name]
		if newest == nil {
			chosen[rec.id.Name] = rec
			continue
		}
		if newest.id.Incarnation < rec.id.Incarnation {
			chosen[rec.id.Name] = rec
			newest, rec, gossipName = rec, newest, newest.id.GossipName()
		}
		spare = append(spare, rec)
		if !t.reportedDoubles[gossipName] {
			t.reportedDoubles[gossipName] = true
			level, text := slog.LevelWarn, "two live members have one name; the newest counts (after a crash this passes by itself)"
			if rec.id.Name == t.self.Name && rec.id.Incarnation == t.self.Incarnation {
				level, text = slog.LevelError, "another node has taken this node's name; this node owns nothing any more: names must be unique"
			}
			t.notices.say(level, text, "member", rec.id.Name, "newest", newest.addr, "older", rec.addr)
		}
	}
	rests, again := t.flaps.pickResting(chosen, now)
	s.expire, s.flaps = soonest(s.expire, again), t.flaps.message(now)
	for name, rec := range chosen {
		s.members = append(s.members, ring.Member{Name: name, Addr: rec.addr, Incarnation: rec.id.Incarnation, Zone: rec.id.Zone, Resting: rests[name]})
		s.reachable[name] = rec.id.Incarnation
	}
	slices.SortFunc(s.members, func(a, b ring.Member) int { return cmp.Compare(a.Name, b.Name) })
	if me := chosen[t.self.Name]; me != nil && me.id.Incarnation != t.self.Incarnation {
		s.superseded = true
	}

	// If a later start has taken the address of a lost one, the lost one has ended. An earlier start there is one that
	// gossip has not noticed the end of.
	for at, l := range t.losses.lost {
		if used[l.addr] > at.incarnation {
			t.prove(ring.Member{Name: at.name, Addr: l.addr, Incarnation: at.incarnation}, now)
		}
	}
	t.losses.peak = max(t.losses.peak, len(s.reachable))
	s.expire = soonest(s.expire, t.losses.forget(now, longest))
	t.losses.bound()
	s.unproven = t.losses.unproven()

	self := startID{t.self.Name, t.self.Incarnation}
	counts[self] = true
	for name, rec := range chosen {
		counts[startID{name, rec.id.Incarnation}] = true
	}
	for _, rec := range spare {
		// If two incarnations have one address, the earlier one has ended, even if gossip has not noticed yet.
		if newest := chosen[rec.id.Name]; newest == nil || newest.addr != rec.addr {
			counts[startID{rec.id.Name, rec.id.Incarnation}] = true
			s.earlierStart = s.earlierStart || rec.id.Name == self.name && rec.id.Incarnation < self.incarnation
		}
	}
	for at := range t.losses.lost {
		counts[at] = true
	}
	for name, e := range t.expected {
		if left := e.until.Sub(now); left <= 0 {
			delete(t.expected, name)
		} else {
			counts[startID{name, e.incarnation}] = true
			s.expire = soonest(s.expire, left)
		}
	}
	s.share = Share{Members: max(len(counts), t.minimum), Rank: rankOf(self, counts)}

	s.used = used
	s.mustContradict, t.mustContradict = t.mustContradict && !t.leaving, false
	s.notices = t.notices.take()
	return s
}

// rankOf returns how many of the incarnations started before own. A later incarnation ranks behind the earlier ones. So
// members that join while others are behind a partition do not take over ranks that those regard as their own.
func rankOf(own startID, all map[startID]bool) (rank int) {
	for s := range all {
		if s.incarnation < own.incarnation || s.incarnation == own.incarnation && s.name < own.name {
			rank++
		}
	}
	return rank
}

// A peerAddress is the gossip address of one incarnation of a member.
type peerAddress struct {
	gossipName string
	addr       netip.AddrPort
}

// others lists the live members other than this node, including those kept out of the view.
func (t *table) others() []peerAddress {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]peerAddress, 0, len(t.records))
	for name, rec := range t.records {
		if addr, err := netip.ParseAddrPort(rec.addr); err == nil && name != t.self.GossipName() {
			out = append(out, peerAddress{name, addr})
		}
	}
	slices.SortFunc(out, func(a, b peerAddress) int { return cmp.Compare(a.gossipName, b.gossipName) })
	return out
}

// soonest returns the shorter of two waits, where 0 means none.
func soonest(a, b time.Duration) time.Duration {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}
