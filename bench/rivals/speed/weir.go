package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/weircache/weir/bench"
	"github.com/weircache/weir/bench/member"
	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/peer"
	"github.com/weircache/weir/tier"
)

// sizes are the lengths of the values that travel between processes.
var sizes = []int{256, 4096}

// value returns an incompressible value of n bytes.
func value(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte('a' + (i*7+i>>3)%26)
	}
	return b
}

// sizeOf returns the length of the value of a key.
func sizeOf(key string) int {
	if strings.HasPrefix(key, "large") {
		return sizes[1]
	}
	return sizes[0]
}

// keyOf returns the i-th key with values of the given size.
func keyOf(size, i int) string {
	if size == sizes[1] {
		return fmt.Sprintf("large:%05d", i)
	}
	return fmt.Sprintf("small:%05d", i)
}

// secret is the secret of the cluster with TLS. It does not protect anything: both processes know it from here.
var secret = peer.Secret("only for measuring, on a loopback")[:peer.SecretSize]

// weirMember is a node of weir with its cache.
type weirMember = member.Member[[]byte]

// startWithin is how long a node or a group of nodes may take to start, closeWithin how long to end.
const (
	startWithin = 15 * time.Second
	closeWithin = 5 * time.Second
)

// cacheConfig returns the configuration of a cache whose values the loader makes at once, each as long as its key
// says.
func cacheConfig(name string, f tier.Freshness) tier.Config[[]byte] {
	return tier.Config[[]byte]{
		Namespace: name, Freshness: f, Codec: codec.Raw[[]byte](),
		Loader: tier.ByKey(func(_ context.Context, key string) ([]byte, error) { return value(sizeOf(key)), nil }),
	}
}

// startNode starts a node of the measured cluster and its cache without a near tier: each get of a key that the
// other node owns goes to that node. With a secret it uses TLS.
func startNode(secret peer.Secret, name string, join ...string) (*weirMember, error) {
	ctx, cancel := context.WithTimeout(context.Background(), startWithin)
	defer cancel()
	return member.Start(ctx, peer.Config{Name: name, Join: join, ClusterName: "speed", Secret: secret},
		cacheConfig("speed", tier.Freshness{TTL: forever, NearTTL: -1}))
}

// startMembers starts nodes in this process, each with a cache.
func startMembers(nodes int, c tier.Config[[]byte]) ([]*weirMember, error) {
	ctx, cancel := context.WithTimeout(context.Background(), startWithin)
	defer cancel()
	return member.Group(ctx, nodes, peer.Config{ClusterName: c.Namespace}, c)
}

// awaitView waits until the node sees the given number of members.
func awaitView(m *weirMember, members int) error {
	ctx, cancel := context.WithTimeout(context.Background(), startWithin)
	defer cancel()
	return member.AwaitView(ctx, m.Node, members)
}

// closeMembers closes nodes and their caches.
func closeMembers(all ...*weirMember) error {
	ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
	defer cancel()
	return member.CloseAll(ctx, all)
}

// ownedBy finds count keys with values of the given size that the named member owns.
func ownedBy(n *peer.Node, name string, size, count int) []string {
	keys := make([]string, 0, count)
	for i := 0; len(keys) < count; i++ {
		if k := keyOf(size, i); n.View().Owner(k).Name == name {
			keys = append(keys, k)
		}
	}
	return keys
}

// weirCaller gets keys in turn through the cache.
func weirCaller(c *tier.Cache[[]byte], keys []string) bench.Caller {
	ctx := context.Background()
	i := 0
	return bench.Caller{Call: func() error {
		k := keys[i%len(keys)]
		i++
		v, err := c.Get(ctx, k)
		if err != nil {
			return err
		}
		if len(v) != sizeOf(k) {
			return fmt.Errorf("%q: %d bytes", k, len(v))
		}
		return nil
	}}
}
