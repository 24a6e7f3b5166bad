package tier

import (
	"context"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/follow"
	"github.com/weircache/weir/tier/internal/hotkeys"
	"github.com/weircache/weir/tier/internal/near"
	"github.com/weircache/weir/tier/internal/owner"
	"github.com/weircache/weir/tier/internal/store"
)

// A Cache serves one namespace. It is made by New and safe for concurrent use.
type Cache[V any] struct {
	core // all that does not depend on V

	values     values[V]
	cloneValue func(V) V                // nil: callers share values
	near       *near.Tier[nearEntry[V]] // nil: no near tier
	weigh      func(V) int64            // what a value refers to, in bytes of memory
	calls      *callTable[V]
	multiGets  multiGetPool[V]
}

// nearEntry is a near copy. It never changes. The fields that a hit reads come first.
type nearEntry[V any] struct {
	until    int64  // end of the lease, ns on the cache's clock: never served from then on
	checked  uint64 // the fence clock up to which no fence covers it
	size     int32  // bytes of the value's encoding
	slot     uint16 // of the fences
	notFound bool
	why      store.StaleReason // why it is served, if it is past its soft expiry
	tags     *fence.TagSet     // nil: none
	value    V
	loaded   int64  // start of the load
	soft     int64  // soft expiry
	etag     uint64 // the owner's, 0: unknown
}

// Close stops the cache: new calls return ErrClosed, waiting calls are answered, and loads are cancelled. It waits for
// everything that the cache started. If ctx ends first, Close returns an error that says how many loads have not
// returned, and a second call waits again. Stored values are dropped.
func (c *Cache[V]) Close(ctx context.Context) error {
	first := c.own.Life.Close()
	if first && c.unregister != nil {
		c.unregister()
	}
	c.own.Cancel()
	if first && c.near != nil {
		c.near.Close() // Get reads the near tier before it checks whether the cache is closed
	}
	err := c.own.Life.Wait(ctx)
	if err != nil {
		_, running := c.own.Flights.Size()
		err = fmt.Errorf("weir: cache %q: closing: %d loads have not returned: %w", c.cfg.Namespace, running, err)
	}
	if first {
		c.origin.detach()
		c.own.Owned.Close()
	}
	return err
}

// Namespace returns the cache's name.
func (c *Cache[V]) Namespace() string { return c.cfg.Namespace }

// Freshness returns the contract in force, defaults filled in.
func (c *Cache[V]) Freshness() Freshness { return c.cfg.Freshness }

// core is the part of a cache that does not know the type of its values, so that it is compiled once, and not for each
// type of value.
type core struct {
	cfg    options
	own    owner.Owner
	origin *SharedOrigin // whose governor admits the loads
	sender sender        // nil: Cluster is not a sender
	// tokenOf is the namespace in tokens.
	tokenOf uint64

	nearTier   nearStats
	metrics    *collector
	followed   follow.Counts
	hot        hotkeys.Keeper
	drilling   atomic.Pointer[drilling] // the drill under way; nil: none
	lastDrill  atomic.Pointer[DrillReport]
	unregister func()
}

// nearStats is what core needs of the near tier. It works on a nil *near.Tier.
type nearStats interface {
	Stats() near.Stats
}

// options are the fields of a Config that this package needs after New, defaults filled in. What only the owner of the
// keys needs is in owner.Config.
type options struct {
	Cluster           Cluster
	Namespace         string
	Freshness         Freshness
	Origin            Origin
	OwnedBytes        int64
	WhenIsolated      WhenIsolated
	InvalidateTimeout time.Duration
	HotKeysFile       string
	Logger            *slog.Logger
	Now               func() time.Time
}
