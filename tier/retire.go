package tier

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"
	"time"

	"github.com/weircache/weir/codec"
)

// Positions of caches that have gone
//
// Each start of a cache that invalidates something leaves a position on every member, and a position is what shows that a member lacks something. It matters as long as
// a copy from before may live, which outlasts many restarts. So positions of caches that have gone are retired: one member lists them in two invalidations of its own, n and
// n+1, which travel, are logged and replayed like any other:
//
//	n    the list, as one of tags, which no value has: (incarnation, number) pairs
//	n+1  as one of everything: a member that has applied all that the list says forgets the positions; any other treats everything that it
//	     has as invalidated, and forgets them too
//
// So what shows that a member lacks something of a retired cache is that it lacks n+1, and no member flushes that lacks nothing. A member that was away gets
// from the others' logs what they still have, in their order, before n+1. An earlier version takes n for one of tags and n+1 for one of everything, which is
// safe.
//
//	state of a position              event                                          next
//	kept                             n+1 says s, and all up to s, no more, applied   retired at s
//	kept                             n+1 says s, and more than s is applied          kept: the rest is not listed
//	kept, unknown or retired below   n+1 says s, and less than that is applied       everything is invalidated; retired at s, or kept with all up to s
//	retired at s                     something up to s is told again                 the same: it is applied already
//	retired at s                     something beyond s comes                        kept, all up to s applied, and those gone from the log
//	any                              n+1 comes, and n did not come right before it   everything is invalidated; the positions stay
//	any                              no member has a copy from before it any more    unknown
//
// Why that is right: what the list says was started before n. A member that has it has nothing to do; one that has not invalidates, after n was
// started, everything that it has. Either way it holds no copy from before what is listed, and if it is told that again, the number is known.
//
// The first member of the view lists: what has not changed for retireAfter, by when all that can be reached have it, and what is no
// present member's. One of those that was listed, as a member behind a partition may be, is heard of again and continues at its number. If there are
// more positions than there is room for, the oldest are listed after spreadAfter; at twice as many, which means that the first member does not list,
// each member lists its oldest ones at once.
const (
	// retireVersion is the version of both invalidations: no origin has it, and an earlier member does not look at it.
	retireVersion = math.MaxUint64
	// retireAfter is for how long, in ns, a position must not have changed.
	retireAfter = int64(time.Minute)
	// spreadAfter is how long, in ns, a position takes to reach the members, with some to spare: they exchange every exchangeEvery.
	spreadAfter = 5 * exchangeEvery
	// retirePart is which part of the room for positions those that can be retired must take.
	retirePart = 8
	// maxRetired bounds the retired positions that are remembered: of more the oldest are forgotten, and applied again if they are told again.
	maxRetired = 1 << 14
	// maxGenerations bounds how many incarnations that have retired one another are looked at.
	maxGenerations = 32
	// retiredPair is how many bytes one takes in a list, and pairsPerName how many one name holds.
	retiredPair  = 16
	pairsPerName = codec.MaxTag / retiredPair
)

// position is how far one incarnation's invalidations go.
type position struct{ incarnation, seq uint64 }

// retiredTrack is what is left of a track.
type retiredTrack struct {
	seq  uint64
	last int64      // when the last one was applied, ns on the cache's clock
	by   codec.Mark // what retired it: a member that has applied that lacks nothing up to seq
}

// listed is a list that has come, and waits for what comes right behind it.
type listed struct {
	seq   uint64
	names []string
}

// isList and isRetire tell the two invalidations of a list from others.
func (e *logged) isList() bool   { return e.scope == codec.ScopeTags && e.version == retireVersion }
func (e *logged) isRetire() bool { return e.scope == codec.ScopeAll && e.version == retireVersion }

// retiresSince reports whether one of this cache's own numbers in s retires positions, and began at or after exchanged. A member
// without an exchange since then may lack what the list says although the logs have it: it would flush for nothing. The caller holds mu.
func (l *logbook) retiresSince(s span, exchanged int64) bool {
	for i := l.after(s.first - 1); i < len(l.entries) && l.entries[i].own <= s.last; i++ {
		if e := &l.entries[i]; e.mark.Incarnation == l.self && e.isRetire() && e.at >= exchanged {
			return true
		}
	}
	return false
}

// retiredNames returns a list as it is logged.
func retiredNames(list []position) (names []string) {
	for some := range slices.Chunk(list, pairsPerName) {
		b := make([]byte, 0, len(some)*retiredPair)
		for _, p := range some {
			b = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, p.incarnation), p.seq)
		}
		names = append(names, string(b))
	}
	return names
}

// list keeps a list for what comes behind it. The caller holds mu.
func (l *logbook) list(e *logged) {
	if l.listed == nil {
		l.listed = make(map[uint64]listed)
	}
	if len(l.listed) < maxBeyond || l.listed[e.mark.Incarnation].seq != 0 {
		l.listed[e.mark.Incarnation] = listed{e.mark.Seq, e.names}
	}
}

// has reports whether an invalidation is applied here. The caller holds mu.
func (l *logbook) has(incarnation, seq uint64) bool {
	t := l.tracks[incarnation]
	return t != nil && t.has(seq) || seq <= l.retired[incarnation].seq
}

// hasAll reports whether all of an incarnation's up to seq are applied here. The caller holds mu.
func (l *logbook) hasAll(incarnation, seq uint64) bool {
	t := l.tracks[incarnation]
	return t != nil && t.top >= seq || seq <= l.retired[incarnation].seq
}

