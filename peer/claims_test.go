package peer

import (
	"fmt"
	"net/netip"

	"github.com/vmihailenco/msgpack/v5"

	"github.com/weircache/weir/ring"
)

// What memberlist sends, as far as the tests forge it: its message types and structures.
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

var gossipVersions = []uint8{1, 5, 5, 2, 5, 4}

// claimed is the identity of a member that nobody has seen.
func claimed(name string, incarnation uint64) identity {
	digest, _ := placement(ring.Config{})
	return identity{
		name: name, cluster: DefaultClusterName, incarnation: incarnation,
		protocol: protocolVersion, ringVersion: ring.Version, placement: digest,
	}
}

func claimMust(b []byte, v any) []byte {
	text, err := msgpack.Marshal(v)
	if err != nil {
		panic(err)
	}
	return append(b, text...)
}

// claimAlive is a packet that says that a member is there.
func claimAlive(name, ip string, incarnation uint64) []byte {
	id := claimed(name, incarnation)
	return claimMust([]byte{gossipAlive}, aliveClaim{
		Incarnation: 1, Node: id.gossipName(), Addr: netip.MustParseAddr(ip).AsSlice(), Port: 7946, Meta: id.append(nil), Vsn: gossipVersions,
	})
}

// claimState is a stream that says that n members are there.
func claimState(n int, join bool) []byte {
	b := claimMust([]byte{gossipPushPull}, pushPullHead{Nodes: n, Join: join})
	for i := range n {
		id := claimed(fmt.Sprintf("claimed-%05d", i), 1)
		b = claimMust(b, pushPullNode{
			Name: id.gossipName(), Addr: []byte{10, 1, byte(i >> 8), byte(i)}, Port: 7946, Meta: id.append(nil), Incarnation: 1, Vsn: gossipVersions,
		})
	}
	return b
}
