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
		for n.View().Len() < 3 {
			<-n.ViewChanged()
		}
	}
	var wg sync.WaitGroup
	for _, c := range caches {
		for range 200 {
			wg.Go(func() {
				v, err := c.Get(ctx, "k")
				if v != "k-0" || err != nil {
					t.Error(v, err)
				}
			})
		}
	}
	wg.Wait()
	if n := loads.Load(); n != 1 {
		t.Fatalf("%d loads", n)
	}
	version.Store(1)
	if err := caches[1].Invalidate(ctx, "k"); err != nil {
		t.Fatal(err)
	}
	for _, c := range caches {
		a, err := c.Read(ctx, "k", tier.ReadOptions{MaxAge: tier.AnyAge})
		if a.Value != "k-1" || err != nil {
			t.Error(a, err)
		}
		t.Logf("%+v", a)
	}
	if n := loads.Load(); n != 2 {
		for i, c := range caches {
			s := c.Stats()
			t.Logf("%d %s: by %v results %v fences %d entries %d moved %d unreach %d byp %d asked %d", i, nodes[i].View().Owner("k").Name, s.LoadsBy, s.ResultsBy, s.Fences, s.OwnedEntries, s.Moved, s.Unreachable, s.Bypassed, s.Asked)
		}
		t.Fatalf("%d loads", n)
	}
}
