package bench

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/weircache/weir/bench/member"
	"github.com/weircache/weir/peer"
)

// remoteOwner is the role of the process that owns what BenchmarkRemoteGet reads.
const remoteOwner = "remote-owner"

func startRemote(name string, join ...string) (*member.Member[[]byte], error) {
	return member.Start(context.Background(), peer.Config{Name: name, Join: join}, bytesConfig("remote"))
}

func playRemoteOwner() (line string, stop func(), err error) {
	m, err := startRemote(remoteOwner)
	if err != nil {
		return "", nil, err
	}
	return m.Node.Addr(), func() { _ = m.Close(context.Background()) }, nil
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
	m, err := startRemote("here", p.Words[0])
	if err != nil {
		b.Fatal(err)
	}
	n, c, ctx := m.Node, m.Cache, context.Background()
	defer func() { _ = m.Close(ctx) }()
	if err := member.AwaitView(ctx, n, 2); err != nil {
		b.Fatal(err)
	}
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
