package tier

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
)

const someHash = 5 // keys given this hash share a shard and a slot

func markOf(n uint64) codec.Mark { return codec.Mark{Incarnation: 3, Seq: n} }

func keepAll(bool) {}

func doNothing() {}

// at is a member's cache that has applied everything up to the clock's value.
func at(f *fences, clock uint64) *Watermark {
	k := &Watermark{incarnation: 7}
	k.clocks[fenceSlot(someHash)/slotsPerShard] = clock
	return k
}

func newTestFences() (*fences, *int64) {
	now := new(int64)
	return newFences(func() int64 { return *now }, int64(30*time.Second), 0), now
}

// A table that is full forgets early and stays bounded; what it forgot still counts as fenced.
func TestFencesFull(t *testing.T) {
	f, now := newTestFences()
	*now = 1
	f.apply("first", someHash, markOf(1), 0, keepAll)
	before := f.stamp(someHash) - 1
	for i := range uint64(20 * fencesPerShard) {
		f.apply(fmt.Sprint("k", i), someHash, markOf(i+2), 0, keepAll)
		if n := f.size(); n > fencesPerShard {
			t.Fatalf("%d fences after %d", n, i)
		}
	}
	if f.commit("first", someHash, claim{stamp: before, began: *now}, doNothing) {
		t.Error("a load from before a forgotten fence was stored")
	}
	if _, valid := f.near("first", fenceSlot(someHash), before); valid {
		t.Error("a near copy from before a forgotten fence was valid")
	}
	clock := f.stamp(someHash)
	if d := f.debt("first", someHash, clock, at(f, before)); d.duty != dutyExchange {
		t.Error("who may lack a forgotten fence is asked without an exchange")
	}
	f.apply("first", someHash, markOf(1<<40), 0, keepAll)
	if d := f.debt("first", someHash, clock+1, at(f, before)); d.duty != dutyExchange {
		t.Errorf("debt = %v: the new fence hides one that was forgotten", d)
	}
	if d := f.debt("first", someHash, clock+1, at(f, clock)); d != (debt{mark: markOf(1 << 40)}) {
		t.Errorf("debt = %v, want the new fence only", d)
	}
	if !f.commit("first", someHash, claim{stamp: f.stamp(someHash), began: *now}, doNothing) {
		t.Error("what begins now was not stored")
	}
}

func TestFencesForget(t *testing.T) {
	f, now := newTestFences()
	f.apply("k", someHash, markOf(1), 0, keepAll)
	*now = f.retention
	f.sweep()
	if f.size() != 1 {
		t.Error("forgotten too early")
	}
	*now++
	f.sweep()
	if f.size() != 0 {
		t.Error("not forgotten")
	}
	if f.commit("k", someHash, claim{began: *now}, doNothing) {
		t.Error("a load from before the fence was stored")
	}
	if f.commit("k", someHash, claim{stamp: 1}, doNothing) {
		t.Error("a load older than the retention was stored")
	}
	if !f.commit("k", someHash, claim{stamp: 1, began: *now}, doNothing) {
		t.Error("a load that began after the fence was not stored")
	}
}

// Marks that were applied do nothing when they come again, in whatever order.
func TestFencesKnowTheirMarks(t *testing.T) {
	f, _ := newTestFences()
	for _, c := range []struct {
		n    uint64
		want bool
	}{{1, true}, {1, false}, {2, true}, {1, false}, {2, false}, {3, true}, {1, false}, {4, true}, {2, false}} {
		if _, applied := f.apply("k", someHash, markOf(c.n), 0, keepAll); applied != c.want {
			t.Errorf("mark %d: applied = %v", c.n, applied)
		}
	}
}

// of is an invalidation that another incarnation has started.
func of(incarnation uint64) codec.Mark { return codec.Mark{Incarnation: incarnation, Seq: 1} }

