package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"time"

	"github.com/weircache/weir/bench"
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

// startNode starts a node of the measured cluster and its cache without a near tier: each get of a key that the
// other node owns goes to that node. With a secret it uses TLS.
func startNode(secret peer.Secret, name string, join ...string) (*peer.Node, *tier.Cache[[]byte], error) {
	n, err := peer.Start(context.Background(), peer.Config{
		Name: name, Bind: "127.0.0.1:0", Join: join, ClusterName: "speed", Secret: secret,
		Logger: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		return nil, nil, err
	}
	c, err := tier.New(tier.Config[[]byte]{
		Cluster: n, Namespace: "speed",
		Loader: tier.ByKey(func(_ context.Context, key string) ([]byte, error) {
			return value(sizeOf(key)), nil
		}),
		Codec:     codec.Raw[[]byte](),
		Freshness: tier.Freshness{TTL: forever, NearTTL: -1},
	})
	if err != nil {
		_ = n.Close()
		return nil, nil, err
	}
	return n, c, nil
}

// awaitMembers waits until the node sees the given number of members.
func awaitMembers(n *peer.Node, members int) error {
	late := time.NewTimer(15 * time.Second)
	defer late.Stop()
	for {
		changed := n.ViewChanged()
		if n.View().Len() >= members {
			return nil
		}
		select {
		case <-changed:
		case <-late.C:
			return fmt.Errorf("%s sees %d members after 15 s, not %d", n.Name(), n.View().Len(), members)
		}
	}
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

// closeNode closes what startNode started.
func closeNode(n *peer.Node, c *tier.Cache[[]byte]) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	return errors.Join(c.Close(ctx), n.Close())
}
