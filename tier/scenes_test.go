package tier

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weircache/weir/tier/internal/governor"
	"github.com/weircache/weir/tier/internal/owner"
)

var errOriginFull = errors.New("origin: too many connections")

// sceneOrigin is an origin with a fixed number of workers. With more loads than workers all loads become slower, and
// with more than most they fail at once.
type sceneOrigin struct {
	workers, most int
	takes         time.Duration
	slower        atomic.Int64 // the factor by which loads are slower
	down          atomic.Bool

	calls, running, peak atomic.Int64
}

func (o *sceneOrigin) load(ctx context.Context) error {
	o.calls.Add(1)
	n := o.running.Add(1)
	defer o.running.Add(-1)
	for old := o.peak.Load(); n > old && !o.peak.CompareAndSwap(old, n); old = o.peak.Load() {
	}
	if int(n) > o.most {
		return errOriginFull
	}
	d := o.takes * time.Duration(max(o.slower.Load(), 1)) * time.Duration(max(n, int64(o.workers))) / time.Duration(o.workers)
	if o.down.Load() {
		d = time.Millisecond
	}
	if err := owner.Sleep(ctx, d); err != nil {
		return err
	}
	if o.down.Load() {
		return errDown
	}
	return nil
}

// naive is cache-aside as it is often written: a map with a TTL, in which each caller that misses loads.
type naive struct {
	o   *sceneOrigin
	ttl time.Duration
	sem chan struct{} // if not nil: its capacity bounds the concurrent loads, in order of arrival
	mu  sync.Mutex    // guards m
	m   map[string]time.Time
}

