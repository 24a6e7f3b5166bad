package wire

import (
	"errors"
	"net"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// WriteTimeout is how long one blocking write may make no progress before the connection counts as dead, because the
	// other side does not read.
	WriteTimeout = 10 * time.Second
	// outboxKeep is the largest write buffer, in bytes, that is kept for reuse.
	outboxKeep = 1 << 20
	// outboxFloor is how many bytes may wait for each connection, whatever waits for the others.
	outboxFloor = 64 << 10
	// flushRounds is how many rounds a caller writes for others before run takes over, so that the caller gets to its own
	// answer.
	flushRounds = 16
)

var errOutboxFull = errors.New("the queue to the peer is full")

// An outbox is the sending half of a connection. Every sender appends its bytes. The first one that finds no writer active
// writes for all, so that many small frames share one system call. Appending never blocks in a write: what the socket does
// not accept at once is left to the outbox's own goroutine, run.
type outbox struct {
	conn  net.Conn
	raw   syscall.RawConn  // nil: the connection is not a plain socket, and run does all writing
	tls   *secured         // seals what goes to conn; nil: conn is not secured
	limit int              // add rejects bytes beyond this number of waiting bytes
	fail  func(error)      // closes the connection; called without mu held
	sent  [2]*atomic.Int64 // count the bytes written
	store *backlog         // counts what waits for all connections; nil: unbounded

	mu      sync.Mutex // guards the rest
	buf     []byte     // waits to be written
	spare   []byte     // the buffer that is not in use
	rest    []byte     // what run still has to write before buf
	busy    bool       // a flusher or run is writing
	closed  bool
	drained chan struct{} // closed when bytes have been written; nil: nobody waits
	stored  int64         // bytes counted in store
	since   time.Time     // since when bytes are counted there and none of them has been written; zero: none are counted

	wake chan struct{} // tells run that there is a rest
	try  tryWrite      // belongs to the goroutine that set busy
}

func newOutbox(conn net.Conn, limit int, here, all *atomic.Int64, fail func(error)) *outbox {
	o := &outbox{conn: conn, limit: limit, sent: [2]*atomic.Int64{here, all}, fail: fail, wake: make(chan struct{}, 1)}
	if s, ok := conn.(*secured); ok {
		o.tls, o.conn = s, s.raw
		conn = s.raw
	}
	if sc, ok := conn.(syscall.Conn); ok && canTryWrite {
		if raw, err := sc.SyscallConn(); err == nil {
			o.raw = raw
			o.try.init()
		}
	}
	return o
}

// A backlog counts the bytes that wait in the outboxes of all connections beyond outboxFloor each. So peers that do not
// read hold a bounded part of this node's memory, however many there are.
type backlog struct {
	limit int64
	bytes atomic.Int64
	full  func() // called when a frame exceeds the limit: makes room by closing a connection; called without a lock
}

// lock and unlock guard buf and rest; unlock also counts their bytes. All changes go through these two methods.
func (o *outbox) lock() { o.mu.Lock() }
func (o *outbox) unlock() {
	if waits := int64(len(o.buf)+len(o.rest)) - outboxFloor; o.store != nil && (waits > 0 || o.stored > 0) {
		waits = max(waits, 0)
		o.store.bytes.Add(waits - o.stored)
		switch o.stored = waits; {
		case waits == 0:
			o.since = time.Time{}
		case o.since.IsZero():
			o.since = time.Now()
		}
	}
	o.mu.Unlock()
}

// storedSince returns since when the other side has accepted nothing of what is counted in the backlog, or zero if nothing
// is counted there.
func (o *outbox) storedSince() time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.since
}

// stuckSince is storedSince for an outbox in which senders wait for room. For others it returns zero.
func (o *outbox) stuckSince() time.Time {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.drained == nil {
		return time.Time{}
	}
	return o.since
}

// progressed records that the other side has accepted bytes. The caller holds mu.
func (o *outbox) progressed() {
	if !o.since.IsZero() {
		o.since = time.Now()
	}
}

// room returns an error unless n more bytes may wait. The caller holds mu.
func (o *outbox) room(n int) error {
	if o.closed {
		return net.ErrClosed
	}
	size := len(o.buf) + len(o.rest) + n
	if size > o.limit || size > outboxFloor && o.store != nil && o.store.bytes.Load()-o.stored+int64(size-outboxFloor) > o.store.limit {
		return errOutboxFull
	}
	return nil
}

// claim reports whether the caller must flush after it has unlocked. The caller holds mu.
func (o *outbox) claim() bool {
	if o.busy {
		return false
	}
	o.busy = true
	return true
}

