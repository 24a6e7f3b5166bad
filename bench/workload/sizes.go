package workload

import (
	"fmt"
	"math"
	"math/rand/v2"
)

// Sizes determines the length of each key's value. The length depends only on the key and the seed, so it stays the
// same when the value is loaded again.
type Sizes struct {
	kind     string
	min, max int
	mu       float64
	sigma    float64
	seed     uint64
}

// FixedSize makes all values n bytes long.
func FixedSize(n int) (Sizes, error) { return UniformSizes(n, n, 0) }

// UniformSizes spreads lengths evenly from least to most.
func UniformSizes(least, most int, seed uint64) (Sizes, error) {
	if least < 0 || most < least {
		return Sizes{}, fmt.Errorf("workload: values of %d to %d bytes", least, most)
	}
	return Sizes{kind: "uniform", min: least, max: most, seed: seed}, nil
}

// LognormalSizes draws lengths with this median and this 99th percentile, cut at most.
func LognormalSizes(median, p99, most int, seed uint64) (Sizes, error) {
	if median < 1 || p99 < median || most < p99 {
		return Sizes{}, fmt.Errorf("workload: values with a median of %d and a 99th percentile of %d, at most %d bytes: they must rise", median, p99, most)
	}
	mu := math.Log(float64(median))
	return Sizes{kind: "lognormal", max: most, mu: mu, sigma: (math.Log(float64(p99)) - mu) / Z99, seed: seed}, nil
}

// Z99 is the 99th percentile of the standard normal distribution.
const Z99 = 2.3263478740408408

// Of returns the length of the value of key i, in bytes.
func (s Sizes) Of(i int) int {
	if s.min == s.max && s.kind != "lognormal" {
		return s.min
	}
	r := rand.New(rand.NewPCG(s.seed, scramble(uint64(i))))
	if s.kind == "lognormal" {
		return max(1, min(s.max, int(math.Exp(s.mu+s.sigma*r.NormFloat64()))))
	}
	return s.min + r.IntN(s.max-s.min+1)
}
