package journal_test

import (
	"encoding/binary"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/journal"
)

// A solo is a journal with the incarnation 1 that has no members. It applies what the test gives it.
type solo struct {
	*journal.Journal
	t      *testing.T
	time   int64 // ns
	copies recorder
	told   int64 // calls of OnFlush
}

// A recorder is the copies of a node. It notes what was invalidated.
type recorder struct{ fenced []string }

func (r *recorder) FenceKey(key string, _ uint64, mark codec.Mark, version uint64) {
	r.fenced = append(r.fenced, fmt.Sprint("key ", key, " ", mark, " version ", version))
}
func (r *recorder) FenceTags(tags []string) { r.fenced = append(r.fenced, fmt.Sprint("tags ", tags)) }
func (r *recorder) FenceAll(own bool)       { r.fenced = append(r.fenced, fmt.Sprint("all, own ", own)) }

func newSolo(t *testing.T, life, slack time.Duration, limits journal.Limits) *solo {
	x := &solo{t: t}
	now := func() int64 { return x.time }
	x.Journal = journal.New(t.Context(), journal.Config{
		Self: "n0", Incarnation: 1, Copies: &x.copies, Fences: fence.New(now, int64(slack), 1), Now: now, Life: life, Limits: limits,
		OnFlush: func() { x.told++ },
	})
	return x
}

// ofKey is an invalidation of the key k.
func ofKey(incarnation, seq uint64) codec.Invalidation {
	return codec.Invalidation{Mark: codec.Mark{Incarnation: incarnation, Seq: seq}, Scope: codec.ScopeKeys, Names: [][]byte{[]byte("k")}}
}

// receive applies what a member has sent that says nothing about its age.
func (x *solo) receive(all ...codec.Invalidation) { x.Receive(&codec.News{Invalidations: all}) }

// A gone is a position of a cache that has gone.
type gone struct{ incarnation, seq uint64 }

// listing returns the list of positions that author has retired, and the invalidation behind it, as they cross the wire.
func listing(author, seq uint64, all ...gone) (list, retire codec.Invalidation) {
	var pairs []byte
	for _, p := range all {
		pairs = binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(pairs, p.incarnation), p.seq)
	}
	list = codec.Invalidation{Mark: codec.Mark{Incarnation: author, Seq: seq}, Scope: codec.ScopeTags, Version: math.MaxUint64, Names: [][]byte{pairs}}
	return list, codec.Invalidation{Mark: codec.Mark{Incarnation: author, Seq: seq + 1}, Scope: codec.ScopeAll, Version: math.MaxUint64}
}

// missing returns what a member lacks that has these positions, and whose copies live for life.
func (x *solo) missing(has map[uint64]uint64, life time.Duration) codec.News {
	ask := codec.News{Life: life}
	for incarnation, seq := range has {
		ask.Positions = append(ask.Positions, codec.Position{Incarnation: incarnation, Seq: seq})
	}
	if lacks, _ := x.Missing(&ask); lacks != nil {
		return *lacks
	}
	return codec.News{}
}

// marksOf prints the marks of n's invalidations, in order.
func marksOf(n codec.News) string {
	var marks []codec.Mark
	for _, v := range n.Invalidations {
		marks = append(marks, v.Mark)
	}
	return fmt.Sprint(marks)
}

// upTo reports whether x has applied all of an incarnation's invalidations up to seq, and not the next one.
func (x *solo) upTo(incarnation, seq uint64) bool {
	return x.HasApplied(codec.Mark{Incarnation: incarnation, Seq: seq}) && !x.HasApplied(codec.Mark{Incarnation: incarnation, Seq: seq + 1})
}

// A member that lacks what the log has dropped is told to flush while it may have copies from before. If the log
// dropped it because of its age, that is as long as the member's own copies live; otherwise it is at least as long as
// the log keeps anything.
func TestTellFlushesWhileCopiesLive(t *testing.T) {
	const began, keep, life, size = 10_000, 60, 600, 1000 // size: of a name, and more than an entry takes beside it
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
		for _, others := range []time.Duration{0, 2 * life} { // how long the copies of a third member live
			x := newSolo(t, time.Duration(keep-c.slack), time.Duration(c.slack), journal.Limits{Bytes: c.room * (size + 200)})
			x.time = began
			x.missing(nil, max(c.life, others)) // it is told how long copies live
			for seq := uint64(1); seq <= 3; seq++ {
				v := ofKey(7, seq)
				v.Names = [][]byte{[]byte(strings.Repeat("k", size))}
				x.receive(v)
			}
			if !c.overfull {
				x.time = began + keep + 1
				x.Tick()
			}
			if x.Sizes().Logged == 3 {
				t.Errorf("%s: the log has dropped nothing", c.name)
			}
			x.time = began + c.now
			news := x.missing(nil, c.life)
			if flush := len(news.Bases) == 1 && news.Bases[0].Flush; flush != c.flush || len(news.Bases) > 1 {
				t.Errorf("%s, of others %d: %+v, want flush %v", c.name, others, news.Bases, c.flush)
			}
		}
	}
}

