package workload

import (
	"math/rand/v2"
	"strconv"
	"sync/atomic"
)

// A Source draws keys, which are numbers from 0 on. Next is safe for concurrent use if each goroutine has its own
// r.
type Source interface {
	Next(r *rand.Rand) int
}

// Uniform draws from the given number of keys with equal probability.
type Uniform int

// Next draws a key.
func (u Uniform) Next(r *rand.Rand) int { return r.IntN(int(u)) }

// Hot draws key 0 with a probability of Share, and the others, up to Count, with equal probability.
type Hot struct {
	Count int
	Share float64
}

// Next draws a key.
func (h Hot) Next(r *rand.Rand) int {
	if h.Count < 2 || r.Float64() < h.Share {
		return 0
	}
	return 1 + r.IntN(h.Count-1)
}

// A Scan goes through Count keys in order, repeatedly. All callers share one order.
type Scan struct {
	Count int
	at    atomic.Int64
}

// Next returns the next key.
func (s *Scan) Next(*rand.Rand) int { return int((s.at.Add(1) - 1) % int64(s.Count)) }

// Names holds the names of keys, such as "key:00000042". The zero Names has none.
type Names []string

// MakeNames makes count names that begin with prefix.
func MakeNames(prefix string, count int) Names {
	names := make(Names, count)
	b := make([]byte, 0, len(prefix)+20)
	for i := range names {
		b = append(b[:0], prefix...)
		digits := strconv.Itoa(i)
		for range 8 - len(digits) {
			b = append(b, '0')
		}
		names[i] = string(append(b, digits...))
	}
	return names
}

// Op is an operation on a key.
type Op uint8

// The operations.
const (
	Read  Op = iota // get the value
	Write           // change it at the origin, then invalidate the key
	Many            // get the values of several keys in one call
)

// A Mix chooses operations by weight. The zero Mix only reads.
type Mix struct{ Read, Write, Many float64 }

// Next chooses an operation.
func (m Mix) Next(r *rand.Rand) Op {
	if m.Write+m.Many == 0 {
		return Read
	}
	switch x := r.Float64() * (m.Read + m.Write + m.Many); {
	case x < m.Read:
		return Read
	case x < m.Read+m.Write:
		return Write
	}
	return Many
}

// Batch draws n different keys of count from s, the first of which is given. A key that comes up again is drawn
// again; after many attempts, which a skewed source needs, the next free key is taken. n is at most count.
func Batch(s Source, r *rand.Rand, first, n, count int) []int {
	keys := make([]int, 1, n)
	keys[0] = first
	taken := map[int]struct{}{first: {}}
	const attempts = 64
	for len(keys) < n {
		k := s.Next(r)
		for range attempts {
			if _, ok := taken[k]; !ok {
				break
			}
			k = s.Next(r)
		}
		for _, ok := taken[k]; ok; _, ok = taken[k] {
			k = (k + 1) % count
		}
		taken[k] = struct{}{}
		keys = append(keys, k)
	}
	return keys
}
