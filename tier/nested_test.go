package tier

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/tier/internal/governor"
)

// meter counts the loads that are at the origin: a load is there except during its nested reads.
type meter struct {
	running, peak, calls atomic.Int64
}

// work is a call to the origin that takes d, whether or not ctx ends meanwhile.
func (m *meter) work(d time.Duration) {
	m.calls.Add(1)
	n := m.running.Add(1)
	defer m.running.Add(-1)
	for old := m.peak.Load(); n > old && !m.peak.CompareAndSwap(old, n); old = m.peak.Load() {
	}
	time.Sleep(d)
}

// quiet fails the test unless every permit is back.
func quiet(t *testing.T, g *governor.Governor) {
	t.Helper()
	synctest.Wait()
	if s := g.Snapshot(); s.InUse != 0 || s.Waiting != 0 {
		t.Errorf("%d permits in use, %d tickets wait", s.InUse, s.Waiting)
	}
}

// nestedLoader returns a loader that loads key "d/name" by work before and after it has read "d-1/name" and "d-1/name'"
// through the cache that next returns. It reads the second one only if together is set, and then both at the same time.
func nestedLoader(m *meter, together bool, next func(depth int) *Cache[string]) func(ctx context.Context, key string) (string, error) {
	const takes = 5 * time.Millisecond
	return func(ctx context.Context, key string) (string, error) {
		m.work(takes)
		d, name, _ := strings.Cut(key, "/")
		depth, err := strconv.Atoi(d)
		if err != nil || depth == 0 {
			return name, err
		}
		below := []string{fmt.Sprintf("%d/%s", depth-1, name), fmt.Sprintf("%d/%s'", depth-1, name)}
		if !together {
			below = below[:1]
		}
		errs := make([]error, len(below))
		var wg sync.WaitGroup
		for i, k := range below {
			wg.Go(func() { _, errs[i] = next(depth-1).Get(ctx, k) })
		}
		wg.Wait()
		if err := errors.Join(errs...); err != nil {
			return "", err
		}
		m.work(takes)
		return name, nil
	}
}

// A loader that reads other keys through the cache needs only its own permit, at any depth and with any cap.
func TestNestedReadsNeedOnePermit(t *testing.T) {
	for _, x := range []struct {
		limit, depth, callers int
		together              bool
	}{{1, 1, 1, false}, {1, 15, 1, false}, {1, 15, 8, false}, {1, 4, 3, true}, {3, 6, 4, true}, {21, 1, 100, true}} {
		t.Run(fmt.Sprintf("%+v", x), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				m := new(meter)
				var c *Cache[string]
				cfg := plain(ByKey(nestedLoader(m, x.together, func(int) *Cache[string] { return c })))
				cfg.Origin = Origin{Concurrency: x.limit, MinConcurrency: x.limit, QueueInterval: -1}
				c = open(t, cfg)
				var wg sync.WaitGroup
				for i := range x.callers {
					wg.Go(func() {
						if _, err := c.Get(t.Context(), fmt.Sprintf("%d/%d", x.depth, i)); err != nil {
							t.Error(err)
						}
					})
				}
				wg.Wait()
				quiet(t, c.own.Governor)
				if m.peak.Load() > int64(x.limit) || c.Stats().Governor.Peak > x.limit {
					t.Errorf("%d loads at once, by the governor %d", m.peak.Load(), c.Stats().Governor.Peak)
				}
			})
		})
	}
}

// Caches may read each other, whether they share an origin or have origins of their own.
func TestNestedReadsOfOtherCaches(t *testing.T) {
	for _, shared := range []bool{true, false} {
		bubble(t, func(t *testing.T) {
			m := new(meter)
			o := Origin{Concurrency: 1, MinConcurrency: 1, QueueInterval: -1}
			s := newSharedOrigin("db", o, nil)
			var caches [2]*Cache[string]
			for i := range caches {
				cfg := plain(ByKey(nestedLoader(m, true, func(depth int) *Cache[string] { return caches[depth%2] })))
				if cfg.Origin = o; shared {
					cfg.Origin, cfg.SharedOrigin = Origin{}, s
				}
				caches[i] = open(t, cfg)
			}
			var wg sync.WaitGroup
			for i := range 20 { // they meet head-on: the loads of one wait for those of the other
				wg.Go(func() {
					if _, err := caches[i%2].Get(t.Context(), fmt.Sprintf("%d/%d", 2+i%2, i)); err != nil {
						t.Error(err)
					}
				})
			}
			wg.Wait()
			most := int64(2)
			if shared {
				most = 1
			}
			for _, c := range caches {
				quiet(t, c.own.Governor)
			}
			if m.peak.Load() > most {
				t.Errorf("%d loads at once, want %d at most", m.peak.Load(), most)
			}
		})
	}
}

