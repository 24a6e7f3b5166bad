// Package micro measures a hit in memory: weir's near tier beside the caches that a user would take instead. make
// bench-micro runs it in alternating rounds and compares them with benchstat.
package micro

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
	"time"

	"github.com/dgraph-io/ristretto/v2"
	"github.com/groupcache/groupcache-go/v3"
	"github.com/groupcache/groupcache-go/v3/transport"
	"github.com/maypok86/otter/v2"
	"github.com/redis/rueidis"
	"github.com/redis/rueidis/rueidisaside"
	"golang.org/x/sync/singleflight"

	"github.com/weircache/weir/bench/rivals/server"
	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier"
)

const (
	ttl       = 100 * time.Hour
	valueSize = 16 // short, so that the measurement is about finding it
)

// system is a cache with room for all keys.
type system struct {
	get    func(key string) bool // reports whether there was a value, or the system has loaded one
	missed func() int64          // how many gets were no hits, besides those for which get returns false
	close  func()
}

// rival is how a system is made for a number of keys.
type rival struct {
	name string
	make func(keys []string) (*system, error)
}

// BenchmarkNear is a get of a key that the cache has. weir's Get would load a missing key; the others' would not. A value
// expires in weir and where the name says so, which costs a reading of the clock.
func BenchmarkNear(b *testing.B) {
	compare(b, []string{"one", "hot1000", "zipf100k", "zipf1M"}, []rival{
		{"weir", newWeir}, {"otter+expiry", otterWith(true, false)}, {"otter", otterWith(false, false)},
		{"ristretto", ristrettoWith(0, false)}, {"ristretto+expiry", ristrettoWith(ttl, false)},
	})
}

// BenchmarkLoading is the same for caches that load a missing key once for all callers, as their users would write it:
// otter's Get with a loader, ristretto beside a singleflight, groupcache-go as the only node, whose values do not
// expire, and rueidis's cache-aside with client-side caching.
func BenchmarkLoading(b *testing.B) {
	compare(b, []string{"one", "hot1000", "zipf100k"}, loading())
}

func loading() []rival {
	return []rival{
		{"weir", newWeir}, {"otter+expiry", otterWith(true, true)}, {"otter", otterWith(false, true)},
		{"ristretto+expiry+singleflight", ristrettoWith(ttl, true)}, {"groupcache-go", newGroupcache}, {"rueidisaside", newAside},
	}
}

// draws is how many keys are drawn; their order repeats.
const draws = 1 << 20

// compare runs each rival with each choice of keys, one of 100,000 unless it says 1M. A system is made when it is first
// needed, and serves all choices of as many keys.
func compare(b *testing.B, choices []string, rivals []rival) {
	made := map[string]*system{}
	b.Cleanup(func() {
		for _, s := range made {
			s.close()
		}
	})
	for _, choice := range choices {
		keys := keysOf(100_000)
		if strings.HasSuffix(choice, "1M") {
			keys = keysOf(1_000_000)
		}
		drawn := draw(choice, keys)
		b.Run("keys="+choice, func(b *testing.B) {
			for _, r := range rivals {
				b.Run("rival="+r.name, func(b *testing.B) {
					id := r.name + strconv.Itoa(len(keys))
					if made[id] == nil {
						s, err := fill(r, keys)
						if errors.Is(err, server.ErrNoRedis) {
							b.Skip(err)
						} else if err != nil {
							b.Fatal(err)
						}
						made[id] = s
					}
					hits(b, made[id], drawn)
				})
			}
		})
	}
}

// hits gets drawn keys from as many goroutines as GOMAXPROCS. It fails if more than one get in a thousand is not a hit.
func hits(b *testing.B, s *system, drawn []string) {
	var empty, from atomic.Int64
	missed := s.missed()
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		lost := int64(0)
		for i := int(from.Add(draws / 2)); pb.Next(); i++ {
			if !s.get(drawn[i&(draws-1)]) {
				lost++
			}
		}
		empty.Add(lost)
	})
	b.StopTimer()
	if missed = s.missed() - missed + empty.Load(); missed > int64(b.N/1000+1) {
		b.Errorf("%d of %d gets were no hits", missed, b.N)
	}
}

