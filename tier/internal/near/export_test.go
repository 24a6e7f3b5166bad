package near

import "github.com/dgraph-io/ristretto/v2"

// Entry is the type of ristretto's values.
type Entry[T any] = entry[T]

// FeedBits says how many hits of the front ristretto sees: one in 1 << FeedBits.
const FeedBits = feedBits

// NewTuned is New with a change of ristretto's configuration.
func NewTuned[T any](maxBytes int64, tune func(*ristretto.Config[uint64, *Entry[T]])) (*Tier[T], error) {
	return newTuned(maxBytes, tune)
}

// Misses returns how often Get has found nothing.
func (s Stats) Misses() int64 { return s.misses }

// Unbalanced returns in how many cells the calls that came in are not as many as those that have left. Nothing may run
// meanwhile.
func (n *Tier[T]) Unbalanced() (cells int) {
	for i := range n.cells {
		if c := &n.cells[i]; c.in.Load() != c.hits.Load()+c.misses.Load()+c.other.Load() {
			cells++
		}
	}
	return cells
}

// Front returns how many entries the front has, and how many of these are not in ristretto, where it must have them.
func (n *Tier[T]) Front() (entries, strays int) {
	for i := range n.front {
		e := n.front[i].Load()
		if e == nil {
			continue
		}
		entries++
		if has, ok := n.c.Get(e.hash); !ok || has != e || e.check.Load() == 0 {
			strays++
		}
	}
	return entries, strays
}
