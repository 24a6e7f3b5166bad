package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"github.com/groupcache/groupcache-go/v3"
	"github.com/groupcache/groupcache-go/v3/transport"
	"github.com/groupcache/groupcache-go/v3/transport/peer"

	"github.com/weircache/weir/bench"
	"github.com/weircache/weir/bench/rivals/server"
	"github.com/weircache/weir/ring"
)

// group is a node of groupcache. It keeps all keys that it owns and no others, so that each get of another key goes to
// its owner.
type group struct {
	addr   string
	daemon *groupcache.Daemon
	group  transport.Group
	client *http.Transport
}

func startGroup(others ...string) (*group, error) {
	addr, _, err := server.FreePort()
	if err != nil {
		return nil, err
	}
	g := &group{addr: addr, client: &http.Transport{MaxIdleConns: 4096, MaxIdleConnsPerHost: 512}}
	ctx, quiet, caches := context.Background(), slog.New(slog.DiscardHandler), 0
	g.daemon, err = groupcache.ListenAndServe(ctx, g.addr, groupcache.Options{
		Logger:    quiet,
		HashFn:    func(key []byte) uint64 { return ring.Hash(string(key)) }, // its default assigns similar keys to one node
		Transport: transport.NewHttpTransport(transport.HttpTransportOptions{Client: &http.Client{Transport: g.client}, Logger: quiet}),
		CacheFactory: func(int64) (groupcache.Cache, error) { // first that of the owned keys, then that of others
			caches++
			return &groupKept{m: make(map[string]transport.ByteView), off: caches%2 == 0}, nil
		},
	})
	if err != nil {
		return nil, err
	}
	g.group, err = g.daemon.NewGroup("speed", 64<<20, groupcache.GetterFunc(func(_ context.Context, key string, dest transport.Sink) error {
		return dest.SetBytes(value(sizeOf(key)), time.Time{})
	}))
	peers := []peer.Info{{Address: g.addr}}
	for _, addr := range others {
		peers = append(peers, peer.Info{Address: addr})
	}
	if err = errors.Join(err, g.daemon.SetPeers(ctx, peers)); err != nil {
		return nil, errors.Join(err, g.close())
	}
	return g, nil
}

// keys returns keys for values of the given size: here keys that the node owns, and there keys that others own.
func (g *group) keys(size, here, there int) []string {
	var out []string
	for i := 0; here+there > 0; i++ {
		k, left := keyOf(size, i), &here
		if _, remote := g.daemon.GetInstance().PickPeer(k); remote {
			left = &there
		}
		if *left > 0 {
			*left--
			out = append(out, k)
		}
	}
	return out
}

// all gets all keys at once, each from a goroutine of its own: groupcache has no multi-get.
func (g *group) all(keys []string) bench.Caller {
	return bench.Caller{Call: func() error {
		errs := make([]error, len(keys))
		var wg sync.WaitGroup
		for i, k := range keys {
			wg.Go(func() { errs[i] = g.get(k) })
		}
		wg.Wait()
		return errors.Join(errs...)
	}}
}

// each gets one key per call.
func (g *group) each(keys []string) bench.Caller {
	i := 0
	return bench.Caller{Call: func() error {
		i++
		return g.get(keys[i%len(keys)])
	}}
}

func (g *group) get(key string) error {
	var v transport.ByteView
	if err := g.group.Get(context.Background(), key, transport.ByteViewSink(&v)); err != nil {
		return err
	}
	return checkSize(key, v.Len())
}

func (g *group) close() error {
	g.client.CloseIdleConnections()
	ctx, cancel := context.WithTimeout(context.Background(), closeWithin)
	defer cancel()
	return g.daemon.Shutdown(ctx)
}

// groupKept is a cache for groupcache that keeps everything or nothing.
type groupKept struct {
	off bool
	mu  sync.RWMutex // guards m
	m   map[string]transport.ByteView
}

func (k *groupKept) Get(key string) (transport.ByteView, bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	v, ok := k.m[key]
	return v, ok
}

func (k *groupKept) Add(key string, v transport.ByteView) {
	if k.off {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	k.m[key] = v
}

func (k *groupKept) Remove(key string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.m, key)
}

func (k *groupKept) Stats() groupcache.CacheStats { return groupcache.CacheStats{} }
func (k *groupKept) Bytes() int64                 { return 0 }
func (k *groupKept) Close()                       {}
