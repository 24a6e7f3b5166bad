package peer_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weircache/weir/peer"
	"github.com/weircache/weir/tier"
)

func TestThreeNodesOneLoad(t *testing.T) {
	ctx := context.Background()
	var loads atomic.Int64
	var version atomic.Int64
	var caches []*tier.Cache[string]
	var nodes []*peer.Node
	var join []string
	for i := range 3 {
		n, err := peer.Start(ctx, peer.Config{Name: fmt.Sprintf("n%d", i), Bind: "127.0.0.1:0", Join: join})
		if err != nil {
			t.Fatal(err)
		}
		defer n.Close()
		nodes = append(nodes, n)
		join = []string{nodes[0].Addr()}
		c, err := tier.New(tier.Config[string]{
			Cluster: n, Namespace: "x", Logger: slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{Level: slog.LevelDebug})),
			Loader: tier.ByKey(func(ctx context.Context, key string) (string, error) {
				loads.Add(1)
				t := time.NewTimer(40 * time.Millisecond)
				<-t.C
				return fmt.Sprintf("%s-%d", key, version.Load()), nil
			}),
			Freshness: tier.Freshness{TTL: time.Minute, NearTTL: time.Second},
		})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close(ctx)
		caches = append(caches, c)
	}
	for _, n := range nodes {
		for changed := n.ViewChanged(); n.View().Len() < 3; changed = n.ViewChanged() {
			<-changed
		}
	}
	all := func(k, want string) {
		var wg sync.WaitGroup
		for _, c := range caches {
			for range 200 {
				wg.Go(func() {
					if v, err := c.Get(ctx, k); v != want || err != nil {
						t.Error(v, err)
					}
				})
			}
		}
		wg.Wait()
	}
	for round := range 100 {
		k := fmt.Sprint("k", round)
		before := unrest(nodes, caches)
		loads.Store(0)
		version.Store(0)
		all(k, k+"-0")
		first := loads.Load()
		version.Store(1)
		err := caches[1].Invalidate(ctx, k)
		if err == nil {
			all(k, k+"-1")
		}
		if unrest(nodes, caches) != before { // the machine was too busy for members to answer in time
			continue
		}
		if n := loads.Load(); first != 1 || n != 2 || err != nil {
			t.Errorf("%d loads, %d after the invalidation, %v", first, n, err)
		}
		return
	}
	t.Error("members were unreachable in each of 100 rounds")
}

// unrest changes when a request was not answered by the key's owner, or when a view has changed.
func unrest(nodes []*peer.Node, caches []*tier.Cache[string]) (sum uint64) {
	for i, c := range caches {
		s := c.Stats()
		sum += uint64(s.Unreachable + s.Moved + s.Bypassed + s.Unconfirmed)
		sum += nodes[i].View().Fingerprint()
	}
	return sum
}
