package journal

import "slices"

// span is the numbers from first to last, inclusive.
type span struct{ first, last uint64 }

// upTo returns the numbers from 1, the lowest, to last.
func upTo(last uint64) span { return span{1, last} }

// maxConfirmedSpans is how many spans beyond a gap are remembered. Invalidations of a forgotten span are sent again.
const maxConfirmedSpans = 16

// confirmed records which of this cache's invalidations another member has confirmed: all up to a number, and spans
// beyond a gap. add is the only way to change it, and takes the first number as well as the last. So a number never
// counts as confirmed merely because a higher one is.
type confirmed struct {
	all    uint64 // every number up to this
	beyond []span // in order, with gaps between all of them and before the first
}

// add notes that all numbers of s are confirmed. An empty span changes nothing.
func (c *confirmed) add(s span) {
	if s.last < s.first || s.last <= c.all {
		return
	}
	if s.first > c.all+1 {
		i, _ := slices.BinarySearchFunc(c.beyond, s.first, func(x span, first uint64) int {
			if x.last+1 < first {
				return -1
			}
			return 1
		})
		j := i
		for ; j < len(c.beyond) && c.beyond[j].first <= s.last+1; j++ {
			s = span{min(s.first, c.beyond[j].first), max(s.last, c.beyond[j].last)}
		}
		c.beyond = slices.Replace(c.beyond, i, j, s)
		if len(c.beyond) > maxConfirmedSpans {
			c.beyond = slices.Delete(c.beyond, 0, 1)
		}
		return
	}
	c.all = s.last
	n := 0
	for ; n < len(c.beyond) && c.beyond[n].first <= c.all+1; n++ {
		c.all = max(c.all, c.beyond[n].last)
	}
	c.beyond = slices.Delete(c.beyond, 0, n)
}

// has reports whether all numbers of s are confirmed.
func (c *confirmed) has(s span) bool { return c.missing(s) > s.last }

// missing returns the first number from s.first on that is not confirmed.
func (c *confirmed) missing(s span) uint64 {
	first := max(s.first, c.all+1)
	for _, x := range c.beyond {
		if x.first > first {
			break
		}
		first = max(first, x.last+1)
	}
	return first
}
