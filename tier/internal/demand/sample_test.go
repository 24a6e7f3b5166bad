package demand_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"

	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/demand"
	"github.com/weircache/weir/tier/internal/store"
)

// crowd reads 64 other keys of a shard so often that a key read less is not known to be heavy.
func crowd(d *demand.Sketch, shard uint64, now int64) (hits int64) {
	for _, hash := range shardHashes(shard, false, 64) {
		for range 20 {
			d.NearHit("crowd", hash, 1, now)
			hits += demand.NearThin
		}
	}
	return hits
}

// A key's rate has the near hits and the other reads of both spans. The number of all near hits, which is known,
// corrects the sampled ones. A key that may owe most of its count to another key is left to the tail.
func TestRatesOfBothSpans(t *testing.T) {
	const shard = 2
	d := demand.NewSketch(0, true)
	some := shardHashes(shard, true, 3)
	tail, heavy, alone := some[0], some[1], shardHashes(4, false, 1)[0]
	hits := crowd(d, shard, 0)
	event := func(hash uint64, near, other int, now int64) {
		for range near {
			d.NearHit("key", hash, 10, now)
			hits += demand.NearThin
		}
		for range other {
			d.Read("key", hash, 0, 0, now)
		}
	}
	event(tail, 2, 3, 0)
	event(alone, 3, 16, 0)
	event(tail, 5, 4, 40*second)
	event(heavy, 50, 0, 40*second) // in the place of a key with 2000 reads, so that it is known to have 5000
	event(alone, 7, 24, 40*second)
	const window, scale = 50., 1.5
	keys, all := rates(t, d, hits*3/2, 50*second)
	for hash, want := range map[uint64]demand.KeyRate{
		tail:  {Hash: tail, Rate: (700*scale + 7) / window, Noise: (700*scale*scale*100 + 7) / window / window, Size: 10, Each: 4},
		heavy: {Hash: heavy, Key: "key", Rate: (7000*scale - 2000) / window, Noise: 7000 * scale * scale * 100 / window / window, Size: 10, Each: 1},
		alone: {Hash: alone, Key: "key", Rate: (1000*scale + 40) / window, Noise: (1000*scale*scale*100 + 8*40) / window / window, Each: 1},
	} {
		if !sameRate(keys[hash], want) {
			t.Errorf("%+v, want\n%+v", keys[hash], want)
		}
	}
	if want := (float64(hits)*scale + 47) / window; !near(all, want) || d.Reads() != float64(hits)+47 {
		t.Errorf("%v a second of %v reads, want %v of %v", all, d.Reads(), want, hits+47)
	}
}

// The near hits are compared with those of all marks since the samples began to count, or with the oldest mark that is kept,
// by a factor of two at most.
func TestNearHitsCorrected(t *testing.T) {
	hash := shardHashes(4, false, 1)[0]
	for _, x := range []struct {
		rate         int64         // near hits a second
		every, first time.Duration // of the marks
		want         float64       // of 600 counted near hits since 35 s
	}{
		{10, time.Second, 0, 10 * (85 - 35)},
		{10, time.Second, time.Second / 2, 10 * (85 - 35.5)},
		{10, time.Second, 600 * time.Millisecond, 10 * (85 - 34.6)},
		{40, time.Second / 4, 0, 40 * (64 - 1) / 4}, // no mark is older
		{5, time.Second, 0, 300},
		{100, time.Second, 0, 1200},
		{10, time.Hour, 0, 10 * 85}, // a single mark, at the start
		{10, time.Hour, time.Hour, 10 * 85},
	} {
		d := demand.NewSketch(0, true)
		mark := int64(x.first)
		for now := int64(0); now <= 85*second; now += second / 20 {
			if now == mark {
				d.Mark(now*x.rate/second, now)
				mark += int64(x.every)
			}
			if now%(10*second) == 5*second {
				d.NearHit("", hash, 1, now)
			}
		}
		keys, all := rates(t, d, 85*x.rate, 85*second)
		if want := x.want / 50; !near(all, want) || !near(keys[hash].Rate, want) {
			t.Errorf("%+v: %v near hits a second, want %v", x, all, want)
		}
	}
	d, hits := demand.NewSketch(0, true), int64(0)
	for _, now := range []int64{31, 45, 61, 91} {
		d.Mark(hits, now*second)
		d.NearHit("", hash, 1, now*second)
		if hits += 100; now == 31 { // the other shards begin a span now, and the next one at 91 s
			rates(t, d, hits, 32*second)
		}
	}
	if _, all := rates(t, d, hits, 91*second); !near(all, 200./30) {
		t.Errorf("the hits since 61 s are counted together with those before: %v near hits a second", all)
	}
}

