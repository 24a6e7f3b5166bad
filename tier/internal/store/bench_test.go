package store_test

import (
	"bytes"
	"compress/gzip"
	"encoding/binary"
	"flag"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sort"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dgraph-io/ristretto/v2"

	"github.com/weircache/weir/tier/internal/clock"
	"github.com/weircache/weir/tier/internal/near"
	"github.com/weircache/weir/tier/internal/store"
)

// To measure the stores:
//
//	go test ./tier/internal/store -run '^$' -bench 'Near|Owned' -cpu 1,2
//	go test ./tier/internal/store -run '^$' -bench HitRatio -benchtime 1x -traces DIR
//
// DIR holds web07.u32be.gz and cloudphysics.oracleGeneral.gz. Without DIR only Zipf runs.
var traces = flag.String("traces", "", "the folder of the recorded traces for BenchmarkHitRatio")

// zipfKeys draws requests from n keys by Zipf with exponent s, any s above 0.
func zipfKeys(n, requests int, s float64, seed uint64) []string {
	sums := make([]float64, n)
	sum := 0.0
	for i := range sums {
		sum += math.Pow(float64(i+1), -s)
		sums[i] = sum
	}
	r := rand.New(rand.NewPCG(seed, 0))
	keys := make([]string, n)
	for i, p := range r.Perm(n) {
		keys[i] = fixedKey(p)
	}
	out := make([]string, requests)
	for i := range out {
		out[i] = keys[min(sort.SearchFloat64s(sums, r.Float64()*sum), n-1)]
	}
	return out
}

// benchBox is a box like those of a cache: a value's word, an expiry and a fence's stamp.
type benchBox struct {
	//lint:ignore U1000 it is there for its size
	value *int
	until int64
	stamp uint64
}

// benchNear returns a near tier that holds all of n keys, and requests for them.
func benchNear(b *testing.B, n int) (*near.Tier[benchBox], []string) {
	c, err := near.New[benchBox](512 << 20)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.Close)
	keys := zipfKeys(n, 1<<21, 1.01, 1)
	for i := range n {
		c.Set(fixedKey(i), benchBox{until: math.MaxInt64}, 100)
		if i%1024 == 0 {
			c.Wait() // do not outrun ristretto's buffer
		}
	}
	c.Wait()
	if s := c.Stats(); s.Dropped != 0 || s.Rejected != 0 || s.Evicted != 0 {
		b.Fatalf("not all keys are there: %+v", s)
	}
	runtime.GC()
	return c, keys
}

// benchRaw returns a plain ristretto with n values of one word.
func benchRaw(b *testing.B, n int) *ristretto.Cache[string, *int] {
	c, err := ristretto.NewCache(&ristretto.Config[string, *int]{
		NumCounters: int64(n) * 10, MaxCost: int64(n) * 2, BufferItems: 64, IgnoreInternalCost: true,
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.Close)
	for i := range n {
		c.Set(fixedKey(i), nil, 1)
		if i%1024 == 0 {
			c.Wait()
		}
	}
	c.Wait()
	return c
}

// A nearGet is one of the candidates; the first is ristretto alone.
type nearGet struct {
	name string
	get  func(key string) bool
}

// BenchmarkNear runs turns of 50,000 gets for each goroutine, in random order, and reports medians: single runs
// differ by more than the candidates do. The near tier runs the tests that a cache runs on what it found, with and
// without a reading of the clock.
func BenchmarkNear(b *testing.B) {
	const n = 1_000_000
	raw := benchRaw(b, n)
	c, keys := benchNear(b, n)
	clock := clock.New(nil)
	var fence atomic.Uint64
	benchTurns(b, keys, []nearGet{
		{"raw", func(key string) bool { _, ok := raw.Get(key); return ok }},
		{"near", func(key string) bool { return c.Get(key) != nil }},
		{"near+fence", func(key string) bool {
			box := c.Get(key)
			return box != nil && box.stamp >= fence.Load()
		}},
		{"near+fence+clock", func(key string) bool {
			now := clock.Now()
			box := c.Get(key)
			return box != nil && box.stamp >= fence.Load() && now < box.until
		}},
	})
}

func benchTurns(b *testing.B, keys []string, gets []nearGet) {
	const turn, rounds = 50_000, 41
	procs := runtime.GOMAXPROCS(0)
	for b.Loop() {
		took := make([][]float64, len(gets))
		for round := range rounds {
			for _, v := range rand.Perm(len(gets)) {
				var wg sync.WaitGroup
				began := time.Now()
				for p := range procs {
					wg.Go(func() {
						i := round*turn + p*700_001
						for range turn {
							i++
							if !gets[v].get(keys[i%len(keys)]) {
								b.Error("a key is not there")
								return
							}
						}
					})
				}
				wg.Wait()
				took[v] = append(took[v], float64(time.Since(began))/turn)
			}
		}
		for v := range gets {
			slices.Sort(took[v])
			median := took[v][rounds/2]
			b.ReportMetric(median, gets[v].name+"-ns")
			b.ReportMetric(median/took[0][rounds/2], gets[v].name+"/raw")
		}
	}
}

func BenchmarkNearAllocs(b *testing.B) {
	n, keys := benchNear(b, 10_000)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		for i := 0; pb.Next(); i++ {
			n.Get(keys[i%len(keys)])
		}
	})
}