func (c *naive) get(ctx context.Context, key string) (stale bool, err error) {
	c.mu.Lock()
	until, ok := c.m[key]
	c.mu.Unlock()
	if ok && time.Now().Before(until) {
		return false, nil
	}
	if c.sem != nil {
		select {
		case c.sem <- struct{}{}:
			defer func() { <-c.sem }()
		case <-ctx.Done():
			return false, ctx.Err()
		}
		c.mu.Lock()
		until, ok = c.m[key]
		c.mu.Unlock()
		if ok && time.Now().Before(until) { // loaded in the meantime
			return false, nil
		}
	}
	if err := c.o.load(ctx); err != nil {
		return false, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.m[key] = time.Now().Add(c.ttl)
	return false, nil
}

// scene is a schedule of reads and of changes to the origin.
type scene struct {
	keys     int
	skew     float64
	rate     float64 // reads a second
	patience time.Duration
	origin   func() *sceneOrigin
	fresh    Freshness
	cap      int
	// acts run one after another. Goodput is measured from the beginning of the last one.
	acts []act
}

type act struct {
	long   time.Duration
	change func(o *sceneOrigin, restart func())
}

// figures are a scene's results from its second act on.
type figures struct {
	reads, failed, stale int
	calls, peak          int64
	shed                 int64
	p99                  time.Duration
	recovered            time.Duration // in the last act, until 95 % of a second's reads were answered; -1: never
}

func (f figures) String() string {
	return fmt.Sprintf("%d reads, %d failed (%.1f %%), %d stale, %d origin calls, %d at once, %d shed, p99 %v, recovered after %v",
		f.reads, f.failed, 100*float64(f.failed)/float64(f.reads), f.stale, f.calls, f.peak, f.shed, f.p99.Round(time.Millisecond), f.recovered)
}

// player names what answers the reads of a scene.
type player string

const (
	playWeir  player = "weir"
	playNaive player = "naive"
	playSem   player = "naive behind a semaphore"
)

func (s *scene) play(t *testing.T, who player) (f figures) {
	bubble(t, func(t *testing.T) {
		rnd := rand.New(rand.NewPCG(11, 12))
		z := newZipf(rnd, s.keys, s.skew)
		o := s.origin()
		var shed int64
		var c *Cache[string]
		n := &naive{o: o, ttl: s.fresh.TTL, m: make(map[string]time.Time)}
		if who == playSem {
			n.sem = make(chan struct{}, s.cap)
		}
		start := func() {
			if c != nil {
				shed += c.Stats().Shed
				if err := c.Close(context.Background()); err != nil {
					t.Error(err)
				}
			}
			cfg := Config[string]{
				Loader:    ByKey(func(ctx context.Context, _ string) (string, error) { return "1", o.load(ctx) }),
				Freshness: s.fresh, Origin: Origin{Concurrency: s.cap, Timeout: 2 * time.Second},
			}
			var err error
			if c, err = New(cfg); err != nil {
				t.Fatal(err)
			}
			n.mu.Lock()
			clear(n.m)
			n.mu.Unlock()
		}
		start()
		var mu sync.Mutex // guards what follows
		var waits []time.Duration
		var good, all []int // by second of the last act
		for i, a := range s.acts {
			if i == 1 {
				f, waits = figures{}, nil
				o.calls.Store(0)
				o.peak.Store(0)
			}
			if a.change != nil {
				a.change(o, start)
			}
			good, all = make([]int, int(a.long/time.Second)+3), make([]int, int(a.long/time.Second)+3)
			began := time.Now()
			cache := c
			drive(t, rnd, z, s.rate, a.long, func(_ int, key string) {
				ctx, cancel := context.WithTimeout(t.Context(), s.patience)
				defer cancel()
				came := time.Now()
				var err error
				var stale bool
				if who == playWeir {
					var a Answer[string]
					a, err = cache.Read(ctx, key, ReadOptions{MaxAge: AnyAge})
					stale = a.Stale
				} else {
					stale, err = n.get(ctx, key)
				}
				mu.Lock()
				defer mu.Unlock()
				f.reads++
				waits = append(waits, time.Since(came))
				all[int(came.Sub(began)/time.Second)]++
				if err != nil {
					f.failed++
					return
				}
				good[int(came.Sub(began)/time.Second)]++
				if stale {
					f.stale++
				}
			})
		}
		f.recovered = -1
		for i := len(all) - 1; i >= 0; i-- {
			if all[i] > 0 && float64(good[i]) < 0.95*float64(all[i]) {
				break
			}
			if all[i] > 0 {
				f.recovered = time.Duration(i) * time.Second
			}
		}
		slices.Sort(waits)
		f.p99 = waits[len(waits)*99/100]
		f.calls, f.peak, f.shed = o.calls.Load(), o.peak.Load(), shed+c.Stats().Shed
		if err := c.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	t.Log(who, f)
	return f
}

// fewer lowers a rate under the race detector, which makes each read ten times slower.
func fewer(rate float64) float64 {
	if raceOn {
		return rate / 10
	}
	return rate
}

func smallOrigin() *sceneOrigin {
	return &sceneOrigin{workers: 20, most: 4000, takes: 40 * time.Millisecond} // 500 loads a second
}

// (a) A cache that answers 99 % of 100,000 reads a second is restarted. The origin sees no more concurrent loads than
// allowed, and the cache gets warm again by itself.
func TestSceneRestartLong(t *testing.T) {
	if weir, plain := playRestart(t, 100_000); plain.peak < 1000 || plain.calls < 3*weir.calls {
		t.Error("the yardstick is too good for the test to prove anything:", plain)
	}
}

// The same with few reads, which are not enough to break the naive cache.
func TestSceneRestart(t *testing.T) { playRestart(t, 4_000) }

func playRestart(t *testing.T, rate float64) (weir, plain figures) {
	s := scene{
		keys: 3000, skew: 0.8, rate: rate, patience: time.Second, cap: 64,
		origin: func() *sceneOrigin { return &sceneOrigin{workers: 64, most: 10000, takes: 40 * time.Millisecond} },
		fresh:  Freshness{TTL: time.Minute, NearTTL: time.Second},
		acts:   []act{{3 * time.Second, nil}, {6 * time.Second, func(_ *sceneOrigin, restart func()) { restart() }}},
	}
	weir, plain = s.play(t, playWeir), s.play(t, playNaive)
	if weir.peak > 64 || weir.recovered < 0 || weir.recovered > 3*time.Second || weir.calls > 3000*12/10 {
		t.Error("weir:", weir)
	}
	return weir, plain
}

// (b) The miss path is ten times slower for five minutes, and stale copies bridge that time.
func TestSceneBrownoutLong(t *testing.T) { playBrownout(t, 2*time.Minute, 5*time.Minute) }

// The same for a minute.
func TestSceneBrownout(t *testing.T) { playBrownout(t, time.Minute, time.Minute) }

func playBrownout(t *testing.T, before, long time.Duration) {
	s := scene{
		keys: 4000, skew: 0.5, rate: 400, patience: time.Second, origin: smallOrigin, cap: 20,
		fresh: Freshness{TTL: 30 * time.Second, StaleWhileRevalidate: 30 * time.Second, StaleIfError: time.Hour, SoftTimeout: 50 * time.Millisecond},
		acts: []act{
			{before, nil},
			{long, func(o *sceneOrigin, _ func()) { o.slower.Store(10) }},
			{30 * time.Second, func(o *sceneOrigin, _ func()) { o.slower.Store(1) }},
		},
	}
	weir, plain := s.play(t, playWeir), s.play(t, playNaive)
	if weir.peak > 20 || float64(weir.failed) > 0.01*float64(weir.reads) || weir.p99 > 500*time.Millisecond || weir.recovered != 0 {
		t.Error("weir:", weir)
	}
	if plain.failed < 10*weir.failed+1000 {
		t.Error("the yardstick is too good for the test to prove anything:", plain)
	}
}

// (c) The origin is down for five minutes. It is left alone except for probes, and stale copies are served.
func TestSceneOutageLong(t *testing.T) { playOutage(t, 2*time.Minute, 5*time.Minute) }

// The same for a minute.
func TestSceneOutage(t *testing.T) { playOutage(t, 2*time.Minute, time.Minute) }

func playOutage(t *testing.T, before, long time.Duration) {
	s := scene{
		keys: 2000, skew: 0.8, rate: 200, patience: time.Second, origin: smallOrigin, cap: 20,
		fresh: Freshness{TTL: 30 * time.Second, StaleWhileRevalidate: 30 * time.Second, StaleIfError: time.Hour, SoftTimeout: 50 * time.Millisecond},
		acts: []act{
			{before, nil},
			{long, func(o *sceneOrigin, _ func()) { o.down.Store(true) }},
			{30 * time.Second, func(o *sceneOrigin, _ func()) { o.down.Store(false) }},
		},
	}
	weir, plain := s.play(t, playWeir), s.play(t, playNaive)
	if weir.peak > 20 || float64(weir.failed) > 0.01*float64(weir.reads) || weir.recovered > 6*time.Second || weir.recovered < 0 {
		t.Error("weir:", weir)
	}
	if plain.failed < 10*weir.failed+1000 || plain.calls < 5*weir.calls {
		t.Error("the yardstick is too good for the test to prove anything:", plain)
	}
}

// (d) Everything is cold at once, and the arrival rate is six times what the origin can serve. Goodput recovers by
// itself; without governor and coalescing it does not.
func TestSceneCollapse(t *testing.T) {
	s := scene{
		keys: 5000, skew: 0, rate: 3000, patience: time.Second, origin: smallOrigin, cap: 20,
		fresh: Freshness{TTL: time.Minute, NearTTL: time.Second},
		acts:  []act{{0, nil}, {40 * time.Second, nil}},
	}
	if raceOn {
		s.acts[1].long = 20 * time.Second
	}
	weir, plain := s.play(t, playWeir), s.play(t, playNaive)
	if weir.peak > 20 || weir.recovered < 0 || weir.recovered > 20*time.Second {
		t.Error("weir:", weir)
	}
	if plain.recovered >= 0 || plain.failed < plain.reads/2 {
		t.Error("the control recovered: the test proves nothing:", plain)
	}
}

// A cold cache whose callers have seconds: no caller is rejected, and they do not wait longer than behind a semaphore
// of the same size.
func TestSceneColdCallersWait(t *testing.T) {
	s := scene{
		keys: 3000, skew: 0.5, rate: fewer(20_000), patience: 5 * time.Second, cap: 64,
		origin: func() *sceneOrigin { return &sceneOrigin{workers: 64, most: 10000, takes: 40 * time.Millisecond} },
		fresh:  Freshness{TTL: time.Minute, NearTTL: time.Second},
		acts:   []act{{0, nil}, {4 * time.Second, nil}},
	}
	weir, sem := s.play(t, playWeir), s.play(t, playSem)
	if weir.peak > 64 || weir.failed > 0 || weir.shed > 0 || weir.p99 > sem.p99*11/10 {
		t.Error("weir:", weir)
	}
	if sem.p99 < 100*time.Millisecond && !raceOn {
		t.Error("nobody had to wait: the test proves nothing:", sem)
	}
}

// The origin stalls for some seconds while nearly every read is a miss, and callers have one second. When the origin
// is back, nothing is loaded for callers that have given up, and all others are served at once. Behind a semaphore
// they are not.
func TestSceneStall(t *testing.T) {
	s := scene{
		keys: 100_000, skew: 0, rate: 450, patience: time.Second, origin: smallOrigin, cap: 20,
		fresh: Freshness{TTL: time.Minute, NearTTL: time.Second},
		acts: []act{
			{5 * time.Second, nil},
			{4 * time.Second, func(o *sceneOrigin, _ func()) { o.slower.Store(100) }},
			{10 * time.Second, func(o *sceneOrigin, _ func()) { o.slower.Store(1) }},
		},
	}
	weir := s.play(t, playWeir)
	if weir.peak > 20 || weir.recovered < 0 || weir.recovered > 2*time.Second {
		t.Error("weir:", weir)
	}
}

// (e) The hottest key's refill is a pipeline of five dependencies, one of which fails now and then. No caller waits
// for it or gets an error, the retries stay within their budget, and the ledger shows which dependency fails.
func TestScenePipeline(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	bubble(t, func(t *testing.T) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		var mu sync.Mutex // guards rnd and inARow
		inARow := 0
		// fails is true three times of ten, but not more than three times in a row: each failed refresh delays the next by up
		// to one and a half seconds, and the copy may be served for five.
		fails := func() bool {
			mu.Lock()
			defer mu.Unlock()
			if rnd.IntN(10) < 3 && inARow < 3 {
				inARow++
				return true
			}
			inARow = 0
			return false
		}
		cfg := plain(func(_ context.Context, f *Fill[string]) (string, error) {
			for _, step := range []string{"product", "price", "stock", "reviews", "rank"} {
				done := f.Step(step)
				time.Sleep(8 * time.Millisecond)
				if step == "stock" && fails() {
					done(errDown)
					return "", Retryable(errDown)
				}
				done()
			}
			return "v", nil
		})
		cfg.NearBytes = 1 << 20
		cfg.Freshness = Freshness{TTL: time.Second, StaleWhileRevalidate: 5 * time.Second, StaleIfError: time.Minute, NearTTL: 100 * time.Millisecond}
		cfg.Origin.Breaker.Failures = 0.9
		c := open(t, cfg)
		for {
			if _, err := c.Get(t.Context(), "hot"); err == nil {
				break
			}
			time.Sleep(2 * time.Second)
		}
		var slowest time.Duration
		for range 120_000 { // two minutes
			began := time.Now()
			if _, err := c.Get(t.Context(), "hot"); err != nil {
				t.Fatal(err)
			}
			slowest = max(slowest, time.Since(began))
			time.Sleep(time.Millisecond)
		}
		s := c.Stats()
		t.Logf("%d loads, %d retries, %v; slowest %v", s.Loads, s.Ledger.Retries, s.Steps, slowest)
		if slowest > 0 || s.Loads > 400 || s.Ledger.Retries < 10 || float64(s.Ledger.Retries) > 0.2*float64(s.Loads-s.Ledger.Retries)+governor.RetryReserve {
			t.Errorf("slowest %v, %d loads, %d retries", slowest, s.Loads, s.Ledger.Retries)
		}
		for name, step := range s.Steps {
			if step.Calls == 0 || (step.Errors > 0) != (name == "stock") {
				t.Errorf("%s: %+v", name, step)
			}
		}
	})
}

// (f) Pages consist of products, which are cached as well, and each page's load reads ten of them before it calls the
// origin itself. Everything is cold at once, with many more callers than permits. Every caller gets its page, the
// origin never has more concurrent loads than allowed, and each value is loaded once.
func TestSceneComposite(t *testing.T) {
	const pages, products, limit = 300, 2000, 20
	for _, members := range []int{1, 3} {
		t.Run(fmt.Sprint(members), func(t *testing.T) {
			bubble(t, func(t *testing.T) {
				s, o := newSim(t, members), smallOrigin()
				o.takes = 20 * time.Millisecond // 1,000 loads a second
				caches := make(map[string]*Cache[simValue])
				for i, name := range s.names {
					s.nodes[name].divisor = [2]int{members, i}
				}
				for _, name := range s.names {
					caches[name] = s.open(name, newOrigin(), Config[simValue]{
						Freshness: Freshness{TTL: time.Hour, NearTTL: time.Second},
						Origin:    Origin{Concurrency: limit, MinConcurrency: limit, Timeout: 5 * time.Second},
						Loader: func(ctx context.Context, f *Fill[simValue]) (simValue, error) {
							var n int
							if _, err := fmt.Sscanf(f.Key, "page%d", &n); err == nil {
								keys := make([]string, 10)
								for i := range keys {
									keys[i] = fmt.Sprint("product", (n*7+i*131)%products)
								}
								if n%2 == 0 {
									if _, err := caches[name].GetMany(ctx, keys); err != nil {
										return simValue{}, err
									}
								}
								for _, key := range keys {
									if _, err := caches[name].Get(ctx, key); err != nil {
										return simValue{}, err
									}
								}
							}
							return simValue{}, o.load(ctx)
						},
					})
				}
				defer s.stop(caches)
				rnd := rand.New(rand.NewPCG(21, 22))
				z := newZipf(rnd, pages, 0.3)
				var mu sync.Mutex // guards waits and failed
				var waits []time.Duration
				failed := 0
				drive(t, rnd, z, fewer(2000), 5*time.Second, func(i int, key string) {
					ctx, cancel := context.WithTimeout(background, 10*time.Second)
					defer cancel()
					came := time.Now()
					_, err := caches[s.names[i%members]].Get(ctx, "page"+strings.TrimPrefix(key, "key"))
					mu.Lock()
					defer mu.Unlock()
					if waits = append(waits, time.Since(came)); err != nil {
						if failed++; failed < 10 {
							t.Error(err)
						}
					}
				})
				slices.Sort(waits)
				t.Logf("%d reads, %d failed, %d origin calls, %d at once, p99 %v, longest %v", len(waits), failed, o.calls.Load(), o.peak.Load(), waits[len(waits)*99/100], waits[len(waits)-1])
				if failed > 0 || o.peak.Load() > limit || o.calls.Load() > pages+products {
					t.Errorf("%d of %d reads failed, %d origin calls, %d at once", failed, len(waits), o.calls.Load(), o.peak.Load())
				}
			})
		})
	}
}
