package tier

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// collector describes a cache to Prometheus. It reads the cache's own counters when it is scraped, so that counting
// costs the cache no more than an atomic add.
type collector struct {
	since time.Time // when the cache was made

	reads, loads, results, steps, stepSeconds          *prometheus.Desc
	cost, inUse, share, waiting                        *prometheus.Desc
	shed, rescued, undecodable, fences, bytes, entries *prometheus.Desc
	evicted, asked, failed                             *prometheus.Desc

	stepErrors, busy, served, doomed, retries, retriesDenied, soft *prometheus.Desc
	limit, breaker, openings, overloaded                           *prometheus.Desc
	coldLoad, capacity, margin, warm, working, workingBytes        *prometheus.Desc

	ages, stale, bound, drilling                            *prometheus.Desc
	exchanges, replayed, relayed, flushed                   *prometheus.Desc
	invalidated, unconfirmed, revalidated, puts             *prometheus.Desc
	isolated, isolations, peak, waitingBy, retriesLeft      *prometheus.Desc
	fencesKept, left, bypassed, peers, nearDropped, flights *prometheus.Desc
	hotKeys, hotSaves, replicas, replicaEntries             *prometheus.Desc
	follows, followed, followFlushes, followFailures        *prometheus.Desc
	followUnconfirmed, followLag, followDown                *prometheus.Desc
}

