package tier

import (
	"cmp"
	"math/bits"
	"slices"

	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/demand"
	"github.com/weircache/weir/tier/internal/owner"
	"github.com/weircache/weir/tier/internal/store"
)

// Projection predicts what the origin of the whole cluster would see if the cache vanished now, as estimated from
// this node. It assumes that callers' reads are spread evenly over the members and that the last 30 to 60 seconds are
// representative.
type Projection struct {
	Members  int     `json:"members"`         // members over which the reads are assumed to be spread
	Reads    float64 `json:"reads_a_second"`  // reads by callers: what the origin would see without any cache
	ColdLoad float64 `json:"loads_a_second"`  // what the origin would see through weir with empty tiers: sum of r/(1+r*L) over the keys
	Cost     float64 `json:"seconds_a_load"`  // L, on average
	Capacity float64 `json:"capacity"`        // loads a second that Origin allows: Concurrency/L, or Rate
	Margin   float64 `json:"margin"`          // Capacity / ColdLoad: below 1, losing the cache would mean rejecting callers; 0: no reads yet
	Keys     float64 `json:"keys"`            // the working set: keys read in the window
	Bytes    int64   `json:"bytes"`           // what the working set takes in the owned tiers
	Warm     float64 `json:"seconds_to_warm"` // time to load the working set at Capacity

	Sampled    int         `json:"sampled_keys"`
	MissRatios []MissRatio `json:"miss_ratios"` // of this node's owned tier at these sizes
	Hottest    []HotKey    `json:"hottest"`     // by Busy, at most 20
}

// HotKey is one of the keys whose loads would cost the origin most.
type HotKey struct {
	Key  string  `json:"key,omitempty"`  // its first 128 bytes, if Config.ShowKeys allows it
	Hash uint64  `json:"hash,string"`    // the key's ring hash
	Rate float64 `json:"reads_a_second"` // reads by callers on this node
	Cost float64 `json:"seconds_a_load"` // cost of its last load here, or the average
	Busy float64 `json:"busy"`           // Rate x Cost: origin-seconds that the cache saves each second
}

const hottestShown = 20

// mix spreads near hits over all numbers, by their time and slot. It costs less than a random number.
func mix(now int64, slot uint16) uint64 {
	x := (uint64(now) ^ uint64(slot)<<40) * 0x9E3779B97F4A7C15
	return (x ^ x>>32) * 0xBF58476D1CE4E5B9
}

// sampleNearHit samples a near hit whose mix is x: the hit may stand for others in the statistics. It returns a drill
// if that wants the hit to behave as a miss.
func (c *Cache[V]) sampleNearHit(key string, b *nearEntry[V], now int64, x uint64) *owner.Drill {
	d := c.own.PickDrill()
	if x < owner.WatchSome {
		c.own.Demand.NearHit(key, ring.Hash(key), b.size, now)
		if d == nil {
			c.countNearHit(b, now, demand.NearThin, b.why)
		}
	}
	return d
}

// Projection predicts what would happen if the cache vanished now. It is safe for concurrent use and takes a few
// hundred microseconds.
func (c *Cache[V]) Projection() Projection { return c.projection() }

func (c *core) projection() Projection {
	now := c.own.Clock.Now()
	g := c.own.Governor.Snapshot()
	p := Projection{Members: 1}
	if c.cfg.Cluster != nil {
		p.Members = max(c.cfg.Cluster.View().Len(), 1)
	}
	n := float64(p.Members)
	var keys []demand.KeyRate
	p.Reads = n * c.own.Demand.Rates(c.own.NearHits(), now, func(k demand.KeyRate) { keys = append(keys, k) })
	p.Cost = cmp.Or(c.own.Stats.MeanCost(), g.LoadSeconds)
	spared, sized, size, cost, weight := 0.0, 0.0, 0.0, 0.0, 0.0
	for i := range keys {
		k := &keys[i]
		if k.Cost > 0 {
			w := k.Each * k.Rate
			cost, weight = cost+w*k.Cost, weight+w
		}
	}
	if weight > 0 { // weighted by reads: what cold reads would wait for
		p.Cost = cost / weight
	}
	for i := range keys {
		k := &keys[i]
		if k.Cost == 0 {
			k.Cost = p.Cost
		}
		if r := n * k.Rate; r > 0 {
			spared += k.Each * demand.Coalesced(r, n*n*k.Noise, k.Cost)
		}
		p.Keys += k.Each
		if k.Size > 0 {
			sized, size = sized+k.Each, size+k.Each*float64(k.Size)
		}
	}
	p.ColdLoad = max(p.Reads-spared, 0)
	p.Sampled = len(keys)
	if sized > 0 {
		p.Bytes = int64(p.Keys * (size/sized + float64(store.Overhead)))
	}
	if p.Cost > 0 {
		p.Capacity = float64(c.cfg.Origin.Concurrency) / p.Cost
	}
	if r := c.cfg.Origin.Rate; r > 0 && (p.Capacity == 0 || r < p.Capacity) {
		p.Capacity = r
	}
	if p.ColdLoad > 0 {
		p.Margin = p.Capacity / p.ColdLoad
	}
	if p.Capacity > 0 {
		p.Warm = p.Keys / p.Capacity
	}
	var sizes []int64
	for i := -4; i <= 2; i++ {
		s := c.cfg.OwnedBytes
		if i < 0 {
			s >>= -i
		} else if bits.Len64(uint64(s)) < 60 {
			s <<= i
		}
		sizes = append(sizes, s)
	}
	points, _ := c.own.Reuse.Curve(sizes, c.own.Stats.OwnedReads())
	for _, x := range points {
		p.MissRatios = append(p.MissRatios, MissRatio(x))
	}
	slices.SortFunc(keys, func(a, b demand.KeyRate) int { return cmp.Compare(b.Rate*b.Cost, a.Rate*a.Cost) })
	for _, k := range keys[:min(len(keys), hottestShown)] {
		p.Hottest = append(p.Hottest, HotKey{k.Key, k.Hash, k.Rate, k.Cost, k.Rate * k.Cost})
	}
	return p
}

// MissRatio is one point of a miss-ratio curve.
type MissRatio struct {
	Bytes int64   `json:"bytes"` // size of the owned tier
	Ratio float64 `json:"ratio"` // fraction of the reads reaching the tier that miss only because of its size
}