// A batch load gives its one permit back as well, and a GetMany in a loader waits as a Get does.
func TestNestedReadsOfBatches(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := new(meter)
		var c *Cache[string]
		cfg := plainBatch(func(ctx context.Context, fills []*Fill[string]) error {
			m.work(time.Millisecond)
			var below []string
			for _, f := range fills {
				f.Set(f.Key)
				if depth, name, _ := strings.Cut(f.Key, "/"); depth > "0" {
					below = append(below, string(depth[0]-1)+"/"+name)
				}
			}
			if len(below) > 0 {
				if _, err := c.GetMany(ctx, below); err != nil {
					return err
				}
				m.work(time.Millisecond)
			}
			return nil
		})
		cfg.BatchWindow, cfg.BatchSize = time.Millisecond, 4
		cfg.Origin = Origin{Concurrency: 1, MinConcurrency: 1, QueueInterval: -1}
		c = open(t, cfg)
		var wg sync.WaitGroup
		for i := range 30 {
			wg.Go(func() {
				if got, err := c.GetMany(t.Context(), []string{fmt.Sprintf("6/%d", i), fmt.Sprintf("6/%d'", i)}); err != nil || len(got) != 2 {
					t.Error(got, err)
				}
			})
			wg.Go(func() {
				if _, err := c.Get(t.Context(), fmt.Sprintf("6/%d''", i)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		quiet(t, c.own.Governor)
		if m.peak.Load() > 1 {
			t.Errorf("%d loads at once", m.peak.Load())
		}
	})
}

// Loads whose nested reads belong to other members give their permits back as well. The example is a page of products
// that any member may own, with the members' caps used up.
func TestNestedReadsAcrossMembers(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s, m := newSim(t, 3), new(meter)
		nodes := []string{"n0", "n1", "n2"}
		for i, name := range nodes {
			s.nodes[name].divisor = [2]int{3, i}
		}
		caches := make(map[string]*Cache[simValue])
		for _, name := range nodes {
			caches[name] = s.open(name, newOrigin(), Config[simValue]{
				Loader: func(ctx context.Context, f *Fill[simValue]) (simValue, error) {
					m.work(5 * time.Millisecond)
					d, rest, _ := strings.Cut(f.Key, "/")
					depth, _ := strconv.Atoi(d)
					if depth == 0 {
						return simValue{}, nil
					}
					var keys []string
					for i := range 3 {
						keys = append(keys, fmt.Sprintf("%d/%s%d", depth-1, rest, i))
					}
					if depth%2 == 0 {
						if _, err := caches[name].GetMany(ctx, keys); err != nil {
							return simValue{}, err
						}
					} else {
						for _, key := range keys {
							if _, err := caches[name].Get(ctx, key); err != nil {
								return simValue{}, err
							}
						}
					}
					m.work(5 * time.Millisecond)
					return simValue{}, nil
				},
				Origin: Origin{Concurrency: 3, MinConcurrency: 3, QueueInterval: -1},
			})
		}
		defer s.stop(caches)
		var wg sync.WaitGroup
		for i := range 20 {
			wg.Go(func() {
				if _, err := caches[nodes[i%3]].Get(background, fmt.Sprintf("3/p%d", i)); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		for _, c := range caches {
			quiet(t, c.own.Governor)
		}
		if m.peak.Load() > 3 {
			t.Errorf("%d loads at once, Concurrency is 3", m.peak.Load())
		}
	})
}

// A read that a loader leaves behind, or makes with its context afterwards, changes nothing for later loads.
func TestNestedReadLeftBehind(t *testing.T) {
	bubble(t, func(t *testing.T) {
		m := new(meter)
		var c *Cache[string]
		var left sync.WaitGroup
		cfg := plain(ByKey(func(ctx context.Context, key string) (string, error) {
			m.work(time.Millisecond)
			switch {
			case key == "slow":
				m.work(time.Second)
			case strings.HasPrefix(key, "leaver"):
				left.Go(func() { _, _ = c.Get(context.WithoutCancel(ctx), "slow") })
				left.Go(func() {
					time.Sleep(2 * time.Second)
					if _, err := c.Get(context.WithoutCancel(ctx), "late "+key); err != nil {
						t.Error(err)
					}
					if _, err := c.Read(context.WithoutCancel(ctx), key, ReadOptions{}); err != nil { // the load is over, so this is not a cycle
						t.Error(err)
					}
				})
				time.Sleep(0) // the first of them waits
				synctest.Wait()
			}
			return key, nil
		}))
		cfg.Origin = Origin{Concurrency: 2, MinConcurrency: 2}
		c = open(t, cfg)
		for i := range 5 {
			get(t, c, fmt.Sprint("leaver", i), fmt.Sprint("leaver", i))
		}
		left.Wait()
		quiet(t, c.own.Governor)
		if m.peak.Load() > 2 {
			t.Errorf("%d loads at once", m.peak.Load())
		}
	})
}

// A load whose time ends before it has its permit again gets none, and its loader learns of that from the nested read.
// A load that continues regardless counts until it returns.
func TestNestedReadPastTheLoadsTime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		var c *Cache[string]
		var nested error
		var after time.Duration
		var during GovernorStats
		release := make(chan struct{})
		cfg := plain(func(ctx context.Context, f *Fill[string]) (string, error) {
			switch f.Key {
			case "hung":
				<-release
			case "parent":
				began := time.Now()
				_, nested = c.Get(ctx, "child")
				after = time.Since(began)
				time.Sleep(time.Second)
				during = c.Stats().Governor
			case "child": // hung then waits for the permit ahead of parent
				go func() { _, _ = c.Get(background, "hung") }()
				synctest.Wait()
			}
			return f.Key, nil
		})
		cfg.Origin = Origin{Concurrency: 1, MinConcurrency: 1, Timeout: 2 * time.Second, QueueInterval: -1}
		c = open(t, cfg)
		getErr(t, c, "parent", ErrTimeout)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if nested != context.DeadlineExceeded || after != 2*time.Second {
			t.Errorf("the nested read: %v after %v", nested, after)
		}
		if during.InUse != 2 || during.Peak != 1 {
			t.Errorf("while the loader goes on: %+v", during)
		}
		close(release)
		quiet(t, c.own.Governor)
		get(t, c, "parent 2", "parent 2")
	})
}

