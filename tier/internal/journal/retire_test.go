package journal_test

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/journal"
)

// flushes reports whether x treated everything as invalidated while f ran.
func (x *solo) flushes(f func()) bool {
	x.t.Helper()
	before, told := x.Counts().Flushed.Load(), x.told
	x.copies.fenced = nil
	f()
	yes := x.Counts().Flushed.Load() > before
	if slices.Contains(x.copies.fenced, "all, own false") != yes || (x.told > told) != yes {
		x.t.Errorf("flushed %v, and fenced %q, with %d calls of OnFlush", yes, x.copies.fenced, x.told-told)
	}
	return yes
}

// Lists wait for the invalidation right behind them, up to a bound. A cache whose list waits can replace it.
func TestListsWait(t *testing.T) {
	const most, first = 256, 100
	x := newSolo(t, time.Hour, 0, journal.Limits{})
	for author := uint64(first); author <= first+most; author++ {
		list, _ := listing(author, 1)
		x.receive(list)
	}
	list, _ := listing(first, 2)
	x.receive(list)
	for author, seq := range map[uint64]uint64{first: 3, first + most - 1: 2, first + most: 2} {
		_, retire := listing(author, seq-1)
		if got, want := x.flushes(func() { x.receive(retire) }), author == first+most; got != want {
			t.Errorf("the list of %d: flushes %v, want %v", author, got, want)
		}
	}
}

// A list still waits after a Tick, whatever its author has started before. One that came after the invalidation behind
// it does not wait, or such lists would take the room of others.
func TestListsThatAreLate(t *testing.T) {
	x := newSolo(t, time.Hour, 0, journal.Limits{})
	for author := uint64(100); author < 100+256; author++ {
		list, retire := listing(author, 1)
		x.receive(retire, list)
	}
	x.Tick()
	list, retire := listing(2, 5)
	x.receive(ofKey(2, 4), list)
	x.Tick()
	if x.flushes(func() { x.receive(retire) }) {
		t.Error("the list was forgotten before the invalidation behind it came")
	}
}

// A list that says less than what is applied here, up to the same gap, changes nothing.
func TestRetireBelowAGap(t *testing.T) {
	x := newSolo(t, time.Hour, 0, journal.Limits{})
	x.receive(ofKey(7, 1), ofKey(7, 2), ofKey(7, 4))
	list, retire := listing(2, 1, gone{7, 2})
	if x.flushes(func() { x.receive(list, retire) }) || x.Sizes().Retired != 0 || !x.upTo(7, 2) {
		t.Errorf("%+v", x.Sizes())
	}
	if n := x.missing(nil, time.Hour); len(n.Bases) != 0 || marksOf(n) != "[{7 1} {7 2} {7 4} {2 1} {2 2}]" {
		t.Errorf("a new member is told %+v and %s", n.Bases, marksOf(n))
	}
}

// A retired position is remembered as long as a copy from before it may live. That another list has it as well does not
// extend that, nor does a list that says less.
func TestRetiredAreForgotten(t *testing.T) {
	const began, life, slack = 1000, 60, 30
	x := newSolo(t, life, slack, journal.Limits{})
	x.time = began
	list, retire := listing(2, 1, gone{7, 5})
	x.receive(list, retire)
	x.time++
	for i, seq := range []uint64{5, 4} {
		list, retire = listing(uint64(3+i), 1, gone{7, seq})
		if x.flushes(func() { x.receive(list, retire) }) {
			t.Errorf("flushed for number %d", seq)
		}
	}
	x.time = began + life + slack
	if x.Tick(); x.Sizes().Retired != 1 {
		t.Error("forgotten too early")
	}
	x.time++
	if x.Tick(); x.Sizes().Retired != 0 {
		t.Error("not forgotten")
	}
}

// The retired positions are bounded. Beyond the bound the older half is forgotten.
func TestRetiredAreBounded(t *testing.T) {
	const most, older = 1 << 14, 1<<13 + 1
	x := newSolo(t, time.Hour, 0, journal.Limits{})
	retire := func(author, first, count uint64) {
		var all []gone
		for i := range count {
			all = append(all, gone{first + i, 1})
		}
		x.receive(listing(author, 1, all...))
	}
	x.time = 1
	retire(2, 1<<20, older)
	x.time = 2
	retire(3, 1<<20+older, most-older)
	if s := x.Sizes(); s.Retired != most {
		t.Fatalf("%d positions are remembered", s.Retired)
	}
	retire(4, 1<<20+most, 1)
	if s := x.Sizes(); s.Retired != most-older+1 || x.upTo(1<<20, 1) || !x.upTo(1<<20+older, 1) || !x.upTo(1<<20+most, 1) {
		t.Errorf("%d positions are remembered, the oldest %v", s.Retired, x.upTo(1<<20, 1))
	}
}

