package peer

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/weircache/weir/codec"
)

// DefaultDrainTimeout is the value of Config.DrainTimeout when it is 0.
const DefaultDrainTimeout = 10 * time.Second

// drain lets the namespaces hand off their entries, once the others know that this node leaves. It returns when they are
// done, after DrainTimeout, or when the node closes.
func (n *Node) drain() {
	if n.cfg.DrainTimeout < 0 {
		return
	}
	ctx, cancel := context.WithTimeout(n.ctx, n.cfg.DrainTimeout)
	defer cancel()
	var wg sync.WaitGroup
	n.mu.Lock()
	for _, h := range n.namespaces {
		if d, ok := h.(codec.Drainer); ok {
			wg.Go(func() { d.Drain(ctx) })
		}
	}
	dropped := slices.Sorted(maps.Keys(n.dropped))
	n.mu.Unlock()
	if len(dropped) > 0 {
		n.logger.Warn("caches were closed before the node leaves: they hand nothing over", "namespaces", dropped)
	}
	wg.Wait()
}

// withdraw gives up this node's share of the caps before the others may take it over. No new load starts, and withdraw
// waits for running loads as long as they may take.
func (n *Node) withdraw() {
	n.withdrawn.Store(true)
	tick := time.NewTicker(withdrawTick)
	defer tick.Stop()
	for began := time.Now(); ; {
		running, longest := n.loads()
		switch {
		case running == 0:
			return
		case time.Since(began) > longest:
			n.logger.Warn("the node leaves with loads that have overrun their timeout: until this process ends the origin may have more than its cap", "loads", running)
			return
		}
		select {
		case <-tick.C:
		case <-n.ctx.Done():
			return
		}
	}
}

// withdrawTick is how often a leaving node checks whether its loads have ended.
const withdrawTick = 20 * time.Millisecond

// loads returns how many loads the namespaces are running, and how long the longest of them may take.
func (n *Node) loads() (running int, longest time.Duration) {
	var counters []codec.LoadCounter
	n.mu.Lock()
	for _, h := range n.namespaces {
		if c, ok := h.(codec.LoadCounter); ok {
			counters = append(counters, c)
		}
	}
	n.mu.Unlock()
	for _, c := range counters {
		more, most := c.Loads()
		running += more
		longest = max(longest, most)
	}
	return running, longest
}
