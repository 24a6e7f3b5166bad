//go:build unix

package bench

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/weircache/weir/bench/cputime"
	"github.com/weircache/weir/tier"
)

// BenchmarkStorm makes 200 fresh goroutines on each of three nodes request one cold key at once, whose load takes 5
// ms. It reports the CPU time of the process per get.
func BenchmarkStorm(b *testing.B) {
	const nodes, callers = 3, 200
	all := members(b, nodes, tier.Config[string]{
		Namespace: "storm", Freshness: tier.Freshness{TTL: time.Hour},
		Loader: tier.ByKey(func(context.Context, string) (string, error) {
			time.Sleep(5 * time.Millisecond)
			return "value", nil
		}),
	})
	began, i := cputime.Used(), 0
	for b.Loop() {
		key := "k" + strconv.Itoa(i)
		i++
		var wg sync.WaitGroup
		for j := range nodes * callers {
			wg.Go(func() {
				if _, err := all[j%nodes].Cache.Get(context.Background(), key); err != nil {
					b.Error(err)
				}
			})
		}
		wg.Wait()
	}
	b.ReportMetric(float64(cputime.Used()-began)/float64(i*nodes*callers), "cpu-ns/get")
}
