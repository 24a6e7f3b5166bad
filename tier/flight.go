package tier

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/governor"
	"github.com/weircache/weir/tier/internal/placement"
	"github.com/weircache/weir/tier/internal/store"
)

// maxRunning is how many loads of one key may run at once on its owner: a live one, and
// one that was fenced or has overrun its timeout.
const maxRunning = 2

// flights holds the fills in progress: at most one live flight for a key.
type flights[V any] struct {
	shards [64]flightShard[V]
}

type flightShard[V any] struct {
	mu sync.Mutex // guards m, its slots, and their flights until they are done
	m  map[string]*flightSlot[V]
}

// flightSlot is one key's place. It is removed when it has neither flight nor load.
type flightSlot[V any] struct {
	live    *flight[V]
	places  int           // taken by loads that run, or wait for a permit
	running int           // loads that began and have not returned
	freed   chan struct{} // closed when places falls; nil: nobody waits for that
}

// A flight is a fill in progress. Its result is read after done is closed.
type flight[V any] struct {
	key    string
	hash   uint64
	cause  placement.Cause
	prev   *store.Entry // the copy that the starter saw, nil: none
	chain  []uint64
	short  bool // filled as a successor: keep it for a short time only
	ticket governor.Ticket
	group  atomic.Pointer[group[V]] // whose load and permit it shares, nil: it has its own
	from   Trace                    // the work of the read that started it, if that is followed
	done   chan struct{}
	loads  atomic.Bool // it is past asking the key's previous owner
	kept   atomic.Bool // one of those who waited here keeps its result near

	// guarded by the shard's mu
	loading   bool
	stamp     uint64        // the fence clock when the load began
	wide      uint64        // the tag clock then
	began     int64         // when the load began
	settled   bool          // somebody has taken it on himself to finish it
	tags      []uint32      // what its loader has told so far
	dated     bool          // a tag of it was invalidated after the load began
	overtaken chan struct{} // closed when dated becomes true; nil: nobody waits for that
	callers   int64         // who wait for it
	wanted    bool          // somebody has waited for it

	next *flight[V] // where those go on that may not use its private result; nil: nobody has woken. Guarded by the shard's mu

	res result[V] // written before done is closed
}

// result is how a flight ended. With err set, e may hold a copy that StaleIfError allows.
type result[V any] struct {
	e     *store.Entry
	value V
	typed bool // value holds e's value
	err   error
	// private: e is for the read that started the flight, and for those that began before it did.
	private bool
}

func newFlights[V any]() *flights[V] {
	t := new(flights[V])
	for i := range t.shards {
		t.shards[i].m = make(map[string]*flightSlot[V])
	}
	return t
}

func (t *flights[V]) shard(hash uint64) *flightShard[V] { return &t.shards[hash%64] }

// join returns the key's live flight, or makes start's the live one. waits: the caller waits for it. before, if not nil,
// is the flight that the caller has joined and that ended with a private result: its next is returned then, even if that has
// ended, and if it has none yet, the flight that is returned becomes it.
func (t *flights[V]) join(hash uint64, key string, waits bool, before *flight[V], start func() *flight[V]) (f *flight[V], started bool) {
	s := t.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if before != nil {
		if before.next != nil {
			before.next.count(waits)
			return before.next, false
		}
		defer func() { before.next = f }()
	}
	slot := s.m[key]
	if slot == nil {
		slot = new(flightSlot[V])
	} else if slot.live != nil {
		slot.live.count(waits)
		return slot.live, false
	}
	f = start()
	f.count(waits)
	slot.live = f
	s.m[f.key] = slot
	return f, true
}

// count counts one more caller. The caller holds the shard's mu, or has f for himself.
func (f *flight[V]) count(waits bool) {
	if waits {
		f.callers++
		f.wanted = true
	}
}