// A shard's tail has at most 256 keys, and picks half as many when they are more. It picks twice as many after a span in which
// it had fewer than 64. In all that time its keys stand for the number of those that were read.
func TestTailAdapts(t *testing.T) {
	const shard = 5
	picked := shardHashes(shard, true, 257)
	for _, few := range []int{63, 64} {
		d := demand.NewSketch(0, true)
		crowd(d, shard, 0)
		shown := func(each float64, now int64) (hashes []uint64) {
			keys, _ := rates(t, d, 0, now)
			for _, hash := range picked {
				k, ok := keys[hash]
				if !ok {
					continue
				}
				hashes = append(hashes, hash)
				if k.Each != each {
					t.Fatalf("at %v: a key stands for %v, want %v", time.Duration(now), k.Each, each)
				}
			}
			return hashes
		}
		read := func(hashes []uint64, now int64) {
			for _, hash := range hashes {
				d.Read("", hash, 1, 0, now)
			}
		}
		read(picked[:256], 0)
		if n := len(shown(4, second)); n != 256 {
			t.Errorf("%d of 256 keys are left", n)
		}
		read(picked[256:], 0)
		kept := shown(8, second)
		if n := len(kept); n < 128-32 || n > 128+32 {
			t.Errorf("%d of 257 keys are left", n)
		}
		read(picked, 0)
		if n := len(shown(8, second)); n != len(kept) {
			t.Errorf("%d keys after another round, want %d: a key that is picked no more came back", n, len(kept))
		}
		keys, _ := rates(t, d, 0, 10*second)
		if k := keys[kept[0]]; k.Rate != 0.2 {
			t.Errorf("a key that was read twice in ten seconds: %+v", k)
		}
		var dropped []uint64
		for _, hash := range picked {
			if _, ok := keys[hash]; !ok {
				dropped = append(dropped, hash)
			}
		}
		half := append(kept[:few:few], dropped[:few]...) // the tail saw the first few of them
		crowd(d, shard, 30*second)
		read(half, 30*second)
		if n := len(shown(8, 60*second)); n != few {
			t.Errorf("the tail has %d of %d keys", n, few)
		}
		crowd(d, shard, 60*second)
		read(half, 60*second)
		if n := len(shown(8, 60*second)); n != few { // the previous span lacks the others
			t.Errorf("the tail has %d of %d keys", n, few)
		}
		each, want := 8., few
		if few < 64 {
			each, want = 4, 2*few
		}
		if n := len(shown(each, 90*second)); n != want {
			t.Errorf("the tail has %d keys that stand for %v, want %d", n, each, want)
		}
	}
}

// A key that was read near and otherwise equally often is not taken for one that was not read.
func TestTailKeepsWhatWasRead(t *testing.T) {
	d := demand.NewSketch(0, true)
	crowd(d, 2, 0)
	hash := shardHashes(2, true, 1)[0]
	d.NearHit("", hash, 1, 0)
	d.Read("", hash, 1, 0, 0)
	if keys, _ := rates(t, d, 64*2000+100, 50*second); !near(keys[hash].Rate, 101./50) {
		t.Errorf("%+v", keys[hash])
	}
}

// Space-Saving: a rate is at most the true one, and less by a 64th of the shard's reads at most. Each key with more than two
// such parts is found.
func TestHeavyKeysWithinTheirBound(t *testing.T) {
	const seed, reads = 1, 20000
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	hashes := shardHashes(7, false, 500)
	d := demand.NewSketch(0, true)
	truth := make(map[uint64]float64)
	for range reads {
		hash := hashes[int(math.Pow(500, rnd.Float64()))] // by Zipf, with the exponent 1
		d.NearHit(fmt.Sprint(hash), hash, 1, 0)
		truth[hash] += demand.NearThin
	}
	const part = reads * demand.NearThin / 64.
	keys, _ := rates(t, d, reads*demand.NearThin, second)
	found := 0
	for hash, n := range truth {
		k, ok := keys[hash]
		if ok {
			found++
			if k.Rate > n*(1+1e-9) || k.Rate < n-part || k.Key != fmt.Sprint(hash) {
				t.Errorf("%+v, really %v", k, n)
			}
		} else if n > 2*part {
			t.Errorf("a key with %v of %d reads is not found", n, reads*demand.NearThin)
		}
	}
	if found < 4 {
		t.Errorf("only %d keys found", found)
	}
}

// A key loses the reads that may have been another key's when it has no others left.
func TestHeavyForgetsOtherKeys(t *testing.T) {
	hashes := shardHashes(2, false, 66)
	d := demand.NewSketch(0, true)
	hit := func(hash uint64, n int, now int64) {
		for range n {
			d.NearHit("key", hash, 1, now)
		}
	}
	for _, hash := range hashes[:64] {
		hit(hash, 10, 0)
	}
	late := hashes[64]
	for i, now := range []int64{0, 30 * second, 60 * second} {
		hit(late, 4, now)
		keys, _ := rates(t, d, 0, now+second)
		if _, ok := keys[late]; ok != (i == 2) {
			t.Errorf("span %d: found %v", i, ok)
		}
	}
}

