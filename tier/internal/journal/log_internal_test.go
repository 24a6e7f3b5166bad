package journal

import (
	"testing"

	"github.com/weircache/weir/codec"
)

// A list waits for the invalidation right behind it only. No later one would show that a list is kept for ever.
func TestListsAreForgotten(t *testing.T) {
	for _, seq := range []uint64{2, 3} {
		l := new(log)
		l.init(1, 0, 0, Limits{})
		l.list(&logged{mark: codec.Mark{Incarnation: 2, Seq: seq}, names: retiredNames([]position{{7, 5}})})
		if l.retire(codec.Mark{Incarnation: 2, Seq: 4}, 0); len(l.listed) != 0 {
			t.Errorf("number 4 has come, and the list with number %d is kept", seq)
		}
	}
}
