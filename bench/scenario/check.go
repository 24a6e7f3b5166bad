package scenario

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"github.com/weircache/weir/bench/trace"
)

// The bounds, with their reasons.
const (
	maxDuration = time.Hour // histograms and timelines are kept in memory
	maxNodes    = 64        // one machine cannot run more
	maxCallers  = 100_000   // a goroutine each
	maxKeys     = 5_000_000 // their names are made at the start
	maxRate     = 5_000_000 // per second
	maxStall    = 10 * time.Second
	maxBatch    = 10_000  // one call's values are in memory at once
	maxValue    = 1 << 20 // weir's own limit
	minValue    = 24      // the size of what the harness writes into each value
)

// checker collects problems.
type checker struct{ problems []string }

func (c *checker) bad(path, format string, args ...any) {
	c.problems = append(c.problems, path+": "+fmt.Sprintf(format, args...))
}

func (c *checker) among(path, got string, allowed ...string) bool {
	if slices.Contains(allowed, got) {
		return true
	}
	c.bad(path, "%q is none of %s", got, strings.Join(allowed, ", "))
	return false
}

func between[T int | int64 | float64 | Bytes | Duration](c *checker, path string, got, least, most T) {
	if !(got >= least && got <= most) {
		c.bad(path, "%v is not between %v and %v", got, least, most)
	}
}

func (c *checker) scenario(s *Scenario) {
	if s.Name == "" {
		c.bad("name", "a scenario needs a name")
	}
	if s.Duration == 0 {
		c.bad("duration", "a scenario needs a duration, such as 10s")
	} else {
		between(c, "duration", s.Duration, Duration(10*time.Millisecond), Duration(maxDuration))
	}
	between(c, "warmup", s.Warmup, 0, Duration(maxDuration))
	c.cluster(&s.Cluster)
	c.values(s)
	c.origin(&s.Origin)
	if len(s.Load) == 0 {
		c.bad("load", "there is no load: nothing would happen")
	}
	for i := range s.Load {
		c.load(fmt.Sprintf("load[%d]", i), s, &s.Load[i])
	}
	if s.ByFault && len(s.Faults) == 0 {
		c.bad("by_fault", "there are no faults to tell apart")
	}
	for i := range s.Faults {
		c.fault(fmt.Sprintf("faults[%d]", i), s, &s.Faults[i])
	}
	c.claims(s)
}

func (c *checker) cluster(k *Cluster) {
	c.among("cluster.kind", k.Kind, InProcess, Processes, Existing)
	between(c, "cluster.nodes", k.Nodes, 1, maxNodes)
	between(c, "cluster.owned", k.Owned, 64<<10, 1<<40)
	if k.Near >= 0 { // below 0: no near tier
		between(c, "cluster.near", k.Near, 64<<10, 1<<40)
	}
	between(c, "cluster.percent", k.Percent, 0, 1000)
	between(c, "cluster.concurrency", k.Concurrency, 1, 1_000_000)
	between(c, "cluster.timeout", k.Timeout, Duration(time.Millisecond), Duration(maxDuration))
	f := k.Freshness
	between(c, "cluster.freshness.ttl", f.TTL, Duration(time.Millisecond), Duration(1000*time.Hour))
	between(c, "cluster.freshness.stale_while_revalidate", f.StaleWhileRevalidate, 0, Duration(1000*time.Hour))
	between(c, "cluster.freshness.stale_if_error", f.StaleIfError, 0, Duration(1000*time.Hour))
	between(c, "cluster.freshness.jitter", f.Jitter, -1, 0.9)
	c.among("cluster.when_isolated", k.WhenIsolated, "serve-stale", "bypass", "fail")
	existing := k.Kind == Existing
	if existing && len(k.Addresses) == 0 {
		c.bad("cluster.addresses", "a cluster that exists needs the addresses of its services, such as http://127.0.0.1:8080")
	}
	if !existing && (len(k.Addresses) > 0 || k.Path != "" || k.Stats != "") {
		c.bad("cluster.addresses", "addresses, path and stats are for kind %s alone", Existing)
	}
	if existing && len(k.Addresses) > 0 && k.Nodes != len(k.Addresses) {
		c.bad("cluster.nodes", "%d nodes and %d addresses", k.Nodes, len(k.Addresses))
	}
	for i, a := range k.Addresses {
		if u, err := url.Parse(a); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
			c.bad(fmt.Sprintf("cluster.addresses[%d]", i), "%q is no address of a service, such as http://127.0.0.1:8080", a)
		}
	}
	if existing && !strings.Contains(k.Path, "{key}") {
		c.bad("cluster.path", "%q has no {key} in it", k.Path)
	}
}