// add queues a copy of p, and writes what can be written at once. If wait is set, it waits for room until the connection
// closes; otherwise it returns errOutboxFull.
func (o *outbox) add(p []byte, wait bool) error {
	o.lock()
	over := false
	for {
		err := o.room(len(p))
		over = err != nil && len(p) > outboxFloor
		if err == nil || len(o.buf)+len(o.rest) == 0 && !o.closed {
			break // an empty queue takes any frame
		}
		if !wait || o.closed {
			o.unlock()
			return err
		}
		if o.drained == nil {
			o.drained = make(chan struct{})
		}
		drained := o.drained
		o.unlock()
		<-drained
		o.lock()
	}
	o.buf = append(o.buf, p...)
	mine := o.claim()
	o.unlock()
	if over && o.store != nil {
		o.store.full()
	}
	if mine {
		o.flush(false)
	}
	return nil
}

// flush writes until nothing waits, or hands over to run. Only the goroutine that has claimed calls it. If yield is set, it
// first yields to goroutines that are about to append.
func (o *outbox) flush(yield bool) {
	if yield {
		runtime.Gosched()
	}
	for round := 0; ; round++ {
		p := o.next(false)
		if p == nil {
			return
		}
		p, err := o.seal(p)
		if err != nil {
			o.fail(err)
			return
		}
		n := 0
		if o.raw != nil && round < flushRounds {
			if n, err = o.try.write(o.raw, p); err != nil {
				o.fail(err)
				return
			}
		}
		if n < len(p) {
			o.passRest(p, n)
			return
		}
		o.recycle(p)
	}
}

// passRest passes the rest of p, of which n bytes are written, to run.
func (o *outbox) passRest(p []byte, n int) {
	o.lock()
	defer o.unlock()
	o.count(n)
	if o.closed {
		return
	}
	o.rest = p[n:]
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// next takes what waits. If keep is set, it also stores that as rest, so that it still counts as waiting. If nothing waits
// it returns nil, and the caller stops being the writer.
func (o *outbox) next(keep bool) []byte {
	o.lock()
	defer o.unlock()
	if len(o.buf) == 0 || o.closed {
		o.busy = false
		return nil
	}
	p := o.buf
	o.buf, o.spare = o.spare[:0], nil
	if keep {
		o.rest = p
	}
	return p
}

// count counts n bytes as written. The caller holds mu.
func (o *outbox) count(n int) {
	if n > 0 {
		o.progressed()
	}
	for _, c := range o.sent {
		c.Add(int64(n))
	}
}

// seal returns p in the form in which it travels over a secured connection, and keeps p's buffer.
func (o *outbox) seal(p []byte) ([]byte, error) {
	if o.tls == nil {
		return p, nil
	}
	sealed, err := o.tls.seal(p)
	o.lock()
	defer o.unlock()
	if cap(p) <= outboxKeep {
		o.spare = p[:0]
	}
	return sealed, err
}

// recycle keeps a written buffer for reuse and wakes the goroutines that wait for room.
func (o *outbox) recycle(p []byte) {
	o.lock()
	defer o.unlock()
	o.count(len(p))
	if o.tls != nil {
		o.tls.give(p)
	} else if cap(p) <= outboxKeep {
		o.spare = p[:0]
	}
	o.rest = nil
	if o.drained != nil {
		close(o.drained)
		o.drained = nil
	}
}

// run writes what others have left. It ends when close is called.
func (o *outbox) run() {
	for range o.wake {
		o.lock()
		p := o.rest
		o.unlock()
		for p != nil {
			err := o.write(p)
			if err == nil {
				o.recycle(p)
				if p = o.next(true); p != nil {
					p, err = o.seal(p)
				}
			}
			if err != nil {
				o.fail(err)
				break
			}
		}
	}
}

// write writes all of p, and fails if the other side accepts nothing for WriteTimeout.
func (o *outbox) write(p []byte) error {
	const step = 256 << 10
	for len(p) > 0 {
		if err := o.conn.SetWriteDeadline(time.Now().Add(WriteTimeout)); err != nil {
			return err
		}
		n, err := o.conn.Write(p[:min(step, len(p))])
		if err != nil {
			return err
		}
		if p = p[n:]; len(p) > 0 {
			o.mu.Lock()
			o.progressed()
			o.mu.Unlock()
		}
	}
	return o.conn.SetWriteDeadline(time.Time{}) // a deadline that has passed would fail tryWrite
}

// close ends run and fails the goroutines that wait for room. It does not close the connection.
func (o *outbox) close() {
	o.lock()
	defer o.unlock()
	if o.closed {
		return
	}
	o.closed = true
	o.buf, o.spare, o.rest = nil, nil, nil
	if o.drained != nil {
		close(o.drained)
		o.drained = nil
	}
	close(o.wake)
}
