package peer

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weircache/weir/peer/internal/wire"
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
		members:   desc("members", "Members of the cluster, by state.", "state"),
		view:      desc("view_changes_total", "Views published since the node started."),
		differing: desc("view_disagreements", "Members whose view has differed from this node's view for more than ten seconds."),
		divisor:   desc("divisor_members", "Members among which a cluster-wide cap is divided."),
		refused:   desc("connections_refused_total", "Connections closed at the port or during their handshake."),

		calls:         desc("peer_calls_total", "Peer calls that this node sent or tried to send."),
		errors:        desc("peer_call_errors_total", "Peer calls that got no answer."),
		dials:         desc("peer_dials_total", "Attempts to open a data connection."),
		served:        desc("peer_requests_total", "Requests received from other members."),
		bytes:         desc("peer_bytes_total", "Bytes on the data connections without handshakes, by direction.", "direction"),
		inFlight:      desc("peer_calls_in_flight", "Peer calls that wait for an answer."),
		connections:   desc("peer_connections", "Open data connections, by the side that opened them.", "opened"),
		inFlightBytes: desc("peer_in_flight_bytes", "Bytes that count toward Config.InFlightBytes."),

		breakersOpen:   desc("peer_breakers_open", "Members bypassed because they reject requests or do not answer."),
		breakerChanges: desc("peer_breaker_changes_total", "Number of times the breaker of a member opened or closed.", "to"),

		lateTimers: desc("late_timers_total", "Timers of the data connections that fired more than 50 ms late. The process then gets too little processor time, and a silent peer does not count as dead."),

		ready:        desc("ready", "1 while the node is ready, as /readyz reports."),
		build:        desc("build_info", "Always 1. The label version is the version of weir.", "version"),
		streams:      desc("stats_streams", "Open event streams of the stats endpoint."),
		streamsEnded: desc("stats_streams_refused_total", "Event streams refused because there were too many, or dropped because the reader was too slow."),
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
	members := c.n.roster.Share().Members
	gauge(c.divisor, float64(members))
	counter(c.view, float64(c.n.roster.Changes()))
	counter(c.refused, float64((endpoint{c.n}).refused()))
	gauge(c.differing, float64(len(c.n.roster.Differing())))

	total := c.n.data.Totals()
	counter(c.calls, float64(total.Calls))
	counter(c.errors, float64(total.Errors))
	counter(c.dials, float64(total.Dials))
	counter(c.served, float64(total.Served))
	counter(c.bytes, float64(total.BytesIn), "in")
	counter(c.bytes, float64(total.BytesOut), "out")
	counter(c.breakerChanges, float64(total.Opened), wire.BreakerOpen)
	counter(c.breakerChanges, float64(total.Shut), wire.BreakerClosed)
	counter(c.lateTimers, float64(c.n.hearing.Late()))
	var inFlight, opened, bypassed int
	for _, p := range c.n.data.Peers() {
		inFlight += p.InFlight
		opened += p.Connected
		if p.Breaker != wire.BreakerClosed {
			bypassed++
		}
	}
	gauge(c.breakersOpen, float64(bypassed))
	gauge(c.inFlight, float64(inFlight))
	gauge(c.connections, float64(opened), "here")
	gauge(c.connections, float64(total.Accepted), "there")
	gauge(c.inFlightBytes, float64(total.InFlight))

	ready := 0.0
	if c.n.unready() == "" {
		ready = 1
	}
	gauge(c.ready, ready)
	gauge(c.build, 1, Version())
	gauge(c.streams, float64(c.n.eyes.streams.count()))
	counter(c.streamsEnded, float64(c.n.eyes.streams.refused.Load()+c.n.eyes.streams.dropped.Load()))
}

// metrics are the metrics of a node and of its namespaces.
type metrics struct {
	registry *prometheus.Registry
	user     prometheus.Registerer // nil: none
	node     *collector            // nil: it is not registered
}

// register registers m in the node's registry and in the user's.
func (x *metrics) register(m prometheus.Collector) error {
	if err := x.registry.Register(m); err != nil {
		return fmt.Errorf("peer: metrics: %w", err)
	}
	if x.user != nil {
		if err := x.user.Register(m); err != nil {
			x.registry.Unregister(m)
			return fmt.Errorf("peer: metrics: Config.Registerer does not accept them: give each node its own registerer, see prometheus.WrapRegistererWith: %w", err)
		}
	}
	return nil
}

// unregister undoes register.
func (x *metrics) unregister(m prometheus.Collector) {
	x.registry.Unregister(m)
	if x.user != nil {
		x.user.Unregister(m)
	}
}
