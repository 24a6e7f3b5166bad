package peertest

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/weircache/weir/tier"
)

// Rules are the limits that a history is checked against.
type Rules struct {
	Freshness   tier.Freshness // the contract in force, with NearTTL and NegativeTTL filled in
	Concurrency int            // the cap on concurrent loads of the whole cluster
	Timeout     time.Duration  // of a load
	// Carry is how long members tell one another of an invalidation with each request.
	Carry time.Duration
	// Turns is how many times a read may turn to a member: to the owner, and once more if that member does not answer or
	// says that it is not the owner.
	Turns int
	// Asks is how many requests a read may send in each turn: the first, and three for unusable answers, because the copy
	// expired in transit, the member lacked the invalidation of a tag, or another instance answered under its name. Up to
	// three more may come before them, each of which only tells the member of an invalidation.
	Asks int
	// Moved is the maximum share of the keys that may be loaded unnecessarily while nodes leave and start.
	Moved float64
	// Patience is a timeout long enough for every read.
	Patience time.Duration
	// Drift is the share by which a clock may be fast or slow.
	Drift float64
	// Slack is how much a read may exceed its deadline, and a served value its age limit: what the granularity of timers
	// and the way back may add.
	Slack time.Duration
	// Late, if more than Slack, is how much a read may exceed its deadline.
	Late time.Duration
	// RealTime says that the recorded run competed for processors. Then the rules for calm times that require promptness do
	// not apply: that no two nodes load a key at once, that no read fails, that all reads see a new value after NearTTL.
	RealTime bool
}

// A Violation is a broken guarantee, with the part of the history that shows it.
type Violation struct {
	Guarantee string // as numbered in Check: "G2"
	Text      string
	At        uint64 // the stamp of the event that shows it
	History   string // of the key, in the order of stamps
}

// String describes the violation and the history around it.
func (v Violation) String() string {
	return fmt.Sprintf("%s is broken: %s\n%s", v.Guarantee, v.Text, v.History)
}

// maxViolations is how many violations of one guarantee are reported: the earliest.
const maxViolations = 3

type checker struct {
	*History
	rules Rules
	byKey map[string][]*Invalidation // in the order of Began; filled by of
	found map[string][]violation     // by guarantee, in the order of At
}

// violation is a Violation whose History is not told yet.
type violation struct {
	Violation
	part
}

// A part is the part of the history that shows a violation.
type part struct {
	key      string // "": of all keys
	from, to uint64
	show     func(*Read) bool // which reads it includes
}

// broken reports a violation.
func (c *checker) broken(guarantee string, of part, format string, args ...any) {
	list := c.found[guarantee]
	i := len(list)
	for i > 0 && list[i-1].At > of.to {
		i--
	}
	if i < maxViolations {
		list = slices.Insert(list, i, violation{Violation{Guarantee: guarantee, Text: fmt.Sprintf(format, args...), At: of.to}, of})
		c.found[guarantee] = list[:min(len(list), maxViolations)]
	}
}

// violations returns what was found, in the order of the guarantees' numbers.
func (c *checker) violations() (out []Violation) {
	for _, list := range c.found {
		for _, v := range list {
			v.History = c.tell(v.key, v.from, v.to, v.show)
			out = append(out, v.Violation)
		}
	}
	slices.SortStableFunc(out, func(a, b Violation) int {
		return cmp.Or(cmp.Compare(len(a.Guarantee), len(b.Guarantee)), cmp.Compare(a.Guarantee, b.Guarantee))
	})
	return out
}

func noRead(*Read) bool { return false }

// ofLoad accepts the reads of one load's value, which show how it spread.
func ofLoad(r *Read) func(*Read) bool {
	return func(o *Read) bool { return o == r || o.Err == nil && o.Value.Load == r.Value.Load }
}

func only(r *Read) func(*Read) bool { return func(o *Read) bool { return o == r } }

