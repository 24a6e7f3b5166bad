package bench

import (
	"context"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier"
)

// Micro-benchmarks of one node, for make bench-compare. bench/rivals/micro compares a near hit with other
// caches, and the table of bench/rivals/speed has the cost between two nodes.

func microCache(b *testing.B, f tier.Freshness, nearBytes int64) (*tier.Cache[[]byte], []string) {
	b.Helper()
	config := bytesConfig("micro")
	config.NearBytes, config.Freshness = nearBytes, f
	c := alone(b, config)
	keys := make([]string, 10_000)
	for i := range keys {
		keys[i] = "micro:" + strconv.Itoa(i)
	}
	for range 5 {
		for _, k := range keys {
			if _, err := c.Get(b.Context(), k); err != nil {
				b.Fatal(err)
			}
		}
	}
	b.ReportAllocs()
	return c, keys
}

func BenchmarkNearHit(b *testing.B) {
	c, keys := microCache(b, tier.Freshness{TTL: time.Hour, NearTTL: time.Hour}, 0)
	ctx, i := context.Background(), 0
	for b.Loop() {
		if _, err := c.Get(ctx, keys[i%len(keys)]); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

// BenchmarkNearHitZipf gets a few keys most of the time, and many keys otherwise.
func BenchmarkNearHitZipf(b *testing.B) {
	c, keys := microCache(b, tier.Freshness{TTL: time.Hour, NearTTL: time.Hour}, 0)
	z := rand.NewZipf(rand.New(rand.NewPCG(1, 1)), 1.01, 1, uint64(len(keys)-1))
	draws := make([]string, 1<<16)
	for i := range draws {
		draws[i] = keys[z.Uint64()]
	}
	ctx, i := context.Background(), 0
	for b.Loop() {
		if _, err := c.Get(ctx, draws[i%len(draws)]); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

// BenchmarkNearHitContended gets one key from all goroutines.
func BenchmarkNearHitContended(b *testing.B) {
	c, keys := microCache(b, tier.Freshness{TTL: time.Hour, NearTTL: time.Hour}, 0)
	ctx := context.Background()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := c.Get(ctx, keys[0]); err != nil {
				b.Error(err)
				return
			}
		}
	})
}

// BenchmarkNearHitExpiring gets copies that keep expiring: the lease is a hundredth of a second, and the value is
// fresh for a tenth.
func BenchmarkNearHitExpiring(b *testing.B) {
	c, keys := microCache(b, tier.Freshness{TTL: 100 * time.Millisecond, StaleWhileRevalidate: time.Minute, NearTTL: 10 * time.Millisecond}, 0)
	ctx, i := context.Background(), 0
	for b.Loop() {
		if _, err := c.Get(ctx, keys[i%1000]); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

func BenchmarkOwnedHit(b *testing.B) {
	c, keys := microCache(b, tier.Freshness{TTL: time.Hour, NearTTL: -1}, -1)
	ctx, i := context.Background(), 0
	for b.Loop() {
		if _, err := c.Get(ctx, keys[i%len(keys)]); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

func BenchmarkFill(b *testing.B) {
	c, _ := microCache(b, tier.Freshness{TTL: time.Hour}, 0)
	ctx, i := context.Background(), 0
	for b.Loop() {
		if _, err := c.Get(ctx, "cold:"+strconv.Itoa(i)); err != nil {
			b.Fatal(err)
		}
		i++
	}
}

// BenchmarkDecode gets a struct from the near tier, which holds it decoded, from the owned tier, which holds its
// encoding, and from the codec alone.
func BenchmarkDecode(b *testing.B) {
	type variant struct {
		SKU   string
		Sizes []int
	}
	type product struct {
		ID       int64
		Name     string
		Price    float64
		Tags     []string
		Variants []variant
	}
	p := product{ID: 4711, Name: "a chair that folds", Price: 49.9, Tags: []string{"chair", "wood"}}
	for i := range 10 {
		p.Variants = append(p.Variants, variant{SKU: "sku-" + strconv.Itoa(i), Sizes: []int{40, 41, i}})
	}
	for name, lease := range map[string]time.Duration{"near": time.Hour, "owned": -1} {
		b.Run(name, func(b *testing.B) {
			c, err := tier.New(tier.Config[product]{
				Namespace: "micro", Freshness: tier.Freshness{TTL: time.Hour, NearTTL: lease},
				Loader: tier.ByKey(func(context.Context, string) (product, error) { return p, nil }),
			})
			if err != nil {
				b.Fatal(err)
			}
			b.Cleanup(func() { _ = c.Close(context.Background()) })
			b.ReportAllocs()
			for b.Loop() {
				if got, err := c.Get(context.Background(), "k"); err != nil || got.ID != p.ID {
					b.Fatal(got, err)
				}
			}
		})
	}
	b.Run("codec", func(b *testing.B) {
		m := codec.Msgpack[product]()
		packed, err := m.Append(nil, p)
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			if _, err := m.Decode(packed); err != nil {
				b.Fatal(err)
			}
		}
	})
}
