package journal_test

import (
	"testing"
	"time"

	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/journal"
)

// A journal that has seen no view keeps nothing that others give it: between New and the first view a request may come.
func TestOpeningBeforeTheFirstView(t *testing.T) {
	one, err := ring.New([]ring.Member{{Name: "n0", Addr: "n0:1"}}, ring.Config{Partitions: 7})
	if err != nil {
		t.Fatal(err)
	}
	now := func() int64 { return 1 }
	for _, peers := range []journal.Peers{nil, &stuck{view: one}} {
		j := journal.New(t.Context(), journal.Config{Self: "n0", Incarnation: 1, Peers: peers, Copies: noCopies{}, Fences: fence.New(now, int64(time.Minute), 1), Now: now, NewFor: time.Minute})
		if alone := peers == nil; j.IsOpening() == alone || j.IsAcquainted() != alone || j.WaitOpen(t.Context()) != alone {
			t.Errorf("no other members %v: opening %v, acquainted %v", alone, j.IsOpening(), j.IsAcquainted())
		}
		if j.ViewChanged(); j.IsOpening() || !j.IsAcquainted() {
			t.Errorf("with a view of this node alone: opening %v, acquainted %v", j.IsOpening(), j.IsAcquainted())
		}
	}
}
