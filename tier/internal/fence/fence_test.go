package fence

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

// at returns the watermark of a member's cache that has applied everything up to clock.
func at(f *Fences, clock uint64) *Watermark {
	k := &Watermark{Incarnation: 7}
	k.clocks[Slot(someHash)/SlotsPerShard] = clock
	return k
}

func newTestFences() (*Fences, *int64) {
	now := new(int64)
	return New(func() int64 { return *now }, int64(30*time.Second), 0), now
}

// A full table forgets early and stays bounded. What it forgot still counts as fenced.
func TestFencesFull(t *testing.T) {
	f, now := newTestFences()
	*now = 1
	f.Apply("first", someHash, markOf(1), 0, keepAll)
	before := f.Stamp(someHash) - 1
	for i := range uint64(20 * PerShard) {
		f.Apply(fmt.Sprint("k", i), someHash, markOf(i+2), 0, keepAll)
		if n := f.Len(); n > PerShard {
			t.Fatalf("%d fences after %d", n, i)
		}
	}
	if f.Commit("first", someHash, Claim{Stamp: before, Began: *now}, doNothing) {
		t.Error("a load from before a forgotten fence was stored")
	}
	if _, valid := f.NearValid("first", Slot(someHash), before); valid {
		t.Error("a near copy from before a forgotten fence was valid")
	}
	clock := f.Stamp(someHash)
	if d := f.Debt("first", someHash, clock, at(f, before)); d.Duty != Exchange {
		t.Error("a member that may lack a forgotten fence is asked without an exchange")
	}
	f.Apply("first", someHash, markOf(1<<40), 0, keepAll)
	if d := f.Debt("first", someHash, clock+1, at(f, before)); d.Duty != Exchange {
		t.Errorf("debt = %v: the new fence hides one that was forgotten", d)
	}
	if d := f.Debt("first", someHash, clock+1, at(f, clock)); d != (Debt{Mark: markOf(1 << 40)}) {
		t.Errorf("debt = %v, want the new fence only", d)
	}
	if !f.Commit("first", someHash, Claim{Stamp: f.Stamp(someHash), Began: *now}, doNothing) {
		t.Error("what begins now was not stored")
	}
}

func TestFencesForget(t *testing.T) {
	f, now := newTestFences()
	f.Apply("k", someHash, markOf(1), 0, keepAll)
	*now = f.retention
	f.Sweep()
	if f.Len() != 1 {
		t.Error("forgotten too early")
	}
	*now++
	f.Sweep()
	if f.Len() != 0 {
		t.Error("not forgotten")
	}
	if f.Commit("k", someHash, Claim{Began: *now}, doNothing) {
		t.Error("a load from before the fence was stored")
	}
	if f.Commit("k", someHash, Claim{Stamp: 1}, doNothing) {
		t.Error("a load older than the retention was stored")
	}
	if !f.Commit("k", someHash, Claim{Stamp: 1, Began: *now}, doNothing) {
		t.Error("a load that began after the fence was not stored")
	}
}

// Marks that were already applied have no effect when they come again, in any order.
func TestFencesKnowTheirMarks(t *testing.T) {
	f, _ := newTestFences()
	for _, c := range []struct {
		n    uint64
		want bool
	}{{1, true}, {1, false}, {2, true}, {1, false}, {2, false}, {3, true}, {1, false}, {4, true}, {2, false}} {
		if _, applied := f.Apply("k", someHash, markOf(c.n), 0, keepAll); applied != c.want {
			t.Errorf("mark %d: applied = %v", c.n, applied)
		}
	}
}

// of returns an invalidation that another incarnation has started.
func of(incarnation uint64) codec.Mark { return codec.Mark{Incarnation: incarnation, Seq: 1} }