func newCollector(namespace string, since time.Time) *collector {
	d := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("weir_"+name, help, labels, prometheus.Labels{"namespace": namespace})
	}
	return &collector{
		since:       since,
		reads:       d("reads_total", "Reads answered on this node, by source of the answer; error: reads without an answer.", "source"),
		loads:       d("loads_total", "Loads of the origin started on this node, by cause.", "cause"),
		results:     d("load_results_total", "Loads of the origin that ended on this node, by result.", "result"),
		cost:        d("load_seconds", "Duration of loads of the origin."),
		steps:       d("load_steps_total", "Calls that loaders made to a dependency.", "step"),
		stepSeconds: d("load_steps_seconds_total", "Time that loaders spent in a dependency.", "step"),
		inUse:       d("loads_running", "Loads that hold a permit of the governor now."),
		share:       d("loads_limit", "This node's share of the cluster-wide cap on concurrent loads."),
		waiting:     d("loads_waiting", "Flights waiting for a permit, and loads waiting for their permit after a nested read."),
		shed:        d("loads_shed_total", "Fills that the governor rejected, by reason.", "reason"),
		rescued:     d("reads_rescued_total", "Reads that got a stale copy instead of an error."),
		undecodable: d("copies_undecodable_total", "Copies that could not be decoded. They were dropped and loaded again."),
		fences:      d("fences_total", "Invalidations of keys, tags and the namespace applied on this node."),
		bytes:       d("tier_bytes", "Bytes in use by a tier.", "tier"),
		entries:     d("owned_entries", "Entries in the owned tier."),
		evicted:     d("evictions_total", "Entries evicted from a tier to make room.", "tier"),
		asked:       d("peer_reads_total", "Requests sent to owners on other members."),
		failed:      d("peer_reads_failed_total", "Requests to owners on other members that got no answer, by reason.", "reason"),

		stepErrors:    d("load_steps_failed_total", "Calls to a dependency that the loader reported as failed.", "step"),
		busy:          d("origin_seconds_total", "Time spent in loads of the origin, including loads that run now."),
		served:        d("loads_callers_total", "Callers on this node and on other members that fills answered."),
		doomed:        d("loads_doomed_total", "Fills that ended after all their callers had left."),
		retries:       d("loads_retried_total", "Loads that retried a failed load."),
		retriesDenied: d("loads_retries_denied_total", "Retries that the retry budget did not allow."),
		soft:          d("reads_soft_timeout_total", "Reads that got a stale copy because a refill took longer than SoftTimeout."),
		limit:         d("loads_adaptive_limit", "Concurrent loads that the adaptive limit allows on this node."),
		breaker:       d("breaker_open", "State of the breaker: 0 closed, 0.5 half open, 1 open."),
		openings:      d("breaker_openings_total", "Number of times the breaker opened."),
		overloaded:    d("loads_overloaded", "1 while a queue of fills is overloaded."),
		coldLoad:      d("cold_loads_per_second", "Loads a second that the origin would see from the cluster if the cache were empty, as estimated by this node."),
		capacity:      d("origin_capacity_per_second", "Loads a second that the configured limits allow."),
		margin:        d("survivability_margin", "Origin capacity divided by cold loads. Below 1, losing the cache would mean rejecting callers. 0: unknown."),
		warm:          d("seconds_to_warm", "Time to load the working set at the origin's capacity."),
		working:       d("working_set_keys", "Keys that callers on this node read in the last 30 to 60 seconds."),
		workingBytes:  d("working_set_bytes", "Bytes that the working set takes in the owned tiers."),

		ages:        d("served_age_seconds", "Age of the answers that callers on this node got, from the start of the load. Near hits are sampled, and the sum is estimated.", "source"),
		stale:       d("served_stale_total", "Answers past their soft expiry, by reason. Near hits are sampled.", "reason"),
		bound:       d("contract_max_age_seconds", "Greatest age of an answer that the namespace's freshness allows."),
		drilling:    d("drill_running", "1 while a drill runs on this node."),
		exchanges:   d("exchanges_total", "Anti-entropy exchanges of positions with other members."),
		replayed:    d("invalidations_replayed_total", "Invalidations that exchanges sent to members that had missed them."),
		relayed:     d("invalidations_relayed_total", "Batches of invalidations sent to a member through another member."),
		flushed:     d("flushes_total", "Number of times this node treated its whole cache as invalidated because no member could tell what it had missed."),
		invalidated: d("invalidated_total", "Keys and tags that this node invalidated."),
		unconfirmed: d("invalidations_unconfirmed_total", "Invalidations that some member did not confirm in time."),
		revalidated: d("near_revalidated_total", "Near copies that their owners confirmed as still valid."),
		puts:        d("puts_total", "Values put on this node, by whether the owner kept them.", "result"),
		isolated:    d("isolated", "1 while this node has lost contact with more than half of the members."),
		isolations:  d("isolations_total", "Number of times this node lost contact with more than half of the members."),
		peak:        d("loads_running_max", "Most loads that held a permit at the same time since the start."),
		waitingBy:   d("loads_waiting_by_class", "Flights waiting for a permit, by class.", "class"),
		retriesLeft: d("retries_left", "Retries left in the retry budget."),
		fencesKept:  d("fences_kept", "Fences in memory."),
		left:        d("reads_left_total", "Reads whose context ended while they waited for a fill."),
		bypassed:    d("reads_bypassed_total", "Reads loaded on this node because no other member answered."),
		peers:       d("peer_reads_served_total", "Reads answered for other members."),
		nearDropped: d("near_dropped_total", "Near copies that the near tier did not store."),
		flights:     d("flights", "Fills in progress."),
		hotKeys:     d("hot_keys", "Keys listed in the file of hot keys at the start, by state.", "state"),
		hotSaves:    d("hot_keys_saves_total", "Writes of the file of hot keys, by result.", "result"),

		follows:           d("follow_running", "Calls of Follow that run on this node."),
		followed:          d("follow_events_total", "Events of feeds, by result. refused: the event had a key or tag that is not valid.", "result"),
		followFlushes:     d("follow_flushes_total", "Number of times the namespace was flushed because its feed could not tell all events."),
		followFailures:    d("follow_failures_total", "Calls to a feed that failed."),
		followUnconfirmed: d("follow_unconfirmed_total", "Acknowledgements of a feed that had to wait for a member."),
		followLag:         d("follow_lag_seconds", "Time from the newest event's write to its application on this node, if the feed gives times."),
		followDown:        d("follow_down_seconds", "Time for which the feed has failed so far. 0: it works."),

		replicas:       d("replicas_total", "Replicas of hot entries, by event: sent to successors, kept, refused, served.", "event"),
		replicaEntries: d("replica_entries", "Replicas of other owners' entries in the owned tier."),
	}
}
