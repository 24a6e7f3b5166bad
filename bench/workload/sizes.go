package workload

import (
	"math"
	"math/rand/v2"
)

// Z99 is the 99th percentile of the standard normal distribution.
const Z99 = 2.3263478740408408

// Lognormal returns the length of each key's value, in bytes: lognormal with this median and this 99th percentile, cut
// at most. The length depends only on the key and the seed, so it stays the same when the value is loaded again.
func Lognormal(median, p99, most int, seed uint64) func(key int) int {
	mu := math.Log(float64(median))
	sigma := (math.Log(float64(p99)) - mu) / Z99
	return func(key int) int {
		r := rand.New(rand.NewPCG(seed, scramble(uint64(key))))
		return max(1, min(most, int(math.Exp(mu+sigma*r.NormFloat64()))))
	}
}