// newFirst returns a journal that sees only n0, the first member of its view. It has room for 16 positions.
func newFirst(t *testing.T, name string) *solo {
	x := &solo{t: t, time: int64(time.Hour)}
	now := func() int64 { return x.time }
	x.Journal = journal.New(t.Context(), journal.Config{
		Self: name, Incarnation: 1, Peers: &stuck{view: viewOf(t, "n0")}, Copies: &x.copies, Fences: fence.New(now, int64(time.Minute), 1), Now: now,
		Spawn: func(func()) bool { return false }, Life: time.Hour, NewFor: time.Minute, Limits: journal.Limits{Tracks: 16},
	})
	x.ViewChanged()
	return x
}

// When the first member of the view lists positions of caches that have gone, and which. Each position but the journal's
// own is of such a cache.
func TestWhenPositionsAreRetired(t *testing.T) {
	const minute, spread = time.Minute, 10 * time.Second
	for name, c := range map[string]struct {
		member string
		tracks int // 2 ns apart
		gap    int // this many of them have a gap; they are the oldest
		after  time.Duration
		tick   bool
		want   int // retired
	}{
		"few":                                {"n0", 2, 0, 2 * minute, true, 0},
		"more than an eighth":                {"n0", 3, 0, 2 * minute, true, 3},
		"not the first member":               {"n1", 3, 0, 2 * minute, true, 0},
		"too soon":                           {"n0", 3, 0, minute - 1, true, 0},
		"three just now":                     {"n0", 5, 0, minute - 4, true, 3},
		"a gap":                              {"n0", 3, 1, 2 * minute, true, 0},
		"gaps beside more than an eighth":    {"n0", 5, 2, 2 * minute, true, 3},
		"as many as there is room for, soon": {"n0", 15, 0, spread, true, 0},
		"more than there is room for":        {"n0", 16, 0, spread, true, 17 - 12},
		"more, with gaps":                    {"n0", 16, 16, spread, true, 17 - 12},
		"more, and too soon":                 {"n0", 16, 0, spread - 31, true, 0},
		"more, and two of them old enough":   {"n0", 16, 0, spread - 28, true, 2},
		"twice as many":                      {"n0", 31, 0, 0, false, 0},
		"one more than twice as many":        {"n0", 32, 0, 0, false, 33 - 16},
		"one more, and not the first member": {"n1", 32, 0, 0, false, 33 - 16},
		"one more, all with a gap":           {"n1", 32, 32, 0, false, 33 - 16},
	} {
		x := newFirst(t, c.member)
		for i := range c.tracks {
			if x.time += 2; i < c.gap {
				x.receive(ofKey(100+uint64(i), 2))
			} else {
				x.receive(ofKey(100+uint64(i), 1))
			}
		}
		if x.time += int64(c.after); c.tick {
			x.Tick()
		}
		s, own := x.Sizes(), uint64(0)
		if c.want > 0 {
			own = 2
		}
		if s.Retired != c.want || s.Tracks != c.tracks+1-c.want || s.Own != own {
			t.Errorf("%s: %+v, want %d retired", name, s, c.want)
		}
		for _, p := range x.Positions().Positions {
			if i := int(p.Incarnation) - 100; c.gap == 0 && i >= 0 && i < c.want {
				t.Errorf("%s: position %d is not among the oldest %d", name, i, c.want)
			}
		}
	}
}

// The two invalidations of a list cross the wire as ordinary ones: the names of the list are tags that no value can have.
func TestListsFitTheWire(t *testing.T) {
	x := newFirst(t, "n0")
	for i := range uint64(40) {
		x.receive(ofKey(100+i, 1))
		x.time += int64(time.Second)
	}
	x.time += int64(time.Minute)
	x.Tick()
	lists := 0
	for _, v := range x.missing(map[uint64]uint64{}, 0).Invalidations {
		if v.Mark.Incarnation != 1 {
			continue
		}
		pairs := 0
		for _, name := range v.Names {
			if pairs += len(name) / 16; len(name) > codec.MaxTag {
				t.Errorf("a name of %d bytes", len(name))
			}
		}
		if lists++; v.Version != math.MaxUint64 || (v.Scope == codec.ScopeTags) != (pairs > 0) {
			t.Errorf("%+v", v)
		}
	}
	if s := x.Sizes(); lists != int(s.Own) || lists < 4 || s.Retired != 40 {
		t.Errorf("%d are told, %+v", lists, s)
	}
}

// A new cache that has missed a list has next to nothing: all of it is invalidated, and that does not count as a flush.
func TestRetireWhileOpening(t *testing.T) {
	var copies recorder
	now := func() int64 { return 1 }
	j := journal.New(t.Context(), journal.Config{
		Self: "n0", Incarnation: 1, Peers: &stuck{view: viewOf(t, "n0", "n1")}, Copies: &copies, Fences: fence.New(now, int64(time.Minute), 1), Now: now,
		OnFlush: func() { t.Error("OnFlush is called") },
	})
	_, retire := listing(2, 1)
	j.Receive(&codec.News{Invalidations: []codec.Invalidation{retire}})
	if !slices.Equal(copies.fenced, []string{"all, own false"}) || j.Counts().Flushed.Load() != 0 {
		t.Errorf("fenced %q, flushed %d times", copies.fenced, j.Counts().Flushed.Load())
	}
}
