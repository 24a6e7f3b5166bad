package peer

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"testing"
	"testing/synctest"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/weircache/weir/peer/internal/roster"
)

// The message types and structures of memberlist that the tests forge.
const (
	gossipAlive    = 4
	gossipPushPull = 6
)

type aliveClaim struct {
	Incarnation uint32
	Node        string
	Addr        []byte
	Port        uint16
	Meta        []byte
	Vsn         []uint8
}

type pushPullHead struct {
	Nodes        int
	UserStateLen int
	Join         bool
}

type pushPullNode struct {
	Name        string
	Addr        []byte
	Port        uint16
	Meta        []byte
	Incarnation uint32
	State       int
	Vsn         []uint8
}

var gossipVersions = []uint8{1, 5, 5, 0, 0, 0}

// claimed returns the identity of a member that nobody has seen, and that is compatible with a node.
func claimed(to *Node, name string, incarnation uint64) roster.Identity {
	id := to.id
	id.Name, id.Incarnation = name, incarnation
	return id
}

func claimMust(b []byte, v any) []byte {
	text, err := msgpack.Marshal(v)
	if err != nil {
		panic(err)
	}
	return append(b, text...)
}

// claimAlive returns a packet that says that a member is alive.
func claimAlive(to *Node, name, ip string, incarnation uint64) []byte {
	id := claimed(to, name, incarnation)
	return claimMust([]byte{gossipAlive}, aliveClaim{
		Incarnation: 1, Node: id.GossipName(), Addr: netip.MustParseAddr(ip).AsSlice(), Port: 7946, Meta: id.Append(nil), Vsn: gossipVersions,
	})
}

// claimState returns a stream that says that n members are alive.
func claimState(to *Node, n int, join bool) []byte {
	b := claimMust([]byte{gossipPushPull}, pushPullHead{Nodes: n, Join: join})
	for i := range n {
		id := claimed(to, fmt.Sprintf("claimed-%05d", i), 1)
		b = claimMust(b, pushPullNode{
			Name: id.GossipName(), Addr: []byte{10, 1, byte(i >> 8), byte(i)}, Port: 7946, Meta: id.Append(nil), Incarnation: 1, Vsn: gossipVersions,
		})
	}
	return b
}

// TestManyMembersInOneState checks that a state with more members than are allowed is not even taken over in part: the view
// stays.
func TestManyMembersInOneState(t *testing.T) {
	manyMembers(t, func(t *testing.T, r *rig, n1 *Node) {
		for range 3 {
			conn := r.dial(t, 6, n1)
			go func() { _, _ = io.Copy(io.Discard, conn) }()
			if _, err := conn.Write(append([]byte("\xf4\x09weir/weir"), claimState(n1, 10_000, true)...)); err != nil {
				t.Fatal(err)
			}
		}
		synctest.Wait()
		if v := viewNames(n1.View()); v != "n1 n2" {
			t.Errorf("the view has changed to %s", v)
		}
		r.mustLog(t, "n1", "WARN", "Failed push/pull merge", "it claims 10000 members")
	})
}

// TestManyMembersInOneExchange checks the same for a state exchange that does not ask to join.
func TestManyMembersInOneExchange(t *testing.T) {
	manyMembers(t, func(t *testing.T, r *rig, n1 *Node) {
		conn := r.dial(t, 6, n1)
		go func() { _, _ = io.Copy(io.Discard, conn) }()
		if _, err := conn.Write(append([]byte("\xf4\x09weir/weir"), claimState(n1, 10_000, false)...)); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		// The node may have evaluated a state that was taken over in part: its view counts like any other.
		if v := n1.View(); v.Len() > MaxMembers || v.Index("n1") < 0 || v.Index("n2") < 0 {
			t.Errorf("the view has changed to %s", viewNames(v))
		}
		r.mustLog(t, "n1", "ERROR", "the old one stays", "too many members")
		r.mustLog(t, "n1", "WARN", "ignoring alive message", "members are known already")
	})
}

// TestManyMembersOneByOne checks that members that arrive one by one fill the table but do not overflow it.
func TestManyMembersOneByOne(t *testing.T) {
	manyMembers(t, func(t *testing.T, r *rig, n1 *Node) {
		pc, err := r.world.host("10.0.0.6").ListenPacket(t.Context(), "10.0.0.6:7946")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = pc.Close() })
		for i := range 10_000 {
			packet := append([]byte("\xf4\x09weir/weir"), claimAlive(n1, fmt.Sprintf("claimed-%d", i), fmt.Sprintf("10.1.%d.%d", i>>8, i&255), 1)...)
			if _, err := pc.WriteTo(packet, net.TCPAddrFromAddrPort(n1.addr)); err != nil {
				t.Fatal(err)
			}
			if i%100 == 99 {
				synctest.Wait()
			}
		}
		synctest.Wait()
		r.mustLog(t, "n1", "WARN", "ignoring alive message", "members are known already")
		r.mustLog(t, "n1", "ERROR", "the old one stays", "too many members")
	})
}
