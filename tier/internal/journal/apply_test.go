package journal_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/journal"
)

// Each scope reaches the copies as what it is, whether this node starts the invalidation or another member has sent it.
// Only keys have a version.
func TestScopes(t *testing.T) {
	x := newSolo(t, 0, 0, journal.Limits{})
	x.Begin(t.Context(), nil, 5, journal.Part{Scope: codec.ScopeKeys, Names: []string{"a", "b"}},
		journal.Part{Scope: codec.ScopeTags, Names: []string{"t"}}, journal.Part{Scope: codec.ScopeAll, Names: []string{""}})
	x.BeginKey("c", 6)
	x.receive(
		codec.Invalidation{Mark: codec.Mark{Incarnation: 7, Seq: 1}, Scope: codec.ScopeKeys, Version: 8, Names: [][]byte{[]byte("d")}},
		codec.Invalidation{Mark: codec.Mark{Incarnation: 7, Seq: 2}, Scope: codec.ScopeTags, Names: [][]byte{[]byte("u")}},
		codec.Invalidation{Mark: codec.Mark{Incarnation: 7, Seq: 3}, Scope: codec.ScopeAll})
	want := []string{"key a {1 1} version 5", "key b {1 1} version 5", "tags [t]", "all, own true", "key c {1 4} version 6", "key d {7 1} version 8", "tags [u]", "all, own false"}
	if !slices.Equal(x.copies.fenced, want) {
		t.Errorf("fenced: %q, want %q", x.copies.fenced, want)
	}
	var versions []uint64
	for _, v := range x.missing(nil, 0).Invalidations {
		if v.Mark.Incarnation == 1 {
			versions = append(versions, v.Version)
		}
	}
	if !slices.Equal(versions, []uint64{5, 0, 0, 6}) {
		t.Errorf("other members are told the versions %v", versions)
	}
}

// Receive counts what was new: each invalidation, and a flush once.
func TestReceiveCounts(t *testing.T) {
	x := newSolo(t, 0, 0, journal.Limits{})
	x.receive(ofKey(7, 1), ofKey(7, 2))
	n := &codec.News{
		Bases:         []codec.Base{{Incarnation: 7, Seq: 2, Flush: true}, {Incarnation: 8, Seq: 3, Flush: true}, {Incarnation: 9, Seq: 3, Flush: true}, {Incarnation: 10, Seq: 4}},
		Invalidations: []codec.Invalidation{ofKey(7, 2), ofKey(7, 3), ofKey(9, 4), ofKey(1, 1)},
	}
	x.copies.fenced = nil
	for _, want := range []uint64{3, 0} {
		if got := x.Receive(n); got != want || x.Counts().Flushed.Load() != 1 {
			t.Errorf("%d were new, flushed %d times; want %d, and once", got, x.Counts().Flushed.Load(), want)
		}
	}
	if want := []string{"all, own false", "key k {7 3} version 0", "key k {9 4} version 0"}; !slices.Equal(x.copies.fenced, want) || x.told != 1 {
		t.Errorf("fenced %q, want %q, and %d calls of OnFlush", x.copies.fenced, want, x.told)
	}
	for incarnation, seq := range map[uint64]uint64{7: 3, 8: 3, 9: 4, 10: 4} {
		if !x.upTo(incarnation, seq) {
			t.Errorf("not all of %d is applied up to %d", incarnation, seq)
		}
	}
}

// The numbers beyond a gap are bounded. One that does not fit is applied again when it is received again, and is not
// taken for applied when the gap closes.
func TestNumbersBeyondAGap(t *testing.T) {
	x := newSolo(t, 0, 0, journal.Limits{})
	for seq := uint64(258); seq >= 3; seq-- {
		x.receive(ofKey(7, seq))
	}
	for _, c := range []struct{ seq, applied uint64 }{{3, 0}, {258, 0}, {259, 1}, {259, 1}, {1, 1}, {2, 1}, {259, 1}, {259, 0}} {
		if got := x.Receive(&codec.News{Invalidations: []codec.Invalidation{ofKey(7, c.seq)}}); got != c.applied {
			t.Errorf("number %d: %d were new, want %d", c.seq, got, c.applied)
		}
	}
	if !x.upTo(7, 259) {
		t.Error("the gap is not closed")
	}
}

// An answer says how far the sender's invalidations are applied here: those of the incarnation that comes last in the
// request, also if its position is retired or if only bases arrived. It names the members of a view that is not the sender's.
func TestServeNews(t *testing.T) {
	view, now := viewOf(t, "n0", "n1", "n2"), func() int64 { return 1 }
	j := journal.New(t.Context(), journal.Config{Self: "n0", Incarnation: 1, Peers: &stuck{view: view}, Copies: noCopies{}, Fences: fence.New(now, 0, 1), Now: now})
	list, retire := listing(2, 1, gone{8, 3})
	for _, c := range []struct {
		news codec.News
		seq  uint64
	}{
		{codec.News{}, 0},
		{codec.News{Invalidations: []codec.Invalidation{ofKey(7, 1), ofKey(7, 2)}}, 2},
		{codec.News{Invalidations: []codec.Invalidation{ofKey(7, 5)}}, 2},
		{codec.News{Bases: []codec.Base{{Incarnation: 7, Seq: 4}, {Incarnation: 8, Seq: 3}}}, 3},
		{codec.News{Bases: []codec.Base{{Incarnation: 9, Seq: 3}}, Invalidations: []codec.Invalidation{ofKey(7, 9)}}, 5},
		{codec.News{Invalidations: []codec.Invalidation{list, retire}}, 2},
		{codec.News{Invalidations: []codec.Invalidation{ofKey(8, 2)}}, 3}, // retired
		{codec.News{Invalidations: []codec.Invalidation{ofKey(8, 4)}}, 4},
	} {
		var resp codec.Response
		j.ServeNews(&codec.Request{View: view.Fingerprint(), News: &c.news}, &resp)
		if resp.Status != codec.StatusDone || resp.Incarnation != 1 || resp.Seq != c.seq || len(resp.Members) > 0 {
			t.Errorf("%+v: the answer is %+v, want number %d", c.news, resp, c.seq)
		}
	}
	var resp codec.Response
	if j.ServeNews(&codec.Request{View: view.Fingerprint() + 1, News: new(codec.News)}, &resp); fmt.Sprintf("%s", resp.Members) != "[n1 n2]" {
		t.Errorf("the members named are %s", resp.Members)
	}
	if j.ServeNews(new(codec.Request), &resp); resp.Status != codec.StatusDone {
		t.Errorf("without news: %+v", resp)
	}
}