// One mark that a member lacks goes along with the request; more than one need an exchange. Of one incarnation the
// last mark stands for those before it.
func TestFencesDebt(t *testing.T) {
	f, _ := newTestFences()
	want := func(clock uint64, m codec.Mark, d duty) {
		t.Helper()
		if got := f.debt("k", someHash, f.stamp(someHash), at(f, clock)); got != (debt{m, d}) {
			t.Fatalf("debt = %v, want %v, %v", got, m, d)
		}
	}
	none := codec.Mark{}
	want(0, none, dutyNone)
	f.apply("k", someHash, of(1), 0, keepAll)
	want(0, of(1), dutyNone)
	want(1, none, dutyNone)
	f.apply("k", someHash, of(2), 0, keepAll)
	want(0, none, dutyExchange)
	want(1, of(2), dutyNone)
	f.told("k", someHash, of(1), 7)
	want(0, of(2), dutyNone)
	f.told("k", someHash, of(2), 7)
	want(0, none, dutyNone)
	f.apply("k", someHash, of(3), 0, keepAll)
	f.apply("k", someHash, of(4), 0, keepAll) // there is no room for 1
	want(0, none, dutyExchange)
	want(3, of(4), dutyNone)
	f.apply("k", someHash, codec.Mark{Incarnation: 4, Seq: 9}, 0, keepAll)
	want(3, codec.Mark{Incarnation: 4, Seq: 9}, dutyNone)
	if d := f.debt("k", someHash, 3, at(f, 3)); d != (debt{}) {
		t.Error("an exchange after the read's beginning is not enough")
	}
	f.apply("other", someHash, of(5), 0, keepAll)
	want(5, none, dutyNone)
	f.wipe(false)
	want(6, none, dutyExchange)
	want(7, none, dutyNone)
	if f.owned("k", someHash, 6, false) || !f.owned("k", someHash, 7, false) || f.commit("k", someHash, claim{stamp: 6}, doNothing) {
		t.Error("after an invalidation of everything")
	}
}

// No position is proof that a member has applied an unlogged mark: it is owed until the member is told, whatever is
// forgotten of the fences, or until the invalidation itself arrives.
func TestFencesDebtOfUnloggedMarks(t *testing.T) {
	f, now := newTestFences()
	want := func(m codec.Mark, d duty) {
		t.Helper()
		clock := f.stamp(someHash)
		for _, stamp := range []uint64{1, clock} {
			if got := f.debt("k", someHash, stamp, at(f, clock)); got != (debt{m, d}) {
				t.Fatalf("debt = %v, want %v, %v", got, m, d)
			}
		}
	}
	f.note("k", someHash, of(1), 0, keepAll)
	want(of(1), dutyNone)
	f.wipe(false)
	want(of(1), dutyNone)
	for i := range uint64(fencesPerShard / 2) {
		f.apply(fmt.Sprint("another shard's", i), 1<<63, markOf(i+1), 0, keepAll)
	}
	for i := range uint64(2 * fencesPerShard) {
		f.apply(fmt.Sprint("other", i), someHash, markOf(i+1), 0, keepAll)
	}
	want(of(1), dutyNone)
	if _, n := f.note("k", someHash, of(1), 0, keepAll); n != noteKnown {
		t.Error("the mark is taken for a new one")
	}
	f.note("k", someHash, of(2), 0, keepAll)
	want(of(2), dutyAskAgain)
	f.told("k", someHash, of(2), 7)
	want(of(1), dutyNone)
	f.note("k", someHash, codec.Mark{Incarnation: 1, Seq: 5}, 0, keepAll) // stands for the first
	want(codec.Mark{Incarnation: 1, Seq: 5}, dutyNone)
	f.apply("k", someHash, codec.Mark{Incarnation: 1, Seq: 3}, 0, keepAll) // does not stand for the fifth
	want(codec.Mark{Incarnation: 1, Seq: 5}, dutyNone)
	f.apply("k", someHash, codec.Mark{Incarnation: 1, Seq: 5}, 0, keepAll)
	want(codec.Mark{}, dutyNone)
	f.note("k", someHash, of(3), 0, keepAll)
	f.note("k", someHash, of(4), 0, keepAll)
	if _, n := f.note("k", someHash, of(5), 0, keepAll); n != noteNoRoom {
		t.Error("a fourth incarnation's mark has room")
	}
	f.self = 9
	f.apply("k", someHash, of(9), 0, keepAll) // stands for all
	want(codec.Mark{}, dutyNone)
	f.note("k", someHash, of(3), 0, keepAll)
	f.wipe(true)
	want(codec.Mark{}, dutyNone)
	f.note("k", someHash, of(6), 0, keepAll)
	*now += f.retention
	f.sweep()
	want(of(6), dutyNone)
	*now++
	f.sweep()
	want(codec.Mark{}, dutyNone)
}

