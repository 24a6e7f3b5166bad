package owner

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/store"
)

// ErrNoPrevious is what KeepPrevious returns if there is nothing to keep.
var ErrNoPrevious = errors.New("weir: KeepPrevious, but there is no previous value")

// Run is what a run of a loader has beside the value.
type Run struct {
	owner  *Owner
	flight *Flight
	Prev   *store.Entry
	TTL    time.Duration
	Keep   bool
	Drop   bool // the value is only for the waiting callers

	tags    []uint32
	TagErr  error
	Version uint64
	Stale   *Staleness // nil: Freshness applies

	// set by a batch loader
	Err  error
	Done bool
}

// NewRun returns a run of the loader for a flight.
func NewRun(c *Owner, f *Flight) Run { return Run{owner: c, flight: f, Prev: f.prev} }

// Loading is a run of a loader for code that does not know the type of its value, which stays in it.
type Loading interface {
	State() *Run
	// Load runs the Loader.
	Load(ctx context.Context) error
	// Pack encodes the value, and decides what callers get.
	Pack() ([]byte, error)
	// Unpack decodes what callers get from b.
	Unpack(b []byte) error
}

func (f *Run) versionOf() uint64 {
	if f.Version == 0 && f.Keep {
		return f.Prev.Version
	}
	return f.Version
}

// AddTag gives the value a tag. A flight whose tag was invalidated since its load began is detached.
func (f *Run) AddTag(hash uint32) {
	switch {
	case slices.Contains(f.tags, hash):
	case len(f.tags) >= codec.MaxTags:
		f.TagErr = fmt.Errorf("%w: more than %d: give the value fewer, wider ones", ErrBadTag, codec.MaxTags)
	default:
		f.tags = append(f.tags, hash)
		if f.flight != nil {
			f.owner.Flights.declare(f.flight, hash, f.owner.Fences)
		}
	}
}

// tagged returns the tags of what the load returned, or the error that says why it has none.
func (f *Run) tagged(wide uint64) (*fence.TagSet, error) {
	if f.Keep {
		for _, hash := range f.Prev.Tags.List() {
			f.AddTag(hash)
		}
	}
	return fence.TagsAt(f.tags, wide), f.TagErr
}
