package peer

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// collector reads the node's own counters when it is scraped.
type collector struct {
	n                               *Node
	members, view, divisor, refused *prometheus.Desc
	differing                       *prometheus.Desc

	calls, errors, dials, served, bytes  *prometheus.Desc
	inFlight, connections, inFlightBytes *prometheus.Desc
	breakersOpen, breakerChanges         *prometheus.Desc
	lateTimers                           *prometheus.Desc
	ready, build                         *prometheus.Desc
	streams, streamsEnded                *prometheus.Desc
}

func newCollector(n *Node) *collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("weir_"+name, help, labels, nil)
	}
	return &collector{
		n:         n,
		members:   desc("members", "Members by what this node knows of them.", "state"),
		view:      desc("view_changes_total", "Views published since the start."),
		differing: desc("view_disagreements", "Members whose view has differed from this node's for more than ten seconds."),
		divisor:   desc("divisor_members", "Members that a cap for the whole cluster is divided by."),
		refused:   desc("connections_refused_total", "Connections closed at the port or in their handshake."),

		calls:         desc("peer_calls_total", "Requests that this node has sent, or tried to send, to other members."),
		errors:        desc("peer_call_errors_total", "Those of them that were not answered."),
		dials:         desc("peer_dials_total", "Attempts to open a data connection."),
		served:        desc("peer_requests_total", "Requests of other members that this node has read."),
		bytes:         desc("peer_bytes_total", "Bytes on the data connections, hellos not counted.", "direction"),
		inFlight:      desc("peer_calls_in_flight", "Requests sent whose answer is awaited."),
		connections:   desc("peer_connections", "Data connections that are up, by who opened them.", "opened"),
		inFlightBytes: desc("peer_in_flight_bytes", "Bytes counted against Config.InFlightBytes."),

		breakersOpen:   desc("peer_breakers_open", "Members that are bypassed because they refuse or are silent."),
		breakerChanges: desc("peer_breaker_changes_total", "How often a member's breaker has opened or closed.", "to"),

		lateTimers: desc("late_timers_total", "Timers of the data connections that came more than 50 ms late: this process gets too little processor time, and does not take silence for the death of a peer."),

		ready:        desc("ready", "1 if the node takes part, as /readyz says, else 0."),
		build:        desc("build_info", "Always 1; the label says which version of weir this is.", "version"),
		streams:      desc("stats_streams", "Streams of events that are open."),
		streamsEnded: desc("stats_streams_refused_total", "Streams of events that were refused or dropped: too many, or too slow."),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		c.members, c.view, c.divisor, c.refused, c.differing,
		c.calls, c.errors, c.dials, c.served, c.bytes, c.inFlight, c.connections, c.inFlightBytes,
		c.breakersOpen, c.breakerChanges, c.lateTimers, c.ready, c.build, c.streams, c.streamsEnded,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v, labels...)
	}
	states := map[State]int{StateAlive: 0, StateLeaving: 0, StateLost: 0, StateRefused: 0}
	for _, m := range c.n.Members() {
		states[m.State]++
	}
	for s, count := range states {
		gauge(c.members, float64(count), string(s))
	}
	members := c.n.share.Load().members
	gauge(c.divisor, float64(members))
	counter(c.view, float64(c.n.viewChanges.Load()))
	counter(c.refused, float64(c.n.refused()))
	gauge(c.differing, float64(len(c.n.differ.listed())))

	data := c.n.data
	counter(c.calls, float64(data.calls.Load()))
	counter(c.errors, float64(data.errors.Load()))
	counter(c.dials, float64(data.dials.Load()))
	counter(c.served, float64(data.served.Load()))
	counter(c.bytes, float64(data.bytesIn.Load()), "in")
	counter(c.bytes, float64(data.bytesOut.Load()), "out")
	counter(c.breakerChanges, float64(data.opened.Load()), breakerOpen)
	counter(c.breakerChanges, float64(data.shut.Load()), breakerClosed)
	counter(c.lateTimers, float64(data.hearing.lates.Load()))
	var inFlight, opened, bypassed int
	for _, p := range data.stats() {
		inFlight += p.InFlight
		opened += p.Connected
		if p.Breaker != breakerClosed {
			bypassed++
		}
	}
	gauge(c.breakersOpen, float64(bypassed))
	gauge(c.inFlight, float64(inFlight))
	gauge(c.connections, float64(opened), "here")
	gauge(c.connections, float64(data.accepted()), "there")
	gauge(c.inFlightBytes, float64(data.flying.Load()))

	ready := 0.0
	if c.n.unready() == "" {
		ready = 1
	}
	gauge(c.ready, ready)
	gauge(c.build, 1, Version())
	gauge(c.streams, float64(c.n.eyes.streams.count()))
	counter(c.streamsEnded, float64(c.n.eyes.streams.refused.Load()+c.n.eyes.streams.dropped.Load()))
}

// registerMetrics registers m in the node's registry and in the user's.
func (n *Node) registerMetrics(m prometheus.Collector) error {
	if err := n.registry.Register(m); err != nil {
		return fmt.Errorf("peer: metrics: %w", err)
	}
	if n.cfg.Registerer != nil {
		if err := n.cfg.Registerer.Register(m); err != nil {
			n.registry.Unregister(m)
			return fmt.Errorf("peer: metrics: Config.Registerer refuses them; two nodes need two registerers, see prometheus.WrapRegistererWith: %w", err)
		}
	}
	return nil
}

// unregisterMetrics undoes registerMetrics.
func (n *Node) unregisterMetrics(m prometheus.Collector) {
	n.registry.Unregister(m)
	if n.cfg.Registerer != nil {
		n.cfg.Registerer.Unregister(m)
	}
}