// Check returns the violations in the history. Call it once nothing is recorded any more.
//
//   - G1: two loads of one key overlap on one node only if the key was invalidated meanwhile, as far as the node knows, or
//     if the first load overran its timeout. Three loads never overlap. In calm times loads do not overlap on two nodes
//     either.
//   - G2: after an Invalidate that returned nil and whose sender saw every node that was up, a read that began later never
//     has data whose load began before it. After any other Invalidate, this holds for reads on the members that were told
//     and not named in the error, as long as they tell others of it. A read with the token of an invalidation never has
//     data whose load began before that invalidation, on any member, whichever members have heard of it. An answer without
//     a value counts as data.
//   - G3: nothing is older than the contract's bound, than the answer says, or than MaxAge.
//   - G4: the number of concurrent loads never exceeds the cap, not counting loads of a node whose name another one has
//     taken.
//   - G5: every read ends by its deadline, and a read with a timeout of at least Patience ends before it. Any error is a
//     documented one. In calm times no read fails, except in a storm that exceeds the origin's cap.
//   - G6: a near copy is served for at most NearTTL after its node last heard of it from the owner. So in calm times, that
//     long after a load has ended, reads return nothing older.
//   - G7: in a calm time no read has data whose load began before an invalidation that had ended before the calm time,
//     whichever members it had not reached by then, provided that its sender or a member that confirmed it has not
//     restarted.
//   - G8: a read makes at most Turns turns and sends at most Asks requests in each, and only reads cause requests.
//   - G9: between BeginMoves and EndMoves, at most the share Moved of the keys that had a copy before is loaded although
//     the copy is fresh, nothing has invalidated it and no read wants a newer one.
//   - G10: no read gets the value of another key.
//
// Bubble checks G11: no goroutine is left.
func (h *History) Check(rules Rules) []Violation {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := &checker{History: h, rules: rules, found: make(map[string][]violation), byKey: make(map[string][]*Invalidation)}
	c.overlaps()
	c.fresh()
	c.ages()
	if h.peak > rules.Concurrency {
		if at, by := c.crowded(); at > 0 {
			c.broken("G4", part{"", at - min(at, 200), at, noRead}, "%d loads at once, the cap is %d; when it was passed at %d, loads by node: %v", h.peak, rules.Concurrency, at, by)
		}
	}
	c.leases()
	c.newest()
	c.hops()
	c.handed()
	return c.violations()
}

// crowded returns the stamp at which the cap was first exceeded (0: never), and how many loads each start of a node had
// then. Loads of a node whose name another one has taken do not count: while that node is unreachable, the later one has
// its share.
func (c *checker) crowded() (at uint64, by map[string]int) {
	for _, l := range c.loads { // in the order of Began
		by = make(map[string]int)
		n := 0
		for _, o := range c.loads {
			if o.Began <= l.Began && (o.Ended == 0 || o.Ended > l.Began) && !c.superseded(o, l.Began) {
				by[fmt.Sprintf("%s.%d", o.Node, o.Incarnation)]++
				n++
			}
		}
		if n > c.rules.Concurrency {
			return l.Began, by
		}
	}
	return 0, nil
}

// superseded reports whether a later start has the name of l's node.
func (c *checker) superseded(l *Load, at uint64) bool {
	for s, stamp := range c.starts {
		if s.node == l.Node && s.incarnation > l.Incarnation && stamp <= at {
			return true
		}
	}
	return false
}

// of returns the invalidations that cover key, in the order in which they began.
func (c *checker) of(key string) []*Invalidation {
	list, ok := c.byKey[key]
	if !ok {
		for _, i := range c.invalidations {
			if i.Covers(key) {
				list = append(list, i)
			}
		}
		c.byKey[key] = list
	}
	return list
}

// calmAt reports whether both moments lie in one calm time. The end of a calm time may be the moment of the first fault.
func (c *checker) calmAt(from, to time.Time) bool {
	return slices.ContainsFunc(c.calms, func(w calm) bool { return !from.Before(w.from) && to.Before(w.to) })
}

