package owner

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/governor"
	"github.com/weircache/weir/tier/internal/placement"
	"github.com/weircache/weir/tier/internal/store"
)

// MaxRunning is how many loads of one key may run at once on its owner: a live one, and
// one that was fenced or has overrun its timeout.
const MaxRunning = 2

// flights holds the fills in progress: at most one live flight for a key.
type flights struct {
	shards [64]flightShard
}

type flightShard struct {
	mu sync.Mutex // guards m, its slots, and their flights until they are done
	m  map[string]*flightSlot
}

// flightSlot holds one key's flight and loads. It is removed when it has neither.
type flightSlot struct {
	live    *Flight
	places  int           // taken by loads that run, or wait for a permit
	running int           // loads that began and have not returned
	freed   chan struct{} // closed when places falls; nil: nobody waits for that
}

// A Flight is a fill in progress. Its result is read after Done is closed.
type Flight struct {
	Key    string
	Hash   uint64
	cause  placement.Cause
	prev   *store.Entry // the copy that the starter saw, nil: none
	chain  []uint64
	short  bool // filled as a successor: keep it for a short time only
	ticket governor.Ticket
	group  atomic.Pointer[group] // whose load and permit it shares; nil: it has its own
	from   codec.Trace           // the trace of the read that started it, if it is traced
	Done   chan struct{}
	loads  atomic.Bool // it has finished asking the key's previous owner
	Kept   atomic.Bool // a caller that waited here keeps the result near

	// guarded by the shard's mu
	loading   bool
	stamp     uint64        // the fence clock when the load began
	wide      uint64        // the tag clock then
	began     int64         // when the load began
	settled   bool          // a goroutine has taken on finishing it
	tags      []uint32      // that its loader has declared so far
	dated     bool          // a tag of it was invalidated after the load began
	overtaken chan struct{} // closed when dated becomes true; nil: nobody waits for that
	callers   int64         // that wait for it
	wanted    bool          // a caller has waited for it

	next *Flight // the flight for callers that may not use its private result; nil: none has woken. Guarded by the shard's mu

	Res Result // written before Done is closed
}

// Result is how a flight ended. With err set, e may hold a copy that StaleIfError allows.
type Result struct {
	E    *store.Entry
	fill Loading // the run of the loader that brought it, with its value; nil: e's value is to be decoded
	Err  error
	// Private means that E is for the read that started the flight, and for reads that began before the flight did.
	Private bool
}

// NewFlights returns flights of which none is live.
func NewFlights() *flights {
	t := new(flights)
	for i := range t.shards {
		t.shards[i].m = make(map[string]*flightSlot)
	}
	return t
}

func (t *flights) shard(hash uint64) *flightShard { return &t.shards[hash%64] }

// Join returns the key's live flight, or makes the one from start live. waits: the caller waits for it. before, if not
// nil, is a flight that the caller has joined and that ended with a private result. Join then returns before's next,
// even if that has ended. If before has no next yet, the flight that is returned becomes it.
func (t *flights) Join(hash uint64, key string, waits bool, before *Flight, start func() *Flight) (f *Flight, started bool) {
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
		slot = new(flightSlot)
	} else if slot.live != nil {
		slot.live.count(waits)
		return slot.live, false
	}
	f = start()
	f.count(waits)
	slot.live = f
	s.m[f.Key] = slot
	return f, true
}

// count counts one more caller. The caller holds the shard's mu, or f is not shared yet.
func (f *Flight) count(waits bool) {
	if waits {
		f.callers++
		f.wanted = true
	}
}

