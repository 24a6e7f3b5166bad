package fence_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier/internal/fence"
)

const (
	someHash = 5 // keys given this hash share a shard and a slot

	unloggedPerShard = 256 // how many keys of a shard may have unlogged marks
	versionsPerShard = 512 // how many versions a shard remembers without a fence
)

func markOf(n uint64) codec.Mark { return codec.Mark{Incarnation: 3, Seq: n} }

func keepAll(bool) {}

func doNothing() {}

// at returns the watermark of a member's cache that has applied everything up to clock.
func at(clock uint64) *fence.Watermark {
	f, _ := newTestFences()
	for i := range clock {
		f.Apply("any", someHash, markOf(i+1), 0, keepAll)
	}
	k := f.Watermark(7)
	return &k
}

func newTestFences() (*fence.Fences, *int64) {
	now := new(int64)
	return fence.New(func() int64 { return *now }, int64(30*time.Second), 0), now
}

// A full table forgets early and stays bounded. What it forgot still counts as fenced.
func TestFencesFull(t *testing.T) {
	f, now := newTestFences()
	*now = 1
	f.Apply("first", someHash, markOf(1), 0, keepAll)
	before := f.Stamp(someHash) - 1
	for i := range uint64(20 * fence.PerShard) {
		f.Apply(fmt.Sprint("k", i), someHash, markOf(i+2), 0, keepAll)
		if n := f.Len(); n > fence.PerShard {
			t.Fatalf("%d fences after %d", n, i)
		}
	}
	if f.Commit("first", someHash, fence.Claim{Stamp: before, Began: *now}, doNothing) {
		t.Error("a load from before a forgotten fence was stored")
	}
	if _, valid := f.NearValid("first", fence.Slot(someHash), before); valid {
		t.Error("a near copy from before a forgotten fence was valid")
	}
	clock := f.Stamp(someHash)
	if d := f.Debt("first", someHash, clock, at(before)); d.Duty != fence.Exchange {
		t.Error("a member that may lack a forgotten fence is asked without an exchange")
	}
	f.Apply("first", someHash, markOf(1<<40), 0, keepAll)
	if d := f.Debt("first", someHash, clock+1, at(before)); d.Duty != fence.Exchange {
		t.Errorf("debt = %v: the new fence hides one that was forgotten", d)
	}
	if d := f.Debt("first", someHash, clock+1, at(clock)); d != (fence.Debt{Mark: markOf(1 << 40)}) {
		t.Errorf("debt = %v, want the new fence only", d)
	}
	if !f.Commit("first", someHash, fence.Claim{Stamp: f.Stamp(someHash), Began: *now}, doNothing) {
		t.Error("what begins now was not stored")
	}
}