// Coalesced is r-r/(1+r*L) of the true rate. From samples it is within 2 % of that, on average over keys whose rates are by Zipf.
func TestCoalesced(t *testing.T) {
	for _, x := range [][3]float64{{1, 1, 0.5}, {10, 0.5, 10 - 10./6}, {0.1, 100, 0.1 - 0.1/11}, {3, 0, 0}} {
		if got := demand.Coalesced(x[0], 0, x[1]); math.Abs(got-x[2]) > 1e-12 {
			t.Errorf("%v a second, %v s a load: %v, want %v", x[0], x[1], got, x[2])
		}
	}
	const weight, span = 100., 60.
	for _, cost := range []float64{0.001, 0.01, 0.1, 1} {
		got, want := 0.0, 0.0
		for mean := 1. / 64; mean <= 256; mean *= 2 { // samples of a key; the keys of an octave have as many reads as those of another
			rate := mean * weight / span
			want += 1 - 1/(1+rate*cost)
			p := math.Exp(-mean) // of n samples, by Poisson
			for n := 1.; n < 1000; n++ {
				p *= mean / n
				got += p / rate * demand.Coalesced(n*weight/span, n*weight*weight/span/span, cost)
			}
		}
		if math.Abs(got/want-1) > 0.02 {
			t.Errorf("%v s a load: %v of what is coalesced", cost, got/want)
		}
	}
}

// The loads that a sketch projects are those of the true rates, whether its reads are near hits or others.
func TestProjectedLoads(t *testing.T) {
	const seed, keys, rate, cost = 1, 5000, 3000, 0.1
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	total, want := 0.0, 0.0
	for k := 1; k < keys; k++ {
		total += math.Log(float64(k+1) / float64(k))
	}
	for k := 1; k < keys; k++ {
		r := rate * math.Log(float64(k+1)/float64(k)) / total
		want += r / (1 + r*cost)
	}
	for _, nearHits := range []bool{false, true} {
		d := demand.NewSketch(0, true)
		now, hits, mark := int64(0), int64(0), int64(0)
		for now < 61*second {
			now += int64(rnd.ExpFloat64() / rate * float64(second))
			if now >= mark {
				d.Mark(hits, now)
				mark += second
			}
			if hits++; nearHits && rnd.IntN(demand.NearThin) != 0 {
				continue
			}
			key := fmt.Sprint(int(math.Pow(keys, rnd.Float64())))
			if nearHits {
				d.NearHit(key, ring.Hash(key), 100, now)
			} else {
				d.Read(key, ring.Hash(key), 100, 100*time.Millisecond, now)
			}
		}
		known, spared := 0.0, 0.0
		reads := d.Rates(hits, now, func(k demand.KeyRate) { // hits do not matter if none was near
			known += k.Each
			if k.Rate > 0 {
				spared += k.Each * demand.Coalesced(k.Rate, k.Noise, cost)
			}
		})
		t.Logf("near hits %v: %.0f reads and %.0f loads a second of %.0f keys, really %d, %.0f, %d", nearHits, reads, reads-spared, known, rate, want, keys-1)
		if math.Abs((reads-spared)/want-1) > 0.1 || math.Abs(reads/rate-1) > 0.03 || !nearHits && math.Abs(known/keys-1) > 0.1 {
			t.Errorf("near hits %v: %.0f reads and %.0f loads a second of %.0f keys, really %d, %.0f, %d", nearHits, reads, reads-spared, known, rate, want, keys-1)
		}
	}
}

// Memory does not grow with the number of keys, and the hottest keys are found. They are named only if that is
// allowed.
func TestIsBounded(t *testing.T) {
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	d, r := demand.NewSketch(0, true), demand.NewReuseCurve(0)
	e := new(store.Entry)
	now := int64(0)
	rnd := rand.New(rand.NewPCG(1, 1))
	for i := range 200_000 {
		now += int64(100 * time.Microsecond)
		key := fmt.Sprint("a rather long key, of the kind that there are in real life: ", i)
		if i%10 == 0 {
			key = fmt.Sprint("hot", rnd.IntN(5))
		}
		hash := ring.Hash(key)
		d.Read(key, hash, 100, 0, now)
		r.Read(key, hash, e)
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	size := int64(after.HeapAlloc) - int64(before.HeapAlloc)
	t.Logf("%d bytes", size)
	if size > 1<<20 {
		t.Errorf("it takes %d bytes", size)
	}
	hot := 0
	reads := d.Rates(0, now, func(k demand.KeyRate) {
		if len(k.Key) == 4 && k.Rate > 100 && k.Rate < 300 {
			hot++
		}
	})
	if hot != 5 || reads < 9900 || reads > 10100 {
		t.Errorf("%d of 5 hot keys found, %.0f reads/s", hot, reads)
	}
	runtime.KeepAlive(d)
	runtime.KeepAlive(r)
}