func (c *checker) values(s *Scenario) {
	v := s.Values
	if !c.among("values.kind", v.Kind, "fixed", "lognormal", "trace") {
		return
	}
	switch v.Kind {
	case "fixed":
		between(c, "values.size", v.Size, minValue, maxValue)
	case "lognormal":
		between(c, "values.p50", v.P50, minValue, maxValue)
		between(c, "values.p99", v.P99, v.P50, maxValue)
		between(c, "values.max", v.Max, v.P99, maxValue)
	case "trace":
		between(c, "values.size", v.Size, minValue, maxValue)
		between(c, "values.max", v.Max, v.Size, maxValue)
		if !slices.ContainsFunc(s.Load, func(l Load) bool { return l.Keys.Kind == "trace" }) {
			c.bad("values.kind", "no load replays a trace")
		}
	}
}

func (c *checker) origin(o *Origin) {
	l := o.Latency
	const at = "origin.latency"
	most := Duration(maxDuration)
	if c.among(at+".kind", l.Kind, "fixed", "lognormal") {
		switch l.Kind {
		case "fixed":
			between(c, at+".p50", l.P50, 0, most)
		case "lognormal":
			between(c, at+".p50", l.P50, 1, most)
			between(c, at+".p99", l.P99, l.P50, most)
		}
	}
	between(c, "origin.capacity", o.Capacity, 0, 1_000_000)
	between(c, "origin.limit", o.Limit, 0, 1_000_000)
	between(c, "origin.growth", o.Growth, 0, 1000)
	between(c, "origin.errors", o.Errors, 0, 1)
	for i, x := range o.Outages {
		at := fmt.Sprintf("origin.outages[%d]", i)
		c.among(at+".kind", x.Kind, "error", "hang", "slow")
		if x.To <= x.From || x.From < 0 {
			c.bad(at, "from %v to %v is no time", x.From, x.To)
		}
		if x.Kind == "slow" {
			between(c, at+".factor", x.Factor, 1, 10_000)
		}
	}
}

func (c *checker) load(at string, s *Scenario, l *Load) {
	if !c.among(at+".loop", l.Loop, "closed", "open", "burst") {
		return
	}
	between(c, at+".callers", l.Callers, 1, maxCallers)
	if l.To != 0 && l.To <= l.From || l.From < 0 || l.From >= s.Duration && s.Duration > 0 {
		c.bad(at+".from", "from %v to %v is no time within %v", l.From, l.To, s.Duration)
	}
	between(c, at+".timeout", l.Timeout, 0, Duration(maxDuration))
	if l.Loop == "open" {
		between(c, at+".rate", l.Rate, 0.001, maxRate)
		c.among(at+".arrival", l.Arrival, "poisson", "even")
	} else if l.Rate != 0 {
		c.bad(at+".rate", "a rate is for an open loop")
	}
	if l.Loop == "burst" {
		between(c, at+".every", l.Every, Duration(time.Millisecond), Duration(maxDuration))
	} else if l.Every != 0 {
		c.bad(at+".every", "only a burst comes every so often")
	}
	m := l.Mix
	if m.Read < 0 || m.Write < 0 || m.Many < 0 {
		c.bad(at+".mix", "a weight below 0")
	}
	switch k := l.Keys; {
	case m.Many == 0 && m.Batch != 0:
		c.bad(at+".mix.batch", "a batch is for many")
	case m.Many > 0 && (k.Kind == "trace" || k.Kind == "fresh" || l.Loop == "burst"):
		c.bad(at+".mix.many", "many draws its keys itself: not from a trace, and not in a burst, which is about one key")
	case m.Many > 0:
		between(c, at+".mix.batch", m.Batch, 1, min(maxBatch, k.Count))
	}
	c.keys(at+".keys", l)
}

