package journal

import (
	"cmp"
	"encoding/binary"
	"math"
	"slices"
	"time"

	"github.com/weircache/weir/codec"
)

// # Positions of caches that have gone
//
// Each start of a cache that invalidates something leaves a position on every member. A position shows that a member
// lacks something. It matters as long as a copy from before may live, which outlasts many restarts. So positions of
// caches that have gone are retired: one member lists them in two invalidations of its own, n and n+1, which travel,
// are logged and are replayed like any other:
//
//	n    the list, encoded as an invalidation of tags that no value has: (incarnation, number) pairs
//	n+1  encoded as an invalidation of everything: a member that has applied all that the list says forgets the positions; any
//	     other treats everything that it has as invalidated, and forgets them as well
//
// So a member that lacks n+1 lacks something of a retired cache, and a member that lacks nothing does not flush. A
// member that was away gets from the others' logs what they still have, in their order, before n+1. A member of an
// earlier version treats n as an invalidation of tags and n+1 as an invalidation of everything, which is safe.
//
//	state of a position              event                                          next
//	kept                             n+1 says s, and all up to s, no more, applied   retired at s
//	kept                             n+1 says s, and more than s is applied          kept: the rest is not listed
//	kept, unknown or retired below   n+1 says s, and less than that is applied       everything is invalidated; retired at s, or kept with all up to s
//	retired at s                     something up to s is received again             the same: it is applied already
//	retired at s                     something beyond s comes                        kept, all up to s applied, and those gone from the log
//	any                              n+1 comes, and n did not come right before it   everything is invalidated; the positions stay
//	any                              no member has a copy from before it any more    unknown
//
// Why that is right: what the list says was started before n. A member that has applied it has nothing to do. Any
// other member invalidates everything that it has, after n was started. Either way the member holds no copy from
// before the listed invalidations, and if it receives one of them again, it knows the number.
//
// The first member of the view makes the list. It lists positions that have not changed for retireAfter, by when all
// reachable members have them, and that belong to no present member. If a listed cache is heard of again, such as a
// member that was behind a partition, it continues at its number. If there are more positions than there is room for,
// the first member lists the oldest after spreadAfter. Twice as many positions mean that the first member does not
// list, and then each member lists its own oldest at once.
const (
	// retireVersion is the version of both invalidations. No origin uses it, and a member of an earlier version
	// ignores it.
	retireVersion = math.MaxUint64
	// retireAfter is how long, in ns, a position must not have changed before it is retired.
	retireAfter = int64(time.Minute)
	// spreadAfter is how long, in ns, a position takes to reach the members, with a margin: they exchange every
	// exchangeEvery.
	spreadAfter = 5 * exchangeEvery
	// retirePart sets when to retire: once the positions that can be retired take more than one part in retirePart of
	// the room.
	retirePart = 8
	// maxRetired bounds the retired positions that are remembered. Beyond it the oldest are forgotten, and applied
	// again if they are received again.
	maxRetired = 1 << 14
	// maxGenerations bounds how far settledBy follows a chain of incarnations that have retired one another.
	maxGenerations = 32
	// retiredPair is the size of a pair in a list in bytes, and pairsPerName the number of pairs in one name.
	retiredPair  = 16
	pairsPerName = codec.MaxTag / retiredPair
)

// position is the highest number of one incarnation's invalidations.
type position struct{ incarnation, seq uint64 }

// retiredTrack is what remains of a retired track.
type retiredTrack struct {
	seq  uint64
	last int64      // when its last invalidation was applied, ns on the cache's clock
	by   codec.Mark // the invalidation that retired it: a member that has applied that lacks nothing up to seq
}

// listed is a list that was received and waits for the invalidation right behind it.
type listed struct {
	seq   uint64
	names []string
}

// isList and isRetire recognize the two invalidations of a list.
func (e *logged) isList() bool   { return e.scope == codec.ScopeTags && e.version == retireVersion }
func (e *logged) isRetire() bool { return e.scope == codec.ScopeAll && e.version == retireVersion }

// retiresSince reports whether one of this cache's own numbers in s retires positions and began at or after
// exchanged. A member without an exchange since then may lack what the list says although the logs have it, and would
// flush for nothing.
func (l *log) retiresSince(s span, exchanged int64) bool {
	for i := l.firstOwnAfter(s.first - 1); i < len(l.entries) && l.entries[i].own <= s.last; i++ {
		if e := &l.entries[i]; e.mark.Incarnation == l.self && e.isRetire() && e.at >= exchanged {
			return true
		}
	}
	return false
}

// retiredNames encodes a list as the names of an invalidation of tags.
func retiredNames(list []position) (names []string) {
	for some := range slices.Chunk(list, pairsPerName) {
		var b []byte
		for _, p := range some {
			b = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(b, p.incarnation), p.seq)
		}
		names = append(names, string(b))
	}
	return names
}

