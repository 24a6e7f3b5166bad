package demand_test

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weircache/weir/tier/internal/demand"
)

// ratesOf returns what d says after a second, the sampled keys without a name in the order of their hashes.
func ratesOf(d *demand.Sketch) string {
	var named, others []demand.KeyRate
	reads := d.Rates(0, int64(time.Second), func(k demand.KeyRate) {
		if k.Key != "" {
			named = append(named, k)
		} else {
			others = append(others, k)
		}
	})
	slices.SortFunc(others, func(a, b demand.KeyRate) int { return cmp.Compare(a.Hash, b.Hash) })
	return fmt.Sprint(d.Reads(), reads, named, others)
}

// ReadMany has the same result as single reads, in each shard's order.
func TestDemandReadMany(t *testing.T) {
	for _, n := range []int{1, 127, 128, 129, 1000} {
		one, all := demand.NewSketch(0, true), demand.NewSketch(0, true)
		r := rand.New(rand.NewPCG(1, uint64(n)))
		type read struct {
			hash uint64
			size int
			ok   bool
		}
		reads := make([]read, n)
		for i := range reads {
			reads[i] = read{r.Uint64(), r.IntN(1000), r.IntN(5) > 0}
			if i > 0 && r.IntN(3) == 0 {
				reads[i].hash = reads[r.IntN(i)].hash
			}
			if reads[i].ok {
				one.Read(fmt.Sprint(reads[i].hash), reads[i].hash, reads[i].size, time.Second, 0)
			}
		}
		all.ReadMany(n, func(i int) (string, uint64, int, time.Duration, bool) {
			return fmt.Sprint(reads[i].hash), reads[i].hash, reads[i].size, time.Second, reads[i].ok
		})
		for i := range 9 { // a shard names one key of eight: more reads show which one would be next
			if a, b := ratesOf(one), ratesOf(all); a != b {
				t.Errorf("%d reads and %d more in each shard: %s\nnot %s", n, i, b, a)
			}
			for shard := range uint64(16) {
				hash := 1<<60 | uint64(i)<<32 | shard<<20
				one.Read(fmt.Sprint(hash), hash, 10, time.Second, 0)
				all.Read(fmt.Sprint(hash), hash, 10, time.Second, 0)
			}
		}
	}
}

const second = int64(time.Second)

// shardHashes returns n hashes of the same shard that the tail has or lacks while it is not full: it has a quarter.
func shardHashes(shard uint64, inTail bool, n int) (out []uint64) {
	r := rand.New(rand.NewPCG(shard, 1))
	for tried := 1; ; tried++ {
		hash := r.Uint64()&^(15<<20) | shard<<20
		d, found := demand.NewSketch(0, false), false
		d.Read("", hash, 1, 0, 0) // a single read does not reach the heavy keys
		d.Rates(0, second, func(demand.KeyRate) { found = true })
		if found == inTail {
			if out = append(out, hash); len(out) == n {
				return out
			}
		}
	}
}

// rates returns the rates by hash, and that of all reads.
func rates(t *testing.T, d *demand.Sketch, hits, now int64) (map[uint64]demand.KeyRate, float64) {
	t.Helper()
	keys := make(map[uint64]demand.KeyRate)
	all := d.Rates(hits, now, func(k demand.KeyRate) {
		if _, ok := keys[k.Hash]; ok {
			t.Errorf("%d is there twice", k.Hash)
		}
		keys[k.Hash] = k
	})
	return keys, all
}

// near reports whether two rates are equal but for rounding.
func near(a, b float64) bool { return math.Abs(a-b) <= 1e-9*math.Abs(b) }

// sameRate reports whether two rates of a key are equal but for rounding.
func sameRate(a, b demand.KeyRate) bool {
	ok := near(a.Rate, b.Rate) && near(a.Noise, b.Noise) && near(a.Cost, b.Cost) && near(a.Each, b.Each)
	return ok && a.Hash == b.Hash && a.Key == b.Key && a.Size == b.Size
}

// A key in the tail has the rate of its reads and stands for three other keys. What is unknown in a read leaves what
// an earlier read told. A key that is in neither sample counts in the sum alone.
func TestTail(t *testing.T) {
	const start = 1000 * second
	d := demand.NewSketch(start, true)
	in, out := shardHashes(3, true, 1)[0], shardHashes(3, false, 1)[0]
	if keys, all := rates(t, d, 0, start); len(keys) != 0 || all != 0 {
		t.Errorf("a sketch that begins has %v, %v reads a second", keys, all)
	}
	d.Read("in", in, 100, 2*time.Second, start)
	if keys, all := rates(t, d, 0, start); len(keys) != 0 || all != 0 {
		t.Errorf("no time has passed, but there are %v, %v reads a second", keys, all)
	}
	d.Read("in", in, 0, 0, start)
	d.Read("in", in, 0, 0, start)
	d.Read("out", out, 100, 0, start)
	keys, all := rates(t, d, 0, start+10*second)
	want := demand.KeyRate{Hash: in, Rate: 0.3, Noise: 0.03, Cost: 2, Size: 100, Each: 4}
	if len(keys) != 1 || !sameRate(keys[in], want) || !near(all, 0.4) || d.Reads() != 4 {
		t.Errorf("%+v, %v a second of %v reads", keys, all, d.Reads())
	}
	d.Read("in", in, 7, time.Second, start)
	if keys, _ = rates(t, d, 0, start+10*second); keys[in].Size != 7 || keys[in].Cost != 1 {
		t.Errorf("%+v", keys)
	}
}

