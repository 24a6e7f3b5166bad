package fence_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/weircache/weir/tier/internal/fence"
)

const (
	retention = int64(30 * time.Second) // of newTestFences
	otherHash = uint64(9) << 60         // in another shard than someHash
)

// A key's slot and shard come from the highest bits of its hash.
func TestSlots(t *testing.T) {
	for _, c := range []struct {
		hash uint64
		want uint32
	}{{0, 0}, {1<<52 - 1, 0}, {1 << 52, 1}, {1<<64 - 1, fence.Slots - 1}} {
		if got := fence.Slot(c.hash); got != c.want {
			t.Errorf("slot %d of %x, want %d", got, c.hash, c.want)
		}
	}
	// The slots of a shard share its clock, and those of other shards do not.
	inSlot := func(slot uint64) uint64 { return slot << 52 }
	for _, first := range []uint64{0, fence.SlotsPerShard, fence.Slots - fence.SlotsPerShard} {
		f, _ := newTestFences()
		f.Apply("k", inSlot(first), markOf(1), 0, keepAll)
		for slot := range uint64(fence.Slots) {
			want := uint64(0)
			if slot >= first && slot < first+fence.SlotsPerShard {
				want = 1
			}
			if got := f.Stamp(inSlot(slot)); got != want {
				t.Errorf("an invalidation in slot %d: the clock of slot %d is %d, want %d", first, slot, got, want)
			}
		}
	}
}

// A fence decides about loads and copies that began before it. It does not affect what began after it, or other keys.
func TestValidity(t *testing.T) {
	for name, c := range map[string]struct {
		fence func(f *fence.Fences)
		// Whether a load and a copy that began before the fence are valid.
		load, copied bool
	}{
		"no fence":                        {func(*fence.Fences) {}, true, true},
		"another key of the slot":         {func(f *fence.Fences) { f.Apply("other", someHash, markOf(1), 0, keepAll) }, true, true},
		"another shard":                   {func(f *fence.Fences) { f.Apply("k", otherHash, markOf(1), 0, keepAll) }, true, true},
		"an invalidation":                 {func(f *fence.Fences) { f.Apply("k", someHash, markOf(1), 0, keepAll) }, false, false},
		"a mark of a request":             {func(f *fence.Fences) { f.Note("k", someHash, markOf(1), 0, keepAll) }, false, false},
		"an invalidation of everything":   {func(f *fence.Fences) { f.Wipe(false) }, false, false},
		"an own invalidation of it":       {func(f *fence.Fences) { f.Wipe(true) }, false, false},
		"an invalidation, then the sweep": {func(f *fence.Fences) { f.Apply("k", someHash, markOf(1), 0, keepAll); f.Sweep() }, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			f, now := newTestFences()
			*now = 1
			f.Apply("earlier", someHash, of(99), 0, keepAll)
			f.Apply("earlier", otherHash, of(99), 0, keepAll)
			before := f.Stamp(someHash)
			c.fence(f)
			after := f.Stamp(someHash)
			for _, at := range []struct {
				stamp        uint64
				handed, want bool
			}{{before, false, c.load}, {before, true, c.copied}, {after, false, true}, {after, true, true}} {
				if got := f.OwnedValid("k", someHash, at.stamp, at.handed); got != at.want {
					t.Errorf("owned, stamp %d, handed %v: valid %v", at.stamp, at.handed, got)
				}
				if got := f.Commit("k", someHash, fence.Claim{Stamp: at.stamp, Began: *now, Handed: at.handed}, doNothing); got != at.want {
					t.Errorf("commit, stamp %d, handed %v: %v", at.stamp, at.handed, got)
				}
				if upTo, got := f.NearValid("k", fence.Slot(someHash), at.stamp); got != (at.want || at.stamp == before && c.copied) || got && upTo != f.SlotStamp(fence.Slot(someHash)) {
					t.Errorf("near, stamp %d: valid %v up to %d", at.stamp, got, upTo)
				}
				if got := f.Covers("k", someHash, at.stamp); got != (at.stamp == before && !c.copied) {
					t.Errorf("covers, stamp %d: %v", at.stamp, got)
				}
			}
		})
	}
}

