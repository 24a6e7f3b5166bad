package peertest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/weircache/weir/tier"
)

// longer returns d as the slowest permitted clock stretches it.
func (c *checker) longer(d time.Duration) time.Duration {
	return d + time.Duration(float64(d)*c.rules.Drift) + c.rules.Slack
}

// fresh checks G2, and G3 for answers without a value.
func (c *checker) fresh() {
	gone := make(map[string][]*Load) // by key, the loads that found no value
	for _, l := range c.loads {
		if l.Outcome == Missing {
			gone[l.Key] = append(gone[l.Key], l)
		}
	}
	for _, r := range c.reads {
		if r.Err != nil && !r.missing() {
			continue
		}
		var floor *Invalidation // the last one that r must not have missed
		for _, i := range c.of(r.Key) {
			if i.Ended != 0 && i.Ended < r.Began && (i.Err == nil && i.Whole || c.known(i, r)) {
				floor = i
			}
		}
		if i := c.replayed(r); i != nil && !r.missing() && r.Value.Load < i.Began {
			c.broken("G7", part{r.Key, r.Value.Load, r.Ended, ofLoad(r)}, "%s read %q from load %d after the cluster had healed, which is older than invalidation %d", r.Node, r.Key, r.Value.Load, i.Began)
		}
		least := uint64(0)
		if floor != nil {
			least = floor.Began
		}
		if t := r.After; t != nil && t.Began > least {
			if !r.missing() && r.Value.Load < t.Began {
				c.broken("G2", part{r.Key, r.Value.Load, r.Ended, ofLoad(r)}, "%s read %q from load %d with the token of invalidation %d", r.Node, r.Key, r.Value.Load, t.Began)
			}
			floor, least = t, t.Began
		}
		switch {
		case !r.missing():
			if floor != r.After && r.Value.Load < least {
				c.broken("G2", part{r.Key, r.Value.Load, r.Ended, ofLoad(r)}, "%s read %q from load %d after invalidation %d had ended at %d", r.Node, r.Key, r.Value.Load, floor.Began, floor.Ended)
			}
		case !slices.ContainsFunc(gone[r.Key], func(l *Load) bool { return l.Began >= least && l.Began < r.Ended }):
			c.broken("G2", part{r.Key, least, r.Ended, only(r)}, "%s found no %q, and no load after invalidation %d, which ended before, found none", r.Node, r.Key, least)
		case !slices.ContainsFunc(gone[r.Key], func(l *Load) bool {
			return l.Began >= least && l.Began < r.Ended && r.BeganAt.Sub(l.BeganAt) <= c.longer(c.rules.Freshness.NegativeTTL)
		}):
			c.broken("G3", part{r.Key, least, r.Ended, only(r)}, "%s found no %q, and none of the loads that found none is younger than %v", r.Node, r.Key, c.rules.Freshness.NegativeTTL)
		}
	}
}

// replayed returns the last invalidation of r's key that was started before the calm time in which r was made. The members
// that it had not reached have received it since, if its sender has not restarted.
func (c *checker) replayed(r *Read) (last *Invalidation) {
	for _, w := range c.calms {
		if r.BeganAt.Before(w.from) || !r.EndedAt.Before(w.to) {
			continue
		}
		for _, i := range c.of(r.Key) {
			if i.Ended != 0 && i.EndedAt.Before(w.from) && c.remembered(i, r) {
				last = i
			}
		}
	}
	return last
}

// Outdated describes a read that began after a stamp and had data from before an invalidation that had ended before it,
// although a member that has been up since then can tell all others of that invalidation. It returns "" if there is none,
// which holds once all members have exchanged what they know.
func (h *History) Outdated(from uint64) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := &checker{History: h, byKey: make(map[string][]*Invalidation)}
	for _, r := range slices.Backward(h.reads) {
		if r.Began <= from || r.Err != nil {
			continue
		}
		for _, i := range c.of(r.Key) {
			if i.Ended != 0 && i.Ended < r.Began && r.Value.Load < i.Began && c.remembered(i, r) {
				return fmt.Sprintf("%s read %q from load %d, which is older than invalidation %d of %s", r.Node, r.Key, r.Value.Load, i.Began, i.Node)
			}
		}
	}
	return ""
}

