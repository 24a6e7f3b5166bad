package demand_test

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
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