// What began longer ago than the retention is not stored; what began exactly the retention ago is.
func TestAgeOfACommit(t *testing.T) {
	f, now := newTestFences()
	*now = 5 + retention
	for began, want := range map[int64]bool{4: false, 5: true, 6: true} {
		if got := f.Commit("k", someHash, fence.Claim{Began: began}, doNothing); got != want {
			t.Errorf("began at %d: %v", began, got)
		}
	}
}

// The floor stands for forgotten fences: a key without a fence is treated as if its fence may be among them.
func TestFloor(t *testing.T) {
	f, now := newTestFences()
	f.Apply("k", someHash, markOf(1), 0, keepAll)
	floor := f.Stamp(someHash)
	*now = retention + 1
	f.Sweep()
	if f.Len() != 0 {
		t.Fatal("not forgotten")
	}
	for stamp, want := range map[uint64]bool{floor - 1: false, floor: true, floor + 1: true} {
		if got := f.Commit("other", someHash, fence.Claim{Stamp: stamp, Began: *now}, doNothing); got != want {
			t.Errorf("commit with stamp %d, floor %d: %v", stamp, floor, got)
		}
		if _, got := f.NearValid("other", fence.Slot(someHash), stamp); got != want {
			t.Errorf("near with stamp %d, floor %d: %v", stamp, floor, got)
		}
		if d := f.Debt("other", someHash, floor+1, at(stamp)); (d.Duty == fence.Exchange) == want {
			t.Errorf("debt of a member at %d, floor %d: %+v", stamp, floor, d)
		}
	}
	if got := f.Covers("other", someHash, floor-1); got {
		t.Log("covers what may have been forgotten") // the clock has not moved since
	}
	f.Apply("third", someHash, markOf(2), 0, keepAll) // now it has
	if !f.Covers("other", someHash, floor-1) || f.Covers("other", someHash, floor) {
		t.Error("covers what began before the floor, and only that")
	}
}

// A full shard first forgets the fences past retention, and otherwise the older half.
func TestMakeRoom(t *testing.T) {
	f, now := newTestFences()
	for i := range uint64(fence.PerShard) {
		*now = int64(i)
		f.Apply(fmt.Sprint("k", i), someHash, markOf(i+1), 0, keepAll)
	}
	f.Apply("one more", someHash, markOf(1000), 0, keepAll)
	if n := f.Len(); n != fence.PerShard/2 {
		t.Errorf("%d fences: half and the new one are %d", n, fence.PerShard/2)
	}
	if f.Fenced("k0", someHash) || !f.Fenced(fmt.Sprint("k", fence.PerShard-1), someHash) {
		t.Error("not the oldest were forgotten")
	}
	g, now := newTestFences()
	for i := range uint64(fence.PerShard) {
		*now = int64(i)
		g.Apply(fmt.Sprint("k", i), someHash, markOf(i+1), 0, keepAll)
	}
	*now = 10 + retention // 0 to 9 are past the retention
	g.Apply("one more", someHash, markOf(1000), 0, keepAll)
	if n := g.Len(); n != fence.PerShard-10+1 {
		t.Errorf("%d fences, want %d", n, fence.PerShard-10+1)
	}
}

func TestFenced(t *testing.T) {
	f, now := newTestFences()
	if f.Fenced("k", someHash) {
		t.Error("fenced without a fence")
	}
	f.Apply("k", someHash, markOf(1), 0, keepAll)
	if !f.Fenced("k", someHash) || f.Fenced("other", someHash) || f.Fenced("k", otherHash) {
		t.Error("not the key alone is fenced")
	}
	*now = 7
	f.Wipe(false)
	if !f.Fenced("other", otherHash) {
		t.Error("not fenced by an invalidation of everything")
	}
	if *now = 7 + retention; !f.Fenced("other", otherHash) {
		t.Error("forgotten too early")
	}
	if *now++; f.Fenced("other", otherHash) {
		t.Error("fenced for ever")
	}
}

