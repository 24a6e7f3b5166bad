package journal

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/weircache/weir/codec"
)

// A Part names what an invalidation covers.
type Part struct {
	Scope codec.Scope
	Names []string // keys or tags; one "" for ScopeAll
}

// A Wait waits until all members have applied invalidations that this cache starts. Journal.mu guards it until done is
// closed.
type Wait struct {
	waits  span             // the numbers that it waits for; while open, the ones started so far
	open   bool             // not all of it is started, so no member can have confirmed it
	failed map[string]error // members that are gone
	done   chan struct{}    // closed when all others have confirmed
}

// NewWait returns a Wait for Begin. It waits for nothing yet.
func NewWait() *Wait { return &Wait{done: make(chan struct{})} }

// by reports whether a member has confirmed all that w waits for.
func (w *Wait) by(m *Member) bool { return !w.open && m.confirmed.has(w.waits) }

func (w *Wait) fail(name string, err error) {
	if w.failed == nil {
		w.failed = make(map[string]error)
	}
	w.failed[name] = err
}

// Unconfirmed says which members have not confirmed that they have applied invalidations.
type Unconfirmed struct {
	Members []string // in order
	Err     error    // why, for each of them
}

func (e *Unconfirmed) Error() string {
	return fmt.Sprintf("weir: not confirmed by %s: %v", strings.Join(e.Members, ", "), e.Err)
}

// Unwrap returns e.Err.
func (e *Unconfirmed) Unwrap() error { return e.Err }

// Begin applies invalidations here, in as many steps as needed, and has the pumps send them. w then waits for them; nil
// means that no caller waits. version, if not 0, is the origin's version of the keys. Begin keeps copies of the names. It
// delays while a reachable member is far behind, until ctx ends, and then begins the rest at once. last is the mark of
// the last invalidation; its Seq is 0 if there are no names.
func (j *Journal) Begin(ctx context.Context, w *Wait, version uint64, parts ...Part) (last codec.Mark) {
	left := 0
	for _, p := range parts {
		left += len(p.Names)
	}
	if j.peers == nil {
		w = nil
	}
	for _, p := range parts {
		of := version
		if p.Scope != codec.ScopeKeys { // a version only applies to keys; in other scopes retire.go uses the field
			of = 0
		}
		for names := p.Names; len(names) > 0; {
			n, size := firstFrame(names)
			var some []string
			if p.Scope != codec.ScopeAll {
				some = make([]string, n)
				for i := range some {
					some[i] = strings.Clone(names[i]) // the fences and the log keep it
				}
			}
			names, left = names[n:], left-n
			j.lockPaced(ctx, int64(size))
			if w != nil && last.Seq == 0 {
				w.waits.first, w.open = j.log.own().top+1, true
				j.waits = append(j.waits, w)
			}
			last = j.begin(p.Scope, some, of)
			if w != nil {
				if w.waits.last, w.open = last.Seq, left > 0; !w.open {
					j.endWaits()
				}
			}
			j.mu.Unlock()
		}
	}
	return last
}

// BeginKey starts an invalidation of one key for which nobody waits. It keeps key.
func (j *Journal) BeginKey(key string, version uint64) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.begin(codec.ScopeKeys, []string{key}, version)
}

// firstFrame returns how many of the names fit into one frame, and their bytes.
func firstFrame(names []string) (n, size int) {
	for n < len(names) && n < codec.MaxKeysPerFrame && (n == 0 || size+len(names[n]) <= frameBytes) {
		size += len(names[n])
		n++
	}
	return n, size
}

// lockPaced locks mu to start size more bytes of names. It waits while these and what a reachable member has not
// confirmed would take more than half of the log, but not after ctx has ended: whatever fell out of the log would cost that
// member a flush. It returns with mu held, so that of many callers each counts those that started before it.
func (j *Journal) lockPaced(ctx context.Context, size int64) {
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		j.mu.Lock()
		if ctx.Err() != nil || !j.isBehind(size) {
			return
		}
		j.mu.Unlock()
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
			t.Stop()
		}
	}
}