// leave counts one caller less.
func (t *flights[V]) leave(f *flight[V]) {
	s := t.shard(f.hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	f.callers--
}

// pause counts f's load as ended, but for one that is to follow; false: f has been finished or
// detached, so that none may.
func (t *flights[V]) pause(f *flight[V]) bool {
	s := t.shard(f.hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	slot := s.m[f.key]
	if f.settled || slot.live != f {
		return false
	}
	f.loading = false // a fence that comes now is before the next load
	s.ended(f.key, slot)
	return true
}

// reserve takes f's place among the loads of its key, before it asks for a permit: a flight that waits for its place
// keeps no permit from other keys. With maxRunning places taken it waits for one to come free, for patience at most and
// until ctx ends.
func (t *flights[V]) reserve(ctx context.Context, f *flight[V], patience time.Duration) error {
	s := t.shard(f.hash)
	var timer *time.Timer // set when there is something to wait for
	for {
		s.mu.Lock()
		if f.settled { // its time ended while it waited to try again: its slot may be gone
			s.mu.Unlock()
			return context.DeadlineExceeded
		}
		slot := s.m[f.key]
		if slot.places < maxRunning {
			slot.places++
			s.mu.Unlock()
			return nil
		}
		if slot.freed == nil {
			slot.freed = make(chan struct{})
		}
		freed := slot.freed
		s.mu.Unlock()
		if timer == nil {
			timer = time.NewTimer(patience)
			defer timer.Stop()
		}
		select {
		case <-freed:
		case <-timer.C:
			return context.DeadlineExceeded
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// begin takes the stamp of f's load, which has its place and its permit; false: f has been finished meanwhile, so that
// there is nothing to load for.
func (t *flights[V]) begin(f *flight[V], fn *fence.Fences, now func() int64) bool {
	s := t.shard(f.hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.settled {
		return false
	}
	f.loading = true
	s.m[f.key].running++
	f.stamp, f.wide, f.began = fn.Stamp(f.hash), fn.TagClock(), now()
	return true
}

// returned counts f's load as ended.
func (t *flights[V]) returned(f *flight[V]) {
	s := t.shard(f.hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended(f.key, s.m[f.key])
}

// vacate gives the place of f's load back, which has not begun.
func (t *flights[V]) vacate(f *flight[V]) {
	s := t.shard(f.hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leave(f.key, s.m[f.key])
}

// ended counts one load of the slot less. The caller holds s.mu.
func (s *flightShard[V]) ended(key string, slot *flightSlot[V]) {
	slot.running--
	s.leave(key, slot)
}

// leave counts one place less as taken. The caller holds s.mu.
func (s *flightShard[V]) leave(key string, slot *flightSlot[V]) {
	slot.places--
	if slot.freed != nil {
		close(slot.freed)
		slot.freed = nil
	}
	s.drop(key, slot)
}

// settle reports whether the caller is the one who has to finish f: true once.
func (t *flights[V]) settle(f *flight[V]) bool {
	s := t.shard(f.hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	first := !f.settled
	f.settled = true
	return first
}

// finish publishes the result of a settled flight to everyone who waits. It returns how
// many that are; doomed: there were some, and all have left. If the result holds a copy from before the load, valid says whether no fence
// covers that: it is asked while nobody can join, so that nobody who came after a
// fence gets what it covers. valid takes no lock of the flights.
func (t *flights[V]) finish(f *flight[V], res result[V], valid func(e *store.Entry) bool) (callers int64, doomed bool) {
	s := t.shard(f.hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if res.e != nil && res.err != nil && !valid(res.e) {
		res.e = nil
	}
	if slot := s.m[f.key]; slot != nil && slot.live == f {
		slot.live = nil
		s.drop(f.key, slot)
	}
	f.res = res
	close(f.done)
	return f.callers, f.wanted && f.callers == 0
}

// skip ends a flight that has not begun to load with a copy, or an error, that is there, if valid still
// says that no fence covers it, as in finish.
func (t *flights[V]) skip(f *flight[V], e *store.Entry, valid func(e *store.Entry) bool) bool {
	s := t.shard(f.hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !valid(e) {
		return false
	}
	if slot := s.m[f.key]; slot.live == f {
		slot.live = nil
		s.drop(f.key, slot)
	}
	f.settled = true
	if f.res.e = e; e.Flags&store.Failed != 0 {
		f.res = result[V]{err: e.Err()}
	}
	close(f.done)
	return true
}

// detach lets later callers of key start a new flight if the live one began to load
// before the fence with the given stamp.
func (t *flights[V]) detach(key string, hash, stamp uint64) {
	s := t.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	slot := s.m[key]
	if slot == nil || slot.live == nil || !slot.live.loading || slot.live.stamp >= stamp {
		return
	}
	slot.live = nil
	s.drop(key, slot)
}

// detachAll detaches, of all keys, the live flights that a fence covers.
func (t *flights[V]) detachAll(fn *fence.Fences) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for key, slot := range s.m {
			if f := slot.live; f != nil && f.loading && fn.Covers(key, f.hash, f.stamp) {
				slot.live = nil
				s.drop(key, slot)
			}
		}
		s.mu.Unlock()
	}
}

// declare notes that what f loads has a tag, and detaches f if the tag was invalidated since its load began.
func (t *flights[V]) declare(f *flight[V], tag uint32, fn *fence.Fences) {
	s := t.shard(f.hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.tags = append(f.tags, tag); f.loading && fn.After(f.tags[len(f.tags)-1:], f.wide) {
		s.overtake(f)
	}
}

// detachTags detaches the live flights of which a tag, as far as it is known, was invalidated since their loads began.
func (t *flights[V]) detachTags(fn *fence.Fences) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for _, slot := range s.m {
			if f := slot.live; f != nil && f.loading && (fn.After(f.tags, f.wide) || f.prev != nil && fn.After(f.prev.Tags.List(), f.wide)) {
				s.overtake(f)
			}
		}
		s.mu.Unlock()
	}
}

// overtake detaches a flight, and wakes the callers that may not have its result. The caller holds s.mu.
func (s *flightShard[V]) overtake(f *flight[V]) {
	if f.dated {
		return
	}
	if f.dated = true; f.overtaken != nil {
		close(f.overtaken)
	}
	if slot := s.m[f.key]; slot != nil && slot.live == f {
		slot.live = nil
		s.drop(f.key, slot)
	}
}

// passed is closed when a tag of f turns out to have been invalidated between the beginning of its load and that of a read,
// which was when the tag clock showed wide. nil: that cannot be.
func (t *flights[V]) passed(f *flight[V], wide uint64) <-chan struct{} {
	if wide == 0 { // no tag was ever invalidated
		return nil
	}
	s := t.shard(f.hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !f.loading || f.wide >= wide {
		return nil
	}
	if f.overtaken == nil {
		if f.overtaken = make(chan struct{}); f.dated {
			close(f.overtaken)
		}
	}
	return f.overtaken
}

// drop removes an empty slot. The caller holds s.mu.
func (s *flightShard[V]) drop(key string, slot *flightSlot[V]) {
	if slot.live == nil && slot.places == 0 {
		delete(s.m, key)
	}
}

// size is how many flights are live, and how many loads run.
func (t *flights[V]) size() (live, running int) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for _, slot := range s.m {
			if slot.live != nil {
				live++
			}
			running += slot.running
		}
		s.mu.Unlock()
	}
	return live, running
}

// depthOf is the depth of a flight that is started for a read with the given chain, and patience: how many loads
// wait for it.
func depthOf(chain []uint64, until int64) int {
	if until == noWait {
		return 0
	}
	return len(chain)
}
