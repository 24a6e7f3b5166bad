package bench

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/peer"
	"github.com/weircache/weir/tier"
)

// remoteOwner is the role of the process that owns what BenchmarkRemoteGet reads.
const remoteOwner = "remote-owner"

func startRemote(name string, join ...string) (*peer.Node, *tier.Cache[[]byte], error) {
	n, err := peer.Start(context.Background(), peer.Config{Name: name, Bind: "127.0.0.1:0", Join: join, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return nil, nil, err
	}
	value := make([]byte, 256)
	c, err := tier.New(tier.Config[[]byte]{
		Cluster: n, Namespace: "remote", Codec: codec.Raw[[]byte](), NearBytes: -1, Freshness: tier.Freshness{TTL: time.Hour},
		Loader: tier.ByKey(func(context.Context, string) ([]byte, error) { return value, nil }),
	})
	if err != nil {
		_ = n.Close()
		return nil, nil, err
	}
	return n, c, nil
}

func playRemoteOwner() (line string, stop func(), err error) {
	n, c, err := startRemote(remoteOwner)
	if err != nil {
		return "", nil, err
	}
	return n.Addr(), func() {
		_ = c.Close(context.Background())
		_ = n.Close()
	}, nil
}

// BenchmarkRemoteGet is a complete Get of a key that another process owns, without a near tier. Each caller has its
// own keys, because callers of one key would share their request.
func BenchmarkRemoteGet(b *testing.B) {
	const most, each = 512, 4
	p, err := Child(remoteOwner)
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		if err := p.Stop(); err != nil {
			b.Error(err)
		}
	}()
	n, c, err := startRemote("here", p.Words[0])
	if err != nil {
		b.Fatal(err)
	}
	defer func() {
		_ = c.Close(context.Background())
		_ = n.Close()
	}()
	awaitView(n, 2)
	ctx := context.Background()
	var keys []string
	for i := 0; len(keys) < most*each; i++ {
		if key := "remote:" + strconv.Itoa(i); n.View().Owner(key).Name == remoteOwner {
			keys = append(keys, key)
			if _, err := c.Get(ctx, key); err != nil {
				b.Fatal(err)
			}
		}
	}
	for _, callers := range []int{1, 64, most} {
		b.Run(fmt.Sprintf("callers=%d", callers), func(b *testing.B) {
			b.ReportAllocs()
			asked := c.Stats().Asked
			var next atomic.Int64
			var wg sync.WaitGroup
			for i := range callers {
				own := keys[i*each : (i+1)*each]
				wg.Go(func() {
					for j := 0; next.Add(1) <= int64(b.N); j++ {
						if _, err := c.Get(ctx, own[j%each]); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "gets/s")
			if asked = c.Stats().Asked - asked; asked < int64(b.N) {
				b.Errorf("%d of %d gets did not ask the owner", int64(b.N)-asked, b.N)
			}
		})
	}
}