// A base is sent together with its incarnation's position, or not at all. A base without a position has no idle time, so the other
// member would count it as new and make members flush that have rightly forgotten it. This holds before the sweep
// that forgets the position, and for numbers beyond a gap.
func TestBaseIsToldWithItsPosition(t *testing.T) {
	const unit = time.Microsecond // the wire's
	const life, slack = 60 * unit, 30 * unit
	const matters = life + unit + slack // for so long a position does, as another member's copies live longer
	for now, want := range map[time.Duration]int{matters: 1, matters + unit: 0} {
		for _, seq := range []uint64{1, 5} {
			x := newSolo(t, life, slack, journal.Limits{})
			x.missing(nil, life+unit)
			x.receive(ofKey(7, seq))
			x.time = int64(life + slack + 1)
			x.Tick() // it ages out of the log
			x.time = int64(now)
			var resp codec.Response
			var news codec.News
			x.ServePositions(new(codec.Request), &resp)
			if err := codec.DecodeNews(&news, resp.Value); err != nil {
				t.Fatal(err)
			}
			if len(news.Positions) != want || len(news.Bases) != want || len(news.Invalidations) != 0 {
				t.Errorf("number %d, %d after it was applied: %+v, want %d", seq, now, news, want)
			} else if want > 0 && news.Positions[0].Idle != now {
				t.Errorf("number %d: idle for %d, want %d", seq, news.Positions[0].Idle, now)
			}
		}
	}
}

// An invalidation is as old as the member that sends it says, and at most twice as old as what is remembered. If the
// member does not say, it is new.
func TestAgeOfWhatAnotherMemberTells(t *testing.T) {
	const slack = 30
	x := newSolo(t, 60, slack, journal.Limits{})
	x.StoredLife(90)
	x.time = 1000
	x.Receive(&codec.News{
		Positions:     []codec.Position{{Incarnation: 7, Idle: 50}, {Incarnation: 8, Idle: 1000}},
		Invalidations: []codec.Invalidation{ofKey(7, 1), ofKey(8, 1), ofKey(9, 1)},
	})
	x.StoredLife(1000) // no position is too old to be told
	idle := make(map[uint64]time.Duration)
	for _, p := range x.Positions().Positions {
		idle[p.Incarnation] = p.Idle
	}
	if len(idle) != 3 || idle[7] != 50 || idle[8] != 2*(90+slack) || idle[9] != 0 {
		t.Errorf("idle for %v", idle)
	}
}

// With an invalidation goes the idle time of its incarnation, if that is at least a second.
func TestIdleTimesAreTold(t *testing.T) {
	const life, slack, began = time.Minute, 30 * time.Second, int64(time.Hour)
	x := newSolo(t, life, slack, journal.Limits{})
	x.time = began
	x.Receive(&codec.News{
		Positions:     []codec.Position{{Incarnation: 8, Idle: time.Second - 1}},
		Invalidations: []codec.Invalidation{ofKey(7, 1), ofKey(8, 1), ofKey(8, 2)},
	})
	if news := x.missing(nil, 0); len(news.Invalidations) != 3 || len(news.Positions) != 0 {
		t.Errorf("told %+v, idle %+v", news.Invalidations, news.Positions)
	}
	x.time++
	want := codec.Position{Incarnation: 8, Seq: 2, Idle: time.Second}
	if news := x.missing(nil, 0); len(news.Invalidations) != 3 || len(news.Positions) != 1 || news.Positions[0] != want {
		t.Errorf("told %+v, idle %+v, want %+v", news.Invalidations, news.Positions, want)
	}
	x.time = began + int64(life+slack)
	if news := x.missing(nil, 0); len(news.Invalidations) != 1 || news.Invalidations[0].Mark.Incarnation != 7 {
		t.Errorf("told %+v, want the one that a copy may be older than", news.Invalidations)
	}
	x.time++
	if news := x.missing(nil, 0); len(news.Invalidations) != 0 {
		t.Errorf("nobody needs this any more: %+v", news.Invalidations)
	}
}

