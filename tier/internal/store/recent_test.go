package store_test

import (
	"testing"
	"time"

	"github.com/weircache/weir/tier/internal/store"
)

const recentPlaces = 1 << 14

// A newer hash displaces an older one of the same place and no other.
func TestEvictions(t *testing.T) {
	var v store.Evictions
	has := func(want bool, hash uint64) {
		t.Helper()
		if v.Has(hash) != want {
			t.Errorf("has(%#x) is %v", hash, !want)
		}
	}
	has(false, 5)
	v.Add(5)
	v.Add(6)
	has(true, 5)
	has(true, 6)
	has(false, 5+recentPlaces)
	v.Add(5 + 7*recentPlaces)
	has(true, 5+7*recentPlaces)
	has(false, 5)
	has(true, 6)
}

// Newer says whether this node began a load after the given one, by more than the tolerance, to a millisecond.
func TestOwnLoads(t *testing.T) {
	const ms = int64(time.Millisecond)
	const wrap = 1 << 40 // in ms
	const high = 1 << 50 // in a hash: another key of the same place
	for _, x := range []struct {
		name               string
		added, loaded, tol int64 // in ms
		want               bool
	}{
		{"later", 5000, 4000, 0, true},
		{"the same", 5000, 5000, 0, false},
		{"earlier", 5000, 5001, 0, false},
		{"much earlier", 5000, 50_000_000, 0, false},
		{"later by more than the tolerance", 5000, 4000, 999, true},
		{"later by the tolerance", 5000, 4000, 1000, false},
		{"later by less than the tolerance", 5000, 4000, 1001, false},
		{"later, over the end of the recorded time", wrap + 5, wrap - 5, 0, true},
		{"earlier, over the end of the recorded time", wrap - 5, wrap + 5, 0, false},
		{"later by ten years", 5000 + wrap/4, 5000, 0, true},
		{"earlier by ten years", 5000, 5000 + wrap/4, 0, false},
	} {
		for _, hash := range []uint64{7, 7 + 3*high} {
			var o store.OwnLoads
			o.Add(hash, x.added*ms)
			if got := o.Newer(hash, x.loaded*ms, x.tol*ms); got != x.want {
				t.Errorf("%s: newer is %v", x.name, got)
			}
			if o.Newer(hash+high, x.loaded*ms, x.tol*ms) || o.Newer(hash+1, x.loaded*ms, x.tol*ms) {
				t.Errorf("%s: another key has it", x.name)
			}
		}
	}
	var o store.OwnLoads
	if o.Newer(7, -1000*ms, 0) || o.Newer(7, 0, 0) {
		t.Error("there is a load before the first")
	}
	o.Add(7, 5000*ms)
	o.Add(7+high, 5000*ms)
	if o.Newer(7, 0, 0) || !o.Newer(7+high, 0, 0) {
		t.Error("the newer key does not have the place")
	}
	o.Add(7+high, 1000*ms+ms/2)
	if o.Newer(7+high, 1000*ms, 0) {
		t.Error("half a millisecond counts")
	}
}