// Unlogged marks are bounded: a key for which there is no room gets an invalidation of this node's own.
func TestFencesFullOfUnloggedMarks(t *testing.T) {
	f, _ := newTestFences()
	for i := range unloggedPerShard {
		if _, n := f.note(fmt.Sprint("k", i), someHash, of(1), 0, keepAll); n != noteApplied {
			t.Fatalf("no room for the mark of key %d", i)
		}
	}
	if _, n := f.note("one more", someHash, of(1), 0, keepAll); n != noteNoRoom {
		t.Error("there is room for more keys than unloggedPerShard")
	}
	if _, n := f.note("k0", someHash, of(2), 0, keepAll); n != noteApplied {
		t.Error("there is no room for another mark of a key that has one")
	}
}

// A copy that comes unasked is not taken while its giver may owe anything: it was told of no mark.
func TestPushedCopyOwesNothing(t *testing.T) {
	f, _ := newTestFences()
	commit := func(k *Watermark) bool {
		return f.commit("k", someHash, claim{stamp: k.stampOf(someHash), handed: true, pushed: k}, doNothing)
	}
	here := func() *Watermark { k := at(f, f.stamp(someHash)); k.incarnation = 0; return k }
	before := here()
	for i := range uint64(fenceMarks + 2) {
		f.apply("k", someHash, of(i+1), 0, keepAll)
	}
	if commit(before) {
		t.Error("taken from a giver that may lack an invalidation")
	}
	if !commit(here()) {
		t.Error("not taken from a giver that has applied all")
	}
	f.note("k", someHash, of(20), 0, keepAll)
	if commit(here()) {
		t.Error("taken while a mark is unlogged, of which no position tells")
	}
	f.apply("k", someHash, of(20), 0, keepAll)
	if !commit(here()) {
		t.Error("not taken after the invalidation itself has arrived")
	}
}

// The versions of forgotten fences are bounded, and are forgotten in time.
func TestVersionBook(t *testing.T) {
	f, now := newTestFences()
	for i := range uint64(20 * versionsPerShard) {
		*now = int64(i)
		f.apply(fmt.Sprint("k", i), someHash, markOf(i+1), 5, keepAll)
	}
	s := f.shard(fenceSlot(someHash))
	last := fmt.Sprint("k", 20*versionsPerShard-fencesPerShard-1) // not among those that have fences
	if n := len(s.versions.m); n > versionsPerShard || n < versionsPerShard/2 {
		t.Errorf("%d versions", n)
	}
	if _, fenced := s.m[last]; fenced || !f.behind(last, someHash, 4) || f.behind(last, someHash, 5) || f.behind("k0", someHash, 4) {
		t.Error("not the newest versions are known")
	}
	f.apply("twice", someHash, markOf(1<<20), 5, keepAll)
	f.wipe(true)
	f.apply("twice", someHash, markOf(1<<20+1), 3, keepAll)
	f.wipe(true)
	if !f.behind("twice", someHash, 4) {
		t.Error("a lower version that was told later stands for a higher one")
	}
	*now += f.retention + 1
	f.sweep()
	if len(s.versions.m) != 0 || f.behind(last, someHash, 4) {
		t.Error("versions are remembered for ever")
	}
}

// When an invalidation arrives of which a request had brought the mark before, the copies that other members gave since
// then are invalid: their givers may not have known of it. What this node has loaded since stays.
func TestCopiesFallWithTheInvalidationItself(t *testing.T) {
	f, _ := newTestFences()
	if _, applied := f.note("k", someHash, markOf(1), 0, keepAll); applied != noteApplied {
		t.Fatal("the mark is not noted")
	}
	since := f.stamp(someHash)
	var dropped []bool // also once the fence is forgotten, what it covered is not there
	f.apply("k", someHash, markOf(1), 0, func(loaded bool) { dropped = append(dropped, loaded) })
	if !slices.Equal(dropped, []bool{false}) {
		t.Errorf("entries dropped, also those loaded here: %v; want only those that were given", dropped)
	}
	if _, valid := f.near("k", fenceSlot(someHash), since); valid {
		t.Error("a near copy from before the invalidation's arrival is valid")
	}
	if f.owned("k", someHash, since, true) || f.commit("k", someHash, claim{stamp: since, handed: true}, doNothing) {
		t.Error("another member's copy from before the invalidation's arrival is valid")
	}
	if !f.covers("k", someHash, since) {
		t.Error("a request from before the invalidation's arrival is not overtaken")
	}
	if !f.owned("k", someHash, since, false) || !f.commit("k", someHash, claim{stamp: since}, doNothing) {
		t.Error("what this node has loaded since the mark came is invalid")
	}
}
