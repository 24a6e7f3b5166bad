package demand_test

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/demand"
	"github.com/weircache/weir/tier/internal/store"
)

// pickedPart is the part of the keys that an empty curve picks: a picked key stands for so many.
const pickedPart = 8

// sized returns an entry of a key with an empty name that weighs this many bytes.
func sized(bytes int64) *store.Entry { return &store.Entry{Value: make([]byte, bytes-store.Overhead)} }

// pickedHashes returns n hashes that a curve picks, and some that it does not pick.
func pickedHashes(rnd *rand.Rand, n int) (picked, others []uint64) {
	for len(picked) < n {
		r := demand.NewReuseCurve(0)
		for range 1000 {
			hash := rnd.Uint64()
			_, before := r.Curve(nil, 0)
			r.Read("", hash, nil)
			if _, after := r.Curve(nil, 0); after > before {
				picked = append(picked, hash)
			} else {
				others = append(others, hash)
			}
		}
	}
	return picked[:n], others
}

// ratioAt returns the miss ratio of a tier of this size if all reads up to now are those of the picked keys.
func ratioAt(r *demand.ReuseCurve, size, reads int64) float64 {
	points, _ := r.Curve([]int64{size}, reads)
	return points[0].Ratio
}

// reuseModel knows the picked keys in the order of their last reads, and the distance of each read.
type reuseModel struct {
	order []uint64 // the most recently read last
	sizes map[uint64]int64
	hist  map[int64]float64 // weight of the reads of each distance
	first float64           // weight of the first reads
}

// read counts a read. A size of 0 leaves the key's size.
func (m *reuseModel) read(hash uint64, size int64) {
	if i := slices.Index(m.order, hash); i >= 0 {
		distance := int64(0)
		for _, h := range m.order[i:] {
			distance += m.sizes[h]
		}
		m.hist[distance*pickedPart] += pickedPart
		m.order = slices.Delete(m.order, i, i+1)
	} else {
		m.first += pickedPart
	}
	m.order = append(m.order, hash)
	if size != 0 {
		m.sizes[hash] = size
	}
}

// A read misses in the tiers that are smaller than the bytes of the other keys that were read since the key's last
// read, the key itself included. At powers of two, where buckets end, the curve equals a stack of keys ordered by
// their last reads, whose sizes change. Old reads lose half their weight every five minutes.
func TestReuseCurveIsLRU(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	const keys = 300
	picked, others := pickedHashes(rnd, keys)
	r := demand.NewReuseCurve(0)
	m := reuseModel{sizes: make(map[uint64]int64), hist: make(map[int64]float64)}
	reads, halved := int64(0), 0.0
	compare := func() {
		t.Helper()
		all, inTier := float64(reads)-halved-m.first, int64(0)
		for _, size := range m.sizes {
			inTier += size * pickedPart
		}
		for bit := range 40 {
			want := 0.0
			for distance, weight := range m.hist {
				if distance > 1<<bit {
					want += weight / all
				}
			}
			if got := ratioAt(r, 1<<bit, reads); math.Abs(got-want) > 1e-9 {
				t.Fatalf("after %d reads, 2^%d bytes: %v, want %v", reads, bit, got, want)
			}
		}
		if _, bytes := r.Curve(nil, reads); bytes != inTier {
			t.Fatalf("after %d reads: %d bytes in all, want %d", reads, bytes, inTier)
		}
	}
	for i := range 27000 {
		if i%3 == 0 { // not picked: it changes nothing
			r.Read("", others[i%len(others)], sized(1000))
			continue
		}
		hash := picked[int(math.Pow(keys, rnd.Float64()))]
		var e *store.Entry
		size := int64(0)
		if m.sizes[hash] == 0 || rnd.IntN(10) == 0 {
			size = 500 + rnd.Int64N(5000)
			e = sized(size)
		}
		r.Read("", hash, e)
		m.read(hash, size)
		reads += pickedPart
		if i%2000 == 1 {
			compare()
		}
		if i == 10000 || i == 20000 {
			now := 5*int64(time.Minute)*int64(i/10000) - 1
			r.Halve(now, reads)
			compare()
			r.Halve(now+1, reads)
			halved = float64(reads)/2 + halved/2
			m.first /= 2
			for distance := range m.hist {
				m.hist[distance] /= 2
			}
			compare()
		}
	}
	compare()
}

// A key that is read again and again needs a tier of its own size, however many bytes others have.
func TestReuseCurveOfOneKey(t *testing.T) {
	picked, _ := pickedHashes(rand.New(rand.NewPCG(1, 1)), 2)
	r := demand.NewReuseCurve(0)
	r.Read("", picked[0], sized(1<<12))
	const reads = 40000
	for range reads {
		r.Read("", picked[1], sized(1<<9))
	}
	all := int64(pickedPart * (reads + 1))
	if hit, miss := ratioAt(r, 1<<9*pickedPart, all), ratioAt(r, 1<<9*pickedPart/2, all); hit != 0 || miss != 1 {
		t.Errorf("miss ratio %v where it fits, %v where it does not", hit, miss)
	}
}

