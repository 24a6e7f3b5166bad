package scenario

import (
	"fmt"
	"time"
)

func or[T comparable](p *T, value T) {
	var zero T
	if *p == zero {
		*p = value
	}
}

// fill sets defaults for omitted settings.
func (s *Scenario) fill() {
	or(&s.Seed, 1)
	c := &s.Cluster
	or(&c.Kind, InProcess)
	if c.Kind == Existing {
		or(&c.Nodes, len(c.Addresses))
		or(&c.Path, "/{key}")
	}
	or(&c.Nodes, 3)
	or(&c.Near, 32<<20)
	or(&c.Owned, 128<<20)
	or(&c.Concurrency, 64)
	or(&c.Timeout, Duration(2*time.Second))
	or(&c.Freshness.TTL, Duration(time.Minute))
	or(&c.WhenIsolated, "serve-stale")
	v := &s.Values
	or(&v.Kind, "fixed")
	switch v.Kind {
	case "fixed":
		or(&v.Size, 256)
	case "trace":
		or(&v.Size, 256)
		or(&v.Max, 512<<10)
	case "lognormal":
		or(&v.Max, 512<<10)
	}
	l := &s.Origin.Latency
	if *l == (Latency{}) { // if the kind is given, zero may be intended: p50: 0s
		*l = Latency{Kind: "fixed", P50: Duration(40 * time.Millisecond)}
	}
	or(&l.Kind, "fixed")
	if s.Origin.Capacity > 0 {
		or(&s.Origin.Growth, 1)
	}
	for i := range s.Origin.Outages {
		o := &s.Origin.Outages[i]
		or(&o.Kind, "error")
		if o.Kind == "slow" {
			or(&o.Factor, 10)
		}
	}
	for i := range s.Load {
		l := &s.Load[i]
		or(&l.Name, fmt.Sprintf("load %d", i+1))
		or(&l.Loop, "closed")
		switch l.Loop {
		case "open":
			or(&l.Callers, 4096)
			or(&l.Arrival, "poisson")
		case "burst":
			or(&l.Every, Duration(500*time.Millisecond))
			or(&l.Callers, 64)
		default:
			or(&l.Callers, 64)
		}
		if l.Mix.Many > 0 {
			or(&l.Mix.Batch, 50)
		}
		k := &l.Keys
		or(&k.Kind, "zipf")
		switch k.Kind {
		case "zipf":
			or(&k.Theta, 0.99)
			or(&k.Count, 100_000)
		case "hot":
			or(&k.Share, 0.9)
			or(&k.Count, 100_000)
		case "uniform", "scan":
			or(&k.Count, 100_000)
		}
	}
	for i := range s.Faults {
		f := &s.Faults[i]
		switch f.Do {
		case Rolling:
			or(&f.Every, Duration(2*time.Second))
			or(&f.For, Duration(500*time.Millisecond))
		case Stall:
			or(&f.For, Duration(time.Second))
		case Cut, Starve:
			or(&f.For, Duration(2*time.Second))
		}
	}
}