// remembered reports whether a member that was up all the time can tell the others of i: its sender, or a member that has
// confirmed it to the sender.
func (c *checker) remembered(i *Invalidation, r *Read) bool {
	if i.Node == Outside {
		return false
	}
	if !c.restarted(i.Node, i.Began, r.Began) {
		return true
	}
	var failed *tier.InvalidateError
	if i.Err != nil && !errors.As(i.Err, &failed) {
		return false
	}
	return slices.ContainsFunc(i.Told, func(name string) bool {
		return (failed == nil || !slices.Contains(failed.Unreached, name)) && !c.restarted(name, i.Began, r.Began)
	})
}

// restarted reports whether a node was started or stopped between two stamps.
func (c *checker) restarted(node string, from, to uint64) bool {
	if slices.ContainsFunc(c.ends[node], func(stamp uint64) bool { return stamp > from && stamp < to }) {
		return true
	}
	for s, stamp := range c.starts {
		if s.node == node && stamp > from && stamp < to {
			return true
		}
	}
	return false
}

// known reports whether r's node has applied i, which did not reach all members, and tells every member it asks of it. That
// is certain only if the node has no other invalidation of the key to tell of.
func (c *checker) known(i *Invalidation, r *Read) bool {
	var failed *tier.InvalidateError
	if i.Err != nil && (!errors.As(i.Err, &failed) || slices.Contains(failed.Unreached, r.Node)) || !slices.Contains(i.Told, r.Node) {
		return false
	}
	if c.restarted(r.Node, i.Began, r.Began) {
		return false
	}
	since := i.BeganAt
	if r.EndedAt.Sub(since) > c.rules.Carry-time.Second || c.jumpedIn(r.Node, since, r.EndedAt) {
		return false
	}
	for _, o := range c.of(r.Key) {
		if o != i && o.Began < r.Ended && (o.Ended == 0 || o.EndedAt.After(since.Add(-c.rules.Carry-time.Second))) {
			return false
		}
	}
	return true
}

// ages checks G3 and G5, and what answers say about themselves.
func (c *checker) ages() {
	bound := c.rules.Freshness.Bound()
	for _, r := range c.reads {
		if late := r.EndedAt.Sub(r.Deadline) - r.Stopped; !r.Nested && late > max(c.rules.Late, c.rules.Slack) {
			c.broken("G5", part{r.Key, r.Began, r.Ended, only(r)}, "a read of %q on %s ended %v after its deadline", r.Key, r.Node, late)
		}
		if r.Err != nil {
			if !documented(r.Err) {
				c.broken("G5", part{r.Key, r.Began, r.Ended, only(r)}, "a read of %q on %s failed with an error that the documentation of Read does not name: %v", r.Key, r.Node, r.Err)
			}
			if r.Nested { // its load is recorded, and it may end on account of other reads
				continue
			}
			end := errors.Is(r.Err, context.Canceled) || errors.Is(r.Err, context.DeadlineExceeded) && !errors.Is(r.Err, tier.ErrTimeout)
			switch {
			case end && r.EndedAt.Before(r.Deadline):
				c.broken("G5", part{r.Key, r.Began, r.Ended, only(r)}, "a read of %q on %s ended as if its caller had gone, %v before that: %v", r.Key, r.Node, r.Deadline.Sub(r.EndedAt), r.Err)
			case end && r.Deadline.Sub(r.BeganAt) >= c.rules.Patience:
				c.broken("G5", part{r.Key, r.Began, r.Ended, only(r)}, "a read of %q on %s had no answer within %v", r.Key, r.Node, c.rules.Patience)
			case !end && !r.missing() && !errors.Is(r.Err, tier.ErrOverloaded) && !c.rules.RealTime && c.calmAt(r.BeganAt, r.EndedAt):
				c.broken("G5", part{r.Key, r.Began, r.Ended, only(r)}, "a read of %q on %s failed though nothing was wrong: %v", r.Key, r.Node, r.Err)
			}
			continue
		}
		if r.Value.Key != r.Key {
			c.broken("G10", part{r.Key, r.Began, r.Ended, only(r)}, "a read of %q on %s got the value of %q", r.Key, r.Node, r.Value.Key)
		}
		// An answer may have waited for its caller. It was valid when the read began.
		age := r.BeganAt.Sub(time.Unix(0, r.Value.At))
		bound := bound + max(r.Value.TTL-c.rules.Freshness.TTL, 0)
		if age > c.longer(bound) {
			c.broken("G3", part{r.Key, r.Value.Load, r.Ended, ofLoad(r)}, "%s read %q aged %v, the bound is %v", r.Node, r.Key, age, bound)
		}
		if !r.Plain && age > c.longer(r.Age) {
			c.broken("G3", part{r.Key, r.Value.Load, r.Ended, ofLoad(r)}, "%s read %q aged %v, the answer says %v", r.Node, r.Key, age, r.Age)
		}
		if r.MaxAge > 0 && age > c.longer(r.MaxAge) {
			c.broken("G3", part{r.Key, r.Value.Load, r.Ended, ofLoad(r)}, "%s read %q aged %v with a MaxAge of %v", r.Node, r.Key, age, r.MaxAge)
		}
	}
}

