//go:build unix

package bench

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/weircache/weir/bench/cputime"
	"github.com/weircache/weir/peer"
	"github.com/weircache/weir/tier"
)

// BenchmarkStorm makes 200 fresh goroutines on each of three nodes request one cold key at once, whose load takes 5
// ms. It reports the CPU time of the process per get.
func BenchmarkStorm(b *testing.B) {
	const nodes, callers = 3, 200
	quiet := slog.New(slog.DiscardHandler)
	var caches []*tier.Cache[string]
	var all []*peer.Node
	var join []string
	for i := range nodes {
		node, err := peer.Start(b.Context(), peer.Config{Name: "n" + strconv.Itoa(i), Join: join, Logger: quiet})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = node.Close() })
		c, err := tier.New(tier.Config[string]{
			Cluster: node, Namespace: "storm", Freshness: tier.Freshness{TTL: time.Hour},
			Loader: tier.ByKey(func(context.Context, string) (string, error) {
				time.Sleep(5 * time.Millisecond)
				return "value", nil
			}),
		})
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(func() { _ = c.Close(context.Background()) })
		join, all, caches = []string{node.Addr()}, append(all, node), append(caches, c)
	}
	for _, n := range all {
		awaitView(n, nodes)
	}
	began, i := cputime.Used(), 0
	for b.Loop() {
		key := "k" + strconv.Itoa(i)
		i++
		var wg sync.WaitGroup
		for j := range nodes * callers {
			wg.Go(func() {
				if _, err := caches[j%nodes].Get(context.Background(), key); err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
	}
	b.ReportMetric(float64(cputime.Used()-began)/float64(i*nodes*callers), "cpu-ns/get")
}
