package tier

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/weircache/weir/tier/internal/counters"
)

// Describe implements prometheus.Collector.
func (h handler) Describe(ch chan<- *prometheus.Desc) {
	m := h.c.metrics
	for _, d := range []*prometheus.Desc{
		m.reads, m.loads, m.results, m.cost, m.steps, m.stepSeconds, m.inUse, m.share, m.waiting, m.shed,
		m.rescued, m.undecodable, m.fences, m.bytes, m.entries, m.evicted, m.asked, m.failed,
		m.stepErrors, m.busy, m.served, m.doomed, m.retries, m.retriesDenied, m.soft,
		m.limit, m.breaker, m.openings, m.overloaded,
		m.coldLoad, m.capacity, m.margin, m.warm, m.working, m.workingBytes,
		m.ages, m.stale, m.bound, m.drilling, m.exchanges, m.replayed, m.relayed, m.flushed,
		m.invalidated, m.unconfirmed, m.revalidated, m.puts, m.isolated, m.isolations, m.peak, m.waitingBy, m.retriesLeft,
		m.fencesKept, m.left, m.bypassed, m.peers, m.nearDropped, m.flights, m.hotKeys, m.hotSaves, m.replicas, m.replicaEntries,
		m.follows, m.followed, m.followFlushes, m.followFailures, m.followUnconfirmed, m.followLag, m.followDown,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (h handler) Collect(ch chan<- prometheus.Metric) {
	m, s := h.c.metrics, h.c.allStats()
	count := func(d *prometheus.Desc, n int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	gauge := func(d *prometheus.Desc, n float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, n, labels...)
	}
	count(m.reads, s.Near, "near")
	count(m.reads, s.Owned, "owned")
	count(m.reads, s.Fill, "fill")
	count(m.reads, s.Errors, "error")
	for cause, n := range s.LoadsBy {
		count(m.loads, n, cause)
	}
	for result, n := range s.ResultsBy {
		count(m.results, n, result)
	}
	costs := h.c.own.Stats.Costs.Snapshot() // read first: what is counted meanwhile is only in the others
	buckets, below := make(map[float64]uint64, len(counters.CostBounds)), uint64(0)
	for i := range counters.CostBounds {
		below += uint64(h.c.own.Stats.Cost[i].Load())
		buckets[counters.CostBounds[i]] = min(below, uint64(costs.Total()))
	}
	ch <- costs.Metric(m.cost, s.LoadSeconds, buckets, m.since)
	for name, step := range s.Steps {
		count(m.steps, step.Calls, name)
		ch <- prometheus.MustNewConstMetric(m.stepSeconds, prometheus.CounterValue, step.Seconds, name)
		count(m.stepErrors, step.Errors, name)
	}
	gauge(m.inUse, float64(s.Governor.InUse))
	gauge(m.share, float64(s.Governor.Share))
	gauge(m.waiting, float64(s.Governor.Waiting))
	for reason, n := range s.Ledger.ShedBy {
		count(m.shed, n, reason)
	}
	ch <- prometheus.MustNewConstMetric(m.busy, prometheus.CounterValue, s.Ledger.OriginSeconds)
	count(m.served, s.FillServed)
	count(m.doomed, s.Ledger.Doomed)
	count(m.retries, s.Ledger.Retries)
	count(m.retriesDenied, s.Ledger.RetriesDenied)
	count(m.soft, s.Ledger.SoftTimeouts)
	gauge(m.limit, float64(s.Governor.Limit))
	gauge(m.breaker, map[string]float64{"half_open": 0.5, "open": 1}[s.Governor.Breaker])
	count(m.openings, s.Governor.BreakerOpenings)
	gauge(m.overloaded, oneIf(s.Governor.Overloaded))
	p := s.Projection
	gauge(m.coldLoad, p.ColdLoad)
	gauge(m.capacity, p.Capacity)
	gauge(m.margin, p.Margin)
	gauge(m.warm, p.Warm)
	gauge(m.working, p.Keys)
	gauge(m.workingBytes, float64(p.Bytes))
	count(m.rescued, s.Rescued)
	count(m.undecodable, s.Undecodable)
	count(m.fences, s.Fences)
	gauge(m.bytes, float64(s.NearBytes), "near")
	gauge(m.bytes, float64(s.OwnedBytes), "owned")
	gauge(m.bytes, float64(s.ReplicaBytes), "replica")
	gauge(m.entries, float64(s.OwnedEntries))
	count(m.evicted, s.NearEvicted, "near")
	count(m.evicted, s.OwnedEvicted, "owned")
	count(m.asked, s.Asked)
	count(m.failed, s.Moved, "moved")
	count(m.failed, s.Unreachable, "unreachable")
	h.collectFreshness(ch, &s)
}

// collectFreshness collects the metrics of served answers and of invalidations.
func (h handler) collectFreshness(ch chan<- prometheus.Metric, s *Stats) {
	m := h.c.metrics
	count := func(d *prometheus.Desc, n int64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	gauge := func(d *prometheus.Desc, n float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, n, labels...)
	}
	for i := range h.c.own.Stats.Ages.By {
		t := h.c.own.Stats.Ages.By[i].Snapshot()
		ch <- t.Metric(m.ages, t.Sum(), t.Under(ageBuckets[:]), m.since, Source(i+1).String())
	}
	for reason, n := range s.StaleBy {
		count(m.stale, n, reason)
	}
	gauge(m.bound, s.Bound)
	gauge(m.drilling, oneIf(h.c.own.Drill.Load() != nil))
	count(m.exchanges, s.Exchanges)
	count(m.replayed, s.Replayed)
	count(m.relayed, s.Relayed)
	count(m.flushed, s.Flushed)
	count(m.invalidated, s.Invalidated)
	count(m.unconfirmed, s.Unconfirmed)
	count(m.revalidated, s.Revalidated)
	count(m.puts, s.PutKept, "kept")
	count(m.puts, s.PutRefused, "refused")
	gauge(m.isolated, oneIf(s.Isolated))
	count(m.isolations, s.Isolations)
	gauge(m.peak, float64(s.Governor.Peak))
	for class, n := range s.Governor.WaitingBy {
		gauge(m.waitingBy, float64(n), class)
	}
	gauge(m.retriesLeft, float64(s.Governor.RetriesLeft))
	gauge(m.fencesKept, float64(s.FencesKept))
	count(m.left, s.Left)
	count(m.bypassed, s.Bypassed)
	count(m.peers, s.ServedPeers)
	count(m.nearDropped, s.NearDropped)
	gauge(m.flights, float64(s.Flights))
	gauge(m.follows, float64(s.Follow.Following))
	count(m.followed, s.Follow.Applied, "applied")
	count(m.followed, s.Follow.Repeated, "repeated")
	count(m.followed, s.Follow.Refused, "refused")
	count(m.followFlushes, s.Follow.Flushes)
	count(m.followFailures, s.Follow.Failures)
	count(m.followUnconfirmed, s.Follow.Unconfirmed)
	gauge(m.followLag, s.Follow.LagSeconds)
	gauge(m.followDown, s.Follow.DownSeconds)
	gauge(m.hotKeys, float64(s.HotKeys.Total-s.HotKeys.Done-s.HotKeys.Failed), "waiting")
	gauge(m.hotKeys, float64(s.HotKeys.Done), "done")
	gauge(m.hotKeys, float64(s.HotKeys.Failed), "failed")
	count(m.hotSaves, s.HotKeys.Saved, "ok")
	count(m.hotSaves, s.HotKeys.Unsaved, "error")
	count(m.replicas, s.ReplicasSent, "sent")
	count(m.replicas, s.ReplicasKept, "kept")
	count(m.replicas, s.ReplicasRefused, "refused")
	count(m.replicas, s.ReplicasServed, "served")
	gauge(m.replicaEntries, float64(s.Replicas))
}

func oneIf(yes bool) float64 {
	if yes {
		return 1
	}
	return 0
}

// Collector returns the cache's metrics for a registry of your own. A *peer.Node registers them itself. Unregister it
// when the cache is closed.
func (c *Cache[V]) Collector() prometheus.Collector { return newHandler(c) }

// ageBuckets are the upper bounds of the histogram of ages for scrapers that do not read native histograms: powers of
// two, so that each is the end of one of a histogram's own buckets.
var ageBuckets = [...]float64{1. / 64, 1. / 32, 1. / 16, 1. / 8, 1. / 4, 1. / 2, 1, 2, 4, 8, 16, 32, 64, 128, 256, 512,
	1024, 2048, 4096, 8192, 16384, 32768, 65536, 131072}
