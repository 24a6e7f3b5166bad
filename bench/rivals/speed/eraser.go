package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/rueidis"
	"golang.org/x/sys/unix"

	"github.com/weircache/weir/bench/member"
	"github.com/weircache/weir/peer"
	"github.com/weircache/weir/tier"
)

const roleEraser = "eraser"

// playEraser is a process that invalidates keys on request.
func playEraser() (line string, stop func(), err error) {
	e := &eraser{}
	addr, err := serveControl(e)
	return addr, e.close, err
}

// eraser is a node of weir and perhaps a client of Redis with client-side caching.
type eraser struct {
	nodes  int
	weir   *weirMember
	redis  rueidis.Client
	pushed atomic.Pointer[pushes]
}

// pushes are when the client dropped its copies of the keys.
type pushes struct {
	at   []atomic.Int64
	left atomic.Int64
	all  chan struct{} // closed when none is left
}

// Setup is what an eraser begins with. Redis is the address of a server, empty: none.
type Setup struct {
	Nodes int
	Join  []string
	Redis string
}

// Start starts the node and the client.
func (e *eraser) Start(s Setup, addr *string) (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), startWithin)
	defer cancel()
	e.nodes = s.Nodes
	e.weir, err = member.Start(ctx, peer.Config{Name: fmt.Sprint(roleEraser, os.Getpid()), Join: s.Join, ClusterName: "invalidate"},
		cacheConfig("invalidate", tier.Freshness{TTL: forever, NearTTL: forever}))
	if err != nil {
		return err
	}
	*addr = e.weir.Node.Addr()
	if s.Redis != "" {
		e.redis, err = rueidis.NewClient(rueidis.ClientOption{
			InitAddress: []string{s.Redis}, CacheSizeEachConn: 128 << 20, PipelineMultiplex: -1, OnInvalidations: e.dropped,
		})
	}
	return err
}

// AwaitView waits for all members.
func (e *eraser) AwaitView(struct{}, *int) error { return awaitView(e.weir, e.nodes) }

func (e *eraser) close() {
	if e.redis != nil {
		e.redis.Close()
	}
	if e.weir != nil {
		_ = closeMembers(e.weir)
	}
}

// dropped is called with the keys of which the client has dropped its copies.
func (e *eraser) dropped(keys []rueidis.RedisMessage) {
	now, p := monotonic(), e.pushed.Load()
	for _, m := range keys {
		name, err := m.ToString()
		if err != nil || len(name) <= len("erase:") {
			continue
		}
		if k, err := strconv.Atoi(name[len("erase:"):]); err == nil && k < len(p.at) && p.at[k].CompareAndSwap(0, int64(now)) && p.left.Add(-1) == 0 {
			close(p.all)
		}
	}
}

// Prepared is how many keys, the first ones, an eraser must have copies of: in the client of Redis, or in the node.
type Prepared struct {
	Redis bool
	Keys  int
}

// Prepare gets copies of keys.
func (e *eraser) Prepare(p Prepared, _ *int) error {
	if p.Redis {
		kept := &pushes{at: make([]atomic.Int64, p.Keys), all: make(chan struct{})}
		kept.left.Store(int64(p.Keys))
		e.pushed.Store(kept)
	}
	const readers = 64
	return parallel(readers, func(g int) error {
		for k := g; k < p.Keys; k += readers {
			var err error
			if p.Redis {
				err = e.redis.DoCache(context.Background(), e.redis.B().Get().Key(eraseKey(k)).Cache(), forever).Error()
			} else {
				_, err = e.weir.Cache.Get(context.Background(), eraseKey(k))
			}
			if err != nil {
				return err
			}
		}
		return nil
	})
}

// Erasing is what an eraser erases: its callers have Keys keys each, beginning with From.
type Erasing struct {
	Redis   bool
	From    int
	Callers int
	Keys    int
}

// Erased is when the erasing of each key began and ended, by CLOCK_MONOTONIC.
type Erased struct{ Began, Ended []time.Duration }

// Erase erases keys.
func (e *eraser) Erase(w Erasing, did *Erased) error {
	did.Began, did.Ended = make([]time.Duration, w.Callers*w.Keys), make([]time.Duration, w.Callers*w.Keys)
	return parallel(w.Callers, func(g int) error {
		for k := g * w.Keys; k < (g+1)*w.Keys; k++ {
			did.Began[k] = monotonic()
			if err := e.erase(w.Redis, eraseKey(w.From+k)); err != nil {
				return err
			}
			did.Ended[k] = monotonic()
		}
		return nil
	})
}

func (e *eraser) erase(redis bool, key string) error {
	if !redis {
		return e.weir.Cache.Invalidate(context.Background(), key)
	}
	n, err := e.redis.Do(context.Background(), e.redis.B().Del().Key(key).Build()).AsInt64()
	if err == nil && n != 1 {
		err = fmt.Errorf("redis: %s was not there", key)
	}
	return err
}

// pushWithin is longer than any push takes: a missing push is an error, not a hang.
const pushWithin = 10 * time.Second

// Arrivals returns when the client has dropped its copy of each key, by CLOCK_MONOTONIC, once it has dropped all.
func (e *eraser) Arrivals(_ struct{}, at *[]time.Duration) error {
	p := e.pushed.Load()
	select {
	case <-p.all:
	case <-time.After(pushWithin):
		return fmt.Errorf("redis: %d of %d keys have no push after %v", p.left.Load(), len(p.at), pushWithin)
	}
	for i := range p.at {
		*at = append(*at, time.Duration(p.at[i].Load()))
	}
	return nil
}

// parallel runs f in n goroutines, each with its number.
func parallel(n int, f func(g int) error) error {
	errs := make([]error, n)
	var wg sync.WaitGroup
	for g := range n {
		wg.Go(func() { errs[g] = f(g) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// monotonic returns the time of CLOCK_MONOTONIC, which all processes of a machine share.
func monotonic() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &t); err != nil {
		return 0
	}
	return time.Duration(t.Nano())
}
