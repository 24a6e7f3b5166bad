package tier

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/journal"
	"github.com/weircache/weir/tier/internal/owner"
)

// history runs readers and writers on a simulated cluster and reports each read that breaks
// the promise of Invalidate.
type history struct {
	nodes, keys, ops int
	near             bool
	storm            bool // fence tables overflow during the run
	late             bool // members open their caches late
	strip            bool // requests do not carry fences
	slow             bool // loads take long
	faulty           func(journal.Copies) journal.Copies
}

type historyResult struct {
	broken []string
	loads  int64
	most   int
	done   int // invalidations that returned nil
}

func (h history) run(t *testing.T, seed uint64) (out historyResult) {
	bubble(t, func(t *testing.T) {
		var rmu sync.Mutex // guards rng
		rng := rand.New(rand.NewPCG(seed, 1))
		intn := func(n int) int { rmu.Lock(); defer rmu.Unlock(); return rng.IntN(n) }
		s, o := newSim(t, h.nodes), newOrigin()
		o.delay = func() time.Duration { return time.Duration(intn(20)) * time.Millisecond }
		if h.slow {
			o.delay = func() time.Duration { return time.Duration(intn(100)) * time.Millisecond }
		}
		s.rule = func(from, to string, kind codec.Kind, answer bool) hop {
			switch intn(4) {
			case 0:
				return hop{delay: time.Duration(intn(60)) * time.Millisecond}
			case 1:
				return hop{delay: time.Duration(intn(5)) * time.Millisecond, lost: intn(20) == 0}
			}
			return hop{delay: time.Duration(intn(1000)) * time.Microsecond}
		}
		if h.strip {
			s.tweak = func(_, _ string, r *codec.Request) { r.Fence = codec.Mark{} }
		}
		cfg := Config[simValue]{InvalidateTimeout: 5 * time.Second, Seed: seed + 1, faulty: h.faulty}
		if !h.near {
			cfg.NearBytes = -1
		}
		var cmu sync.Mutex // guards caches
		caches := make(map[string]*Cache[simValue])
		cache := func(i int) *Cache[simValue] { cmu.Lock(); defer cmu.Unlock(); return caches[s.names[i]] }
		open := func(name string) {
			c := s.open(name, o, cfg)
			cmu.Lock()
			defer cmu.Unlock()
			caches[name] = c
		}
		var wg sync.WaitGroup
		for i, name := range s.names {
			if h.late && i > 0 && intn(2) == 0 {
				wg.Go(func() {
					_ = pause(context.Background(), time.Duration(intn(150))*time.Millisecond)
					open(name)
				})
				continue
			}
			open(name)
		}
		var mu sync.Mutex // guards floor and out
		floor := make(map[string]int64)
		read := func(node int, key string) {
			c := cache(node)
			if c == nil {
				return
			}
			mu.Lock()
			least := floor[key]
			mu.Unlock()
			v, err := c.Get(context.Background(), key)
			if err == nil && v.Began < least {
				mu.Lock()
				defer mu.Unlock()
				out.broken = append(out.broken, fmt.Sprintf("%s read %s of load %d at %s after the invalidation at %d", s.names[node], key, v.Began, v.Node, least))
			}
		}
		for range 2 * h.nodes {
			wg.Go(func() {
				for range h.ops {
					_ = pause(context.Background(), time.Duration(intn(12))*time.Millisecond)
					read(intn(h.nodes), fmt.Sprintf("k%d", intn(h.keys)))
				}
			})
		}
		for w := range 3 {
			wg.Go(func() {
				for range h.ops / 4 {
					_ = pause(context.Background(), time.Duration(intn(60))*time.Millisecond)
					key, c := fmt.Sprintf("k%d", intn(h.keys)), cache(intn(h.nodes))
					if c == nil {
						continue
					}
					o.write(key)
					at := o.seq.Add(1)
					if err := c.Invalidate(context.Background(), key); err != nil {
						continue
					}
					mu.Lock()
					out.done++
					floor[key] = max(floor[key], at)
					mu.Unlock()
					for i := range h.nodes {
						read(i, key)
					}
					if h.storm && w == 0 {
						c.own.Fences.Note("other"+key, ring.Hash(key), codec.Mark{Incarnation: 9, Seq: uint64(at)}, 0, nothing)
						flood(c.own.Fences, key, fence.PerShard)
					}
				}
			})
		}
		wg.Wait()
		s.stop(caches)
		out.loads, out.most = o.loads.Load(), o.most
	})
	return out
}

