package store_test

import (
	"errors"
	"testing"
	"time"
	"unsafe"

	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/store"
)

// Change keeps the fields that f leaves alone, does not change the entry that e was copied from, and keeps no Rare
// whose fields are all zero.
func TestEntryRareFields(t *testing.T) {
	var plain store.Entry
	if plain.Err() != nil || plain.Retry() != 0 || plain.Full() != nil {
		t.Errorf("an entry without rare fields has %v, %d, %v", plain.Err(), plain.Retry(), plain.Full())
	}
	plain.Change(func(*store.Rare) {})
	if plain.Rare != nil {
		t.Error("a change to nothing made rare fields")
	}
	failed, full := errors.New("failed"), &store.Expiry{Hard: 9}
	var first store.Entry
	first.Change(func(r *store.Rare) { r.Err, r.Full = failed, full })
	second := first
	second.Change(func(r *store.Rare) { r.Retry = 7 })
	if first.Err() != failed || first.Full() != full || first.Retry() != 0 {
		t.Errorf("the entry that was copied has %+v", first.Rare)
	}
	if second.Err() != failed || second.Full() != full || second.Retry() != 7 {
		t.Errorf("the copy has %+v", second.Rare)
	}
	second.Change(func(r *store.Rare) { *r = store.Rare{} })
	if second.Rare != nil || first.Rare == nil {
		t.Errorf("after all fields were set to zero: %+v, and %+v in the entry that was copied", second.Rare, first.Rare)
	}
}

func TestEntryOutlived(t *testing.T) {
	for _, x := range []struct {
		hard int64
		want bool
	}{{129, true}, {130, true}, {131, false}} {
		if e := (store.Entry{Loaded: 100, Cost: 30, Hard: x.hard}); e.Outlived() != x.want {
			t.Errorf("loaded from 100 to 130, hard expiry %d: outlived is %v", x.hard, !x.want)
		}
	}
}

// An entry of a stand-in owner may become the owner's before the owner's hard expiry, and either before its own or
// within StandInFor of its load.
func TestEntryAsOwned(t *testing.T) {
	const loaded, late = int64(1000), 1000 + store.StandInFor
	full := &store.Expiry{Soft: late + 10, SWR: late + 20, Hard: late + 30}
	for _, x := range []struct {
		name      string
		hard, now int64
		full      *store.Expiry
		want      bool
	}{
		{"its own times, before the expiry", 2000, 1999, nil, true},
		{"its own times, at the expiry", 2000, 2000, nil, false},
		{"its own times, after the expiry", 2000, 2001, nil, false},
		{"a stand-in's, before both expiries", 2000, 1999, full, true},
		{"a stand-in's, after its own expiry", 2000, 2000, full, true},
		{"a stand-in's, at the end of StandInFor", 2000, late - 1, full, true},
		{"a stand-in's, past StandInFor", 2000, late, full, false},
		{"a stand-in's, long past StandInFor", 2000, late + 1, full, false},
		{"a stand-in's, past StandInFor, before its own expiry", late + 2, late + 1, full, true},
		{"a stand-in's, past StandInFor, at its own expiry", late + 1, late + 1, full, false},
		{"a stand-in's, before the owner's expiry", late + 40, late + 29, full, true},
		{"a stand-in's, at the owner's expiry", late + 40, late + 30, full, false},
		{"a stand-in's, after the owner's expiry", late + 40, late + 31, full, false},
	} {
		failed := errors.New("failed")
		e := &store.Entry{Loaded: loaded, Hard: x.hard, Etag: 5}
		e.Change(func(r *store.Rare) { r.Full, r.Err = x.full, failed })
		own := e.AsOwned(x.now)
		if (own != nil) != x.want {
			t.Errorf("%s: as owned is %+v", x.name, own)
		}
		if own == nil {
			continue
		}
		if x.full == nil && own != e {
			t.Errorf("%s: a copy was made", x.name)
		}
		if x.full != nil && (own.Soft != x.full.Soft || own.SWR != x.full.SWR || own.Hard != x.full.Hard || own.Full() != nil) {
			t.Errorf("%s: the times are not the owner's: %+v, %+v", x.name, own, own.Full())
		}
		if own.Etag != 5 || own.Err() != failed || e.Full() != x.full || e.Hard != x.hard {
			t.Errorf("%s: %+v became %+v", x.name, e, own)
		}
	}
}

