package peertest

import (
	"fmt"
	"time"

	"github.com/weircache/weir/tier"
)

// Rules are what a history is checked against.
type Rules struct {
	Freshness   tier.Freshness // the contract in force
	Concurrency int            // the cap on loads at once, the whole cluster's
	Timeout     time.Duration  // of a load
	// Memory is for how long members tell one another of an invalidation with each request:
	// one that does not know it counts it as new.
	Memory time.Duration
	// Marks is how many invalidations of one key a member can tell apart: an older one that a
	// request still carries counts as new.
	Marks int
	// Slack is by how much a read may end after its deadline, and be served over age:
	// what a slow clock on one node and the way back may add.
	Slack time.Duration
}

// A Violation is a broken guarantee, with the part of the history that shows it.
type Violation struct {
	Guarantee string // as the README numbers them: "G2"
	Text      string
	History   string // of the key, in the order of stamps
}

func (v Violation) String() string {
	return fmt.Sprintf("%s is broken: %s\n%s", v.Guarantee, v.Text, v.History)
}

// maxViolations is how many violations of one guarantee are told.
const maxViolations = 3

type checker struct {
	*History
	rules Rules
	found map[string]int
	out   []Violation
}

func (c *checker) broken(guarantee, key string, from, to uint64, format string, args ...any) {
	if c.found[guarantee]++; c.found[guarantee] <= maxViolations {
		c.out = append(c.out, Violation{guarantee, fmt.Sprintf(format, args...), c.keyHistory(key, from, to)})
	}
}

// Check returns what the history breaks. It is to be called when nothing is recorded any more.
//
//   - G1: two loads of one key overlap on one node only if the key was invalidated meanwhile, as
//     far as the node knows, or the first overran its timeout; and never three.
//   - G2: after an Invalidate that returned nil and whose sender saw every node that was up, no
//     read that began later has data whose load began before it.
//   - G3: nothing is older than the contract's bound.
//   - G4: never more loads at once than the cap.
//   - G5: every read ends by its deadline.
//   - G6: a near copy is served for no longer than NearTTL after its node last heard of it
//     from the owner.
//
// The age and MaxAge that answers claim are checked too.
func (h *History) Check(rules Rules) []Violation {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := &checker{History: h, rules: rules, found: make(map[string]int)}
	c.overlaps()
	c.fresh()
	c.ages()
	if h.peak > rules.Concurrency {
		c.broken("G4", "", 0, 0, "%d loads at once, the cap is %d", h.peak, rules.Concurrency)
	}
	c.leases()
	return c.out
}

// overlaps checks G1.
func (c *checker) overlaps() {
	type place struct {
		key, node   string
		incarnation int
	}
	live := make(map[place][]*Load)
	for _, l := range c.loads { // in the order of Began
		p := place{l.Key, l.Node, l.Incarnation}
		still := live[p][:0]
		for _, o := range live[p] {
			if o.Ended == 0 || o.Ended > l.Began {
				still = append(still, o)
			}
		}
		for _, o := range still {
			overran := l.BeganAt.Sub(o.BeganAt) >= c.rules.Timeout
			if !overran && !c.invalidatedBetween(l, o.Began) {
				c.broken("G1", l.Key, o.Began, l.Began, "%s loads %q twice at once: loads %d and %d", l.Node, l.Key, o.Began, l.Began)
			}
		}
		if len(still) > 1 {
			c.broken("G1", l.Key, still[0].Began, l.Began, "%s loads %q %d times at once", l.Node, l.Key, len(still)+1)
		}
		live[p] = append(still, l)
	}
}

// invalidatedBetween reports whether l's node may have applied an invalidation of the key between from
// and the start of l.
func (c *checker) invalidatedBetween(l *Load, from uint64) bool {
	up, lately := c.starts[start{l.Node, l.Incarnation}], 0
	for _, i := range c.invalidations {
		switch {
		case i.Key != l.Key || i.Began > l.Began:
		case i.Ended == 0 || i.Ended > from:
			return true
		case (i.Err != nil || !i.Whole || i.Ended < up) && l.BeganAt.Sub(i.EndedAt) <= c.rules.Memory:
			return true // others knew it, this node did not
		case l.BeganAt.Sub(i.EndedAt) <= c.rules.Memory:
			lately++
		}
	}
	return lately > c.rules.Marks
}

// fresh checks G2.
func (c *checker) fresh() {
	byKey := make(map[string][]*Invalidation)
	for _, i := range c.invalidations {
		if i.Ended != 0 && i.Err == nil && i.Whole {
			byKey[i.Key] = append(byKey[i.Key], i)
		}
	}
	for _, r := range c.reads {
		if r.Err != nil {
			continue
		}
		for _, i := range byKey[r.Key] {
			if i.Ended < r.Began && r.Value.Load < i.Began {
				c.broken("G2", r.Key, r.Value.Load, r.Ended, "%s read %q from load %d after invalidation %d had ended at %d", r.Node, r.Key, r.Value.Load, i.Began, i.Ended)
				break
			}
		}
	}
}

// ages checks G3 and G5, and what answers say of themselves.
func (c *checker) ages() {
	bound := c.rules.Freshness.Bound()
	for _, r := range c.reads {
		if late := r.EndedAt.Sub(r.Deadline); late > c.rules.Slack {
			c.broken("G5", r.Key, r.Began, r.Ended, "a read of %q on %s ended %v after its deadline", r.Key, r.Node, late)
		}
		if r.Err != nil {
			continue
		}
		if r.Value.Key != r.Key {
			c.broken("G10", r.Key, r.Began, r.Ended, "a read of %q on %s got the value of %q", r.Key, r.Node, r.Value.Key)
		}
		// An answer may have waited for its caller; it was right when the read began.
		age := r.BeganAt.Sub(time.Unix(0, r.Value.At))
		if age > bound+c.rules.Slack {
			c.broken("G3", r.Key, r.Value.Load, r.Ended, "%s read %q aged %v, the bound is %v", r.Node, r.Key, age, bound)
		}
		if r.Age+c.rules.Slack < age {
			c.broken("G3", r.Key, r.Value.Load, r.Ended, "%s read %q aged %v, the answer says %v", r.Node, r.Key, age, r.Age)
		}
		if r.MaxAge > 0 && age > r.MaxAge+c.rules.Slack {
			c.broken("G3", r.Key, r.Value.Load, r.Ended, "%s read %q aged %v with a MaxAge of %v", r.Node, r.Key, age, r.MaxAge)
		}
	}
}

// leases checks G6.
func (c *checker) leases() {
	type copyOf struct {
		node, key string
		load      uint64
	}
	heard := make(map[copyOf]time.Time)
	for _, r := range c.reads { // in the order of Ended
		if r.Err != nil {
			continue
		}
		p := copyOf{r.Node, r.Key, r.Value.Load}
		if r.Source != tier.SourceNear {
			heard[p] = r.EndedAt
			continue
		}
		at, ok := heard[p]
		if !ok || r.BeganAt.Before(at) { // the read that brought the copy has not returned yet, or gave up
			continue
		}
		if age := r.BeganAt.Sub(at); age > c.rules.Freshness.NearTTL+c.rules.Slack {
			c.broken("G6", r.Key, r.Value.Load, r.Ended, "%s served a near copy of %q %v after it heard of it", r.Node, r.Key, age)
		}
	}
}
