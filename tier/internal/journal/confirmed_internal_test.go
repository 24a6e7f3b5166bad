package journal

import (
	"math/rand/v2"
	"testing"
)

// confirmed has exactly the numbers that were added; a set checks it number by number.
func TestConfirmedSkipsNothing(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		var c confirmed
		var set [40]bool
		for range 1 + rng.IntN(12) {
			s := span{1 + rng.Uint64N(30), 0}
			s.last = s.first + rng.Uint64N(6) - 1 // may be empty
			c.add(s)
			for n := s.first; n <= s.last; n++ {
				set[n] = true
			}
			for i, x := range c.beyond {
				if before := append([]span{upTo(c.all)}, c.beyond...)[i]; x.first <= before.last+1 || x.last < x.first {
					t.Fatalf("%+v: no gap before span %d", c, i)
				}
			}
			for first := uint64(1); first < 36; first++ {
				want := first
				for set[want] {
					want++
				}
				if got := c.missing(span{first, 39}); got != want {
					t.Fatalf("%+v: from %d on the first one missing is %d, want %d", c, first, got, want)
				}
				if c.has(span{first, first + 2}) != (want > first+2) {
					t.Fatalf("%+v: has from %d to %d", c, first, first+2)
				}
			}
		}
	}
}

// The number of spans beyond a gap is bounded, and forgotten numbers do not count as confirmed.
func TestConfirmedIsBounded(t *testing.T) {
	var c confirmed
	for n := uint64(3); n < 300; n += 2 {
		c.add(span{n, n})
	}
	if len(c.beyond) != maxConfirmedSpans || c.all != 0 || c.has(span{3, 3}) || !c.has(span{299, 299}) {
		t.Errorf("%d spans, all up to %d", len(c.beyond), c.all)
	}
	c.add(upTo(298))
	if c.all != 299 || len(c.beyond) != 0 {
		t.Errorf("all up to %d, %v", c.all, c.beyond)
	}
}