// One mark that a member lacks is sent with the request; more than one need an exchange. The last mark of an
// incarnation stands for those before it.
func TestFencesDebt(t *testing.T) {
	f, _ := newTestFences()
	want := func(clock uint64, m codec.Mark, d Duty) {
		t.Helper()
		if got := f.Debt("k", someHash, f.Stamp(someHash), at(f, clock)); got != (Debt{m, d}) {
			t.Fatalf("debt = %v, want %v, %v", got, m, d)
		}
	}
	none := codec.Mark{}
	want(0, none, NoDuty)
	f.Apply("k", someHash, of(1), 0, keepAll)
	want(0, of(1), NoDuty)
	want(1, none, NoDuty)
	f.Apply("k", someHash, of(2), 0, keepAll)
	want(0, none, Exchange)
	want(1, of(2), NoDuty)
	f.MarkTold("k", someHash, of(1), 7)
	want(0, of(2), NoDuty)
	f.MarkTold("k", someHash, of(2), 7)
	want(0, none, NoDuty)
	f.Apply("k", someHash, of(3), 0, keepAll)
	f.Apply("k", someHash, of(4), 0, keepAll) // pushes out the mark of incarnation 1
	want(0, none, Exchange)
	want(3, of(4), NoDuty)
	f.Apply("k", someHash, codec.Mark{Incarnation: 4, Seq: 9}, 0, keepAll)
	want(3, codec.Mark{Incarnation: 4, Seq: 9}, NoDuty)
	if d := f.Debt("k", someHash, 3, at(f, 3)); d != (Debt{}) {
		t.Error("an exchange after the read's beginning is not enough")
	}
	f.Apply("other", someHash, of(5), 0, keepAll)
	want(5, none, NoDuty)
	f.Wipe(false)
	want(6, none, Exchange)
	want(7, none, NoDuty)
	if f.OwnedValid("k", someHash, 6, false) || !f.OwnedValid("k", someHash, 7, false) || f.Commit("k", someHash, Claim{Stamp: 6}, doNothing) {
		t.Error("after an invalidation of everything")
	}
}

// No position proves that a member has applied an unlogged mark. The mark is owed until the member gets it or until
// the invalidation itself arrives, whichever fences are forgotten.
func TestFencesDebtOfUnloggedMarks(t *testing.T) {
	f, now := newTestFences()
	want := func(m codec.Mark, d Duty) {
		t.Helper()
		clock := f.Stamp(someHash)
		for _, stamp := range []uint64{1, clock} {
			if got := f.Debt("k", someHash, stamp, at(f, clock)); got != (Debt{m, d}) {
				t.Fatalf("debt = %v, want %v, %v", got, m, d)
			}
		}
	}
	f.Note("k", someHash, of(1), 0, keepAll)
	want(of(1), NoDuty)
	f.Wipe(false)
	want(of(1), NoDuty)
	for i := range uint64(PerShard / 2) {
		f.Apply(fmt.Sprint("another shard's", i), 1<<63, markOf(i+1), 0, keepAll)
	}
	for i := range uint64(2 * PerShard) {
		f.Apply(fmt.Sprint("other", i), someHash, markOf(i+1), 0, keepAll)
	}
	want(of(1), NoDuty)
	if _, n := f.Note("k", someHash, of(1), 0, keepAll); n != Known {
		t.Error("the mark is taken for a new one")
	}
	f.Note("k", someHash, of(2), 0, keepAll)
	want(of(2), AskAgain)
	f.MarkTold("k", someHash, of(2), 7)
	want(of(1), NoDuty)
	f.Note("k", someHash, codec.Mark{Incarnation: 1, Seq: 5}, 0, keepAll) // stands for the first
	want(codec.Mark{Incarnation: 1, Seq: 5}, NoDuty)
	f.Apply("k", someHash, codec.Mark{Incarnation: 1, Seq: 3}, 0, keepAll) // does not stand for the fifth
	want(codec.Mark{Incarnation: 1, Seq: 5}, NoDuty)
	f.Apply("k", someHash, codec.Mark{Incarnation: 1, Seq: 5}, 0, keepAll)
	want(codec.Mark{}, NoDuty)
	f.Note("k", someHash, of(3), 0, keepAll)
	f.Note("k", someHash, of(4), 0, keepAll)
	if _, n := f.Note("k", someHash, of(5), 0, keepAll); n != NoRoom {
		t.Error("a fourth incarnation's mark has room")
	}
	f.self = 9
	f.Apply("k", someHash, of(9), 0, keepAll) // stands for all
	want(codec.Mark{}, NoDuty)
	f.Note("k", someHash, of(3), 0, keepAll)
	f.Wipe(true)
	want(codec.Mark{}, NoDuty)
	f.Note("k", someHash, of(6), 0, keepAll)
	*now += f.retention
	f.Sweep()
	want(of(6), NoDuty)
	*now++
	f.Sweep()
	want(codec.Mark{}, NoDuty)
}

