package peertest

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/weircache/weir/tier"
)

// TestStarvedOwnerIsNotBypassed starves an owner of its sockets for two seconds, amid a storm of callers that want its cold
// keys. The others must not declare it dead: the callers wait, and each key is loaded once, by its owner.
func TestStarvedOwnerIsNotBypassed(t *testing.T) {
	Bubble(t, func(t *testing.T) {
		c, stop := whole(t, Options{Seed: 4, Nodes: 3, Freshness: steady, Concurrency: 50})
		defer stop()
		keys := ownedBy(c, 0, 41)
		for i := range c.hosts {
			c.Read(i, keys[40], tier.AnyAge, c.patience()) // each node has a connection
		}
		old := len(c.History.loads)
		c.Net.Starve(c.IP(0), true)
		var wg sync.WaitGroup
		for i := 1; i < len(c.hosts); i++ {
			for _, key := range keys[:40] {
				for range 5 {
					wg.Go(func() { c.Get(i, key, 10*time.Second) })
				}
			}
		}
		sleep(t.Context(), 2*time.Second)
		c.Net.Starve(c.IP(0), false)
		wg.Wait()
		loads := make(map[string]int)
		for _, l := range c.History.loads[old:] {
			loads[l.Key+" on "+l.Node]++
		}
		for _, key := range keys[:40] {
			if n := loads[fmt.Sprintf("%s on n0", key)]; n != 1 {
				t.Errorf("%s was loaded %d times by its owner", key, n)
			}
		}
		if len(loads) != 40 {
			t.Errorf("40 keys, loads: %v", loads)
		}
		for _, v := range c.History.Check(c.Rules()) {
			t.Error(v)
		}
	})
}
