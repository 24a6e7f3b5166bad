package peertest

import (
	"time"

	"github.com/weircache/weir/tier"
)

// BeginMoves says that from here on nodes leave gracefully and start, without faults. Until EndMoves, the effect on the
// origin is checked as G9. Everything that has been loaded must fit into the nodes.
func (h *History) BeginMoves() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.moves = append(h.moves, calm{from: time.Now()})
}

// EndMoves ends what BeginMoves began.
func (h *History) EndMoves() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.moves[len(h.moves)-1].to = time.Now()
}

// handed checks G9. A copy counts as fresh until half its TTL, because Jitter may take some of the rest.
func (c *checker) handed() {
	if len(c.moves) == 0 || c.rules.Freshness.RefreshAhead >= 0 { // otherwise the reason for a load is unknown
		return
	}
	for _, w := range c.moves {
		last := make(map[string]*Load) // the newest copy of each key
		had := make(map[string]bool)   // keys that had a copy when the nodes began to move
		var lost []*Load
		for _, l := range c.loads { // in the order of Began
			if !l.BeganAt.Before(w.to) {
				break
			}
			if o := last[l.Key]; !l.BeganAt.Before(w.from) && o != nil && c.heldFresh(o, l) {
				lost = append(lost, l)
			}
			if l.Outcome == Loaded && l.EndedAt.Before(w.to) {
				last[l.Key] = l
				if l.EndedAt.Before(w.from) {
					had[l.Key] = true
				}
			}
		}
		if float64(len(lost)) > c.rules.Moved*float64(len(had)) {
			l := lost[0]
			o := last[l.Key]
			c.broken("G9", part{l.Key, min(o.Began, l.Began), l.Ended, noRead}, "%d keys of %d were loaded although a copy was fresh, as nodes left and started, for example %q by %s.%d", len(lost), len(had), l.Key, l.Node, l.Incarnation)
		}
	}
}

// heldFresh reports whether l was unnecessary: o's copy was fresh, nothing had invalidated it, and no read wanted a newer
// one.
func (c *checker) heldFresh(o, l *Load) bool {
	if o.Ended == 0 || o.Ended > l.Began || l.BeganAt.Sub(o.BeganAt) > c.rules.Freshness.TTL/2-c.rules.Slack {
		return false
	}
	for _, i := range c.of(l.Key) {
		if i.Began < l.Began && (i.Ended == 0 || i.Ended > o.Began) {
			return false
		}
	}
	for _, r := range c.reads {
		if r.Key == l.Key && r.MaxAge != tier.AnyAge && r.Began < l.Began && r.Ended > l.Began {
			return false
		}
	}
	return true
}
