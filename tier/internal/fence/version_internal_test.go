package fence

import (
	"fmt"
	"testing"

	"github.com/weircache/weir/codec"
)

// Sweep takes versions past retention out of memory. Behind does not show that: it ignores them, swept or not.
func TestVersionsAreSwept(t *testing.T) {
	now := int64(0)
	f := New(func() int64 { return now }, 10, 0)
	for i := range 10 {
		f.Apply(fmt.Sprint("k", i), 0, codec.Mark{Incarnation: 3, Seq: uint64(i) + 1}, 5, func(bool) {})
	}
	f.Wipe(false)
	s := f.shard(0)
	if n := len(s.versions.m); n != 10 {
		t.Fatalf("%d versions, want 10", n)
	}
	now = 11
	if f.Sweep(); len(s.versions.m) != 0 {
		t.Errorf("%d versions are remembered for ever", len(s.versions.m))
	}
}
