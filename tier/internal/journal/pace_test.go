package journal

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/fence"
)

// stuck are peers that answer nothing before they are released.
type stuck struct {
	view     *ring.View
	released chan struct{}
}

func (s *stuck) View() *ring.View { return s.view }

func (s *stuck) Call(context.Context, ring.Member, *codec.Request, *codec.Response) error {
	<-s.released
	return context.Canceled
}

// Of many callers that start invalidations at the same moment, each counts what those before it have started. They all
// wait for the lock first, for so long that it goes from one to the next in order: if a caller decided under the lock and
// started later, all would decide before the first had started.
func TestCallersArePacedTogether(t *testing.T) {
	view, err := ring.New([]ring.Member{{Name: "n0", Addr: "n0:1"}, {Name: "n1", Addr: "n1:1"}}, ring.Config{Partitions: 7})
	if err != nil {
		t.Fatal(err)
	}
	peers, now := &stuck{view, make(chan struct{})}, func() int64 { return 1 }
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	const room = 32 << 10
	j := New(ctx, Config{
		Self: "n0", Incarnation: 1, Peers: peers, Copies: noCopies{}, Fences: fence.New(now, int64(time.Minute), 1), Now: now,
		Spawn: func(f func()) bool { running.Go(f); return true }, Life: time.Minute, Timeout: time.Second, Limits: Limits{Bytes: room},
	})
	j.ViewChanged()
	j.mu.Lock()
	var callers sync.WaitGroup
	for i := range 1000 {
		callers.Go(func() { j.Begin(ctx, nil, 0, Part{Scope: codec.ScopeKeys, Names: []string{fmt.Sprint(i)}}) })
	}
	time.Sleep(20 * time.Millisecond)
	j.mu.Unlock()
	for deadline := time.Now().Add(10 * time.Second); j.Sizes().Own < 100 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(20 * time.Millisecond)
	j.mu.Lock()
	bytes, own := j.log.bytes, j.log.own().top
	j.mu.Unlock()
	const one = 256 // more than one invalidation takes beside its names, which are what callers count
	if bytes > room/2+one || own < 100 {
		t.Errorf("%d invalidations of %d bytes have begun, want as many as %d bytes hold", own, bytes, room/2)
	}
	cancel() // the others begin at once
	callers.Wait()
	close(peers.released)
	running.Wait()
}
