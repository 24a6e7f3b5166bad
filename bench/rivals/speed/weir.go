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

// checkSize returns an error if a key's value does not have its length.
func checkSize(key string, n int) error {
	if n != sizeOf(key) {
		return fmt.Errorf("%q: %d bytes", key, n)
	}
	return nil
}

// keyOf returns the i-th key with values of the given size.
func keyOf(size, i int) string {
	if size == sizes[1] {
		return fmt.Sprintf("large:%05d", i)
	}
	return fmt.Sprintf("small:%05d", i)
}

const (
	// keysEach is how many keys each caller has for itself. In weir, callers of one key share a request. That is not
	// what is measured here, so no two callers have a key in common.
	keysEach = 4
	// mostCallers is the largest number of callers.
	mostCallers = 512
	forever     = 100 * time.Hour
)

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

// ownedElsewhere finds count keys with values of the given size that other members own.
func ownedElsewhere(m *weirMember, size, count int) []string {
	keys := make([]string, 0, count)
	for i := 0; len(keys) < count; i++ {
		if k := keyOf(size, i); m.Node.View().Owner(k).Name != m.Node.Name() {
			keys = append(keys, k)
		}
	}
	return keys
}

// weirCaller gets keys in turn through the cache.
func weirCaller(m *weirMember, keys []string) bench.Caller {
	ctx := context.Background()
	i := 0
	return bench.Caller{Call: func() error {
		k := keys[i%len(keys)]
		i++
		v, err := m.Cache.Get(ctx, k)
		if err != nil {
			return err
		}
		return checkSize(k, len(v))
	}}
}

// manyCaller gets all keys in one call.
func manyCaller(m *weirMember, keys []string) bench.Caller {
	return bench.Caller{Call: func() error {
		got, err := m.Cache.GetMany(context.Background(), keys)
		if err != nil {
			return err
		}
		for _, k := range keys {
			if err := checkSize(k, len(got[k])); err != nil {
				return err
			}
		}
		return nil
	}}
}