// What a list of retired positions does where it is applied, depending on what is known there.
func TestRetire(t *testing.T) {
	const self, author, other = 1, 2, 7
	applied := func(seqs ...uint64) func(x *solo) {
		return func(x *solo) {
			for _, seq := range seqs {
				x.receive(ofKey(other, seq))
			}
		}
	}
	retired := func(seq uint64) func(x *solo) {
		return func(x *solo) {
			for n := range seq {
				x.receive(ofKey(other, n+1))
			}
			x.receive(listing(author, 1, gone{other, seq}))
			if s := x.Sizes(); s.Retired != 1 || x.Counts().Flushed.Load() != 0 {
				x.t.Fatalf("%+v, and it was flushed %d times", s, x.Counts().Flushed.Load())
			}
		}
	}
	for name, c := range map[string]struct {
		before  func(x *solo)
		whole   bool
		top     uint64 // of the position afterwards; 0: retired
		invalid bool   // the list does not arrive
	}{
		"it has it":                {before: applied(1, 2, 3, 4, 5), whole: true},
		"it has more":              {before: applied(1, 2, 3, 4, 5, 6), whole: true, top: 6},
		"it has retired it":        {before: retired(5), whole: true},
		"it has retired less":      {before: retired(4)},
		"it has less":              {before: applied(1, 2, 3, 4)},
		"it has a gap":             {before: applied(5)},
		"it has a gap and more":    {before: applied(4, 6), top: 6},
		"it has never heard of it": {before: applied()},
		"it has not seen the list": {before: applied(1, 2, 3, 4, 5), top: 5, invalid: true},
	} {
		x := newSolo(t, 0, 0, journal.Limits{})
		c.before(x)
		list, retire := listing(author, 3, gone{other, 5}, gone{self, 9})
		if c.invalid {
			list.Mark.Seq = 2
		}
		x.receive(list, retire)
		if whole := x.Counts().Flushed.Load() == 0; whole != c.whole {
			t.Errorf("%s: whole %v", name, whole)
		}
		top, want := uint64(5), journal.Sizes{Tracks: 2, Retired: 1}
		if c.top != 0 {
			top, want = c.top, journal.Sizes{Tracks: 3}
		}
		if s := x.Sizes(); !x.upTo(other, top) || s.Tracks != want.Tracks || s.Retired != want.Retired {
			t.Errorf("%s: %+v, want %+v, and all up to %d", name, s, want, top)
		}
		for seq := range uint64(5) {
			if x.Receive(&codec.News{Invalidations: []codec.Invalidation{ofKey(other, seq+1)}}) > 0 {
				t.Errorf("%s: number %d is applied again", name, seq+1)
			}
		}
	}
}

// A member that has what retired an incarnation does not get that incarnation's invalidations over and over. A member
// that does not have it gets them, in their order.
func TestRetiredAreNotTold(t *testing.T) {
	x := newSolo(t, time.Hour, 0, journal.Limits{})
	x.receive(ofKey(7, 1), ofKey(7, 2), ofKey(7, 3))
	x.receive(listing(2, 1, gone{7, 3}))
	x.receive(listing(3, 1, gone{2, 2})) // the cache that listed has gone as well
	x.receive(ofKey(3, 3))
	if x.Counts().Flushed.Load() != 0 {
		t.Fatal("it lacks something")
	}
	for _, c := range []struct {
		has  map[uint64]uint64
		told string
	}{
		{map[uint64]uint64{3: 2}, "[{3 3}]"},
		{map[uint64]uint64{7: 3, 2: 2}, "[{3 1} {3 2} {3 3}]"},
		{map[uint64]uint64{2: 2}, "[{3 1} {3 2} {3 3}]"},
		{map[uint64]uint64{7: 2}, "[{7 3} {2 1} {2 2} {3 1} {3 2} {3 3}]"},
	} {
		n := x.missing(c.has, 0)
		if told := marksOf(n); told != c.told || len(n.Bases) != 0 {
			t.Errorf("a member that has %v is told %v and bases %v, want %s", c.has, told, n.Bases, c.told)
		}
	}
	x.receive(ofKey(7, 4)) // it is heard of again and continues where it was
	n := x.missing(map[uint64]uint64{3: 3}, 0)
	if !x.upTo(7, 4) || fmt.Sprint(n.Bases) != "[{7 3 true}]" || marksOf(n) != "[{7 4}]" {
		t.Errorf("all up to 4: %v, told %v and %v", x.upTo(7, 4), n.Bases, n.Invalidations)
	}
}

// The longest life in the cluster is the longest of all copies, stored here or on another member.
func TestLives(t *testing.T) {
	x := newSolo(t, 0, 0, journal.Limits{})
	for i, c := range []struct{ stored, heard, own, cluster time.Duration }{
		{5, 3, 5, 5}, {0, 9, 5, 9}, {7, 0, 7, 9}, {11, 10, 11, 11},
	} {
		x.StoredLife(int64(c.stored))
		x.missing(nil, c.heard)
		if own, cluster := x.Positions().Life, x.LongestLife(); own != c.own || cluster != c.cluster {
			t.Errorf("%d: own %d, the cluster's %d; want %d, %d", i, own, cluster, c.own, c.cluster)
		}
	}
}