func (c *checker) keys(at string, l *Load) {
	k := l.Keys
	if !c.among(at+".kind", k.Kind, "zipf", "uniform", "hot", "scan", "fresh", "trace") {
		return
	}
	if k.Requests < 0 || k.Requests > 0 && (k.Kind == "fresh" || k.Kind == "trace") {
		c.bad(at+".requests", "a number of generated requests, and not of a trace (count) or of a burst's fresh keys")
	}
	switch k.Kind {
	case "fresh":
		if l.Loop != "burst" {
			c.bad(at+".kind", "fresh keys are for a burst")
		}
		return
	case "trace":
		if k.File != "" {
			c.among(at+".format", k.Format, trace.Formats()...)
		}
		if k.Count < 0 {
			c.bad(at+".count", "%d requests", k.Count)
		}
		return
	}
	between(c, at+".count", k.Count, 1, maxKeys)
	if k.File != "" || k.Format != "" {
		c.bad(at, "file and format are for a trace")
	}
	switch k.Kind {
	case "zipf":
		if k.Theta == 1 {
			c.bad(at+".theta", "the formula has no value at 1: write 0.99 or 1.01")
		}
		between(c, at+".theta", k.Theta, 0.01, 4)
		between(c, at+".items", k.Items, 0, 1<<53)
	case "hot":
		between(c, at+".share", k.Share, 0, 1)
	}
}

func (c *checker) fault(at string, s *Scenario, f *Fault) {
	if !c.among(at+".do", f.Do, Kill, Leave, Join, Rolling, Cut, Starve, Flush, Stall) {
		return
	}
	if s.Cluster.Kind == Existing && f.Do != Flush {
		c.bad(at+".do", "a cluster that exists is not ours to break")
	}
	if f.At < 0 || f.At >= s.Duration {
		c.bad(at+".at", "%v is not within the run of %v", f.At, s.Duration)
	}
	switch f.Do {
	case Kill, Leave, Join, Starve:
		if f.Node < 0 || f.Node >= s.Cluster.Nodes {
			c.bad(at+".node", "there is no node %d: they are 0 to %d", f.Node, s.Cluster.Nodes-1)
		}
	case Cut:
		if len(f.Nodes) == 0 || len(f.Nodes) >= s.Cluster.Nodes {
			c.bad(at+".nodes", "a cut needs at least one node on each side")
		}
		for _, n := range f.Nodes {
			if n < 0 || n >= s.Cluster.Nodes {
				c.bad(at+".nodes", "there is no node %d: they are 0 to %d", n, s.Cluster.Nodes-1)
			}
		}
		if s.Cluster.Kind == Processes {
			c.bad(at+".do", "the network between processes cannot be cut from here: use kind %s", InProcess)
		}
	case Stall:
		between(c, at+".for", f.For, Duration(time.Millisecond), Duration(maxStall))
	case Rolling:
		if f.For >= f.Every {
			c.bad(at+".for", "a node is down for %v, and the next one goes after %v: it must be back before", f.For, f.Every)
		}
	}
	if f.Do == Starve && s.Cluster.Kind == InProcess {
		c.bad(at+".do", "a node stands still only as a process of its own: use kind %s, or cut", Processes)
	}
	if f.Noticed != 0 && f.Do != Kill {
		c.bad(at+".noticed", "only a kill is noticed late")
	}
	if f.For < 0 || f.Every < 0 || f.Noticed < 0 {
		c.bad(at, "a time below 0")
	}
}
