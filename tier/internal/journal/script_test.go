package journal_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/internal/simtime"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/fence"
	"github.com/weircache/weir/tier/internal/journal"
)

// A script is a journal of n0, with the incarnation 1, among members that answer as a test says. It runs in a bubble and
// only the test calls Tick.
type script struct {
	*journal.Journal
	recorder
	t      *testing.T
	began  time.Time
	fences *fence.Fences
	view   atomic.Pointer[ring.View]
	cancel context.CancelFunc

	mu     sync.Mutex // guards the rest, and the actors
	actors map[string]*actor
	calls  []call
}

// A call is a request of n0.
type call struct {
	through, to, what string // through is to, except if it relays
	view              uint64
	timeout           time.Duration
}

// An actor is a member of a script. It answers as a member that applies all that it is sent.
type actor struct {
	incarnation uint64
	has         uint64                                         // its position of n0's cache
	news        codec.News                                     // what it gives in each exchange
	sees        []string                                       // the members that it names, nil: its view is that of n0
	down        bool                                           // n0 cannot reach it
	lost        bool                                           // no member can reach it
	status      codec.Status                                   // if not 0, of each answer
	otherView   bool                                           // its view is not that of n0
	answered    func(req *codec.Request, resp *codec.Response) // if not nil, it may change an answer; mu is not held
}

var errDown = errors.New("down")

// onStage runs f with a script of n0 and the named members, whose incarnations are 101 and so on.
func onStage(t *testing.T, change func(cfg *journal.Config), f func(t *testing.T, s *script), names ...string) {
	t.Helper()
	simtime.Test(t, func(t *testing.T) {
		s := &script{t: t, began: time.Now(), actors: make(map[string]*actor)}
		for i, name := range names {
			s.actors[name] = &actor{incarnation: uint64(101 + i)}
		}
		s.see(names...)
		now := func() int64 { return int64(time.Since(s.began) + time.Hour) }
		s.fences = fence.New(now, int64(time.Minute), 1)
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		s.cancel = cancel
		cfg := journal.Config{
			Self: "n0", Incarnation: 1, Peers: s, Copies: s, Fences: s.fences, Now: now, Closed: errClosed,
			Spawn: func(f func()) bool { running.Go(f); return true },
			Life:  time.Hour, Timeout: time.Second, NewFor: 15 * time.Second,
		}
		if change != nil {
			change(&cfg)
		}
		s.Journal = journal.New(ctx, cfg)
		f(t, s)
		cancel()
		running.Wait()
	})
}

// see makes n0 and the named members its view.
func (s *script) see(names ...string) { s.view.Store(viewOf(s.t, append([]string{"n0"}, names...)...)) }

// set changes the named actor.
func (s *script) set(name string, change func(a *actor)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s.actors[name])
}

// pass lets virtual time pass and returns what was asked since the last pass.
func (s *script) pass(d time.Duration) (calls []call) {
	time.Sleep(d)
	synctest.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	calls, s.calls = s.calls, nil
	return calls
}

// expect checks what the named member was asked since the last pass, directly or through another member, once d has passed.
func (s *script) expect(what string, d time.Duration, name, want string) {
	s.t.Helper()
	var got []string
	for _, c := range s.pass(d) {
		switch {
		case c.to != name:
		case c.through != name:
			got = append(got, c.through+"> "+c.what)
		default:
			got = append(got, c.what)
		}
	}
	if got := strings.Join(got, ", "); got != want {
		s.t.Errorf("%s: %s was asked %q, want %q", what, name, got, want)
	}
}

// meet takes note of the view and has the first exchanges.
func (s *script) meet() {
	s.t.Helper()
	s.ViewChanged()
	s.pass(0)
}

// begin starts an invalidation of key for which w waits.
func (s *script) begin(w *journal.Wait, key string) {
	s.Begin(context.Background(), w, 0, journal.Part{Scope: codec.ScopeKeys, Names: []string{key}})
}

// covers reports whether the member is known to have applied everything that covers key here.
func (s *script) covers(name, key string) bool {
	w := s.Member(name).Watermark()
	return w != nil && w.StampOf(ring.Hash(key)) == s.fences.Stamp(ring.Hash(key))
}

// View implements journal.Peers.
func (s *script) View() *ring.View { return s.view.Load() }

// Call implements journal.Peers.
func (s *script) Call(_ context.Context, to ring.Member, req *codec.Request, resp *codec.Response) error {
	a, err := s.answer(to, req, resp)
	if err == nil && a.answered != nil {
		a.answered(req, resp)
	}
	return err
}

func (s *script) answer(to ring.Member, req *codec.Request, resp *codec.Response) (*actor, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := call{to.Name, to.Name, "exchange", req.View, req.Timeout}
	relay := req.Flags&codec.FlagRelay != 0
	if relay {
		c.to = string(req.Target)
	}
	if req.Kind == codec.KindInvalidate {
		c.what = ""
		var seqs []uint64
		for _, b := range req.News.Bases {
			c.what += fmt.Sprintf("base %d/%d ", b.Incarnation, b.Seq)
		}
		for _, v := range req.News.Invalidations {
			seqs = append(seqs, v.Mark.Seq)
		}
		c.what += fmt.Sprint(seqs)
	}
	s.calls = append(s.calls, c)
	a := s.actors[c.to]
	if relay {
		resp.Flags |= codec.FlagRelayed
	}
	switch {
	case s.actors[to.Name].down || s.actors[to.Name].lost || a.lost:
		return nil, errDown
	case a.status != 0:
		resp.Status = a.status
	case req.Kind == codec.KindSync:
		resp.Status, resp.Incarnation = codec.StatusSynced, a.incarnation
		news := a.news
		news.Positions = append(slices.Clone(news.Positions), codec.Position{Incarnation: 1, Seq: a.has})
		resp.Value = codec.AppendNews(nil, &news)
		if !a.otherView {
			resp.Flags |= codec.FlagSameView
		}
	default:
		for _, b := range req.News.Bases {
			a.has = max(a.has, b.Seq)
		}
		for _, v := range req.News.Invalidations {
			if v.Mark.Incarnation == 1 && v.Mark.Seq == a.has+1 {
				a.has++
			}
		}
		resp.Status, resp.Incarnation, resp.Seq = codec.StatusDone, a.incarnation, a.has
		for _, name := range a.sees {
			resp.Members = append(resp.Members, []byte(name))
		}
	}
	return a, nil
}

// FenceKey implements journal.Copies.
func (s *script) FenceKey(key string, hash uint64, mark codec.Mark, version uint64) {
	s.fences.Apply(key, hash, mark, version, func(bool) {})
	s.recorder.FenceKey(key, hash, mark, version)
}

// FenceTags implements journal.Copies.
func (s *script) FenceTags(tags []string) { s.fences.ApplyTags(tags); s.recorder.FenceTags(tags) }

// FenceAll implements journal.Copies.
func (s *script) FenceAll(own bool) { s.fences.Wipe(own); s.recorder.FenceAll(own) }
