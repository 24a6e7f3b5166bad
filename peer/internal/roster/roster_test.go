package roster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/weircache/weir/ring"
)

// idle is a host without calls and loads.
type idle struct {
	ended func(start ring.Member) bool // nil: nothing is known of any end
}

func (idle) Allow(map[string]uint64)    {}
func (idle) Confine(map[string]uint64)  {}
func (idle) LongestLoad() time.Duration { return 0 }

func (i idle) HasEnded(_ context.Context, start ring.Member) bool {
	return i.ended != nil && i.ended(start)
}

// noPackets is a socket that nobody uses.
type noPackets struct{ net.PacketConn }

// quiet returns a roster that does not gossip.
func quiet(t *testing.T, h Host) *Roster {
	t.Helper()
	r, err := New(Config{
		Self: sample(), Addr: netip.MustParseAddrPort("10.0.0.1:7946"), MinMembers: 1, Gossip: Gossip{Packets: noPackets{}},
		Logger: slog.New(slog.DiscardHandler), Rand: rand.New(rand.NewPCG(1, 0)),
	}, h)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestViewIsBounded checks that a view has a limit of its own, below what the ring would place.
func TestViewIsBounded(t *testing.T) {
	members := make([]ring.Member, MaxMembers+1)
	for i := range members {
		members[i].Name = fmt.Sprint(i)
	}
	if _, err := quiet(t, idle{}).build(members); !errors.Is(err, ring.ErrTooManyMembers) {
		t.Errorf("%d members: %v", len(members), err)
	}
}

// TestHostProvesEnds checks that a lost member counts as ended if the host proves it, and only then.
func TestHostProvesEnds(t *testing.T) {
	r := quiet(t, idle{ended: func(start ring.Member) bool { return start.Name == "dead" }})
	r.ctx = t.Context()
	for i, name := range []string{"dead", "silent"} {
		n := gossiped(name, 10, byte(2+i), nil)
		r.table.NotifyJoin(n)
		r.table.NotifyLeave(n)
	}
	r.lookForProof(r.table.look(time.Now()).unproven)
	if left := r.table.look(time.Now()).unproven; len(left) != 1 || left[0].Name != "silent" {
		t.Errorf("unproven: %v", left)
	}
}