// upTo is the number up to which all of an incarnation's are applied here. The caller holds mu.
func (l *logbook) upTo(incarnation uint64) uint64 {
	if t := l.tracks[incarnation]; t != nil {
		return t.top
	}
	return l.retired[incarnation].seq
}

// retire forgets the positions of the list before m. It reports whether all that they stand for is applied here; otherwise, and if there is no list,
// everything here is to be taken for invalidated. The caller holds mu.
func (l *logbook) retire(m codec.Mark, now int64) (whole bool) {
	list := l.listed[m.Incarnation]
	delete(l.listed, m.Incarnation)
	if list.seq == 0 || list.seq+1 != m.Seq {
		return false
	}
	whole = true
	for _, name := range list.names {
		for b := []byte(name); len(b) >= retiredPair; b = b[retiredPair:] {
			p := position{binary.BigEndian.Uint64(b), binary.BigEndian.Uint64(b[8:])}
			if p.incarnation == l.self || p.incarnation == m.Incarnation {
				continue
			}
			whole = whole && l.hasAll(p.incarnation, p.seq)
			l.drop(p, m, now)
		}
	}
	return whole
}

// settledBy reports whether g's member is known to have an invalidation of a retired incarnation, since it has what retired that. What has retired may itself be
// of an incarnation that was retired later. The caller holds mu.
func (l *logbook) settledBy(g *lag, m codec.Mark) bool {
	for range maxGenerations {
		r, retired := l.retired[m.Incarnation]
		if !retired || m.Seq > r.seq {
			return false
		}
		if g.has[r.by.Incarnation] >= r.by.Seq {
			return true
		}
		m = r.by
	}
	return false
}

// drop retires one position. The caller holds mu.
func (l *logbook) drop(p position, by codec.Mark, now int64) {
	t := l.tracks[p.incarnation]
	if t != nil && t.most() > p.seq {
		if p.seq > t.top {
			t.aged, t.agedAt = max(t.aged, p.seq), now
			t.reach(p.seq)
		}
		return
	}
	last := now
	if t != nil {
		last = t.last
	}
	delete(l.tracks, p.incarnation)
	if len(l.retired) >= maxRetired {
		l.forgetRetired()
	}
	if p.seq > l.retired[p.incarnation].seq {
		l.retired[p.incarnation] = retiredTrack{p.seq, last, by}
	}
}

// forgetRetired forgets the older half of the retired positions. The caller holds mu.
func (l *logbook) forgetRetired() {
	var last []int64
	for _, r := range l.retired {
		last = append(last, r.last)
	}
	slices.Sort(last)
	for incarnation, r := range l.retired {
		if r.last <= last[len(last)/2] {
			delete(l.retired, incarnation)
		}
	}
}

// departed returns the positions of others than the present incarnations that have not changed since then, the oldest first; gaps: also those beyond a gap.
// The caller holds mu.
func (l *logbook) departed(present map[uint64]bool, since int64, gaps bool) (list []position) {
	for incarnation, t := range l.tracks {
		if !present[incarnation] && t.last <= since && (gaps || len(t.beyond) == 0) && t.most() > 0 {
			list = append(list, position{incarnation, t.most()})
		}
	}
	slices.SortFunc(list, func(a, b position) int {
		return cmp.Or(cmp.Compare(l.tracks[a.incarnation].last, l.tracks[b.incarnation].last), cmp.Compare(a.incarnation, b.incarnation))
	})
	return list
}

// present returns the incarnations of the caches of this node and of the members as far as they are known, and whether all are. The caller holds log.mu.
func (c *Cache[V]) present() (incarnations map[uint64]bool, all bool) {
	incarnations, all = map[uint64]bool{c.log.self: true}, true
	for _, m := range c.log.mates {
		if k := m.known.Load(); k != nil {
			incarnations[k.Incarnation] = true
		} else {
			all = all && m.hollow
		}
	}
	return incarnations, all
}

// lists reports whether this node is the one that retires positions. The caller holds log.mu.
func (c *Cache[V]) lists() bool {
	v := c.log.view
	return v != nil && v.Len() > 0 && v.Members()[0].Name == c.self
}

// retire retires the positions of caches that have gone, if there are many. The caller holds log.mu.
func (c *Cache[V]) retire(now int64) {
	l := c.log
	room, n := l.limit.tracks, len(l.tracks)
	if n <= room/retirePart || !c.lists() {
		return
	}
	present, all := c.present()
	if list := l.departed(present, now-retireAfter, false); all && len(list) > room/retirePart {
		c.beginRetiring(list)
	} else if n > room {
		list = l.departed(present, now-spreadAfter, true)
		c.beginRetiring(list[:min(len(list), n-room*3/4)])
	}
}

// bound sees to it that the positions do not become too many, whatever other members do. The caller holds log.mu.
func (c *Cache[V]) bound(now int64) {
	l := c.log
	room, n := l.limit.tracks, len(l.tracks)
	if n <= 2*room {
		return
	}
	present, _ := c.present()
	list := l.departed(present, now, true)
	c.beginRetiring(list[:min(len(list), n-room)])
}

// beginRetiring lists positions for all. The caller holds log.mu.
func (c *Cache[V]) beginRetiring(list []position) {
	if len(list) == 0 {
		return
	}
	c.begin(codec.ScopeTags, retiredNames(list), retireVersion)
	c.begin(codec.ScopeAll, nil, retireVersion)
}
