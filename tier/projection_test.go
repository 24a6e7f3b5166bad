package tier

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/ring"
)

// zipf draws keys 0 to n-1 with probabilities like 1/rank^s, s of 1 and below included.
type zipf struct {
	sums []float64
	rnd  *rand.Rand
}

func newZipf(rnd *rand.Rand, n int, s float64) *zipf {
	z := &zipf{rnd: rnd, sums: make([]float64, n)}
	sum := 0.0
	for i := range z.sums {
		sum += math.Pow(float64(i+1), -s)
		z.sums[i] = sum
	}
	return z
}

func (z *zipf) next() int {
	x := z.rnd.Float64() * z.sums[len(z.sums)-1]
	lo, hi := 0, len(z.sums)-1
	for lo < hi {
		if m := (lo + hi) / 2; z.sums[m] < x {
			lo = m + 1
		} else {
			hi = m
		}
	}
	return lo
}

// drive reads keys at a rate for a time d, from the caches in turn.
func drive(t *testing.T, rnd *rand.Rand, z *zipf, rate float64, d time.Duration, read func(i int, key string)) {
	var wg sync.WaitGroup
	end, next := time.Now().Add(d), time.Now()
	for i := 0; ; i++ {
		next = next.Add(time.Duration(rnd.ExpFloat64() / rate * float64(time.Second)))
		if next.After(end) {
			break
		}
		time.Sleep(time.Until(next))
		key := fmt.Sprint("key", z.next())
		wg.Go(func() { read(i, key) })
	}
	wg.Wait()
}

// The projection that any node computes from a warm cache predicts what the origin sees when the same reads hit an
// empty cache.
func TestProjectionIsTrueLong(t *testing.T) {
	projectionIsTrue(t, []projected{
		{1, 20000, 0.99, 2000, 40 * time.Millisecond, true},
		{1, 20000, 0.99, 2000, 500 * time.Millisecond, false},
		{1, 5000, 0.6, 1000, 200 * time.Millisecond, true},
		{3, 5000, 1.1, 1500, 100 * time.Millisecond, true},
	})
}

// The same for few keys.
func TestProjectionIsTrue(t *testing.T) {
	projectionIsTrue(t, []projected{{1, 300, 0.9, 1000, 40 * time.Millisecond, true}})
}

// projected is a load for which the projection is tested.
type projected struct {
	members int
	keys    int
	s       float64 // exponent of Zipf
	rate    float64 // reads a second
	load    time.Duration
	near    bool
}

func projectionIsTrue(t *testing.T, cases []projected) {
	t.Helper()
	for _, x := range cases {
		t.Run(fmt.Sprintf("%d members %d keys", x.members, x.keys), func(t *testing.T) {
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			var want float64
			var got []Projection
			for _, empty := range []bool{true, false} {
				bubble(t, func(t *testing.T) {
					rnd := rand.New(rand.NewPCG(seed, 7))
					z := newZipf(rnd, x.keys, x.s)
					sim := newSim(t, x.members)
					var loads atomic.Int64
					cfg := Config[simValue]{
						Origin:    Origin{Concurrency: 1 << 20, QueueInterval: -1},
						NearBytes: -1,
						Freshness: Freshness{TTL: time.Hour, NearTTL: 10 * time.Second},
						Loader: func(context.Context, *Fill[simValue]) (v simValue, err error) {
							loads.Add(1)
							time.Sleep(x.load)
							if empty {
								err = ErrNotFound
							}
							return v, err
						},
					}
					if empty {
						cfg.Freshness.NegativeTTL = -1
					} else if x.near {
						cfg.NearBytes = 1 << 20
					}
					caches := sim.start(nil, cfg)
					long := 70 * time.Second
					if empty {
						long = 20 * time.Second
					}
					drive(t, rnd, z, x.rate, long, func(i int, key string) {
						_, _ = caches[sim.names[i%x.members]].Get(t.Context(), key)
					})
					if empty {
						want = float64(loads.Load()) / long.Seconds()
					} else {
						for _, name := range sim.names {
							got = append(got, caches[name].Projection())
						}
					}
					sim.stop(caches)
					synctest.Wait()
				})
			}
			mean := 0.0
			for _, p := range got {
				t.Logf("projected %.0f loads/s (%.0f reads/s, L %.3f s, %d sampled), measured %.0f", p.ColdLoad, p.Reads, p.Cost, p.Sampled, want)
				mean += p.ColdLoad / float64(len(got))
				if math.Abs(p.ColdLoad/want-1) > 0.15*math.Sqrt(float64(len(got))) { // each member has a part of the sample
					t.Errorf("projected %.0f loads a second, measured %.0f", p.ColdLoad, want)
				}
				if capacity := float64(1<<20) / x.load.Seconds(); math.Abs(p.Capacity/capacity-1) > 0.01 || math.Abs(p.Margin-p.Capacity/p.ColdLoad) > 1 {
					t.Errorf("capacity %.0f, margin %.1f", p.Capacity, p.Margin)
				}
			}
			if math.Abs(mean/want-1) > 0.15 {
				t.Errorf("projected %.0f loads a second on average, measured %.0f", mean, want)
			}
		})
	}
}

func TestHottest(t *testing.T) {
	for _, show := range []bool{false, true} {
		bubble(t, func(t *testing.T) {
			cfg := plain(ByKey(func(_ context.Context, key string) (string, error) {
				if key == "dear" {
					time.Sleep(900 * time.Millisecond)
				}
				time.Sleep(100 * time.Millisecond)
				return "v", nil
			}))
			cfg.ShowKeys, cfg.Freshness.TTL = show, time.Hour
			c := open(t, cfg)
			for i := range 4000 {
				time.Sleep(time.Millisecond)
				key := "often"
				if i%4 == 0 {
					key = "dear"
				} else if i%40 == 1 {
					key = fmt.Sprint(i)
				}
				_, _ = c.Get(t.Context(), key)
			}
			p := c.Projection()
			if len(p.Hottest) < 2 || p.Hottest[0].Hash != ring.Hash("dear") || p.Hottest[1].Hash != ring.Hash("often") {
				t.Fatalf("%+v", p.Hottest)
			}
			if h := p.Hottest[0]; (h.Key == "dear") != show || !show && h.Key != "" || h.Cost < 0.99 || h.Cost > 1.01 || h.Busy < h.Rate*0.99 {
				t.Errorf("%+v", h)
			}
		})
	}
}