func TestFencesForget(t *testing.T) {
	f, now := newTestFences()
	f.Apply("k", someHash, markOf(1), 0, keepAll)
	*now = retention
	f.Sweep()
	if f.Len() != 1 {
		t.Error("forgotten too early")
	}
	*now++
	f.Sweep()
	if f.Len() != 0 {
		t.Error("not forgotten")
	}
	if f.Commit("k", someHash, fence.Claim{Began: *now}, doNothing) {
		t.Error("a load from before the fence was stored")
	}
	if f.Commit("k", someHash, fence.Claim{Stamp: 1}, doNothing) {
		t.Error("a load older than the retention was stored")
	}
	if !f.Commit("k", someHash, fence.Claim{Stamp: 1, Began: *now}, doNothing) {
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
	want := func(clock uint64, m codec.Mark, d fence.Duty) {
		t.Helper()
		if got := f.Debt("k", someHash, f.Stamp(someHash), at(clock)); got != (fence.Debt{m, d}) {
			t.Fatalf("debt = %v, want %v, %v", got, m, d)
		}
	}
	none := codec.Mark{}
	want(0, none, fence.NoDuty)
	f.Apply("k", someHash, of(1), 0, keepAll)
	want(0, of(1), fence.NoDuty)
	want(1, none, fence.NoDuty)
	f.Apply("k", someHash, of(2), 0, keepAll)
	want(0, none, fence.Exchange)
	want(1, of(2), fence.NoDuty)
	f.MarkTold("k", someHash, of(1), 7)
	want(0, of(2), fence.NoDuty)
	f.MarkTold("k", someHash, of(2), 7)
	want(0, none, fence.NoDuty)
	f.Apply("k", someHash, of(3), 0, keepAll)
	f.Apply("k", someHash, of(4), 0, keepAll) // pushes out the mark of incarnation 1
	want(0, none, fence.Exchange)
	want(3, of(4), fence.NoDuty)
	f.Apply("k", someHash, codec.Mark{Incarnation: 4, Seq: 9}, 0, keepAll)
	want(3, codec.Mark{Incarnation: 4, Seq: 9}, fence.NoDuty)
	if d := f.Debt("k", someHash, 3, at(3)); d != (fence.Debt{}) {
		t.Error("an exchange after the read's beginning is not enough")
	}
	f.Apply("other", someHash, of(5), 0, keepAll)
	want(5, none, fence.NoDuty)
	f.Wipe(false)
	want(6, none, fence.Exchange)
	want(7, none, fence.NoDuty)
	if f.OwnedValid("k", someHash, 6, false) || !f.OwnedValid("k", someHash, 7, false) || f.Commit("k", someHash, fence.Claim{Stamp: 6}, doNothing) {
		t.Error("after an invalidation of everything")
	}
}

// No position proves that a member has applied an unlogged mark. The mark is owed until the member gets it or until
// the invalidation itself arrives, whichever fences are forgotten.
func TestFencesDebtOfUnloggedMarks(t *testing.T) {
	const self = 9
	now := new(int64)
	f := fence.New(func() int64 { return *now }, retention, self)
	want := func(m codec.Mark, d fence.Duty) {
		t.Helper()
		clock := f.Stamp(someHash)
		for _, stamp := range []uint64{1, clock} {
			if got := f.Debt("k", someHash, stamp, at(clock)); got != (fence.Debt{m, d}) {
				t.Fatalf("debt = %v, want %v, %v", got, m, d)
			}
		}
	}
	f.Note("k", someHash, of(1), 0, keepAll)
	want(of(1), fence.NoDuty)
	f.Wipe(false)
	want(of(1), fence.NoDuty)
	for i := range uint64(fence.PerShard / 2) {
		f.Apply(fmt.Sprint("another shard's", i), 1<<63, markOf(i+1), 0, keepAll)
	}
	for i := range uint64(2 * fence.PerShard) {
		f.Apply(fmt.Sprint("other", i), someHash, markOf(i+1), 0, keepAll)
	}
	want(of(1), fence.NoDuty)
	if _, n := f.Note("k", someHash, of(1), 0, keepAll); n != fence.Known {
		t.Error("the mark is taken for a new one")
	}
	f.Note("k", someHash, of(2), 0, keepAll)
	want(of(2), fence.AskAgain)
	f.MarkTold("k", someHash, of(2), 7)
	want(of(1), fence.NoDuty)
	f.Note("k", someHash, codec.Mark{Incarnation: 1, Seq: 5}, 0, keepAll) // stands for the first
	want(codec.Mark{Incarnation: 1, Seq: 5}, fence.NoDuty)
	f.Apply("k", someHash, codec.Mark{Incarnation: 1, Seq: 3}, 0, keepAll) // does not stand for the fifth
	want(codec.Mark{Incarnation: 1, Seq: 5}, fence.NoDuty)
	f.Apply("k", someHash, codec.Mark{Incarnation: 1, Seq: 5}, 0, keepAll)
	want(codec.Mark{}, fence.NoDuty)
	f.Note("k", someHash, of(3), 0, keepAll)
	f.Note("k", someHash, of(4), 0, keepAll)
	if _, n := f.Note("k", someHash, of(5), 0, keepAll); n != fence.NoRoom {
		t.Error("a fourth incarnation's mark has room")
	}
	f.Apply("k", someHash, of(self), 0, keepAll) // stands for all
	want(codec.Mark{}, fence.NoDuty)
	f.Note("k", someHash, of(3), 0, keepAll)
	f.Wipe(true)
	want(codec.Mark{}, fence.NoDuty)
	f.Note("k", someHash, of(6), 0, keepAll)
	*now += retention
	f.Sweep()
	want(of(6), fence.NoDuty)
	*now++
	f.Sweep()
	want(codec.Mark{}, fence.NoDuty)
}

// Unlogged marks are bounded: a key whose mark finds no room gets an invalidation of this node's own.
func TestFencesFullOfUnloggedMarks(t *testing.T) {
	f, _ := newTestFences()
	for i := range unloggedPerShard {
		if _, n := f.Note(fmt.Sprint("k", i), someHash, of(1), 0, keepAll); n != fence.Applied {
			t.Fatalf("no room for the mark of key %d", i)
		}
	}
	if _, n := f.Note("one more", someHash, of(1), 0, keepAll); n != fence.NoRoom {
		t.Error("there is room for more keys than unloggedPerShard")
	}
	if _, n := f.Note("k0", someHash, of(2), 0, keepAll); n != fence.Applied {
		t.Error("there is no room for another mark of a key that has one")
	}
}

// An unasked copy is rejected while its giver may owe anything, because the giver received no mark.
func TestPushedCopyOwesNothing(t *testing.T) {
	f, _ := newTestFences()
	commit := func(k *fence.Watermark) bool {
		return f.Commit("k", someHash, fence.Claim{Stamp: k.StampOf(someHash), Handed: true, Pushed: k}, doNothing)
	}
	here := func() *fence.Watermark { k := at(f.Stamp(someHash)); k.Incarnation = 0; return k }
	before := here()
	for i := range uint64(fence.Marks + 2) {
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
	last := fmt.Sprint("k", 20*versionsPerShard-fence.PerShard-1) // not among those with fences
	n := -f.Len()                                                 // those with fences are not in the book
	for i := range 20 * versionsPerShard {
		if f.Behind(fmt.Sprint("k", i), someHash, 4) {
			n++
		}
	}
	if n > versionsPerShard || n < versionsPerShard/2 {
		t.Errorf("%d versions", n)
	}
	if f.Fenced(last, someHash) || !f.Behind(last, someHash, 4) || f.Behind(last, someHash, 5) || f.Behind("k0", someHash, 4) {
		t.Error("not the newest versions are known")
	}
	f.Apply("twice", someHash, markOf(1<<20), 5, keepAll)
	f.Wipe(true)
	f.Apply("twice", someHash, markOf(1<<20+1), 3, keepAll)
	f.Wipe(true)
	if !f.Behind("twice", someHash, 4) {
		t.Error("a lower version that was told later stands for a higher one")
	}
	*now += retention + 1
	f.Sweep()
	if f.Behind(last, someHash, 4) {
		t.Error("versions are remembered for ever")
	}
}

// When an invalidation arrives whose mark a request carried earlier, the copies that other members gave since then
// are invalid, because those members may not have known of it. What this node has loaded since stays.
func TestCopiesFallWithTheInvalidationItself(t *testing.T) {
	f, _ := newTestFences()
	if _, applied := f.Note("k", someHash, markOf(1), 0, keepAll); applied != fence.Applied {
		t.Fatal("the mark is not noted")
	}
	since := f.Stamp(someHash)
	var dropped []bool // once the fence is forgotten, what it covered is still gone
	f.Apply("k", someHash, markOf(1), 0, func(loaded bool) { dropped = append(dropped, loaded) })
	if !slices.Equal(dropped, []bool{false}) {
		t.Errorf("entries dropped, also those loaded here: %v; want only those that were given", dropped)
	}
	if _, valid := f.NearValid("k", fence.Slot(someHash), since); valid {
		t.Error("a near copy from before the invalidation's arrival is valid")
	}
	if f.OwnedValid("k", someHash, since, true) || f.Commit("k", someHash, fence.Claim{Stamp: since, Handed: true}, doNothing) {
		t.Error("another member's copy from before the invalidation's arrival is valid")
	}
	if !f.Covers("k", someHash, since) {
		t.Error("a request from before the invalidation's arrival is not overtaken")
	}
	if !f.OwnedValid("k", someHash, since, false) || !f.Commit("k", someHash, fence.Claim{Stamp: since}, doNothing) {
		t.Error("what this node has loaded since the mark came is invalid")
	}
}
