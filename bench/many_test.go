package bench

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/weircache/weir/bench/member"
	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/peer"
	"github.com/weircache/weir/tier"
)

// BenchmarkMany reads 100 keys that three nodes of this process own, on one of them and without its near tier, and
// compares that with one remote get. In each round every way has its turn, after a rest. The medians are reported,
// in microseconds.
func BenchmarkMany(b *testing.B) {
	caches := manyCaches(b, 3)
	c, ctx := caches[0].Cache, context.Background()
	keys := make([]string, 100)
	for i := range keys {
		keys[i] = "many:" + strconv.Itoa(i)
	}
	remote := keys[slices.IndexFunc(keys, func(k string) bool { return caches[0].Node.View().Owner(k).Name != "n0" })]
	ways := []struct {
		name string
		read func() error
	}{
		{"remote_get", func() error {
			_, err := c.Get(ctx, remote)
			return err
		}},
		{"get_many", func() error {
			got, err := c.GetMany(ctx, keys)
			if err == nil && len(got) != len(keys) {
				err = fmt.Errorf("%d values", len(got))
			}
			return err
		}},
		{"one_by_one", func() error {
			for _, key := range keys {
				if _, err := c.Get(ctx, key); err != nil {
					return err
				}
			}
			return nil
		}},
		{"at_once", func() error { // pipelined single gets
			var wg sync.WaitGroup
			for _, key := range keys {
				wg.Go(func() {
					if _, err := c.Get(ctx, key); err != nil {
						b.Error(err)
					}
				})
			}
			wg.Wait()
			return nil
		}},
	}
	took := make([][]float64, len(ways))
	rest := time.NewTicker(time.Millisecond)
	defer rest.Stop()
	for b.Loop() {
		for i, way := range ways {
			<-rest.C
			<-rest.C
			began := time.Now()
			if err := way.read(); err != nil {
				b.Fatal(err)
			}
			took[i] = append(took[i], float64(time.Since(began).Nanoseconds())/1e3)
		}
	}
	b.ReportMetric(0, "ns/op") // meaningless, because of the rests
	for i, way := range ways {
		b.ReportMetric(Median(took[i]), way.name+"-us")
	}
}

// BenchmarkGetMany measures GetMany alone, without rests.
func BenchmarkGetMany(b *testing.B) {
	c := manyCaches(b, 3)[0].Cache
	for _, n := range []int{1, 10, 100, 1000} {
		keys := make([]string, n)
		for i := range keys {
			keys[i] = "many:" + strconv.Itoa(i)
		}
		b.Run(fmt.Sprintf("keys=%d", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := c.GetMany(context.Background(), keys); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// members starts a group of nodes, each with a cache, for one test.
func members[V any](tb testing.TB, n int, c tier.Config[V]) []*member.Member[V] {
	tb.Helper()
	all, err := member.Group(tb.Context(), n, peer.Config{}, c)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := member.CloseAll(context.Background(), all); err != nil {
			tb.Error(err)
		}
	})
	return all
}

// bytesConfig configures a cache without a near tier, with values of 256 bytes.
func bytesConfig(name string) tier.Config[[]byte] {
	value := make([]byte, 256)
	return tier.Config[[]byte]{
		Namespace: name, Codec: codec.Raw[[]byte](), NearBytes: -1, Freshness: tier.Freshness{TTL: time.Hour},
		Loader: tier.ByKey(func(context.Context, string) ([]byte, error) { return value, nil }),
	}
}

// alone creates a cache without a cluster for one test.
func alone(tb testing.TB, c tier.Config[[]byte]) *tier.Cache[[]byte] {
	tb.Helper()
	cache, err := tier.New(c)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() {
		if err := cache.Close(context.Background()); err != nil {
			tb.Error(err)
		}
	})
	return cache
}

func manyCaches(tb testing.TB, n int) []*member.Member[[]byte] {
	tb.Helper()
	all := members(tb, n, bytesConfig("many"))
	for _, m := range all {
		for i := range 1000 {
			if _, err := m.Cache.Get(context.Background(), "many:"+strconv.Itoa(i)); err != nil {
				tb.Fatal(err)
			}
		}
	}
	return all
}