// list keeps a list for the invalidation right behind it.
func (l *log) list(e *logged) {
	if l.listed == nil {
		l.listed = make(map[uint64]listed)
	}
	if len(l.listed) < maxBeyond || l.listed[e.mark.Incarnation].seq != 0 {
		l.listed[e.mark.Incarnation] = listed{e.mark.Seq, e.names}
	}
}

// has reports whether an invalidation was applied here.
func (l *log) has(incarnation, seq uint64) bool {
	t := l.tracks[incarnation]
	return t != nil && t.has(seq) || seq <= l.retired[incarnation].seq
}

// hasAll reports whether all of an incarnation's invalidations up to seq were applied here.
func (l *log) hasAll(incarnation, seq uint64) bool {
	t := l.tracks[incarnation]
	return t != nil && t.top >= seq || seq <= l.retired[incarnation].seq
}

// upTo returns the number up to which all of an incarnation's invalidations were applied here.
func (l *log) upTo(incarnation uint64) uint64 {
	if t := l.tracks[incarnation]; t != nil {
		return t.top
	}
	return l.retired[incarnation].seq
}

// retire forgets the positions in the list before m. It reports whether all that they stand for was applied here. If
// not, or without such a list, the caller must treat everything here as invalidated.
func (l *log) retire(m codec.Mark, now int64) (whole bool) {
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

// settledBy reports whether g's member is known to have an invalidation of a retired incarnation, because it has
// applied the invalidation that retired it. That one may belong to an incarnation that was itself retired later.
func (l *log) settledBy(d *delta, m codec.Mark) bool {
	for range maxGenerations {
		r, retired := l.retired[m.Incarnation]
		if !retired || m.Seq > r.seq {
			return false
		}
		if d.has[r.by.Incarnation] >= r.by.Seq {
			return true
		}
		m = r.by
	}
	return false
}

// drop retires one position.
func (l *log) drop(p position, by codec.Mark, now int64) {
	t := l.tracks[p.incarnation]
	if t != nil && t.highest() > p.seq {
		if p.seq > t.top {
			t.aged, t.agedAt = max(t.aged, p.seq), now
			t.addAll(p.seq)
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

// forgetRetired forgets the older half of the retired positions.
func (l *log) forgetRetired() {
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

// retirable returns the positions that have not changed since then and that do not belong to the present incarnations,
// oldest first. With gaps it includes positions with numbers beyond a gap.
func (l *log) retirable(present map[uint64]bool, since int64, gaps bool) (list []position) {
	for incarnation, t := range l.tracks {
		if !present[incarnation] && t.last <= since && (gaps || len(t.beyond) == 0) {
			list = append(list, position{incarnation, t.highest()})
		}
	}
	slices.SortFunc(list, func(a, b position) int {
		return cmp.Or(cmp.Compare(l.tracks[a.incarnation].last, l.tracks[b.incarnation].last), cmp.Compare(a.incarnation, b.incarnation))
	})
	return list
}

// present returns the incarnations of this node's cache and of the members' caches, as far as they are known, and
// whether all of them are known. The caller holds mu.
func (j *Journal) present() (incarnations map[uint64]bool, all bool) {
	incarnations, all = map[uint64]bool{j.log.self: true}, true
	for _, m := range j.members {
		if w := m.watermark.Load(); w != nil {
			incarnations[w.Incarnation] = true
		} else {
			all = all && m.empty
		}
	}
	return incarnations, all
}

// retire retires the positions of caches that have gone, if there are too many and this node is the first member of
// the view. The caller holds mu and has applied a view.
func (j *Journal) retire(now int64) {
	room, n := j.log.limit.Tracks, len(j.log.tracks)
	if n <= room/retirePart || j.view.Members()[0].Name != j.self { // each Tick comes here, and so few are never retired
		return
	}
	present, all := j.present()
	if list := j.log.retirable(present, now-retireAfter, false); all && len(list) > room/retirePart {
		j.beginRetiring(list)
	} else if n > room {
		list = j.log.retirable(present, now-spreadAfter, true)
		j.beginRetiring(list[:min(len(list), n-room*3/4)])
	}
}

// boundTracks limits the number of positions, whatever other members do. The caller holds mu.
func (j *Journal) boundTracks(now int64) {
	room, n := j.log.limit.Tracks, len(j.log.tracks)
	if n <= 2*room {
		return
	}
	present, _ := j.present()
	list := j.log.retirable(present, now, true)
	j.beginRetiring(list[:min(len(list), n-room)])
}

// beginRetiring starts the two invalidations that retire the positions in list. The caller holds mu.
func (j *Journal) beginRetiring(list []position) {
	if len(list) == 0 {
		return
	}
	j.begin(codec.ScopeTags, retiredNames(list), retireVersion)
	j.begin(codec.ScopeAll, nil, retireVersion)
}
