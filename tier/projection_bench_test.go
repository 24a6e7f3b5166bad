package tier

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/weircache/weir/tier/internal/owner"
)

// BenchmarkNearHitSampling measures what the sampling for Projection costs a near hit: the same gets with and without
// it, in turns.
func BenchmarkNearHitSampling(b *testing.B) {
	for _, n := range []int{1000, 300000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			c := open(b, Config[string]{
				Loader:    ByKey(func(context.Context, string) (string, error) { return "v", nil }),
				Freshness: Freshness{TTL: time.Hour, NearTTL: time.Hour, RefreshAhead: -1}, NearBytes: 1 << 30,
			})
			z := newZipf(rand.New(rand.NewPCG(1, 1)), n, 1)
			keys := make([]string, 1<<20)
			for i := range keys {
				keys[i] = fmt.Sprint("product:", z.next())
			}
			ctx := context.Background()
			for _, k := range keys {
				_, _ = c.Get(ctx, k)
			}
			var took [2][]float64
			for i := 0; b.Loop(); i++ {
				c.own.Watch.Store(owner.WatchSome * uint64(i%2))
				began := time.Now()
				const gets = 1 << 18
				for j := range gets {
					_, _ = c.Get(ctx, keys[(i/2*gets+j)%len(keys)])
				}
				took[i%2] = append(took[i%2], float64(time.Since(began))/gets)
			}
			for i := range took {
				slices.Sort(took[i])
			}
			if len(took[1]) == 0 {
				return
			}
			off, on := took[0][len(took[0])/2], took[1][len(took[1])/2]
			b.ReportMetric(off, "ns/get-without")
			b.ReportMetric(on, "ns/get-with")
			b.ReportMetric(100*(on/off-1), "%more")
		})
	}
}
