package owner_test

import (
	"reflect"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/internal/simtime"
	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/owner"
	"github.com/weircache/weir/tier/internal/store"
)

// A member gets the value with its age, its times, its version, its tags and how it was found, and nothing past its hard expiry
// except the result of a load that outlived it.
func TestFill(t *testing.T) {
	const now, sec = 100 * int64(time.Second), int64(time.Second)
	const stale, filled, tagged, same = codec.FlagStale, codec.FlagFilled, codec.FlagTagged, codec.FlagSameView
	type answer struct {
		codec.Response
		ok       bool
		replicas int64
	}
	for name, x := range map[string]struct {
		flags uint8
		have  uint64
		found func(f *owner.Found)
		want  func(a *answer)
	}{
		"fresh":                    {},
		"at its soft expiry":       {0, 0, func(f *owner.Found) { f.E.Soft = now }, func(a *answer) { a.Soft, a.Why = 0, uint8(store.StaleShed); a.Flags |= stale }},
		"past its soft expiry":     {0, 0, func(f *owner.Found) { f.E.Soft = now - 1 }, func(a *answer) { a.Soft, a.Why = -1, uint8(store.StaleShed); a.Flags |= stale }},
		"just before its expiry":   {0, 0, func(f *owner.Found) { f.E.Soft, f.E.Hard = now+1, now+1 }, func(a *answer) { a.Soft, a.Hard = 1, 1 }},
		"at its hard expiry":       {0, 0, func(f *owner.Found) { f.E.Hard = now }, func(a *answer) { *a = answer{Response: codec.Response{Flags: same}} }},
		"filled":                   {0, 0, func(f *owner.Found) { f.Filled = true }, func(a *answer) { a.Flags |= filled }},
		"rescued":                  {0, 0, func(f *owner.Found) { f.Filled, f.Late = true, true }, nil},
		"filled by another member": {0, 0, func(f *owner.Found) { f.Filled, f.E.Handed = true, true }, nil},
		"filled, outlived by its load": {0, 0, func(f *owner.Found) { f.Filled, f.E.Hard, f.E.Cost = true, now-1, time.Minute },
			func(a *answer) { a.Hard = -1; a.Flags |= filled }},
		"outlived by its load, but found": {0, 0, func(f *owner.Found) { f.E.Hard, f.E.Cost = now-1, time.Minute },
			func(a *answer) { *a = answer{Response: codec.Response{Flags: same}} }},
		"tagged":               {0, 0, func(f *owner.Found) { f.E.Tags = fence.TagsAt([]uint32{5, 6}, 1) }, func(a *answer) { a.Tags = []uint32{5, 6}; a.Flags |= tagged }},
		"loaded after the now": {0, 0, func(f *owner.Found) { f.E.Loaded = now + 1 }, func(a *answer) { a.Age = 0 }},
		"only for the callers": {0, 0, func(f *owner.Found) { f.E.Flags = store.Passing }, func(a *answer) { a.Flags |= codec.FlagPassing }},
		"private":              {0, 0, func(f *owner.Found) { f.Private = true }, func(a *answer) { a.Flags &^= same }},
		"not found": {codec.FlagHave, 0, func(f *owner.Found) { f.E.Flags, f.E.Etag, f.E.Soft = store.NotFound, 0, now-1 },
			func(a *answer) { a.Status, a.Soft, a.Value, a.Etag = codec.StatusNotFound, -1, nil, 0 }},
		"what the member has":         {codec.FlagHave, 9, nil, func(a *answer) { a.Status, a.Value, a.Etag = codec.StatusSame, nil, 0 }},
		"not what the member has":     {codec.FlagHave, 8, nil, nil},
		"a member that has nothing":   {0, 9, nil, nil},
		"a replica":                   {0, 0, func(f *owner.Found) { f.E.Replica = true }, nil},
		"a replica, for a stand-in":   {codec.FlagSuccessor, 0, func(f *owner.Found) { f.E.Replica = true }, func(a *answer) { a.Soft, a.Hard, a.replicas = owner.SuccessorTTL, owner.SuccessorTTL, 1 }},
		"the owner's, for a stand-in": {codec.FlagSuccessor, 0, nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			simtime.Test(t, func(t *testing.T) {
				c := alone(t, constant, nil)
				f := owner.Found{Why: store.StaleShed, E: &store.Entry{Value: []byte("v"), Etag: 9, Version: 7, Loaded: now - 60*sec, Soft: now + 10*sec, Hard: now + 30*sec}}
				want := answer{ok: true, Response: codec.Response{
					Status: codec.StatusValue, Incarnation: c.Journal.Incarnation(), Age: time.Minute, Soft: 10 * time.Second, Hard: 30 * time.Second,
					Held: time.Second, Flags: same, Value: []byte("v"), Etag: 9, Version: 7,
				}}
				if x.found != nil {
					x.found(&f)
				}
				if x.want != nil {
					x.want(&want)
				}
				got := answer{Response: codec.Response{Flags: same}}
				got.ok = c.Handler().Fill(now, x.flags, x.have, &got.Response, &f, time.Second)
				got.replicas = c.Stats.ReplicasServed.Load()
				if !reflect.DeepEqual(got, want) {
					t.Errorf("\n got %+v\nwant %+v", got, want)
				}
			})
		})
	}
}
