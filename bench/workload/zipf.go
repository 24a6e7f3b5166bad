package workload

import (
	"math"
	"math/rand/v2"
)

// ycsbItems is how many items YCSB's scrambled Zipfian draws from before it folds them onto the actual keys
// (ITEM_COUNT of its ScrambledZipfianGenerator). Folding that number onto fewer keys leaves the head of the
// distribution as it is and spreads the tail evenly.
const ycsbItems = 10_000_000_000

// A Zipf draws keys as YCSB's ScrambledZipfianGenerator does: ranks of a Zipf distribution with exponent theta,
// folded onto the keys by a hash, so that popular keys are not adjacent. Ranks use the formula of Gray, Sundaresan,
// Englert, Baclawski and Weinberger, "Quickly Generating Billion-Record Synthetic Databases", SIGMOD 1994, page
// 246, as in YCSB's ZipfianGenerator. The formula is continuous in theta and also holds above 1; at 1 it is
// undefined. A Zipf is read-only once made, so any number of callers may share it.
type Zipf struct {
	keys             uint64
	items, theta     float64
	zeta, alpha, eta float64
	second           float64 // the upper end of rank 1
	one              float64 // the upper end of rank 0
}

// NewZipf returns a Zipf over at least one key, with an exponent above 0 other than 1. items is the number of
// ranks; 0 stands for the ten billion of YCSB. The arguments are not checked: package scenario does that.
func NewZipf(keys int, theta float64, items int64) *Zipf {
	if items == 0 {
		items = ycsbItems
	}
	n := float64(items)
	z := &Zipf{keys: uint64(keys), items: n, theta: theta}
	z.zeta = zetaSum(items, theta)
	z.alpha = 1 / (1 - theta)
	z.eta = (1 - math.Pow(2/n, 1-theta)) / (1 - zetaSum(2, theta)/z.zeta)
	z.one = 1 / z.zeta
	z.second = (1 + math.Pow(0.5, theta)) / z.zeta
	return z
}

// zetaSum returns the sum of 1/i^theta for i from 1 to n: it adds the first terms individually and the rest by the
// formula of Euler and Maclaurin, accurate to about twelve digits.
func zetaSum(n int64, theta float64) float64 {
	const exact = 10_000
	sum := 0.0
	for i := int64(1); i <= min(n, exact); i++ {
		sum += math.Pow(float64(i), -theta)
	}
	if n <= exact {
		return sum
	}
	f := func(x float64) float64 { return math.Pow(x, -theta) }
	d := func(x float64) float64 { return -theta * math.Pow(x, -theta-1) }
	a, b := float64(exact), float64(n)
	integral := math.Log(b / a)
	if theta != 1 {
		integral = (math.Pow(b, 1-theta) - math.Pow(a, 1-theta)) / (1 - theta)
	}
	return sum + integral + (f(b)-f(a))/2 + (d(b)-d(a))/12
}

// rank draws a rank, 0 for the most popular.
func (z *Zipf) rank(r *rand.Rand) uint64 {
	u := r.Float64()
	switch {
	case u < z.one:
		return 0
	case u < z.second:
		return 1
	}
	rank := uint64(z.items * math.Pow(z.eta*u-z.eta+1, z.alpha))
	return min(rank, uint64(z.items)-1)
}

// Next draws a key.
func (z *Zipf) Next(r *rand.Rand) int { return int(scramble(z.rank(r)) % z.keys) }

// scramble is YCSB's Utils.fnvhash64: FNV-1a over the eight bytes of a number, low byte first, made positive like
// Java's Math.abs.
func scramble(v uint64) uint64 {
	h := uint64(0xCBF29CE484222325)
	for range 8 {
		h = (h ^ v&0xff) * 1099511628211
		v >>= 8
	}
	if s := int64(h); s < 0 {
		return uint64(-s)
	}
	return h
}
