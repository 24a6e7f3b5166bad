package wire

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/peer/internal/trust"
)

// answerBatch is how many bytes of answers are gathered before they are sent even if more requests are waiting, so
// that the caller can continue.
const answerBatch = 64 << 10

// A session is the answering side's end of a connection from a peer.
type session struct {
	d        *Plane
	conn     net.Conn
	out      *outbox
	ctx      context.Context // ends with the connection
	cancel   context.CancelFunc
	bytesOut atomic.Int64
	peer     string         // the calling peer; guarded by d.mu
	resp     codec.Response // of the request that is being read

	mu      sync.Mutex                    // guards the rest
	serving map[uint64]context.CancelFunc // cancels the waiting requests, by id
	cause   error                         // why the connection is closed
}

// Accept serves a data connection whose magic has been read. It returns at once and closes conn in the end. It calls
// decided when the handshake is over or will not happen.
func (d *Plane) Accept(conn net.Conn, decided func()) {
	if t := d.cfg.Trust; t != nil && t.Server() != nil {
		conn = secureServer(conn, t.Server())
	}
	s := &session{d: d, conn: conn, serving: make(map[uint64]context.CancelFunc)}
	s.ctx, s.cancel = context.WithCancel(d.ctx)
	s.out = newOutbox(conn, outboxLimit, &s.bytesOut, &d.bytesOut, s.fail)
	s.out.store = &d.backlog
	d.mu.Lock()
	full := len(d.sessions) >= maxSessions
	open := !d.closed && !full
	if open {
		d.sessions[s] = struct{}{}
		d.wg.Add(1)
	}
	d.mu.Unlock()
	if !open {
		decided()
		d.refused.Add(1)
		s.fail(ErrClosed)
		if full && d.noise.Allow("full", time.Now()) {
			d.cfg.Logger.Warn("data connection refused", "remote", conn.RemoteAddr(), "err", fmt.Sprintf("%d connections are open already", maxSessions))
		}
		return
	}
	go func() {
		defer d.wg.Done()
		s.run(decided)
	}()
}

// admit records that s belongs to peer. It returns false if the peer has too many connections already.
func (d *Plane) admit(s *session, peer string) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := 0
	for other := range d.sessions {
		if other != s && other.peer == peer {
			n++
		}
	}
	s.peer = peer
	return n < d.cfg.Sessions
}

// run serves the connection until it ends, and joins the goroutines that it has started.
func (s *session) run(decided func()) {
	var wg sync.WaitGroup
	defer func() {
		wg.Wait()
		s.d.mu.Lock()
		delete(s.d.sessions, s)
		s.d.mu.Unlock()
	}()
	other, err := s.d.welcome(s.conn)
	decided()
	if err != nil {
		s.fail(err)
		s.d.refused.Add(1)
		s.report("data connection refused", other.Name, false)
		return
	}
	if !s.d.admit(s, other.Name) {
		err = fmt.Errorf("too many connections from %q", other.Name)
		goodbye(s.conn, err.Error())
		s.fail(err)
		s.d.refused.Add(1)
		s.report("data connection refused", other.Name, false)
		return
	}
	wg.Go(s.out.run)
	err = s.read(&wg)
	if isMalformed(err) {
		goodbye(s.conn, err.Error())
	}
	s.fail(err)
	s.report("data connection closed", other.Name, true)
}

// report logs why the connection was closed, unless that was logged recently, or a connection in use has just ended,
// which is normal.
func (s *session) report(what, peer string, inUse bool) {
	s.mu.Lock()
	cause := s.cause
	s.mu.Unlock()
	remote := s.conn.RemoteAddr().String()
	host, _, err := net.SplitHostPort(remote)
	if err != nil {
		host = remote
	}
	if errors.Is(cause, ErrClosed) || inUse && trust.IsEnd(cause) || !s.d.noise.Allow(host, time.Now()) {
		return
	}
	s.d.cfg.Logger.Warn(what, "remote", remote, "peer", peer, "err", cause)
}

// fail closes the connection and ends what waits on it. Only the first cause is kept.
func (s *session) fail(err error) {
	s.mu.Lock()
	first := s.cause == nil
	if first {
		s.cause = cmp.Or(err, io.EOF)
	}
	s.mu.Unlock()
	if first {
		s.out.close() // before the requests end: what they produce then must not be sent
		s.cancel()
		_ = s.conn.Close()
	}
}

// read answers in batches what can be answered at once, and starts goroutines for the rest.
func (s *session) read(wg *sync.WaitGroup) error {
	f := newFrameReader(s.conn, s.d.limit)
	var req codec.Request
	var batch []byte
	for {
		frame, err := f.buffered()
		if err != nil {
			return err
		}
		if frame == nil || len(batch) >= answerBatch {
			if len(batch) > 0 {
				if err := s.out.add(batch, true); err != nil {
					return err
				}
				if batch = batch[:0]; cap(batch) > outboxKeep {
					batch = nil
				}
			}
			if frame == nil {
				if err := f.fill(); err != nil {
					return err
				}
				s.d.bytesIn.Add(f.bytes)
				f.bytes = 0
				continue
			}
		}
		kind, id, body, err := codec.FrameKind(frame)
		if err != nil {
			return err
		}
		switch kind {
		case codec.KindCancel:
			s.withdraw(id)
		case codec.KindPing:
			start := len(batch)
			batch = codec.EndFrame(codec.BeginFrame(batch, codec.KindPong, id), start)
		case codec.KindGoodbye:
			return fmt.Errorf("the peer closed: %q", body[:min(len(body), maxReason)])
		default:
			s.d.served.Add(1)
			switch err := codec.DecodeRequest(&req, kind, id, body); {
			case errors.Is(err, codec.ErrUnsupported):
				s.resp = codec.Response{Status: codec.StatusUnsupported, Text: []byte(err.Error())}
				batch = s.appendAnswer(batch, id, &s.resp)
				continue
			case err != nil:
				return err
			}
			if batch, err = s.answer(wg, &req, body, batch); err != nil {
				return err
			}
		}
	}
}

