package owner_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/internal/simtime"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/owner"
	"github.com/weircache/weir/tier/internal/store"
)

// The greatest age of an answer is that of the longest life and the longest staleness, and a TTL beyond MaxTTL is an error.
func TestContract(t *testing.T) {
	f := owner.Contract{TTL: 2, MaxTTL: 5, StaleWhileRevalidate: 10, StaleIfError: 20}
	if got := f.Bound(); got != 25 {
		t.Error(got)
	}
	f.StaleWhileRevalidate, f.TTL = 30, 7
	if got := f.Bound(); got != 37 {
		t.Error(got)
	}
	for ttl, want := range map[time.Duration]error{5: nil, 6: owner.ErrTTLTooLong} {
		if err := f.Allows(ttl); !errors.Is(err, want) {
			t.Errorf("%d: %v", ttl, err)
		}
	}
	f.MaxTTL = 0
	if err := f.Allows(time.Hour); err != nil {
		t.Error(err)
	}
}

// Keys and tags have limits; the error says which one of several is wrong.
func TestCheckNames(t *testing.T) {
	tag, key := strings.Repeat("t", codec.MaxTag), strings.Repeat("k", codec.MaxKey)
	for i, x := range []struct {
		err  error
		want error
		text string
	}{
		{owner.CheckTag(tag), nil, ""},
		{owner.CheckTag(tag + "t"), owner.ErrBadTag, "257 bytes"},
		{owner.CheckTag(""), owner.ErrBadTag, "empty"},
		{owner.CheckKey(key), nil, ""},
		{owner.CheckKey(key + "k"), owner.ErrKeyTooLarge, "1025 bytes"},
		{owner.CheckKey(""), owner.ErrEmptyKey, ""},
		{owner.CheckKeys([]string{"a", key}), nil, ""},
		{owner.CheckKeys([]string{"a", ""}), owner.ErrEmptyKey, "key 2 of 2"},
		{owner.CheckTags([]string{"a", tag}), nil, ""},
		{owner.CheckTags([]string{"a", "", "c"}), owner.ErrBadTag, "tag 2 of 3"},
	} {
		if !errors.Is(x.err, x.want) || x.err != nil && !strings.Contains(x.err.Error(), x.text) {
			t.Errorf("%d: %v", i, x.err)
		}
	}
}

// An error that crosses from one member to another matches up to eight errors of the package there; a number that the member
// does not know matches none.
func TestErrorsOfOtherMembers(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		a, b := newNetwork(t).pair(constant, nil)
		key := keyOf(a.View(), "b", 0)
		all := []error{
			owner.ErrNotFound, owner.ErrOverloaded, owner.ErrBadTag, owner.ErrEmptyKey, owner.ErrKeyTooLarge, owner.ErrGoexit,
			owner.ErrExpired, owner.ErrUnset, owner.ErrBadToken, owner.ErrFeedGap,
		}
		for n := range all {
			b.node.plant(key, store.Entry{Flags: store.Failed, Soft: second, SWR: second, Hard: second, Rare: &store.Rare{Err: errors.Join(all[:n+1]...)}})
			resp, _ := b.node.waits(b.node.get(key, 0))
			err := owner.ErrorOf(&resp)
			for i, e := range all {
				if errors.Is(err, e) != (i <= min(n, 7)) {
					t.Errorf("%d errors: number %d is recognized: %v", n+1, i, errors.Is(err, e))
				}
			}
		}
		for _, number := range []uint64{12, 24, 255, 255 << 56} { // 12 is free
			err := owner.ErrorOf(&codec.Response{Incarnation: number, Text: []byte("later")})
			if err.Error() != "later" || errors.Is(err, owner.ErrTTLTooLong) || errors.Is(err, fmt.Errorf("later")) {
				t.Error(err)
			}
		}
	})
}

// An invalidation that brings the version of a mark which came earlier, with a request, drops what is older than the version.
func TestLateVersion(t *testing.T) {
	for version, dropped := range map[uint64]bool{0: false, 6: true, 7: false, 8: false} {
		simtime.Test(t, func(t *testing.T) {
			c, hash := alone(t, constant, nil), ring.Hash("k")
			mark := codec.Mark{Incarnation: 77, Seq: 1}
			if !c.Note("k", hash, mark, 0) || c.Note("k", hash, mark, 0) {
				t.Error("a mark is applied once")
			}
			c.plant("k", store.Entry{Version: version, Soft: second, SWR: second, Hard: second})
			if got := c.Stats.Fences.Load(); got != 1 {
				t.Errorf("%d fences", got)
			}
			owner.Copies{C: c.Owner}.FenceKey("k", hash, mark, 7)
			if _, ok := c.Owned.Get("k"); ok == dropped || c.Stats.Fences.Load() != 1 {
				t.Errorf("version %d is still there: %v; %d fences", version, ok, c.Stats.Fences.Load())
			}
			owner.Copies{C: c.Owner}.FenceKey("k", hash, codec.Mark{Incarnation: 77, Seq: 2}, 0)
			if _, ok := c.Owned.Get("k"); ok || c.Stats.Fences.Load() != 2 {
				t.Errorf("a later mark has not dropped the copy; %d fences", c.Stats.Fences.Load())
			}
		})
	}
}

// A mark for which the table has no room becomes an invalidation of this node, which stands for it.
func TestNoRoomForAMark(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		c, hash := alone(t, constant, nil), ring.Hash("k")
		for i := range uint64(3) { // as many as a key may have
			c.Note("k", hash, codec.Mark{Incarnation: 70 + i, Seq: 1}, 0)
		}
		c.plant("k", store.Entry{Soft: second, SWR: second, Hard: second})
		positions := len(c.Journal.Positions().Positions)
		if !c.Note("k", hash, codec.Mark{Incarnation: 77, Seq: 1}, 0) {
			t.Error("the mark is not applied")
		}
		if _, ok := c.Owned.Get("k"); ok || len(c.Journal.Positions().Positions) != positions+1 {
			t.Errorf("the copy is still there: %v, %d positions", ok, len(c.Journal.Positions().Positions))
		}
	})
}