// Every eighth of the reads other than near hits counts eight times for a heavy key, and a near hit counts as the hundred
// that it stands for. The variances are those of such samples. The tail adds what it knows of the key.
func TestHeavy(t *testing.T) {
	out, in := shardHashes(3, false, 1)[0], shardHashes(3, true, 1)[0]
	for _, keep := range []bool{true, false} {
		d := demand.NewSketch(0, keep)
		long := strings.Repeat("k", 200)
		for i := range 24 {
			if d.Read(long, out, 100, []time.Duration{time.Second, 7 * time.Second, 0}[i/8], 0); i == 6 {
				if keys, all := rates(t, d, 0, 10*second); len(keys) != 0 || !near(all, 0.7) {
					t.Errorf("7 reads: %+v, %v a second", keys, all)
				}
			}
		}
		for range 16 { // both kinds: the size is in the tail, and the cost is the larger of both
			d.Read("in", in, 50, 3*time.Second, 0)
		}
		d.NearHit("in", in, 60, 0)
		d.NearHit("in", in, -1, 0) // unknown
		d.NearHit("in", in, 60, 0)
		keys, all := rates(t, d, 300, 10*second)
		a := demand.KeyRate{Hash: out, Key: long[:128], Rate: 2.4, Noise: 8 * 24 / 100., Cost: 7, Each: 1}
		b := demand.KeyRate{Hash: in, Key: "in", Rate: 31.6, Noise: (8*16 + 100*300) / 100., Cost: 3, Size: 60, Each: 1}
		if !keep {
			a.Key, b.Key = "", ""
		}
		if len(keys) != 2 || !sameRate(keys[out], a) || !sameRate(keys[in], b) || !near(all, 34) || d.Reads() != 340 {
			t.Errorf("%+v\n%+v\nwant\n%+v\n%+v\n%v a second of %v reads", keys[out], keys[in], a, b, all, d.Reads())
		}
	}
}

// Rates are those of two spans, of which the previous one ends with the first event after 30 s. After a minute without
// an event nothing counts.
func TestSpans(t *testing.T) {
	heavy, tail := shardHashes(1, false, 1)[0], shardHashes(1, true, 1)[0]
	const start = 500 * second
	d := demand.NewSketch(start, true)
	reads := func(n int, at int64) {
		for range n { // in pairs, of which a key gets half
			d.Read("heavy", heavy, 1, 0, start+at)
			d.Read("tail", tail, 1, 0, start+at)
		}
		for range n {
			d.NearHit("heavy", heavy, 1, start+at)
		}
	}
	var hits int64
	for i, x := range []struct {
		n       int   // of pairs, and of near hits of heavy
		at, ask int64 // since start, in ns
		window  float64
		counts  int // of n
	}{
		{4, 0, 10 * second, 10, 4},
		{8, 30 * second, 40 * second, 40, 12},
		{0, 0, 60*second - 1, 60, 12},
		{0, 0, 60 * second, 30, 8}, // the first span no longer counts
		{0, 0, 89 * second, 59, 8},
		{0, 0, 90 * second, 30, 0},
		{4, 100 * second, 110 * second, 50, 4},
		{0, 0, 149 * second, 59, 4},
		{4, 149 * second, 209*second - 1, 60 - 1e-9, 4},
		{4, 300 * second, 310 * second, 40, 4}, // the one before counts as an empty span
		{4, 330 * second, 390 * second, 30, 0},
	} {
		if x.n > 0 {
			d.Mark(hits, start+x.at)
			reads(x.n, x.at)
			hits += int64(x.n) * demand.NearThin
			d.Mark(hits, start+x.at+second)
		}
		keys, all := rates(t, d, hits, start+x.ask)
		n := float64(x.counts)
		if !near(all, 102*n/x.window) && !near(all+1, 102*n/x.window+1) || d.Reads() != 102*n {
			t.Errorf("step %d: %v a second of %v reads, want %v of %v", i, all, d.Reads(), 102*n/x.window, 102*n)
		}
		if got := keys[heavy].Rate; n > 0 && got < 100*n/x.window {
			t.Errorf("step %d: the key that is read most has %v a second, want %v", i, got, 100*n/x.window)
		}
		if n == 0 && len(keys) != 0 {
			t.Errorf("step %d: %+v", i, keys)
		}
	}
}
