package wire

import (
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/internal/simtime"
	"github.com/weircache/weir/peer/internal/wiretest"
)

// testOutbox returns an outbox whose connection nobody reads, with a backlog of the given limit.
func testOutbox(t *testing.T, limit int, all int64) *outbox {
	t.Helper()
	near, far := net.Pipe()
	t.Cleanup(func() { _, _ = near.Close(), far.Close() })
	var here, sum atomic.Int64
	o := newOutbox(near, limit, &here, &sum, func(error) {})
	o.store = &backlog{limit: all, full: func() {}}
	return o
}

// TestRoomInAnOutbox checks that each connection may queue its own limit, that all together may queue the backlog's limit
// beyond the floor of each, and that what a connection has queued itself counts once.
func TestRoomInAnOutbox(t *testing.T) {
	const floor, limit, all = outboxFloor, 10 * outboxFloor, 4 * outboxFloor
	for _, c := range []struct {
		name   string
		queued int   // here
		others int64 // beyond the floor, elsewhere
		most   int   // that fits beside it
	}{
		{"alone", 0, 0, floor + all}, {"beside itself", 2 * floor, 0, floor + all - 2*floor}, {"beside others", 0, all - 10, floor + 10},
		{"the floor, whatever the others have", 0, 2 * all, floor}, {"the rest of the floor", 100, 2 * all, floor - 100},
	} {
		o := testOutbox(t, limit, all)
		o.store.bytes.Store(c.others)
		o.lock()
		o.buf = make([]byte, c.queued)
		o.unlock()
		if fits, more := o.room(c.most), o.room(c.most+1); fits != nil || more != errOutboxFull {
			t.Errorf("%s: %d bytes: %v; one more: %v", c.name, c.most, fits, more)
		}
	}
	o := testOutbox(t, limit, 100*limit)
	if fits, more := o.room(limit), o.room(limit+1); fits != nil || more != errOutboxFull {
		t.Errorf("the connection's limit: %v; one more: %v", fits, more)
	}
	o.close()
	if err := o.room(0); err != net.ErrClosed {
		t.Errorf("closed: %v", err)
	}
}

// TestSinceWhenNothingIsRead checks since when a peer is said to read nothing: since bytes beyond the floor wait, or since
// it last accepted any.
func TestSinceWhenNothingIsRead(t *testing.T) {
	simtime.Test(t, func(t *testing.T) {
		o := testOutbox(t, 1<<20, 1<<20)
		step := func(do func()) time.Time {
			wiretest.Pause(t.Context(), time.Second)
			o.lock()
			do()
			o.unlock()
			synctest.Wait()
			return o.storedSince()
		}
		if at := step(func() { o.buf = make([]byte, outboxFloor) }); !at.IsZero() {
			t.Error("the floor counts")
		}
		if at := step(func() { o.count(1) }); !at.IsZero() {
			t.Error("progress with nothing queued counts")
		}
		began := step(func() { o.buf = make([]byte, outboxFloor+1) })
		if !began.Equal(time.Now()) {
			t.Errorf("since %v ago", time.Since(began))
		}
		if at := step(func() { o.count(0) }); !at.Equal(began) {
			t.Error("a write that the peer has not accepted counts as progress")
		}
		if at := step(func() { o.count(1) }); !at.Equal(time.Now()) {
			t.Errorf("after progress: since %v ago", time.Since(at))
		}
		if !o.stuckSince().IsZero() {
			t.Error("no sender waits for room")
		}
		if at := step(func() { o.buf = nil }); !at.IsZero() || o.store.bytes.Load() != 0 {
			t.Errorf("with nothing left: since %v, %d bytes", at, o.store.bytes.Load())
		}
	})
}

// TestLargeBuffersAreNotKept checks that a write buffer is used again, unless it has grown too large.
func TestLargeBuffersAreNotKept(t *testing.T) {
	for size, kept := range map[int]bool{1: true, outboxKeep: true, outboxKeep + 1: false} {
		o := testOutbox(t, 1<<20, 1<<20)
		o.recycle(make([]byte, size))
		if got := cap(o.spare) == size; got != kept {
			t.Errorf("%d bytes: kept %v", size, got)
		}
	}
}

// TestBudgetIsExact checks that the budget of bytes in flight can be used up, and not exceeded.
func TestBudgetIsExact(t *testing.T) {
	d := New(Config{Budget: 10})
	if !d.reserve(10) || d.reserve(1) {
		t.Error("the budget is not what is given out")
	}
	if d.unreserve(10); !d.reserve(4) || !d.reserve(6) || d.flying.Load() != 10 {
		t.Errorf("%d bytes are counted", d.flying.Load())
	}
}

// TestPausesVary checks that a pause is between half of its length and all of it, and takes both ends.
func TestPausesVary(t *testing.T) {
	d := New(Config{Seed: 1})
	seen := make(map[time.Duration]bool)
	for range 1000 {
		seen[d.jitter(4)] = true
	}
	if len(seen) != 3 || !seen[2] || !seen[3] || !seen[4] {
		t.Errorf("seen: %v", seen)
	}
}
