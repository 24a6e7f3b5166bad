package journal_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/journal"
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

// noCopies are the copies of a node that has none.
type noCopies struct{}

func (noCopies) FenceKey(string, uint64, codec.Mark, uint64) {}
func (noCopies) FenceTags([]string)                          {}
func (noCopies) FenceAll(bool)                               {}

// slowTags are copies on which an invalidation of a tag takes until it is released. The journal is locked meanwhile.
type slowTags struct {
	noCopies
	inside, released chan struct{}
}

func (s *slowTags) FenceTags([]string) {
	close(s.inside)
	<-s.released
}

// Of many callers that start invalidations at the same moment, each counts what those before it have started. They all
// wait for the lock first, for so long that it goes from one to the next in order: if a caller decided under the lock and
// started later, all would decide before the first had started.
func TestCallersArePacedTogether(t *testing.T) {
	peers, now := &stuck{viewOf(t, "n0", "n1"), make(chan struct{})}, func() int64 { return 1 }
	copies := &slowTags{inside: make(chan struct{}), released: make(chan struct{})}
	ctx, cancel := context.WithCancel(t.Context())
	var running, callers sync.WaitGroup
	const room, name, beside = 256 << 10, 1000, 256 // beside: more than one invalidation takes beside its name
	j := journal.New(ctx, journal.Config{
		Self: "n0", Incarnation: 1, Peers: peers, Copies: copies, Fences: fence.New(now, int64(time.Minute), 1), Now: now,
		Spawn: func(f func()) bool { running.Go(f); return true }, Life: time.Minute, Timeout: time.Second, Limits: journal.Limits{Bytes: room},
	})
	j.ViewChanged()
	begin := func(scope codec.Scope, name string) {
		callers.Go(func() { j.Begin(ctx, nil, 0, journal.Part{Scope: scope, Names: []string{name}}) })
	}
	begin(codec.ScopeTags, "t")
	<-copies.inside
	for i := range 1000 {
		begin(codec.ScopeKeys, fmt.Sprintf("%d%s", i, strings.Repeat("k", name))[:name])
	}
	time.Sleep(20 * time.Millisecond)
	close(copies.released)
	const least, most = room / 2 / (name + beside), room/2/name + 1 // one invalidation, that of the tag, has next to no bytes
	for deadline := time.Now().Add(10 * time.Second); j.Sizes().Own < least && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(20 * time.Millisecond)
	if s := j.Sizes(); s.Own < least || s.Own > most || s.Logged != int(s.Own) {
		t.Errorf("%d invalidations have begun, %d are in the log, want %d to %d: what half of the log holds", s.Own, s.Logged, least, most)
	}
	cancel() // the others begin at once
	callers.Wait()
	close(peers.released)
	running.Wait()
}
