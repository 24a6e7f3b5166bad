package main

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/weircache/weir/bench/cputime"
	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier"
)

// frameStart is where a frame's body begins: after its length, kind and number.
const frameStart = codec.FrameHeader + 1 + 8

// A board is an in-memory cluster: one view that all members share, and calls that are encoded, handled and decoded
// without a network.
type board struct {
	view    *ring.View
	handler []atomic.Pointer[codec.Handler] // by index in the view
	never   chan struct{}                   // the view does not change
}

// A seat is a board as one member sees it. It satisfies tier.Cluster.
type seat struct {
	b                   *board
	place               int
	calls, sent, gotten atomic.Int64 // as the caller
}

var errNobody = errors.New("no member answers")

func (s *seat) Name() string                 { return s.b.view.Members()[s.place].Name }
func (s *seat) View() *ring.View             { return s.b.view }
func (s *seat) ViewChanged() <-chan struct{} { return s.b.never }
func (s *seat) Divisor() (int, int)          { return s.b.view.Len(), s.place }

func (s *seat) Register(_ string, _ uint64, h codec.Handler) (func(), error) {
	s.b.handler[s.place].Store(&h)
	return func() { s.b.handler[s.place].Store(nil) }, nil
}

func (s *seat) Call(ctx context.Context, to ring.Member, req *codec.Request, resp *codec.Response) error {
	i := s.b.view.Index(to.Name)
	if i < 0 {
		return errNobody
	}
	h := s.b.handler[i].Load()
	if h == nil {
		return errNobody
	}
	frame := codec.AppendRequest(nil, req)
	var got codec.Request
	if err := codec.DecodeRequest(&got, req.Kind, req.ID, frame[frameStart:]); err != nil {
		return err
	}
	var answer codec.Response
	if !(*h).TryServe(&got, &answer) {
		(*h).Serve(ctx, &got, &answer)
	}
	back := codec.AppendResponse(nil, &answer)
	answer.Release()
	s.calls.Add(1)
	s.sent.Add(int64(len(frame)))
	s.gotten.Add(int64(len(back)))
	return codec.DecodeResponse(resp, req.ID, back[frameStart:])
}

// boarded measures n caches on a board.
func boarded(ctx context.Context, n int, o options) (r result, err error) {
	r.members = n
	view, err := ring.New(members(n), ring.Config{})
	if err != nil {
		return r, err
	}
	before := measureProcess()
	b := &board{view: view, handler: make([]atomic.Pointer[codec.Handler], n), never: make(chan struct{})}
	seats, caches := make([]seat, n), make([]*tier.Cache[string], n)
	defer func() {
		o.say("closing")
		err = errors.Join(err, inParallel(n, func(i int) error {
			if caches[i] != nil {
				return caches[i].Close(context.WithoutCancel(ctx))
			}
			return nil
		}))
	}()
	cpu0 := cputime.Used()
	for i := range caches {
		seats[i].b, seats[i].place = b, i
		if caches[i], err = tier.New(cacheConfig(&seats[i])); err != nil {
			return r, err
		}
	}
	o.say("caches are made")
	// The first member confirms only once every member has exchanged positions with it.
	if err := caches[0].Invalidate(ctx, "first"); err != nil {
		return r, fmt.Errorf("the first invalidation: %w", err)
	}
	o.say("the first invalidation is confirmed")
	if err := pause(ctx, o.rest); err != nil {
		return r, err
	}
	r.startCPU = (cputime.Used() - cpu0).Seconds() / float64(n)
	r.perNode(before, measureProcess(), n)
	calls, sent, gotten := seats[0].calls.Load(), seats[0].sent.Load(), seats[0].gotten.Load()
	cpu0, began := cputime.Used(), time.Now()
	r.invalidations, err = invalidate(ctx, caches[0], o)
	r.seconds = time.Since(began).Seconds()
	r.loadCPU = (cputime.Used() - cpu0).Seconds() / r.seconds
	r.calls = seats[0].calls.Load() - calls
	r.sender = seats[0].sent.Load() - sent
	r.senderIn = seats[0].gotten.Load() - gotten
	r.receiver = r.sender / int64(max(n-1, 1))
	o.say("%+v", r)
	return r, err
}

func members(n int) []ring.Member {
	out := make([]ring.Member, n)
	for i := range out {
		out[i] = ring.Member{Name: fmt.Sprintf("catalog-%d", i), Addr: address(i) + ":7946", Incarnation: 1}
	}
	return out
}