// Unlogged marks are bounded: a key whose mark finds no room gets an invalidation of this node's own.
func TestFencesFullOfUnloggedMarks(t *testing.T) {
	f, _ := newTestFences()
	for i := range unloggedPerShard {
		if _, n := f.Note(fmt.Sprint("k", i), someHash, of(1), 0, keepAll); n != Applied {
			t.Fatalf("no room for the mark of key %d", i)
		}
	}
	if _, n := f.Note("one more", someHash, of(1), 0, keepAll); n != NoRoom {
		t.Error("there is room for more keys than unloggedPerShard")
	}
	if _, n := f.Note("k0", someHash, of(2), 0, keepAll); n != Applied {
		t.Error("there is no room for another mark of a key that has one")
	}
}

// An unasked copy is rejected while its giver may owe anything, because the giver received no mark.
func TestPushedCopyOwesNothing(t *testing.T) {
	f, _ := newTestFences()
	commit := func(k *Watermark) bool {
		return f.Commit("k", someHash, Claim{Stamp: k.StampOf(someHash), Handed: true, Pushed: k}, doNothing)
	}
	here := func() *Watermark { k := at(f, f.Stamp(someHash)); k.Incarnation = 0; return k }
	before := here()
	for i := range uint64(Marks + 2) {
		f.Apply("k", someHash, of(i+1), 0, keepAll)
	}
	if commit(before) {
		t.Error("taken from a giver that may lack an invalidation")
	}
	if !commit(here()) {
		t.Error("not taken from a giver that has applied all")
	}
	f.Note("k", someHash, of(20), 0, keepAll)
	if commit(here()) {
		t.Error("taken while a mark is unlogged, of which no position tells")
	}
	f.Apply("k", someHash, of(20), 0, keepAll)
	if !commit(here()) {
		t.Error("not taken after the invalidation itself has arrived")
	}
}

// The versions of forgotten fences are bounded, and are forgotten in time.
func TestVersionBook(t *testing.T) {
	f, now := newTestFences()
	for i := range uint64(20 * versionsPerShard) {
		*now = int64(i)
		f.Apply(fmt.Sprint("k", i), someHash, markOf(i+1), 5, keepAll)
	}
	s := f.shard(Slot(someHash))
	last := fmt.Sprint("k", 20*versionsPerShard-PerShard-1) // not among those with fences
	if n := len(s.versions.m); n > versionsPerShard || n < versionsPerShard/2 {
		t.Errorf("%d versions", n)
	}
	if _, fenced := s.m[last]; fenced || !f.Behind(last, someHash, 4) || f.Behind(last, someHash, 5) || f.Behind("k0", someHash, 4) {
		t.Error("not the newest versions are known")
	}
	f.Apply("twice", someHash, markOf(1<<20), 5, keepAll)
	f.Wipe(true)
	f.Apply("twice", someHash, markOf(1<<20+1), 3, keepAll)
	f.Wipe(true)
	if !f.Behind("twice", someHash, 4) {
		t.Error("a lower version that was told later stands for a higher one")
	}
	*now += f.retention + 1
	f.Sweep()
	if len(s.versions.m) != 0 || f.Behind(last, someHash, 4) {
		t.Error("versions are remembered for ever")
	}
}

// When an invalidation arrives whose mark a request carried earlier, the copies that other members gave since then
// are invalid, because those members may not have known of it. What this node has loaded since stays.
func TestCopiesFallWithTheInvalidationItself(t *testing.T) {
	f, _ := newTestFences()
	if _, applied := f.Note("k", someHash, markOf(1), 0, keepAll); applied != Applied {
		t.Fatal("the mark is not noted")
	}
	since := f.Stamp(someHash)
	var dropped []bool // once the fence is forgotten, what it covered is still gone
	f.Apply("k", someHash, markOf(1), 0, func(loaded bool) { dropped = append(dropped, loaded) })
	if !slices.Equal(dropped, []bool{false}) {
		t.Errorf("entries dropped, also those loaded here: %v; want only those that were given", dropped)
	}
	if _, valid := f.NearValid("k", Slot(someHash), since); valid {
		t.Error("a near copy from before the invalidation's arrival is valid")
	}
	if f.OwnedValid("k", someHash, since, true) || f.Commit("k", someHash, Claim{Stamp: since, Handed: true}, doNothing) {
		t.Error("another member's copy from before the invalidation's arrival is valid")
	}
	if !f.Covers("k", someHash, since) {
		t.Error("a request from before the invalidation's arrival is not overtaken")
	}
	if !f.OwnedValid("k", someHash, since, false) || !f.Commit("k", someHash, Claim{Stamp: since}, doNothing) {
		t.Error("what this node has loaded since the mark came is invalid")
	}
}