// isBehind reports whether size more bytes of names would take the backlog of a reachable member beyond half of the log.
// The caller holds mu.
func (j *Journal) isBehind(size int64) bool {
	l, half := &j.log, j.log.limit.Bytes/2
	if l.bytes+size <= half {
		return false
	}
	for _, m := range j.members {
		if m.err == nil && m.via == "" && m.confirmed.all < l.own().top && l.backlog(m.confirmed.all)+size > half {
			return true
		}
	}
	return false
}

// Wait waits until every member has confirmed what w waits for. If some have not when ctx or the cache ends, the error
// is an *Unconfirmed.
func (j *Journal) Wait(ctx context.Context, w *Wait) error {
	for {
		over := false
		select {
		case <-w.done:
		case <-ctx.Done():
			over = true
		case <-j.ctx.Done():
			over = true
		}
		j.mu.Lock()
		if !j.isOutstanding(ctx, w, over) {
			j.waits = slices.DeleteFunc(j.waits, func(other *Wait) bool { return other == w })
			j.mu.Unlock()
			return w.err()
		}
		w.done = make(chan struct{}) // a member has come into the view meanwhile
		j.waits = append(j.waits, w)
		j.endWaits()
		j.mu.Unlock()
	}
}

// WaitAll waits until every member has confirmed all that this cache has started so far. Its error is that of Wait.
func (j *Journal) WaitAll(ctx context.Context) error {
	j.mu.Lock()
	w := NewWait()
	w.waits = upTo(j.log.own().top)
	if w.waits.last == 0 || j.peers == nil {
		j.mu.Unlock()
		return nil
	}
	j.waits = append(j.waits, w)
	j.endWaits()
	for _, m := range j.members {
		j.startPump(m)
	}
	j.mu.Unlock()
	return j.Wait(ctx, w)
}

// isOutstanding reports whether a member has not yet confirmed what w waits for. over means that the wait has ended:
// such members then count as failed. The caller holds mu.
func (j *Journal) isOutstanding(ctx context.Context, w *Wait, over bool) (any bool) {
	for name, m := range j.members {
		switch {
		case w.by(m):
		case !over:
			any = true
		case j.ctx.Err() != nil:
			w.fail(name, errors.Join(j.closed, m.err))
		default:
			w.fail(name, errors.Join(ctx.Err(), m.err))
		}
	}
	return any
}

// err returns the error that names the members that have not confirmed, or nil if all have.
func (w *Wait) err() error {
	if len(w.failed) == 0 {
		return nil
	}
	e := new(Unconfirmed)
	for name := range w.failed {
		e.Members = append(e.Members, name)
	}
	slices.Sort(e.Members)
	var errs []error
	for _, name := range e.Members {
		errs = append(errs, fmt.Errorf("%s: %w", name, w.failed[name]))
	}
	e.Err = errors.Join(errs...)
	return e
}

// endWaits ends each Wait that all members have confirmed. The caller holds mu.
func (j *Journal) endWaits() {
	if len(j.waits) == 0 {
		return
	}
	j.applyView() // members that came into the view meanwhile count as well
	least, gaps := ^uint64(0), false
	for _, m := range j.members {
		least, gaps = min(least, m.confirmed.all), gaps || len(m.confirmed.beyond) > 0
	}
	n := 0
	for _, w := range j.waits {
		if !w.open && (w.waits.last <= least || gaps && j.byAll(w)) {
			close(w.done)
			continue
		}
		j.waits[n] = w
		n++
	}
	clear(j.waits[n:])
	j.waits = j.waits[:n]
}

// byAll reports whether every member has confirmed what w waits for. The caller holds mu.
func (j *Journal) byAll(w *Wait) bool {
	for _, m := range j.members {
		if !w.by(m) {
			return false
		}
	}
	return true
}

// awaited returns the first number that a Wait waits for and that m has not confirmed. ok is false if there is none. The
// caller holds mu.
func (j *Journal) awaited(m *Member) (first uint64, ok bool) {
	for _, w := range j.waits {
		if n := m.confirmed.missing(w.waits); n <= w.waits.last && (!ok || n < first) {
			first, ok = n, true
		}
	}
	return first, ok
}