// An unlogged mark is forgotten when it has not come for longer than the retention.
func TestUnloggedMarksEnd(t *testing.T) {
	for _, c := range []struct {
		again, sweep int64
		want         bool
	}{{0, retention, true}, {0, retention + 1, false}, {5, retention + 5, true}, {5, retention + 6, false}} {
		f, now := newTestFences()
		f.Note("k", someHash, markOf(1), 0, keepAll)
		*now = c.again
		if _, n := f.Note("k", someHash, markOf(1), 0, keepAll); n != fence.Known {
			t.Fatal("not known when it comes again")
		}
		*now = c.sweep
		f.Sweep()
		stamp := f.Stamp(someHash)
		if got := f.Debt("k", someHash, stamp, at(stamp)).Mark == markOf(1); got != c.want {
			t.Errorf("again at %d, swept at %d: remembered %v", c.again, c.sweep, got)
		}
	}
}

// The table remembers the versions that invalidations carried, for as long as they matter.
func TestVersions(t *testing.T) {
	f, now := newTestFences()
	behind := func(version uint64, want bool) {
		t.Helper()
		if got := f.Behind("k", someHash, version); got != want {
			t.Errorf("behind with version %d: %v", version, got)
		}
	}
	behind(0, false)
	f.Apply("k", someHash, markOf(1), 5, keepAll)
	behind(4, true)
	behind(5, false)
	behind(6, false)
	f.Apply("k", someHash, markOf(2), 3, keepAll) // a lower one changes nothing
	behind(4, true)
	f.Apply("k", someHash, markOf(2), 8, keepAll) // the mark is known, its version is not
	behind(7, true)
	behind(8, false)
	f.Apply("k", someHash, markOf(2), 6, keepAll)
	behind(7, true)
	f.Note("k", someHash, of(70), 9, keepAll)
	behind(8, true)
	*now = 10
	f.Wipe(true) // the fences are forgotten, and their versions stay
	behind(8, true)
	behind(9, false)
	*now = retention
	behind(8, true)
	*now = retention + 1
	behind(8, false)
}

// Place stores a value only if it can be taken for the newest.
func TestPlace(t *testing.T) {
	const version = 7
	for name, c := range map[string]struct {
		before func(f *fence.Fences, now *int64)
		began  int64
		want   bool
	}{
		"nothing is known":             {func(*fence.Fences, *int64) {}, 0, true},
		"an earlier version":           {func(f *fence.Fences, _ *int64) { f.Apply("k", someHash, markOf(1), version-1, keepAll) }, 0, true},
		"this version":                 {func(f *fence.Fences, _ *int64) { f.Apply("k", someHash, markOf(1), version, keepAll) }, 0, true},
		"a later version":              {func(f *fence.Fences, _ *int64) { f.Apply("k", someHash, markOf(1), version+1, keepAll) }, 0, false},
		"no version told":              {func(f *fence.Fences, _ *int64) { f.Apply("k", someHash, markOf(1), 0, keepAll) }, 0, false},
		"no version told by a request": {func(f *fence.Fences, _ *int64) { f.Note("k", someHash, markOf(1), 0, keepAll) }, 0, false},
		"none told, then one": {func(f *fence.Fences, _ *int64) {
			f.Apply("k", someHash, markOf(1), 0, keepAll)
			f.Apply("k", someHash, markOf(2), 5, keepAll)
		}, 0, false},
		"none told, by a request, then one": {func(f *fence.Fences, _ *int64) {
			f.Note("k", someHash, markOf(1), 0, keepAll)
			f.Note("k", someHash, of(9), 5, keepAll)
		}, 0, false},
		"everything was invalidated":    {func(f *fence.Fences, now *int64) { *now = 5; f.Wipe(false) }, 5, false},
		"and that is as old as can be":  {func(f *fence.Fences, now *int64) { *now = 5; f.Wipe(false); *now = 5 + retention }, 5 + retention, false},
		"and that is forgotten":         {func(f *fence.Fences, now *int64) { *now = 5; f.Wipe(false); *now = 6 + retention }, 6 + retention, true},
		"at the very beginning":         {func(f *fence.Fences, now *int64) { f.Wipe(false) }, 0, false},
		"the value is as old as can be": {func(_ *fence.Fences, now *int64) { *now = retention }, 0, true},
		"the value is older":            {func(_ *fence.Fences, now *int64) { *now = retention + 1 }, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			f, now := newTestFences()
			c.before(f, now)
			stored := uint64(1 << 40)
			got := f.Place("k", someHash, version, c.began, func(stamp uint64) { stored = stamp })
			if got != c.want {
				t.Errorf("placed: %v", got)
			}
			if got && stored != f.Stamp(someHash) {
				t.Errorf("stored with stamp %d, the clock is %d", stored, f.Stamp(someHash))
			}
		})
	}
}