// documented reports whether the documentation of Get and Read names the error.
func documented(err error) bool {
	var fill *tier.FillError
	return errors.As(err, &fill) || slices.ContainsFunc([]error{
		tier.ErrNotFound, tier.ErrOverloaded, tier.ErrIsolated, tier.ErrClosed, tier.ErrCycle, tier.ErrNotCached,
		tier.ErrEmptyKey, tier.ErrKeyTooLarge, context.Canceled, context.DeadlineExceeded,
	}, func(e error) bool { return errors.Is(err, e) })
}

// leases checks G6 by the sources that answers state.
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
		if r.Source != tier.SourceNear { // for a Get the source is unknown: it may have asked the owner
			heard[p] = r.EndedAt
			continue
		}
		at, ok := heard[p]
		if !ok || r.BeganAt.Before(at) { // the read that brought the copy has not returned yet, or gave up
			continue
		}
		if age := r.BeganAt.Sub(at); age > c.longer(c.rules.Freshness.NearTTL) && !(c.rules.RealTime && c.mayHaveHeard(r)) {
			c.broken("G6", part{r.Key, r.Value.Load, r.Ended, ofLoad(r)}, "%s served a near copy of %q %v after it heard of it", r.Node, r.Key, age)
		}
	}
}

// mayHaveHeard reports whether another read may have received r's copy without a record of it: a read that gave up or has
// not returned yet.
func (c *checker) mayHaveHeard(r *Read) bool {
	from := r.BeganAt.Add(-c.rules.Freshness.NearTTL)
	return slices.ContainsFunc(c.reads, func(o *Read) bool {
		return o != r && o.Node == r.Node && o.Key == r.Key && o.Began < r.Ended && o.EndedAt.After(from) && (o.Plain || o.Err != nil || o.Source != tier.SourceNear)
	})
}

// newest checks G6 in calm times, by what reads return: NearTTL after a load has ended, all leases of older values are
// over.
func (c *checker) newest() {
	if c.rules.RealTime {
		return
	}
	loads := make(map[string][]*Load)
	for _, l := range c.loads {
		if l.Outcome == Loaded {
			loads[l.Key] = append(loads[l.Key], l)
		}
	}
	for _, r := range c.reads {
		if r.Err != nil || !c.calmAt(r.BeganAt, r.EndedAt) {
			continue
		}
		for _, l := range loads[r.Key] {
			old := r.BeganAt.Sub(l.EndedAt)
			if cmp.Or(l.From, l.Began) > r.Value.Load && old > c.longer(c.rules.Freshness.NearTTL) && c.calmAt(l.BeganAt, l.EndedAt) {
				c.broken("G6", part{r.Key, r.Value.Load, r.Ended, ofLoad(r)}, "%s read load %d of %q, %v after load %d had ended", r.Node, r.Value.Load, r.Key, old, l.Began)
				break
			}
		}
	}
}
