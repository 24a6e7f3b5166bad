package journal_test

import (
	"strings"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier/internal/journal"
)

// A frame carries as many invalidations as its limits allow, and always at least one. What it does not carry follows.
func TestFrames(t *testing.T) {
	const frameBytes, beside = 256 << 10, 112 // beside: of an invalidation, beside the bytes of its names
	of := func(count, names, size int) (all []codec.Invalidation) {
		for i := range count {
			v := codec.Invalidation{Mark: codec.Mark{Incarnation: 7, Seq: uint64(i + 1)}, Scope: codec.ScopeKeys}
			if names == 0 {
				v.Scope = codec.ScopeAll
			}
			for range names {
				v.Names = append(v.Names, []byte(strings.Repeat("k", size)))
			}
			all = append(all, v)
		}
		return all
	}
	for name, c := range map[string]struct {
		all    []codec.Invalidation
		frames []int // the numbers of invalidations
	}{
		"nothing":         {nil, []int{0}},
		"bytes":           {of(257, 1, 1024-beside), []int{256, 1}},
		"bytes, one more": {of(257, 1, 1025-beside), []int{255, 2}},
		"names":           {of(3, codec.MaxKeysPerFrame/2, 1), []int{2, 1}},
		"names, one more": {of(3, codec.MaxKeysPerFrame/2+1, 1), []int{1, 1, 1}},
		"no names":        {of(frameBytes/beside+1, 0, 0), []int{frameBytes / beside, 1}},
		"large ones":      {of(3, 256, 1024), []int{1, 1, 1}},
	} {
		x := newSolo(t, 0, 0, journal.Limits{})
		x.receive(c.all...)
		has := uint64(0)
		for i, want := range c.frames {
			var resp codec.Response
			var news codec.News
			x.ServePositions(&codec.Request{News: &codec.News{Positions: []codec.Position{{Incarnation: 7, Seq: has}}}}, &resp)
			if err := codec.DecodeNews(&news, resp.Value); err != nil {
				t.Fatal(err)
			}
			has += uint64(len(news.Invalidations))
			if more := i < len(c.frames)-1; len(news.Invalidations) != want || news.More != more {
				t.Errorf("%s: frame %d has %d, and more follow %v; want %d, %v", name, i, len(news.Invalidations), news.More, want, more)
			}
		}
	}
}

// A message has no more positions than the wire allows.
func TestPositionsAreBounded(t *testing.T) {
	x := newSolo(t, time.Hour, 0, journal.Limits{Tracks: 2 * codec.MaxPositions})
	if n := len(x.Positions().Positions); n != 0 {
		t.Errorf("%d positions of a cache that has applied nothing", n)
	}
	for i := range uint64(codec.MaxPositions + 1) {
		x.receive(ofKey(7+i, 1))
	}
	if n := len(x.Positions().Positions); n != codec.MaxPositions {
		t.Errorf("%d positions", n)
	}
}

// The log keeps an invalidation as long as a copy may be used that it covers, with a margin, and as long as there is room.
func TestLogIsBounded(t *testing.T) {
	const began, life, slack, cost = 1000, 60, 30, 112 + 16 + 1
	x := newSolo(t, life, slack, journal.Limits{Bytes: 2 * cost})
	x.time = began
	for i, want := range []int{1, 2, 2} {
		if x.receive(ofKey(7, uint64(i+1))); x.Sizes().Logged != want {
			t.Errorf("after %d invalidations the log has %d, want %d", i+1, x.Sizes().Logged, want)
		}
	}
	for now, want := range []int{life + slack: 2, life + slack + 1: 0} {
		x.time = began + int64(now)
		if x.Tick(); want > 0 && x.Sizes().Logged != want || now > life+slack && x.Sizes().Logged != 0 {
			t.Errorf("after %d the log has %d", now, x.Sizes().Logged)
		}
	}
}

// What another member counts as aged was started before the lives of the copies here began, at the latest.
func TestAgeOfBases(t *testing.T) {
	const now, life, slack = 1000, 100, 30
	for _, c := range []struct{ idle, flush time.Duration }{{0, life}, {50, life}, {200, 200}} {
		x := newSolo(t, life, slack, journal.Limits{})
		x.time = now
		x.Receive(&codec.News{Positions: []codec.Position{{Incarnation: 7, Seq: 5, Idle: c.idle}}, Bases: []codec.Base{{Incarnation: 7, Seq: 5}}})
		x.missing(nil, time.Hour) // it is told how long copies live, so that the position matters
		for of, want := range map[time.Duration]bool{c.flush - slack: true, c.flush - slack - 1: false} {
			if n := x.missing(nil, of); len(n.Bases) != 1 || n.Bases[0].Flush != want {
				t.Errorf("idle for %d: a member whose copies live for %d is told %+v, want flush %v", c.idle, of, n.Bases, want)
			}
		}
	}
}

// Whether a member must flush depends only on what it lacks, not on what it has.
func TestFlushDependsOnWhatIsLacking(t *testing.T) {
	const began, keep, room = 1000, 60, 1000
	large := func(seq uint64) codec.Invalidation {
		v := ofKey(7, seq)
		v.Names = [][]byte{[]byte(strings.Repeat("k", room))}
		return v
	}
	idle := func(x *solo, idle time.Duration, all ...codec.Invalidation) {
		x.Receive(&codec.News{Positions: []codec.Position{{Incarnation: 7, Idle: idle}}, Invalidations: all})
	}
	// Number 1 was cut right now, number 2 has aged and matters no more.
	x := newSolo(t, keep, 0, journal.Limits{Bytes: room})
	x.time = began
	x.missing(nil, time.Hour)
	idle(x, 0, large(1))
	idle(x, keep+1, ofKey(7, 2))
	x.Tick()
	for has, want := range []bool{true, false} {
		if n := x.missing(map[uint64]uint64{7: uint64(has)}, 0); len(n.Bases) != 1 || n.Bases[0].Seq != 2 || n.Bases[0].Flush != want {
			t.Errorf("a member that has number %d is told %+v, want flush %v", has, n.Bases, want)
		}
	}
	// Number 1 has aged and still matters, number 2 was cut and matters no more.
	const life = keep + 40
	x = newSolo(t, keep, 0, journal.Limits{Bytes: room})
	x.time = began
	x.missing(nil, time.Hour)
	x.receive(ofKey(7, 1))
	x.time = began + keep + 1
	x.Tick()
	idle(x, life+1, large(2))
	for has, want := range []bool{true, false} {
		if n := x.missing(map[uint64]uint64{7: uint64(has)}, life); len(n.Bases) != 1 || n.Bases[0].Seq != 2 || n.Bases[0].Flush != want {
			t.Errorf("a member that has number %d is told %+v, want flush %v", has, n.Bases, want)
		}
	}
}

// A position is as old as the last invalidation of its incarnation, which may be older than the clock of this cache.
func TestPositionsAge(t *testing.T) {
	x := newSolo(t, time.Hour, 0, journal.Limits{})
	x.time = 5
	for i, c := range []struct{ idle, want time.Duration }{{50, 50}, {70, 50}, {20, 20}, {50, 20}} {
		x.Receive(&codec.News{Positions: []codec.Position{{Incarnation: 7, Idle: c.idle}}, Invalidations: []codec.Invalidation{ofKey(7, uint64(i+1))}})
		if p := x.Positions().Positions; len(p) != 1 || p[0].Idle != c.want {
			t.Errorf("after number %d: %+v, want idle for %d", i+1, p, c.want)
		}
	}
}
