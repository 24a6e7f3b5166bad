package peertest

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier"
)

// watched is a Cluster that records outgoing requests for keys, and holds back puts to a member that is held.
type watched struct {
	tier.Cluster
	history *History
	held    *held
}

// held tracks the members whose incoming puts stay in their sockets, because they are stopped.
type held struct {
	mu    sync.Mutex // guards until
	until map[string]chan struct{}
}

// hold holds back puts to a member until open is called.
func (h *held) hold(member string) (open func()) {
	until := make(chan struct{})
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.until == nil {
		h.until = make(map[string]chan struct{})
	}
	h.until[member] = until
	return func() {
		close(until)
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.until[member] == until {
			delete(h.until, member)
		}
	}
}

// of returns a channel that is closed when the member is released, or nil if the member is not held.
func (h *held) of(member string) <-chan struct{} {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.until[member]
}

// deliverLate sends a put once its member is released. The caller waits until its ctx ends.
func (w watched) deliverLate(ctx context.Context, until <-chan struct{}, to ring.Member, req *codec.Request) error {
	own := *req
	own.Key, own.Value, own.Tags = bytes.Clone(req.Key), bytes.Clone(req.Value), slices.Clone(req.Tags)
	go func() { // ends when the member is released, which is before the end of the run
		<-until
		late, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		var resp codec.Response
		if w.Cluster.Call(late, to, &own, &resp) == nil {
			resp.Release()
		}
	}()
	<-ctx.Done()
	return ctx.Err()
}

// SharesMove returns what a peer.Node returns.
func (w watched) SharesMove() bool { return true }

// EarlierStart returns what the wrapped Cluster returns.
func (w watched) EarlierStart() bool {
	n, ok := w.Cluster.(interface{ EarlierStart() bool })
	return ok && n.EarlierStart()
}

// readKey is the context key of a client's read.
type readKey struct{}

// Call implements tier.Cluster.
func (w watched) Call(ctx context.Context, to ring.Member, req *codec.Request, resp *codec.Response) error {
	if req.Kind == codec.KindPut && len(req.Value) > 0 {
		if until := w.held.of(to.Name); until != nil {
			return w.deliverLate(ctx, until, to, req)
		}
	}
	if req.Kind == codec.KindGet && req.Flags&codec.FlagPrevious == 0 { // the flight's own request, which is never forwarded
		r, _ := ctx.Value(readKey{}).(*Read)
		w.history.asked(r, w.Name(), to.Name, string(req.Key))
	}
	if r, _ := ctx.Value(readKey{}).(*Read); r == nil {
		for i := range req.Many {
			w.history.asked(nil, w.Name(), to.Name, string(req.Many[i].Key))
		}
	}
	err := w.Cluster.Call(ctx, to, req, resp)
	if r, _ := ctx.Value(readKey{}).(*Read); r != nil && len(r.Asked) > 0 && err == nil && resp.Status == codec.StatusMoved {
		r.Asked[len(r.Asked)-1].Moved = true
	}
	return err
}