// A breaker that opens, a share that falls and a retry during a nested read do not leak a permit.
func TestNestedReadsUnderTrouble(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	bubble(t, func(t *testing.T) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var mu sync.Mutex // guards rnd
		roll := func(n int) int {
			mu.Lock()
			defer mu.Unlock()
			return rnd.IntN(n)
		}
		m := new(meter)
		var share atomic.Int64
		share.Store(3)
		var c *Cache[string]
		cfg := plain(ByKey(func(ctx context.Context, key string) (string, error) {
			m.work(time.Duration(roll(20)) * time.Millisecond)
			depth := int(key[0] - '0')
			for i := range roll(3) {
				if depth == 0 {
					break
				}
				sub, stop := context.WithTimeout(ctx, time.Duration(1+roll(300))*time.Millisecond)
				done := make(chan struct{})
				go func() {
					defer close(done)
					_, _ = c.Get(sub, fmt.Sprintf("%d%d%d", depth-1, i, roll(50)))
				}()
				if roll(10) > 0 {
					<-done
				}
				stop()
			}
			m.work(time.Duration(roll(20)) * time.Millisecond)
			switch roll(20) {
			case 0:
				panic("boom")
			case 1:
				return "", Retryable(errDown)
			case 2:
				return "", errDown
			}
			return key, nil
		}))
		cfg.Freshness = Freshness{TTL: 300 * time.Millisecond, ErrorTTL: time.Millisecond, NearTTL: -1}
		cfg.Origin = Origin{Concurrency: 3, MinConcurrency: 3, Timeout: 500 * time.Millisecond, Breaker: Breaker{Minimum: 10, Failures: 0.3, Pause: 300 * time.Millisecond}}
		c = open(t, cfg)
		c.origin.gov.Close()
		c.own.Governor = governor.New(cfg.Origin.withDefaults().limits(), c.own.Clock.Now, func() (int, int) { return int(share.Load()), 1 })
		c.own.Governor.Open()
		c.origin.gov = c.own.Governor
		var wg sync.WaitGroup
		for range 20 {
			wg.Go(func() {
				for range 40 {
					ctx, cancel := context.WithTimeout(t.Context(), time.Duration(1+roll(1000))*time.Millisecond)
					_, _ = c.Get(ctx, fmt.Sprintf("3%d", roll(30)))
					cancel()
				}
			})
		}
		for range 20 {
			time.Sleep(100 * time.Millisecond)
			share.Store(int64(1 + roll(3)))
			c.own.Governor.Recheck()
		}
		wg.Wait()
		time.Sleep(time.Minute)
		quiet(t, c.own.Governor)
		if live, run := c.own.Flights.Size(); live != 0 || run != 0 {
			t.Errorf("%d flights, %d loads left", live, run)
		}
	})
}
