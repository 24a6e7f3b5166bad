package demand

import (
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// Sketch estimates how often the callers on this node read each key, near hits included. It uses fixed memory (about
// 400 KiB) and takes about a nanosecond for each near hit. It keeps two samples of the keys:
//
//   - heavy: the most-read keys, by Space-Saving (Metwally, Agrawal, El Abbadi, ICDT 2005). They are few and make up
//     most of what coalescing saves, so the sample should have all of them.
//   - tail: keys picked by their hash, so that each key is seen always or never (spatial sampling, SHARDS:
//     Waldspurger, Park, Garthwaite, Ahmad, FAST 2015). The threshold of the hash falls when the sample is full, and
//     rises again after a span that leaves three quarters of it free. These keys stand for all the others.
//
// Near hits are thinned to one in NearThin before they reach the sketch, and count that many times more. The
// estimates allow for the resulting noise.
type Sketch struct {
	shards [demandShards]demandShard
	Now    atomic.Int64 // the time, up to a second old: a near hit is counted without reading the clock

	mu   sync.Mutex // guards the rest
	past [64]nearMark
	n    int // the number of marks made
}

// nearMark is the number of near hits up to a time.
type nearMark struct{ at, hits int64 }

type demandShard struct {
	mu     sync.Mutex           // guards the rest
	hashes [demandHeavy]uint64  // hashes of heavy, kept apart so that a lookup touches little memory
	sums   [demandHeavy]float64 // reads of each key in heavy
	heavy  []heavyKey
	tail   map[uint64]demandCount // by hash, for hashes whose spread is below limit
	limit  uint64                 // of spread(hash)
	shown  uint64                 // the limit since the previous span began; tail lacks reads of the keys above it
	turn   uint32                 // counts reads, to thin what heavy sees of them
	total  demandSum              // reads, as in demandCount
	began  int64                  // start of the present span
	before int64                  // length of the previous span
	keep   bool                   // key names may be kept
}

// demandCount counts the reads of a key in the present span [0] and in the previous one [1].
type demandCount struct {
	near  [2]uint32 // near hits, thinned
	other [2]uint32 // other reads
	cost  float32   // seconds that its last load took; 0: unknown
	size  uint32    // bytes of its value's encoding; 0: unknown
}

// demandSum is a sum of reads by span.
type demandSum struct{ near, other [2]float64 }

func (s demandSum) all() float64 { return s.near[0] + s.near[1] + s.other[0] + s.other[1] }

// roll begins a new span. With old, the previous span no longer counts.
func (s *demandSum) roll(old bool) {
	for _, n := range []*[2]float64{&s.near, &s.other} {
		n[1], n[0] = n[0], 0
		if old {
			n[1] = 0
		}
	}
}

type heavyKey struct {
	key  string    // cut to keyShown bytes; empty if names must not be kept
	n    demandSum // an upper bound
	over float64   // how much of n may have been another key's
	cost float32
}

const (
	demandShards = 16
	demandHeavy  = 64  // keys in each shard
	demandTail   = 256 // keys in each shard
	demandSpan   = int64(30 * time.Second)
	heavyThin    = 8   // heavy sees one in so many of the reads other than near hits
	NearThin     = 100 // one in so many near hits reaches the sketch
	keyShown     = 128
	spreadAll    = uint64(1) << 63 // spread is below this
	tailLimit    = spreadAll / 4
)

// spread maps a hash to a number below spreadAll that is unrelated to the hash's other uses.
func spread(hash uint64) uint64 {
	hash ^= hash >> 31
	hash *= 0x9E3779B97F4A7C15
	return (hash ^ hash>>29) * 0xBF58476D1CE4E5B9 >> 1
}

// NewSketch returns a sketch that begins now. keep reports whether the names of the hottest keys may be kept.
func NewSketch(now int64, keep bool) *Sketch {
	d := new(Sketch)
	d.Now.Store(now)
	for i := range d.shards {
		d.shards[i] = demandShard{tail: make(map[uint64]demandCount), limit: tailLimit, shown: tailLimit, began: now, keep: keep}
	}
	return d
}

func (d *Sketch) shard(hash uint64) *demandShard { return &d.shards[hash>>20%demandShards] }

// NearHit counts a near hit that stands for NearThin near hits.
func (d *Sketch) NearHit(key string, hash uint64, size int32, now int64) {
	s := d.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.roll(now)
	s.total.near[0] += NearThin
	s.weigh(key, hash, demandSum{near: [2]float64{NearThin}}, 0)
	if c, ok := s.sampled(hash); ok {
		c.near[0]++
		c.size = uint32(max(size, 0))
		s.keepTail(hash, c)
	}
}

// Read counts a read other than a near hit. size is that of the value's encoding, and cost that of the key's last
// load; 0 means unknown.
func (d *Sketch) Read(key string, hash uint64, size int, cost time.Duration, now int64) {
	s := d.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.roll(now)
	s.read(key, hash, size, cost)
}

// ReadMany is Read for n reads, which get returns. It skips a read for which get returns false. For each group of
// reads it locks each shard once.
func (d *Sketch) ReadMany(n int, get func(i int) (key string, hash uint64, size int, cost time.Duration, ok bool)) {
	const some = 128
	now := d.Now.Load()
	for from := 0; from < n; from += some {
		var first [demandShards]uint8 // for each shard, one more than the place in the group; 0: none
		var next [some]uint8          // likewise, the next place in the same shard
		for i := min(some, n-from) - 1; i >= 0; i-- {
			if _, hash, _, _, ok := get(from + i); ok {
				shard := hash >> 20 % demandShards
				next[i], first[shard] = first[shard], uint8(i+1)
			}
		}
		for shard, at := range first {
			if at == 0 {
				continue
			}
			s := &d.shards[shard]
			s.mu.Lock()
			s.roll(now)
			for ; at != 0; at = next[at-1] {
				key, hash, size, cost, _ := get(from + int(at) - 1)
				s.read(key, hash, size, cost)
			}
			s.mu.Unlock()
		}
	}
}

// read is Sketch.Read for one shard. The caller holds mu.
func (s *demandShard) read(key string, hash uint64, size int, cost time.Duration) {
	s.total.other[0]++
	if s.turn++; s.turn%heavyThin == 0 {
		s.weigh(key, hash, demandSum{other: [2]float64{heavyThin}}, cost)
	}
	if c, ok := s.sampled(hash); ok {
		c.other[0]++
		if size > 0 {
			c.size = uint32(size)
		}
		if cost > 0 {
			c.cost = float32(cost.Seconds())
		}
		s.keepTail(hash, c)
	}
}

// sampled returns the tail's count of a key that is in the sample. The caller holds mu.
func (s *demandShard) sampled(hash uint64) (c demandCount, ok bool) {
	if spread(hash) >= s.limit {
		return c, false
	}
	return s.tail[hash], true
}

func (s *demandShard) keepTail(hash uint64, c demandCount) {
	s.tail[hash] = c
	for len(s.tail) > demandTail {
		s.limit /= 2
		s.shown = min(s.shown, s.limit)
		for h := range s.tail {
			if spread(h) >= s.limit {
				delete(s.tail, h)
			}
		}
	}
}

// weigh counts a read of weight w in heavy, by Space-Saving. The caller holds mu.
func (s *demandShard) weigh(key string, hash uint64, w demandSum, cost time.Duration) {
	n := w.all()
	at := slices.Index(s.hashes[:len(s.heavy)], hash)
	if at >= 0 {
		h := &s.heavy[at]
		h.n.near[0] += w.near[0]
		h.n.other[0] += w.other[0]
		s.sums[at] += n
		if cost > 0 {
			h.cost = float32(cost.Seconds())
		}
		return
	}
	if !s.keep {
		key = ""
	}
	k := heavyKey{key: strings.Clone(key[:min(len(key), keyShown)]), n: w, cost: float32(cost.Seconds())}
	if at = len(s.heavy); at < demandHeavy {
		s.heavy = append(s.heavy, k)
		s.hashes[at], s.sums[at] = hash, n
		return
	}
	at = 0
	for i, sum := range s.sums {
		if sum < s.sums[at] {
			at = i
		}
	}
	k.over = s.sums[at]
	k.n = s.heavy[at].n
	k.n.near[0] += w.near[0]
	k.n.other[0] += w.other[0]
	s.heavy[at] = k
	s.hashes[at] = hash
	s.sums[at] += n
}

// roll begins a new span when the present one is over. The caller holds mu.
func (s *demandShard) roll(now int64) {
	span := now - s.began
	if span < demandSpan {
		return
	}
	old := span >= 2*demandSpan // nothing was read for a whole span: all counts are too old
	s.total.roll(old)
	for i := len(s.heavy) - 1; i >= 0; i-- {
		h := &s.heavy[i]
		h.n.roll(old)
		s.sums[i] = h.n.all()
		if h.over = min(h.over, s.sums[i]); s.sums[i] <= h.over { // none of it is known to be the key's own
			last := len(s.heavy) - 1
			s.heavy[i], s.hashes[i], s.sums[i] = s.heavy[last], s.hashes[last], s.sums[last]
			s.heavy = s.heavy[:last]
		}
	}
	for h, c := range s.tail {
		c.near[1], c.near[0] = c.near[0], 0
		c.other[1], c.other[0] = c.other[0], 0
		if old || c.near[1]+c.other[1] == 0 {
			delete(s.tail, h)
			continue
		}
		s.tail[h] = c
	}
	s.shown = s.limit
	if len(s.tail) < demandTail/4 {
		s.limit = min(2*s.limit, tailLimit)
	}
	s.before, s.began = span, now
	if old {
		s.before = demandSpan // the previous span was empty
	}
}

// KeyRate is the read rate of one key and the cost of its load.
type KeyRate struct {
	Hash  uint64
	Key   string
	Rate  float64 // reads a second
	Noise float64 // the part of Rate*Rate that is the sample's own variance
	Cost  float64 // seconds; 0: unknown
	Size  uint32
	Each  float64 // how many keys this one stands for
}

// Mark records the number of near hits so far. The cache calls it about once a second.
func (d *Sketch) Mark(hits, now int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.Now.Store(now)
	d.past[d.n%len(d.past)] = nearMark{now, hits}
	d.n++
}

// hitsBefore returns about how many near hits there had been at time at.
func (d *Sketch) hitsBefore(at int64) (hits int64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := max(0, d.n-len(d.past)); i < d.n; i++ {
		if m := d.past[i%len(d.past)]; m.at <= at+int64(time.Second)/2 || i == d.n-len(d.past) {
			hits = m.hits
		}
	}
	return hits
}

// Rates calls yield for each sampled key, and returns the reads a second over all keys. hits is the number of near
// hits so far: it corrects the sum of the samples.
func (d *Sketch) Rates(hits, now int64, yield func(k KeyRate)) (reads float64) {
	parts := 0.0 // each shard counted a part of the near hits since its previous span began; the sum of the parts should be 1
	for i := range d.shards {
		if n, from := d.shards[i].near(now); n > 0 {
			parts += n / float64(hits-d.hitsBefore(from))
		}
	}
	scale := min(max(1/parts, 0.5), 2) // a larger correction would be a mistake
	for i := range d.shards {
		reads += d.shards[i].rates(scale, now, yield)
	}
	return reads
}

// near returns the sample's estimate of the near hits, and the time since which it counts.
func (s *demandShard) near(now int64) (n float64, from int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.roll(now)
	return s.total.near[0] + s.total.near[1], s.began - s.before
}

func (s *demandShard) rates(scale float64, now int64, yield func(k KeyRate)) (reads float64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	span := time.Duration(now - s.began + s.before).Seconds()
	if span <= 0 {
		return 0
	}
	rate := func(k KeyRate, near, other, over, thin float64) {
		near *= scale
		k.Rate = (near + other - over) / span
		k.Noise = (NearThin*scale*near + thin*other) / span / span
		yield(k)
	}
	known := make(map[uint64]bool, len(s.heavy))
	for i, h := range s.heavy {
		hash := s.hashes[i]
		if n := h.n.all() - h.over; n <= h.over { // most may be another key's: let the tail speak for it
			continue
		}
		known[hash] = true
		c := s.tail[hash]
		rate(KeyRate{Hash: hash, Key: h.key, Cost: float64(max(h.cost, c.cost)), Size: c.size, Each: 1},
			h.n.near[0]+h.n.near[1], h.n.other[0]+h.n.other[1], h.over, heavyThin)
	}
	each := float64(spreadAll) / float64(s.shown)
	for hash, c := range s.tail {
		if known[hash] || spread(hash) >= s.shown {
			continue
		}
		rate(KeyRate{Hash: hash, Cost: float64(c.cost), Size: c.size, Each: each},
			NearThin*float64(c.near[0]+c.near[1]), float64(c.other[0]+c.other[1]), 0, 1)
	}
	return ((s.total.near[0]+s.total.near[1])*scale + s.total.other[0] + s.total.other[1]) / span
}

// Reads returns how many reads count now. Older reads count less.
func (d *Sketch) Reads() (n float64) {
	for i := range d.shards {
		s := &d.shards[i]
		s.mu.Lock()
		n += s.total.all()
		s.mu.Unlock()
	}
	return n
}

// Coalesced estimates by how much coalescing lowers a key's loads a second, r - r/(1+r*L) = r*r*L/(1+r*L), from a
// sampled r with the variance noise. For n samples with mean m, n(n-1) has the mean m*m, while n*n would be much
// higher than that for a few samples of great weight. n(n-1)*g(n-2) has the mean of m*m*g(n), which is above m*m*g(m)
// for this g, while n(n-1)*g(n-1) is below it. So n-1.5 lies between them (TestCoalesced: within 2 %, on average over
// keys whose loads take up to a second; more for longer loads of keys with few samples).
func Coalesced(r, noise, cost float64) float64 {
	return max(r*r-noise, 0) * cost / (1 + max(r-1.5*noise/r, 0)*cost)
}