func TestEntryWhyStale(t *testing.T) {
	var plain, refused store.Entry
	refused.Change(func(r *store.Rare) { r.Retry, r.Why = 1, store.StaleShed })
	for _, x := range []struct {
		e    *store.Entry
		late bool
		want string
	}{{&plain, false, "revalidating"}, {&plain, true, "revalidating"}, {&refused, false, "revalidating"}, {&refused, true, "shed"}} {
		if got := store.StaleNames[x.e.WhyStale(x.late)]; got != x.want {
			t.Errorf("late %v of %+v: %s, want %s", x.late, x.e.Rare, got, x.want)
		}
	}
	seen := make(map[string]bool)
	for why, name := range store.StaleNames {
		if name == "" || seen[name] {
			t.Errorf("reason %d has the label %q", why, name)
		}
		seen[name] = true
	}
}

// The entry of this table was loaded at 1000. Its soft expiry is 2000, after a failed refill it is served until 2500, and
// while a refresh runs until 3000.
func TestEntryJudge(t *testing.T) {
	const anyAge, never = -1, 0 // a MaxAge below 0 sets no limit; 0 is the zero option: nothing past soft expiry
	const refresh = store.RefreshAge
	for _, x := range []struct {
		name   string
		now    int64
		maxAge time.Duration
		want   store.Verdict
		failed store.Verdict // for a failed entry with the same times
	}{
		{"fresh", 1999, never, store.Serve, store.Serve},
		{"at soft expiry", 2000, never, store.MustFill, store.Serve},
		{"past soft expiry", 2001, never, store.MustFill, store.Serve},
		{"fresh, any age", 1999, anyAge, store.Serve, store.Serve},
		{"a refill failed, any age", 2000, anyAge, store.ServeLate, store.Serve},
		{"a refill failed, the last moment", 2499, anyAge, store.ServeLate, store.Serve},
		{"the next refill may start", 2500, anyAge, store.ServeStale, store.Serve},
		{"stale, the last moment", 2999, anyAge, store.ServeStale, store.Serve},
		{"too stale", 3000, anyAge, store.MustFill, store.Serve},
		{"far too stale", 3001, anyAge, store.MustFill, store.Serve},
		{"a limit, younger", 1000 + 1999, 2000, store.ServeStale, store.Serve},
		{"a limit, as old", 1000 + 1500, 1500, store.ServeStale, store.Serve},
		{"a limit, older", 1000 + 1501, 1500, store.MustFill, store.Serve},
		{"a limit, older but fresh", 1000 + 901, 900, store.MustFill, store.Serve},
		{"a limit, fresh", 1000 + 900, 900, store.Serve, store.Serve},
		{"the least limit, older", 1002, 1, store.MustFill, store.Serve},
		{"a refresh of a fresh value", 1001, refresh, store.MustFill, store.MustFill},
		{"a refresh of a stale value", 2600, refresh, store.MustFill, store.MustFill},
	} {
		e := store.Entry{Loaded: 1000, Soft: 2000, SWR: 3000, Hard: 4000}
		e.Change(func(r *store.Rare) { r.Retry = 2500 })
		if got := e.Judge(x.now, x.maxAge); got != x.want {
			t.Errorf("%s: verdict %d, want %d", x.name, got, x.want)
		}
		e.Flags = store.NotFound // judged like a value
		if got := e.Judge(x.now, x.maxAge); got != x.want {
			t.Errorf("not found, %s: verdict %d, want %d", x.name, got, x.want)
		}
		e.Flags = store.Failed
		if got := e.Judge(x.now, x.maxAge); got != x.failed {
			t.Errorf("failed, %s: verdict %d, want %d", x.name, got, x.failed)
		}
	}
}

// An entry weighs its key, what its value, its tags and its rare fields take, and Overhead.
func TestWeight(t *testing.T) {
	rare := int64(unsafe.Sizeof(store.Rare{}))
	for name, x := range map[string]struct {
		key  string
		e    store.Entry
		want int64
	}{
		"nothing":    {"", store.Entry{}, 0},
		"a key":      {"key", store.Entry{}, 3},
		"a value":    {"key", store.Entry{Value: make([]byte, 5, 64)}, 3 + 64},
		"tags":       {"", store.Entry{Tags: fence.TagsAt(make([]uint32, 3, 10), 1)}, int64(unsafe.Sizeof(fence.TagSet{})) + 4*10},
		"an error":   {"", store.Entry{Rare: &store.Rare{Err: errors.New("failed")}}, rare},
		"two expiry": {"", store.Entry{Rare: &store.Rare{Full: &store.Expiry{}}}, rare + 24},
	} {
		if got := store.Weight(x.key, &x.e); got != x.want+store.Overhead {
			t.Errorf("%s: %d bytes beside the overhead, want %d", name, got-store.Overhead, x.want)
		}
	}
}