// flood fences n other keys of key's shard on one node.
func flood(f *fence.Fences, key string, n int) {
	hash := ring.Hash(key)
	for i := range n {
		f.Apply(fmt.Sprintf("flood%d", i), hash, codec.Mark{Incarnation: 8, Seq: f.Stamp(hash) + 1}, 0, nothing)
	}
}

func TestHistories(t *testing.T) { manyHistories(t, 40) }

func TestHistoriesLong(t *testing.T) { manyHistories(t, 240) }

// manyHistories plays n histories with seeds of their own.
func manyHistories(t *testing.T, n int) {
	t.Helper()
	base := rand.Uint64N(1 << 32)
	t.Logf("seeds from %d", base)
	done, loads := 0, int64(0)
	for i := range uint64(n) {
		seed := base + i
		h := history{nodes: 3 + int(i%3), keys: 1 + int(i%3), ops: 24, near: i%4 != 3, storm: i%5 == 1, late: i%5 == 2, strip: false}
		r := h.run(t, seed)
		if len(r.broken) > 0 {
			t.Fatalf("seed %d %+v: %d reads broke the promise, first: %s", seed, h, len(r.broken), r.broken[0])
		}
		if r.most > owner.MaxRunning {
			t.Fatalf("seed %d: %d loads of one key at once on one node", seed, r.most)
		}
		done, loads = done+r.done, loads+r.loads
	}
	if done < 4*n {
		t.Errorf("only %d invalidations were confirmed", done)
	}
	t.Logf("%d invalidations confirmed, %d loads", done, loads)
}

// faultyCopies are copies for which an invalidation of a key does what apply does.
type faultyCopies struct {
	owner.Copies
	apply func(c *owner.Owner, key string, hash uint64, mark codec.Mark)
}

func (x faultyCopies) FenceKey(key string, hash uint64, mark codec.Mark, _ uint64) {
	x.apply(x.C, key, hash, mark)
}

// The checker detects the absence of each part of the mechanism.
func TestHistoriesCatch(t *testing.T) {
	faulty := func(apply func(c *owner.Owner, key string, hash uint64, mark codec.Mark)) func(journal.Copies) journal.Copies {
		return func(x journal.Copies) journal.Copies { return faultyCopies{x.(owner.Copies), apply} }
	}
	for name, h := range map[string]history{
		"no carried fence": {near: true, strip: true},
		"no detach of flights": {slow: true, faulty: faulty(func(c *owner.Owner, key string, hash uint64, mark codec.Mark) {
			at, _ := c.Fences.Apply(key, hash, mark, 0, func(bool) { c.Owned.Delete(key) })
			c.Config.Calls.Detach(key, hash, at.Copies)
		})},
		"no check at commit": {faulty: faulty(func(c *owner.Owner, key string, hash uint64, mark codec.Mark) {
			owner.Copies{C: c}.FenceKey(key, hash, mark, 0)
			c.Fences.Forget(key, hash)
		})},
		"no check of near copies": {near: true, faulty: faulty(func(c *owner.Owner, key string, hash uint64, mark codec.Mark) {
			owner.Copies{C: c}.FenceKey(key, hash, mark, 0)
			c.Fences.Hide(hash)
		})},
	} {
		t.Run(name, func(t *testing.T) {
			h.nodes, h.keys, h.ops = 4, 2, 40
			for seed := range uint64(300) {
				if r := h.run(t, seed); len(r.broken) > 0 {
					t.Logf("caught with seed %d: %s", seed, r.broken[0])
					return
				}
			}
			t.Error("the checker did not notice")
		})
	}
}

func mark(n uint64) codec.Mark { return codec.Mark{Incarnation: 3, Seq: n} }

func nothing(bool) {}

// invalidation returns the news of one invalidation.
func invalidation(m codec.Mark, keys ...[]byte) *codec.News {
	return &codec.News{Invalidations: []codec.Invalidation{{Mark: m, Scope: codec.ScopeKeys, Names: keys}}}
}

// apply applies an invalidation of key as if another member had sent it.
func apply(c *Cache[simValue], key string, m codec.Mark) {
	c.own.Journal.Receive(invalidation(m, []byte(key)))
}
