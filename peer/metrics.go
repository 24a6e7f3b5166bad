package peer

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// collector reads the node's own counters when it is scraped.
type collector struct {
	n                               *Node
	members, view, divisor, refused *prometheus.Desc
}

func newCollector(n *Node) *collector {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("weir_"+name, help, labels, nil)
	}
	return &collector{
		n:       n,
		members: desc("members", "Members by what this node knows of them.", "state"),
		view:    desc("view_changes_total", "Views published since the start."),
		divisor: desc("divisor_members", "Members that a cap for the whole cluster is divided by."),
		refused: desc("connections_refused_total", "Connections closed at the port before they said anything sensible."),
	}
}

// Describe implements prometheus.Collector.
func (c *collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{c.members, c.view, c.divisor, c.refused} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (c *collector) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v float64) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v)
	}
	states := map[State]int{StateAlive: 0, StateLeaving: 0, StateLost: 0, StateRefused: 0}
	for _, m := range c.n.Members() {
		states[m.State]++
	}
	for s, count := range states {
		gauge(c.members, float64(count), string(s))
	}
	members, _ := c.n.Divisor()
	gauge(c.divisor, float64(members))
	counter(c.view, float64(c.n.viewChanges.Load()))
	counter(c.refused, float64(c.n.port.refused.Load()))
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
