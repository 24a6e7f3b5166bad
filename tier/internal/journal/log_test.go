package journal

import (
	"fmt"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
)

func newTestLog(self uint64, life, slack int64, limit Limits) *log {
	l := new(log)
	l.init(self, life, slack, limit)
	return l
}

// A member that lacks what the log has dropped is told to flush while it may have copies from before. If the log
// dropped it because of its age, that is as long as the member's own copies live; otherwise it is at least as long as
// the log keeps anything.
func TestTellFlushesWhileCopiesLive(t *testing.T) {
	const keep, life = 60, 600
	for _, c := range []struct {
		name     string
		slack    int64
		room     int64 // entries of the log
		life     time.Duration
		now      int64
		flush    bool
		overfull bool
	}{
		{"no room, short lives", 0, 2, 0, keep, true, true},
		{"no room, short lives, later", 0, 2, 0, keep + 1, false, true},
		{"no room, long lives", 0, 2, life, life, true, true},
		{"no room, long lives, later", 0, 2, life, life + 1, false, true},
		{"age, short lives", 0, 9, 0, keep + 1, false, false},
		{"age, long lives", 0, 9, life, life, true, false},
		{"age, long lives, later", 0, 9, life, life + 1, false, false},
		{"age, long lives, with a margin", 30, 9, life, life + 30, true, false},
		{"age, long lives, after the margin", 30, 9, life, life + 31, false, false},
	} {
		l := newTestLog(1, keep-c.slack, c.slack, Limits{Bytes: c.room * loggedCost})
		l.lives.heard(max(c.life, time.Duration(keep-c.slack)))
		for seq := uint64(1); seq <= 3; seq++ {
			l.track(7).add(seq)
			l.add(logged{mark: codec.Mark{Incarnation: 7, Seq: seq}})
		}
		if !c.overfull {
			l.trim(keep + 1)
		}
		var news codec.News
		l.fill(deltaOf(&codec.News{Life: c.life}), &news, c.now)
		if flush := len(news.Bases) == 1 && news.Bases[0].Flush; flush != c.flush || len(news.Bases) > 1 {
			t.Errorf("%s: %+v, want flush %v", c.name, news.Bases, c.flush)
		}
	}
}

// A base is sent together with its incarnation's position, or not at all. A base without a position has no idle time, so the other
// member would count it as new and make members flush that have rightly forgotten it. This holds before the sweep
// that forgets the position, and for numbers beyond a gap.
func TestBaseIsToldWithItsPosition(t *testing.T) {
	const life, slack = 60, 30
	for now, want := range map[int64]int{life + slack: 1, life + slack + 1: 0} {
		for _, seq := range []uint64{1, 5} {
			l := newTestLog(1, life, slack, Limits{})
			l.lives.stored(life)
			l.track(7).add(seq)
			l.add(logged{mark: codec.Mark{Incarnation: 7, Seq: seq}})
			l.trim(life + slack + 1) // it ages out of the log
			var news codec.News
			news.Positions = l.positions(nil, now)
			l.fill(deltaOf(new(codec.News)), &news, now)
			if len(news.Positions) != want || len(news.Bases) != want || len(news.Invalidations) != 0 {
				t.Errorf("number %d, %d after it was applied: %+v, want %d", seq, now, news, want)
			} else if want > 0 && news.Positions[0].Idle != time.Duration(now) {
				t.Errorf("number %d: idle for %d, want %d", seq, news.Positions[0].Idle, now)
			}
		}
	}
}

// An invalidation is as old as the member that sends it says, and at most twice as old as what is remembered. If the
// member does not say, it is new.
func TestAgeOfWhatAnotherMemberTells(t *testing.T) {
	const slack = 30
	l := newTestLog(1, 60, slack, Limits{})
	l.lives.stored(90)
	told := &codec.News{
		Positions:     []codec.Position{{Incarnation: 7, Idle: 50}, {Incarnation: 8, Idle: 1000}},
		Invalidations: []codec.Invalidation{{Mark: codec.Mark{Incarnation: 7, Seq: 1}}},
	}
	when := l.appliedBy(told, 1000)
	if a, b, c := when.at(7), when.at(8), when.at(9); a != 950 || b != 1000-2*(90+slack) || c != 1000 {
		t.Errorf("applied at %d, %d and %d", a, b, c)
	}

	l.track(7).add(1)
	l.track(8).add(1)
	l.tracks[7].last, l.tracks[8].last = 1000, 1000-int64(leastIdle)
	for seq, incarnation := range []uint64{7, 8, 8} {
		l.add(logged{mark: codec.Mark{Incarnation: incarnation, Seq: uint64(seq) + 1}, at: 1000})
	}
	var news codec.News
	l.fill(deltaOf(&codec.News{}), &news, 1000)
	if want := (codec.Position{Incarnation: 8, Seq: 1, Idle: leastIdle}); len(news.Invalidations) != 3 || len(news.Positions) != 1 || news.Positions[0] != want {
		t.Errorf("told %+v, idle %+v", news.Invalidations, news.Positions)
	}
	news = codec.News{}
	if l.fill(deltaOf(&codec.News{}), &news, 1001+l.remember()); len(news.Invalidations) != 0 {
		t.Errorf("nobody needs this any more: %+v", news.Invalidations)
	}
}