// answer appends the answer to req to batch, or starts a goroutine that will send it.
func (s *session) answer(wg *sync.WaitGroup, req *codec.Request, body, batch []byte) ([]byte, error) {
	resp := &s.resp
	*resp = codec.Response{}
	r := (*s.d.registry.Load())[string(req.Namespace)]
	switch {
	case r == nil:
		resp.Status = codec.StatusUnknown
	case r.schema != req.Schema && (req.Kind == codec.KindGet || req.Kind == codec.KindGetMany || req.Kind == codec.KindPut || req.Kind == codec.KindPush):
		resp.Status = codec.StatusMismatch
	case s.try(r.handler, req, resp):
	default:
		cost := servingCost + len(body)
		if s.d.reserve(cost) {
			return batch, s.later(wg, r.handler, req, body, cost)
		}
		*resp = codec.Response{Status: codec.StatusBusy}
	}
	return s.appendAnswer(batch, req.ID, resp), nil
}

// appendAnswer appends a handler's answer, reduced to what the other side accepts.
func (s *session) appendAnswer(dst []byte, id uint64, resp *codec.Response) []byte {
	switch {
	case len(resp.Value) > s.d.limit-codec.FrameOverhead:
		*resp = codec.Response{Status: codec.StatusTooLarge}
	case resp.Status == 0:
		*resp = codec.Response{Status: codec.StatusFailed, Text: []byte("the handler gave no answer")}
	}
	if resp.ID = id; resp.Owner == nil && resp.Status != codec.StatusMoved {
		resp.Owner = s.d.nameBytes
	}
	dst = codec.AppendResponse(dst, resp)
	if resp.Many != nil {
		resp.Many.Release()
		resp.Many = nil
	}
	return dst
}

// try gives the handler the chance to answer at once.
func (s *session) try(h codec.Handler, req *codec.Request, resp *codec.Response) (done bool) {
	defer func() {
		if p := recover(); p != nil {
			s.panicked(p, resp)
			done = true
		}
	}()
	return h.TryServe(req, resp)
}

func (s *session) panicked(p any, resp *codec.Response) {
	s.d.cfg.Logger.Error("handler panicked", "panic", p, "stack", string(debug.Stack()))
	*resp = codec.Response{Status: codec.StatusFailed, Text: []byte("the handler panicked")}
}

// later serves req in a goroutine of its own. It holds cost bytes of the budget.
func (s *session) later(wg *sync.WaitGroup, h codec.Handler, req *codec.Request, body []byte, cost int) error {
	own := &codec.Request{}
	if err := codec.DecodeRequest(own, req.Kind, req.ID, slices.Clone(body)); err != nil {
		s.d.unreserve(cost)
		return err
	}
	ctx, cancel := s.ctx, context.CancelFunc(nil)
	if own.Timeout > 0 {
		ctx, cancel = context.WithTimeout(ctx, own.Timeout)
	} else {
		ctx, cancel = context.WithCancel(ctx)
	}
	s.mu.Lock()
	if s.serving[own.ID] != nil {
		s.mu.Unlock()
		cancel()
		s.d.unreserve(cost)
		return fmt.Errorf("%w: request %d came twice", codec.ErrFrame, own.ID)
	}
	s.serving[own.ID] = cancel
	s.mu.Unlock()
	wg.Go(func() {
		defer s.d.unreserve(cost)
		defer cancel()
		var resp codec.Response
		id := own.ID
		defer func() { s.reply(id, &resp) }() // even after a Goexit
		s.serve(ctx, h, own, &resp)
	})
	return nil
}

// reply sends the answer to a request that had to wait, if it is still wanted.
func (s *session) reply(id uint64, resp *codec.Response) {
	s.mu.Lock()
	_, wanted := s.serving[id]
	delete(s.serving, id)
	s.mu.Unlock()
	if !wanted {
		return
	}
	size := codec.FrameOverhead + resp.ValueSize()
	if !s.d.reserve(size) {
		*resp = codec.Response{Status: codec.StatusBusy}
		size = 0
	}
	frame := s.d.bufs.get(codec.FrameOverhead + resp.ValueSize())
	_ = s.out.add(s.appendAnswer(frame[:0], id, resp), true) // fails only if the connection does
	s.d.bufs.put(frame)
	s.d.unreserve(size)
}

func (s *session) serve(ctx context.Context, h codec.Handler, req *codec.Request, resp *codec.Response) {
	defer func() {
		if p := recover(); p != nil {
			s.panicked(p, resp)
		}
	}()
	h.Serve(ctx, req, resp)
}

// withdraw cancels a request that its caller does not wait for any more.
func (s *session) withdraw(id uint64) {
	s.mu.Lock()
	cancel := s.serving[id]
	delete(s.serving, id)
	s.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}