func keysOf(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("product:%08d", i)
	}
	return keys
}

// draw draws keys: always one, any of 1000, or by Zipf's law with the exponent 1.01.
func draw(choice string, keys []string) []string {
	r := rand.New(rand.NewPCG(1, 1))
	z := rand.NewZipf(r, 1.01, 1, uint64(len(keys)-1))
	rank := r.Perm(len(keys)) // so that hot keys are not adjacent
	drawn := make([]string, draws)
	for i := range drawn {
		switch choice {
		case "one":
			drawn[i] = keys[rank[0]]
		case "hot1000":
			drawn[i] = keys[rank[r.IntN(1000)]]
		default:
			drawn[i] = keys[rank[z.Uint64()]]
		}
	}
	return drawn
}

// fill makes a system and gets all keys until all are hits: a cache may drop values that arrive in a burst.
func fill(r rival, keys []string) (*system, error) {
	s, err := r.make(keys)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.name, err)
	}
	missing := int64(0)
	for range 20 {
		var empty atomic.Int64
		before := s.missed()
		var wg sync.WaitGroup
		const readers = 16
		for g := range readers {
			wg.Go(func() {
				for i := g; i < len(keys); i += readers {
					if !s.get(keys[i]) {
						empty.Add(1)
					}
				}
			})
		}
		wg.Wait()
		if missing = s.missed() - before + empty.Load(); missing == 0 {
			return s, nil
		}
	}
	s.close()
	return nil, fmt.Errorf("%s does not hold %d of %d keys", r.name, missing, len(keys))
}

func none() int64 { return 0 }

func newWeir(keys []string) (*system, error) {
	room := int64(len(keys)) * 500
	c, err := tier.New(tier.Config[[]byte]{
		Namespace: "micro", Codec: codec.Raw[[]byte](), Freshness: tier.Freshness{TTL: ttl, NearTTL: ttl}, NearBytes: room, OwnedBytes: room,
		Loader: tier.ByKey(func(context.Context, string) ([]byte, error) { return make([]byte, valueSize), nil }),
	})
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	return &system{
		get: func(key string) bool {
			v, err := c.Get(ctx, key)
			return err == nil && len(v) == valueSize
		},
		missed: func() int64 { s := c.Stats(); return s.Owned + s.Fill },
		close:  func() { _ = c.Close(ctx) },
	}, nil
}

// otterWith makes an otter that holds the keys, or one that loads them.
func otterWith(expires, loads bool) func(keys []string) (*system, error) {
	return func(keys []string) (*system, error) {
		o := &otter.Options[string, []byte]{MaximumSize: 2 * len(keys), Logger: &otter.NoopLogger{}}
		if expires {
			o.ExpiryCalculator = otter.ExpiryWriting[string, []byte](ttl)
		}
		c, err := otter.New(o)
		if err != nil {
			return nil, err
		}
		s := &system{missed: none, close: func() { c.StopAllGoroutines() }}
		if !loads {
			for _, k := range keys {
				c.Set(k, make([]byte, valueSize))
			}
			s.get = func(key string) bool {
				v, ok := c.GetIfPresent(key)
				return ok && len(v) == valueSize
			}
			return s, nil
		}
		var loaded atomic.Int64
		ctx, loader := context.Background(), otter.LoaderFunc[string, []byte](func(context.Context, string) ([]byte, error) {
			loaded.Add(1)
			return make([]byte, valueSize), nil
		})
		s.missed = loaded.Load
		s.get = func(key string) bool {
			v, err := c.Get(ctx, key, loader)
			return err == nil && len(v) == valueSize
		}
		return s, nil
	}
}