// The reads that the sample lacks, or has in excess, are near ones: they hit at any size.
func TestReuseCurveCountsAllReads(t *testing.T) {
	picked, _ := pickedHashes(rand.New(rand.NewPCG(1, 1)), 2)
	r := demand.NewReuseCurve(0)
	if points, bytes := r.Curve([]int64{0, 1}, 0); fmt.Sprint(points, bytes) != "[{0 0} {1 0}] 0" {
		t.Errorf("nothing was read: %v, %d bytes", points, bytes)
	}
	for range 5 { // the first reads, then 8 times in a tier that is large enough
		r.Read("", picked[0], sized(1<<9))
		r.Read("", picked[1], sized(1<<9))
	}
	for _, x := range []struct {
		reads int64 // the first reads included
		want  float64
	}{
		{2*8 + 8*8, 1}, {2*8 + 16*8, 0.5}, {2*8 + 64*8, 0.125},
		{2*8 + 8*4, 1}, // more in the sample than there were
		{2 * 8, 1}, {3, 1},
	} {
		if got := ratioAt(r, 0, x.reads); got != x.want {
			t.Errorf("%d reads in all: miss ratio %v without a tier, want %v", x.reads, got, x.want)
		}
		if got := ratioAt(r, 2*8<<9, x.reads); got != 0 {
			t.Errorf("%d reads in all: miss ratio %v of a tier that holds both", x.reads, got)
		}
	}
	r.Halve(int64(time.Hour), 2*8+8*8)
	r.Halve(int64(time.Hour)+1, 1e9) // too soon
	if got := ratioAt(r, 0, 2*8+8*8+32); got != 0.5 {
		t.Errorf("half of 64 reads missed, and 32 later ones hit: miss ratio %v", got)
	}
	if got := ratioAt(r, 0, 1); got != 1 {
		t.Errorf("fewer reads than at the last halving: miss ratio %v", got)
	}
}

// The curve holds 4096 keys. With one more it picks half as many keys, which stand for twice as many.
func TestReuseCurveFull(t *testing.T) {
	const most, size = 4096, 1 << 9
	picked, _ := pickedHashes(rand.New(rand.NewPCG(1, 1)), most+1)
	r, e := demand.NewReuseCurve(0), sized(size)
	for _, hash := range picked[:most] {
		r.Read("", hash, e)
	}
	if _, bytes := r.Curve(nil, 0); bytes != most*size*pickedPart {
		t.Errorf("%d bytes in all, want %d", bytes, most*size*pickedPart)
	}
	r.Read("", picked[most], e)
	_, bytes := r.Curve(nil, 0)
	left := bytes / (2 * pickedPart * size)
	if bytes%(2*pickedPart*size) != 0 || left < most/2-200 || left > most/2+200 {
		t.Errorf("%d bytes in all, of %v keys", bytes, float64(bytes)/(2*pickedPart*size))
	}
	for _, hash := range picked {
		r.Read("", hash, e)
	}
	if _, again := r.Curve(nil, 0); again != bytes {
		t.Errorf("%d bytes in all after a second round, want %d: a key that is picked no more came back", again, bytes)
	}
	reads, distance := (most+1)*pickedPart+left*2*pickedPart, left*size*2*pickedPart
	if hit, miss := ratioAt(r, distance, reads), ratioAt(r, distance/2, reads); hit != 0 || miss != 1 {
		t.Errorf("miss ratio %v where all fit, %v where half do", hit, miss)
	}
}

// The predicted curve matches the misses of tiers that really are smaller and that keep the most recently used
// entries, with many more keys than the curve holds.
func TestMissRatioCurve(t *testing.T) {
	const seed, keys, reads, size = 1, 60000, 80000, 1000
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 1))
	r, e := demand.NewReuseCurve(0), sized(size)
	limits := []int{500, 2000, 8000}
	lrus := make([]*lruModel, len(limits))
	for i, n := range limits {
		lrus[i] = newLRUModel(n)
	}
	first := make(map[int]bool)
	for range reads {
		k := int(math.Pow(keys, rnd.Float64())) // by Zipf, with the exponent 1
		r.Read("", ring.Hash(fmt.Sprint(k)), e)
		for _, l := range lrus {
			l.read(k, first[k])
		}
		first[k] = true
	}
	for i, n := range limits {
		got, want := ratioAt(r, int64(n)*size, reads), float64(lrus[i].misses)/float64(reads-len(first))
		t.Logf("%6d keys: %.4f, really %.4f", n, got, want)
		if math.Abs(got-want) > 0.04 { // a bucket is a quarter of a doubling wide
			t.Errorf("%d keys: %.4f, really %.4f", n, got, want)
		}
	}
	_, bytes := r.Curve(nil, reads)
	if want := float64(len(first) * size); math.Abs(float64(bytes)/want-1) > 0.05 {
		t.Errorf("%d bytes in all, really %.0f", bytes, want)
	}
}

// lruModel counts the misses of an LRU tier of this many keys.
type lruModel struct {
	limit, misses int
	at            map[int]int
	order         []int // keys by read; old ones are skipped
	head          int
}

func newLRUModel(limit int) *lruModel { return &lruModel{limit: limit, at: make(map[int]int)} }

func (l *lruModel) read(k int, count bool) {
	if _, ok := l.at[k]; !ok && count {
		l.misses++
	}
	l.at[k] = len(l.order)
	l.order = append(l.order, k)
	for len(l.at) > l.limit {
		if old := l.order[l.head]; l.at[old] == l.head {
			delete(l.at, old)
		}
		l.head++
	}
}
