package demand

import (
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// ReadMany has the same result as single reads, in each shard's order.
func TestDemandReadMany(t *testing.T) {
	for _, n := range []int{1, 127, 128, 129, 1000} {
		one, all := NewSketch(0, true), NewSketch(0, true)
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
		for i := range one.shards {
			a, b := &one.shards[i], &all.shards[i]
			if a.total != b.total || a.turn != b.turn || fmt.Sprint(a.heavy) != fmt.Sprint(b.heavy) || fmt.Sprint(a.tail) != fmt.Sprint(b.tail) {
				t.Errorf("%d reads, shard %d: %+v, not %+v", n, i, b.total, a.total)
			}
		}
	}
}