// leave counts one waiting caller less.
func (t *flights) leave(f *Flight) {
	s := t.shard(f.Hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	f.callers--
}

// pause counts f's load as ended, with another one to follow. It returns false if f has been finished or detached, so
// that none may follow.
func (t *flights) pause(f *Flight) bool {
	s := t.shard(f.Hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	slot := s.m[f.Key]
	if f.settled || slot.live != f {
		return false
	}
	f.loading = false // a fence that comes now precedes the next load
	s.ended(f.Key, slot)
	return true
}

// reserve takes f's place among the loads of its key. That comes before f asks for a permit, so that a flight that
// waits for its place keeps no permit from other keys. If MaxRunning places are taken, reserve waits for a free one,
// for patience at most and until ctx ends.
func (t *flights) reserve(ctx context.Context, f *Flight, patience time.Duration) error {
	s := t.shard(f.Hash)
	var timer *time.Timer // set when there is something to wait for
	for {
		s.mu.Lock()
		if f.settled { // its time ended while it waited to try again: its slot may be gone
			s.mu.Unlock()
			return context.DeadlineExceeded
		}
		slot := s.m[f.Key]
		if slot.places < MaxRunning {
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

// begin takes the stamp of f's load, which has its place and its permit. It returns false if f has been finished in the
// meantime, so that no load is needed.
func (t *flights) begin(f *Flight, fn *fence.Fences, now func() int64) bool {
	s := t.shard(f.Hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.settled {
		return false
	}
	f.loading = true
	s.m[f.Key].running++
	f.stamp, f.wide, f.began = fn.Stamp(f.Hash), fn.TagClock(), now()
	return true
}

// returned counts f's load as ended.
func (t *flights) returned(f *Flight) {
	s := t.shard(f.Hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ended(f.Key, s.m[f.Key])
}

// vacate gives back the place of f's load, which has not begun.
func (t *flights) vacate(f *Flight) {
	s := t.shard(f.Hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leave(f.Key, s.m[f.Key])
}

// ended counts one load of the slot as returned. The caller holds s.mu.
func (s *flightShard) ended(key string, slot *flightSlot) {
	slot.running--
	s.leave(key, slot)
}

// leave frees one place of the slot. The caller holds s.mu.
func (s *flightShard) leave(key string, slot *flightSlot) {
	slot.places--
	if slot.freed != nil {
		close(slot.freed)
		slot.freed = nil
	}
	s.drop(key, slot)
}

// settle reports whether the caller must finish f. It returns true once.
func (t *flights) settle(f *Flight) bool {
	s := t.shard(f.Hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	first := !f.settled
	f.settled = true
	return first
}

// Finish publishes the result of a settled flight to all waiting callers. It returns their number; doomed: there were
// some, and all have left. If the result holds a copy from before the load, valid says whether no fence covers the
// copy. It is called while no caller can join, so that a caller that comes after a fence never gets what the fence
// covers. valid takes no lock of the flights.
func (t *flights) Finish(f *Flight, res Result, valid func(e *store.Entry) bool) (callers int64, doomed bool) {
	s := t.shard(f.Hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if res.E != nil && res.Err != nil && !valid(res.E) {
		res.E = nil
	}
	if slot := s.m[f.Key]; slot != nil && slot.live == f {
		slot.live = nil
		s.drop(f.Key, slot)
	}
	f.Res = res
	close(f.Done)
	return f.callers, f.wanted && f.callers == 0
}

// Skip ends a flight that has not begun to load with e, which is a copy or an error, if valid says that no fence covers
// e, as in Finish.
func (t *flights) Skip(f *Flight, e *store.Entry, valid func(e *store.Entry) bool) bool {
	s := t.shard(f.Hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if !valid(e) {
		return false
	}
	if slot := s.m[f.Key]; slot.live == f {
		slot.live = nil
		s.drop(f.Key, slot)
	}
	f.settled = true
	if f.Res.E = e; e.Flags&store.Failed != 0 {
		f.Res = Result{Err: e.Err()}
	}
	close(f.Done)
	return true
}

// Detach makes later callers of key start a new flight if the live one began to load before the fence with the given
// stamp.
func (t *flights) Detach(key string, hash, stamp uint64) {
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

// detachAll detaches every live flight, whatever its key, that a fence covers.
func (t *flights) detachAll(fn *fence.Fences) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for key, slot := range s.m {
			if f := slot.live; f != nil && f.loading && fn.Covers(key, f.Hash, f.stamp) {
				slot.live = nil
				s.drop(key, slot)
			}
		}
		s.mu.Unlock()
	}
}

// declare notes that what f loads has a tag, and detaches f if the tag was invalidated since its load began.
func (t *flights) declare(f *Flight, tag uint32, fn *fence.Fences) {
	s := t.shard(f.Hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if f.tags = append(f.tags, tag); f.loading && fn.After(f.tags[len(f.tags)-1:], f.wide) {
		s.overtake(f)
	}
}

// detachTags detaches every live flight that has a tag, as far as its tags are known, that was invalidated since its
// load began.
func (t *flights) detachTags(fn *fence.Fences) {
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

// overtake detaches a flight, and wakes the callers that may not use its result. The caller holds s.mu.
func (s *flightShard) overtake(f *Flight) {
	if f.dated {
		return
	}
	if f.dated = true; f.overtaken != nil {
		close(f.overtaken)
	}
	if slot := s.m[f.Key]; slot != nil && slot.live == f {
		slot.live = nil
		s.drop(f.Key, slot)
	}
}

// passed returns a channel that is closed when a tag of f turns out to have been invalidated between the start of f's
// load and the start of a read, when the tag clock showed wide. nil: that cannot happen.
func (t *flights) passed(f *Flight, wide uint64) <-chan struct{} {
	if wide == 0 { // no tag was ever invalidated
		return nil
	}
	s := t.shard(f.Hash)
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
func (s *flightShard) drop(key string, slot *flightSlot) {
	if slot.live == nil && slot.places == 0 {
		delete(s.m, key)
	}
}

// Size returns how many flights are live and how many loads run.
func (t *flights) Size() (live, running int) {
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

// depthOf returns the depth of a flight that is started for a read with the given chain and patience: how many loads
// wait for it.
func depthOf(chain []uint64, until int64) int {
	if until == noWait {
		return 0
	}
	return len(chain)
}