// overlaps checks G1.
func (c *checker) overlaps() {
	live := make(map[string][]*Load)
	for _, l := range c.loads { // in the order of Began
		still := slices.DeleteFunc(live[l.Key], func(o *Load) bool { return o.Ended != 0 && o.Ended < l.Began })
		here := 0
		for _, o := range still {
			same := o.Node == l.Node && o.Incarnation == l.Incarnation
			switch {
			case same:
				here++
				overran := l.BeganAt.Sub(o.BeganAt) >= c.rules.Timeout
				if c.rules.RealTime || o.From != 0 { // the load was in transit to the origin, its process was stopped, or it read another key first
					overran = overran || !o.Until.IsZero() && l.BeganAt.Add(c.rules.Slack).After(o.Until)
				}
				if overran || c.invalidatedBetween(l, min(cmp.Or(o.From, o.Began), cmp.Or(l.From, l.Began))) {
					continue
				}
			case c.rules.RealTime || !c.calmAt(o.BeganAt, l.BeganAt) || c.invalidatedBetween(l, o.Began):
				continue
			}
			c.broken("G1", part{l.Key, o.Began, l.Began, noRead}, "%q is loaded twice at once: load %d on %s.%d and %d on %s.%d", l.Key, o.Began, o.Node, o.Incarnation, l.Began, l.Node, l.Incarnation)
		}
		if here > 1 {
			c.broken("G1", part{l.Key, still[0].Began, l.Began, noRead}, "%s loads %q %d times at once", l.Node, l.Key, here+1)
		}
		live[l.Key] = append(still, l)
	}
}

// invalidatedBetween reports whether l's node may have applied an invalidation of the key between from and the start of l.
func (c *checker) invalidatedBetween(l *Load, from uint64) bool {
	up := c.starts[start{l.Node, l.Incarnation}]
	for _, i := range c.of(l.Key) {
		switch {
		case i.Began > l.Began:
		case i.Node == Outside: // the node knows it if a read has brought the token to it or to another member
			if slices.ContainsFunc(c.reads, func(r *Read) bool { return r.After == i && r.Began < l.Began }) {
				return true
			}
		case i.Ended == 0 || i.Ended > from:
			return true
		case i.Err != nil || !i.Whole || i.Ended < up || c.jumpedIn(l.Node, i.EndedAt, l.BeganAt):
			return true // others knew it, but this node may not have known it before, or may have forgotten it
		case c.broughtAgain(i, l, from):
			return true
		case c.restarted(l.Node, up, l.Began):
			return true // another node had its name and may have been told instead
		}
	}
	return false
}

// broughtAgain reports whether a read has brought i's token between from and the start of l, so long after i that members
// may have forgotten i. Then the token counts as an invalidation.
func (c *checker) broughtAgain(i *Invalidation, l *Load, from uint64) bool {
	const remembered = 30 * time.Second // the minimum beyond the longest life
	return l.BeganAt.Sub(i.EndedAt) > remembered && slices.ContainsFunc(c.reads, func(r *Read) bool {
		return r.After == i && r.Began < l.Began && (r.Ended == 0 || r.Ended > from)
	})
}

// jumpedIn reports whether a node's clock was set ahead between two moments.
func (c *checker) jumpedIn(node string, from, to time.Time) bool {
	return slices.ContainsFunc(c.jumps[node], func(at time.Time) bool { return !at.Before(from) && !at.After(to) })
}

// rounds returns how often a read may start over because the copy that it found expired before it could be returned.
func (c *checker) rounds(r *Read) int {
	const most, standIn = 4, 5 * time.Second // a stand-in's copies are short-lived
	if c.rules.RealTime || c.jumpedIn(r.Node, r.BeganAt, r.EndedAt) {
		return most
	}
	rounds := 1 + int(r.EndedAt.Sub(r.BeganAt)/max(min(c.rules.Freshness.TTL, standIn), 1))
	if r.Nested { // the copy may expire while its load waits for a permit
		rounds++
	}
	return min(rounds, most)
}

// hops checks G8.
func (c *checker) hops() {
	for _, r := range c.reads {
		if len(r.Asked) > c.rules.Turns*c.rounds(r) {
			c.broken("G8", part{r.Key, r.Began, r.Ended, only(r)}, "a read of %q on %s turned to members %d times: %+v", r.Key, r.Node, len(r.Asked), r.Asked)
		}
		for _, turn := range r.Asked {
			if turn.Requests > c.rules.Asks {
				c.broken("G8", part{r.Key, r.Began, r.Ended, only(r)}, "a read of %q on %s cost %d requests to %s", r.Key, r.Node, turn.Requests, turn.Member)
			}
		}
	}
	for _, r := range c.forwards {
		c.broken("G8", part{r.Key, r.Began, r.Began, noRead}, "%s asked for %q at %d, and not for a client", r.Node, r.Key, r.Began)
	}
}