// ristrettoWith makes a ristretto that holds the keys, or one that loads them with a singleflight.
func ristrettoWith(ttl time.Duration, loads bool) func(keys []string) (*system, error) {
	return func(keys []string) (*system, error) {
		n := int64(len(keys))
		c, err := ristretto.NewCache(&ristretto.Config[string, []byte]{NumCounters: 10 * n, MaxCost: 2 * n, BufferItems: 64, IgnoreInternalCost: true})
		if err != nil {
			return nil, err
		}
		s := &system{missed: none, close: c.Close}
		if !loads {
			for _, k := range keys {
				for ok := false; !ok; { // its buffer drops some
					if ok = c.SetWithTTL(k, make([]byte, valueSize), 1, ttl); !ok {
						c.Wait()
					}
				}
			}
			c.Wait()
			s.get = func(key string) bool {
				v, ok := c.Get(key)
				return ok && len(v) == valueSize
			}
			return s, nil
		}
		var loaded atomic.Int64
		var flights singleflight.Group
		s.missed = loaded.Load
		s.get = func(key string) bool {
			if v, ok := c.Get(key); ok {
				return len(v) == valueSize
			}
			_, err, _ := flights.Do(key, func() (any, error) {
				loaded.Add(1)
				c.SetWithTTL(key, make([]byte, valueSize), 1, ttl)
				return nil, nil
			})
			return err == nil
		}
		return s, nil
	}
}

func newGroupcache(keys []string) (*system, error) {
	var loaded atomic.Int64
	g, err := groupcache.New(groupcache.Options{}).NewGroup("micro", int64(len(keys))*1000, groupcache.GetterFunc(func(_ context.Context, _ string, dest transport.Sink) error {
		loaded.Add(1)
		return dest.SetBytes(make([]byte, valueSize), time.Time{})
	}))
	if err != nil {
		return nil, err
	}
	ctx := context.Background()
	return &system{missed: loaded.Load, close: func() {}, get: func(key string) bool {
		var v transport.ByteView
		return g.Get(ctx, key, transport.ByteViewSink(&v)) == nil && v.Len() == valueSize
	}}, nil
}

// newAside makes a client with a cache on its side. What is not a hit there is a read of the server, which counts it.
func newAside([]string) (*system, error) {
	ctx := context.Background()
	s, err := server.StartRedis(ctx)
	if err != nil {
		return nil, err
	}
	option := s.Option()
	option.CacheSizeEachConn = 1 << 30
	c, err := rueidisaside.NewClient(rueidisaside.ClientOption{ClientOption: option})
	if err != nil {
		s.Stop()
		return nil, err
	}
	return &system{
		get: func(key string) bool {
			v, err := c.Get(ctx, ttl, key, func(context.Context, string) (string, error) {
				return rueidis.BinaryString(make([]byte, valueSize)), nil
			})
			return err == nil && len(v) == valueSize
		},
		missed: func() int64 { return reads(s.Client) },
		close:  func() { c.Close(); s.Stop() },
	}, nil
}

// reads returns how many keys have been read from a server, or -1.
func reads(c rueidis.Client) int64 {
	info, err := c.Do(context.Background(), c.B().Info().Section("stats").Build()).ToString()
	if err != nil {
		return -1
	}
	sum := int64(0)
	for line := range strings.Lines(info) {
		name, text, _ := strings.Cut(strings.TrimSpace(line), ":")
		if n, err := strconv.ParseInt(text, 10, 64); err == nil && (name == "keyspace_hits" || name == "keyspace_misses") {
			sum += n
		}
	}
	return sum
}

// TestSystemsHoldAllKeys checks that each system holds all keys once it is filled, so that what is measured are hits,
// and that a system with too little room is found out.
func TestSystemsHoldAllKeys(t *testing.T) {
	keys := keysOf(2000)
	for _, r := range append(loading(), rival{"otter present", otterWith(true, false)}, rival{"ristretto present", ristrettoWith(0, false)}) {
		if r.name == "rueidisaside" && testing.Short() {
			continue
		}
		s, err := fill(r, keys)
		if err != nil {
			t.Error(err)
			continue
		}
		before := s.missed()
		if !s.get(keys[0]) || s.missed() != before {
			t.Errorf("%s: a filled key was not a hit", r.name)
		}
		if r.name != "otter present" && r.name != "ristretto present" {
			if !s.get("another key") || s.missed() == before {
				t.Errorf("%s: a load was not counted", r.name)
			}
		} else if s.get("another key") {
			t.Errorf("%s: it has another key", r.name)
		}
		s.close()
	}
	small := rival{"small", func(keys []string) (*system, error) { return otterWith(false, true)(keys[:len(keys)/10]) }}
	if _, err := fill(small, keys); err == nil {
		t.Error("a cache with room for a fifth of the keys holds all")
	}
}
