package journal

import (
	"time"
	"unsafe"

	"github.com/weircache/weir/codec"
)

// positions appends what this member has applied: a position, with its idle time, for every incarnation that fill can have
// a base or an invalidation of. The position of an incarnation of which only numbers beyond a gap are applied is 0.
func (l *log) positions(dst []codec.Position, now int64) []codec.Position {
	for incarnation, t := range l.tracks {
		if t.highest() > 0 && len(dst) < codec.MaxPositions && l.matters(incarnation, t, now) {
			dst = append(dst, codec.Position{Incarnation: incarnation, Seq: t.top, Idle: time.Duration(now - t.last)})
		}
	}
	return dst
}

// appliedTimes are the times at which another member applied the invalidations that it sends.
type appliedTimes struct {
	now, most int64                    // when its message arrived, and the cap on ages, ns
	idle      map[uint64]time.Duration // by incarnation
}

// appliedBy reads these times from n, which arrived at now.
func (l *log) appliedBy(n *codec.News, now int64) appliedTimes {
	a := appliedTimes{now: now, most: 2 * l.remember()} // nobody needs an invalidation even half as old
	if len(n.Bases)+len(n.Invalidations) > 0 {          // else nobody asks for a time: the usual exchange, with all positions
		a.idle = make(map[uint64]time.Duration, len(n.Positions))
		for _, p := range n.Positions {
			a.idle[p.Incarnation] = p.Idle
		}
	}
	return a
}

// at returns when an incarnation's last invalidation was applied. The result is late by as much as n took to arrive.
func (a appliedTimes) at(incarnation uint64) int64 {
	return a.now - min(int64(a.idle[incarnation]), a.most)
}

// leastIdle is the shortest idle time that is sent.
const leastIdle = time.Second

// addIdle adds a position, for its idle time, for each incarnation in n's bases and invalidations that has been idle
// for leastIdle or longer. It adds nothing if n has positions already.
func (l *log) addIdle(n *codec.News, now int64) {
	if len(n.Positions) > 0 {
		return
	}
	seen := make(map[uint64]bool)
	position := func(incarnation uint64) {
		t := l.tracks[incarnation]
		if t == nil || seen[incarnation] || len(n.Positions) == codec.MaxPositions {
			return
		}
		seen[incarnation] = true
		if idle := time.Duration(now - t.last); idle >= leastIdle {
			n.Positions = append(n.Positions, codec.Position{Incarnation: incarnation, Seq: t.top, Idle: idle})
		}
	}
	for i := range n.Bases {
		position(n.Bases[i].Incarnation)
	}
	for i := range n.Invalidations {
		position(n.Invalidations[i].Mark.Incarnation)
	}
}

// A delta is what another member lacks, while this cache sends it.
type delta struct {
	has  map[uint64]uint64 // what the member has, by incarnation
	life int64             // how long its copies live, ns
	base map[uint64]uint64 // the bases that it has been sent
	next uint64            // the number of the log's entry to look at next
}

func deltaOf(n *codec.News) *delta {
	d := &delta{has: make(map[uint64]uint64, len(n.Positions)), life: int64(n.Life), base: make(map[uint64]uint64)}
	for _, p := range n.Positions {
		d.has[p.Incarnation] = p.Seq
	}
	return d
}

// fill fills n with as much of what d's member lacks as one frame takes. more means that there is more to send.
func (l *log) fill(d *delta, n *codec.News, now int64) (more bool) {
	n.Bases, n.Invalidations = n.Bases[:0], n.Invalidations[:0]
	defer l.addIdle(n, now)
	lacks := false
	for incarnation, t := range l.tracks {
		if !l.matters(incarnation, t, now) {
			continue // its idle time is not sent with the positions: the other member would count it as new
		}
		has := d.has[incarnation]
		lacks = lacks || t.highest() > has
		gone := max(t.cut, t.aged)
		if gone <= max(has, d.base[incarnation]) {
			continue
		}
		life := d.life + l.slack // for as long as it may have copies from before
		flush := t.cut > has && now-t.cutAt <= max(l.keep, life) || t.aged > has && now-t.agedAt <= life
		n.Bases = append(n.Bases, codec.Base{Incarnation: incarnation, Seq: gone, Flush: flush})
		d.base[incarnation] = gone
	}
	if !lacks {
		return false
	}
	f, oldest := frame{news: n}, now-l.remember()
	d.next = max(d.next, l.dropped)
	for ; d.next < l.dropped+uint64(len(l.entries)); d.next++ {
		e := &l.entries[d.next-l.dropped]
		if e.at < oldest || e.mark.Seq <= d.has[e.mark.Incarnation] || e.mark.Seq <= d.base[e.mark.Incarnation] || l.settledBy(d, e.mark) {
			continue
		}
		if !f.add(e) {
			return true
		}
	}
	return false
}

// A frame collects as many invalidations as one message carries.
type frame struct {
	news        *codec.News
	names, size int
}

const _ = uint(codec.MaxKeysPerFrame - frameBytes/loggedCost - 1) // does not compile if that many invalidations could fit

// add appends e and shares its names. It returns false if e does not fit; the first one always fits. Each invalidation
// counts for loggedCost bytes at least, so fewer than codec.MaxKeysPerFrame fit.
func (f *frame) add(e *logged) bool {
	names, size := f.names+len(e.names), f.size+int(e.cost())-nameCost*len(e.names)
	if len(f.news.Invalidations) > 0 && (size > frameBytes || names > codec.MaxKeysPerFrame) {
		return false
	}
	f.names, f.size = names, size
	f.news.Invalidations = append(f.news.Invalidations, e.wire())
	return true
}

// wire returns e as it crosses the wire; it shares e's names.
func (e *logged) wire() codec.Invalidation {
	v := codec.Invalidation{Mark: e.mark, Scope: e.scope, Version: e.version, Names: make([][]byte, len(e.names))}
	for i, name := range e.names {
		v.Names[i] = unsafe.Slice(unsafe.StringData(name), len(name)) // nobody changes it
	}
	return v
}