// Which values the fences of tags cover, and what the tag clock shows.
func TestTags(t *testing.T) {
	f, now := newTestFences()
	red, blue := fence.TagHash("red"), fence.TagHash("blue")
	if red>>16 == blue>>16 {
		t.Fatal("the two tags share a place")
	}
	if fence.TagsAt(nil, 5) != nil || f.Tagged(nil) || (*fence.TagSet)(nil).List() != nil || (*fence.TagSet)(nil).Since() != 0 {
		t.Error("what has no tags is tagged")
	}
	early := fence.TagsAt([]uint32{red}, f.TagClock())
	if f.Tagged(early) || f.After([]uint32{red}, 0) {
		t.Error("covered before any invalidation")
	}
	f.ApplyTags([]string{"red"})
	if f.TagClock() != 1 {
		t.Errorf("the tag clock is %d after one invalidation", f.TagClock())
	}
	late := fence.TagsAt([]uint32{blue, red}, f.TagClock())
	if !f.Tagged(early) || f.Tagged(late) || f.Tagged(fence.TagsAt([]uint32{blue}, 0)) {
		t.Error("an invalidation covers what has the tag and began before, and only that")
	}
	if !slices.Equal(late.List(), []uint32{blue, red}) || late.Since() != 1 {
		t.Errorf("%v since %d", late.List(), late.Since())
	}
	f.ApplyTags([]string{"green", "blue"})
	if !f.Tagged(late) || f.TagClock() != 2 {
		t.Error("the second tag of two does not cover")
	}
	if !f.After([]uint32{blue}, 1) || f.After([]uint32{blue}, 2) || f.After([]uint32{red}, 1) || !f.After([]uint32{red, blue}, 1) {
		t.Error("after")
	}
	if k := f.Watermark(3); k.Tags != 2 || k.Incarnation != 3 {
		t.Errorf("watermark %d of %d", k.Tags, k.Incarnation)
	}
	// Earlier gives the tag clock of a retention ago, to within another retention.
	*now = retention - 1
	if f.Sweep(); f.Earlier() != 0 {
		t.Error("noted too early")
	}
	*now = retention
	f.Sweep()
	f.ApplyTags([]string{"red"})
	*now = 2*retention - 1
	if f.Sweep(); f.Earlier() != 0 {
		t.Errorf("%d, although that is not a retention ago", f.Earlier())
	}
	*now = 2 * retention
	if f.Sweep(); f.Earlier() != 2 {
		t.Errorf("%d a retention ago, want 2", f.Earlier())
	}
	*now = 3 * retention
	if f.Sweep(); f.Earlier() != 3 {
		t.Errorf("%d a retention ago, want 3", f.Earlier())
	}
}

// A watermark holds the clocks of all shards.
func TestWatermark(t *testing.T) {
	f, _ := newTestFences()
	f.Apply("k", someHash, markOf(1), 0, keepAll)
	f.Apply("k", otherHash, markOf(2), 0, keepAll)
	lacks := f.Watermark(9)
	f.Apply("l", otherHash, markOf(3), 0, keepAll)
	k := f.Watermark(9)
	if k.StampOf(someHash) != 1 || k.StampOf(otherHash) != 2 || k.StampOf(1<<63|otherHash>>1) != 0 {
		t.Errorf("%d, %d", k.StampOf(someHash), k.StampOf(otherHash))
	}
	if f.Retention() != retention {
		t.Errorf("retention %d", f.Retention())
	}
	// Nothing is owed to a member that has applied everything, and one mark to a member that lacks one.
	if d := f.Debt("l", otherHash, f.Stamp(otherHash), &k); d != (fence.Debt{}) {
		t.Errorf("owed to a member that has everything: %+v", d)
	}
	if d := f.Debt("l", otherHash, f.Stamp(otherHash), &lacks); d != (fence.Debt{Mark: markOf(3)}) {
		t.Errorf("%+v", d)
	}
	if d := f.Debt("l", otherHash, f.Stamp(otherHash)-1, &lacks); d != (fence.Debt{}) {
		t.Errorf("owed for a read from before: %+v", d)
	}
}