// benchFull runs op with the keys of a Zipf distribution on a store that has room for a tenth of them.
func benchFull(b *testing.B, op func(s store.Owned, key string)) {
	keys := zipfKeys(1_000_000, 1<<20, 0.99, 1)
	s := newFixed(100_000, nil)
	defer s.Close()
	replay(s, keys, 0)
	b.ReportAllocs()
	b.ResetTimer()
	var at atomic.Int64
	b.RunParallel(func(pb *testing.PB) {
		i := int(at.Add(1)) * 500_009
		for pb.Next() {
			i++
			op(s, keys[i%len(keys)])
		}
	})
}

func BenchmarkOwnedGet(b *testing.B) {
	benchFull(b, func(s store.Owned, key string) { s.Get(key) })
}

// BenchmarkOwnedSet sets new keys in a full store: each Set evicts another entry.
func BenchmarkOwnedSet(b *testing.B) {
	e := fixed()
	benchFull(b, func(s store.Owned, key string) { s.Set(key, e) })
}

func BenchmarkOwnedEntry(b *testing.B) {
	for b.Loop() {
		b.ReportMetric(ownedHeap(200_000, 256), "B/entry")
	}
}

// replay gets each key from s and sets the missing ones. It returns the share of hits among the requests from the
// given one on.
func replay(s store.Owned, keys []string, from int) float64 {
	hits := 0
	for i, key := range keys {
		if _, ok := s.Get(key); !ok {
			s.Set(key, heavy(len(key), fixedWeight))
		} else if i >= from {
			hits++
		}
	}
	return float64(hits) / float64(len(keys)-from)
}

func BenchmarkHitRatio(b *testing.B) {
	type trace struct {
		name       string
		keys       []string
		from, size int // where counting begins, number of distinct keys
	}
	all := []trace{{"zipf0.99", zipfKeys(1_000_000, 4_000_000, 0.99, 1), 2_000_000, 1_000_000}}
	if *traces != "" {
		web := unzip(b, "web07.u32be.gz")
		var keys []string
		for ; len(web) >= 4; web = web[4:] {
			keys = append(keys, strconv.FormatUint(uint64(binary.BigEndian.Uint32(web)), 10))
		}
		all = append(all, trace{"web07", keys, 0, distinct(keys)})
		cloud := unzip(b, "cloudphysics.oracleGeneral.gz")
		keys = nil
		for ; len(cloud) >= 24; cloud = cloud[24:] {
			keys = append(keys, strconv.FormatUint(binary.LittleEndian.Uint64(cloud[4:]), 10))
		}
		all = append(all, trace{"cloudphysics", keys, 0, distinct(keys)})
	}
	for _, tr := range all {
		for _, percent := range []int{1, 10} {
			b.Run(tr.name+"/"+strconv.Itoa(percent)+"%", func(b *testing.B) {
				for b.Loop() {
					s := newFixed(tr.size*percent/100, nil)
					b.ReportMetric(100*replay(s, tr.keys, tr.from), "%hits")
					s.Close()
				}
			})
		}
	}
}

func unzip(b *testing.B, name string) []byte {
	packed, err := os.ReadFile(filepath.Join(*traces, name))
	if err != nil {
		b.Fatal(err)
	}
	z, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		b.Fatal(err)
	}
	data, err := io.ReadAll(z)
	if err != nil {
		b.Fatal(err)
	}
	return data
}

func distinct(keys []string) int {
	seen := make(map[string]struct{})
	for _, key := range keys {
		seen[key] = struct{}{}
	}
	return len(seen)
}