// What a list of retired positions does where it is applied, depending on what is known there.
func TestRetire(t *testing.T) {
	const self, author, gone = 1, 2, 7
	list := func(l *log, seq uint64) {
		l.list(&logged{mark: codec.Mark{Incarnation: author, Seq: seq}, names: retiredNames([]position{{gone, 5}, {self, 9}})})
	}
	for name, c := range map[string]struct {
		before  func(l *log)
		whole   bool
		top     uint64 // of the position afterwards; 0: retired
		invalid bool   // the list does not arrive
	}{
		"it has it":                {before: func(l *log) { l.track(gone).addAll(5) }, whole: true},
		"it has more":              {before: func(l *log) { l.track(gone).addAll(6) }, whole: true, top: 6},
		"it has retired it":        {before: func(l *log) { l.retired[gone] = retiredTrack{seq: 5} }, whole: true},
		"it has retired less":      {before: func(l *log) { l.retired[gone] = retiredTrack{seq: 4} }},
		"it has less":              {before: func(l *log) { l.track(gone).addAll(4) }},
		"it has a gap":             {before: func(l *log) { l.track(gone).add(5) }},
		"it has a gap and more":    {before: func(l *log) { l.track(gone).add(4); l.track(gone).add(6) }, top: 6},
		"it has never heard of it": {before: func(*log) {}},
		"it has not seen the list": {before: func(l *log) { l.track(gone).addAll(5) }, top: 5, invalid: true},
	} {
		l := newTestLog(self, 0, 0, Limits{})
		c.before(l)
		if !c.invalid {
			list(l, 3)
		} else {
			list(l, 2)
		}
		if whole := l.retire(codec.Mark{Incarnation: author, Seq: 4}, 0); whole != c.whole {
			t.Errorf("%s: whole %v", name, whole)
		}
		t1 := l.tracks[gone]
		if top := uint64(0); t1 != nil {
			if top = t1.top; top != c.top {
				t.Errorf("%s: all up to %d", name, top)
			}
		} else if c.top != 0 || l.retired[gone].seq != 5 {
			t.Errorf("%s: retired %v", name, l.retired[gone])
		}
		if l.has(gone, 5) == c.invalid && name != "it has not seen the list" || len(l.listed) != 0 {
			t.Errorf("%s: the number is not known, or %d lists are left", name, len(l.listed))
		}
	}
}

// A member that has what retired an incarnation does not get that incarnation's invalidations over and over. A member
// that does not have it gets them, in their order.
func TestRetiredAreNotTold(t *testing.T) {
	l := newTestLog(1, int64(time.Hour), 0, Limits{})
	apply := func(incarnation, seq uint64) {
		l.track(incarnation).add(seq)
		l.add(logged{mark: codec.Mark{Incarnation: incarnation, Seq: seq}, scope: codec.ScopeKeys, names: []string{"k"}})
	}
	list := func(author, seq uint64, gone ...position) {
		l.list(&logged{mark: codec.Mark{Incarnation: author, Seq: seq}, names: retiredNames(gone)})
		apply(author, seq)
		if !l.retire(codec.Mark{Incarnation: author, Seq: seq + 1}, 0) {
			t.Fatal("it lacks something")
		}
		apply(author, seq+1)
	}
	for seq := range uint64(3) {
		apply(7, 1+seq)
	}
	list(2, 1, position{7, 3})
	list(3, 1, position{2, 2}) // the cache that listed has gone as well
	apply(3, 3)
	defer func() { // it is heard of again and continues where it was
		apply(7, 4)
		var n codec.News
		l.fill(&delta{has: map[uint64]uint64{3: 3}, base: make(map[uint64]uint64)}, &n, 0)
		if l.tracks[7].top != 4 || fmt.Sprint(n.Bases) != "[{7 3 true}]" || len(n.Invalidations) != 1 || n.Invalidations[0].Mark != (codec.Mark{Incarnation: 7, Seq: 4}) {
			t.Errorf("all up to %d, told %v and %v", l.tracks[7].top, n.Bases, n.Invalidations)
		}
	}()
	for _, c := range []struct {
		has  map[uint64]uint64
		told string
	}{
		{map[uint64]uint64{3: 2}, "[{3 3}]"},
		{map[uint64]uint64{7: 3, 2: 2}, "[{3 1} {3 2} {3 3}]"},
		{map[uint64]uint64{2: 2}, "[{3 1} {3 2} {3 3}]"},
		{map[uint64]uint64{7: 2}, "[{7 3} {2 1} {2 2} {3 1} {3 2} {3 3}]"},
	} {
		var n codec.News
		l.fill(&delta{has: c.has, base: make(map[uint64]uint64)}, &n, 0)
		var told []codec.Mark
		for _, v := range n.Invalidations {
			told = append(told, v.Mark)
		}
		if fmt.Sprint(told) != c.told || len(n.Bases) != 0 {
			t.Errorf("a member that has %v is told %v and bases %v, want %s", c.has, told, n.Bases, c.told)
		}
	}
}

// The longest life in the cluster is the longest of all copies, stored here or on another member.
func TestLives(t *testing.T) {
	var l lives
	for i, c := range []struct{ stored, heard, own, cluster int64 }{
		{5, 3, 5, 5}, {0, 9, 5, 9}, {7, 0, 7, 9}, {11, 10, 11, 11},
	} {
		l.stored(c.stored)
		l.heard(time.Duration(c.heard))
		if own, cluster := l.own.Load(), l.cluster.Load(); own != c.own || cluster != c.cluster {
			t.Errorf("%d: own %d, the cluster's %d; want %d, %d", i, own, cluster, c.own, c.cluster)
		}
	}
}
