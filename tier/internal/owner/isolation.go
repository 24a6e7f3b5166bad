package owner

import "fmt"

// WhenIsolated says what a cache does while its node is isolated.
type WhenIsolated uint8

// The values of the public WhenIsolated.
const (
	IsolatedServes WhenIsolated = iota
	IsolatedBypasses
	IsolatedFails
)

// String returns "serve stale", "bypass" or "fail".
func (w WhenIsolated) String() string {
	switch w {
	case IsolatedServes:
		return "serve stale"
	case IsolatedBypasses:
		return "bypass"
	case IsolatedFails:
		return "fail"
	}
	return fmt.Sprintf("WhenIsolated(%d)", uint8(w))
}

// LossReporter is a Cluster that can tell whether a member that is not in its view was lost or left in order.
type LossReporter interface{ Lost(name string) bool }

// Bypasser is a Cluster that can tell whether a member of its view refuses requests or is silent.
type Bypasser interface{ Bypassed(name string) bool }

// checkIsolation checks whether this node is isolated.
func (c *Owner) checkIsolation() {
	left := func(string) bool { return false }
	if l, ok := c.Config.Cluster.(LossReporter); ok {
		left = func(name string) bool { return !l.Lost(name) }
	}
	silent := func(string) bool { return false }
	if b, ok := c.Config.Cluster.(Bypasser); ok {
		silent = b.Bypassed
	}
	off, changed := c.Isolation.Observe(c.Config.Cluster.View(), c.Clock.Now(), silent, left)
	if !changed {
		return
	}
	c.Isolation.Cut.Store(off && c.Config.WhenIsolated != IsolatedServes)
	c.setWatch()
	if off {
		c.Stats.Isolations.Add(1)
		c.Config.Logger.Warn("isolated: this node has lost contact with more than half of the members", "event", eventIsolated, "namespace", c.Config.Namespace, "then", c.Config.WhenIsolated.String())
	} else {
		c.Config.Logger.Info("no longer isolated", "event", eventConnected, "namespace", c.Config.Namespace)
	}
}
