package peer

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/weircache/weir/codec"
)

// DefaultDrainTimeout is Config.DrainTimeout where it is 0.
const DefaultDrainTimeout = 10 * time.Second

// drain lets the namespaces hand over what they have, once the others know that this node leaves. It
// returns when they are done, after DrainTimeout, or when the node closes.
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
