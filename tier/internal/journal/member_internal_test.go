package journal

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/internal/simtime"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/fence"
)

// What a pump does in each state of its member.
func TestNext(t *testing.T) {
	const now = 1000 * int64(time.Second)
	current := state{known: true}
	with := func(changes ...func(s *state)) state {
		s := current
		for _, change := range changes {
			change(&s)
		}
		return s
	}
	behind, awaited := func(s *state) { s.behind = true }, func(s *state) { s.awaited = true }
	outside, gap := func(s *state) { s.outside = true }, func(s *state) { s.gap = true }
	unknown, empty := func(s *state) { s.known = false }, func(s *state) { s.known, s.empty = false, true }
	due, over := func(s *state) { s.exchangeDue = true }, func(s *state) { s.over = true }
	direct := func(in time.Duration) func(s *state) { return func(s *state) { s.direct = now + int64(in) } }
	relayed := func(in time.Duration) func(s *state) { return func(s *state) { s.relayed = now + int64(in) } }
	for name, c := range map[string]struct {
		s    state
		do   step
		wait time.Duration // with stepSleep
	}{
		"current":                                {current, stepNone, 0},
		"unknown":                                {with(unknown), stepExchange, 0},
		"unknown and behind":                     {with(unknown, behind), stepExchange, 0},
		"behind":                                 {with(behind), stepDeliver, 0},
		"a gap":                                  {with(gap), stepExchange, 0},
		"a gap and behind":                       {with(gap, behind), stepExchange, 0},
		"an exchange is due":                     {with(due), stepExchange, 0},
		"due and behind: the frame first":        {with(due, behind), stepDeliver, 0},
		"empty":                                  {with(empty), stepNone, 0},
		"empty and behind":                       {with(empty, behind), stepExchange, 0},
		"outside":                                {with(outside, behind), stepNone, 0},
		"outside, awaited":                       {with(outside, behind, awaited), stepRelay, 0},
		"outside, awaited, all confirmed":        {with(outside, awaited), stepNone, 0},
		"outside, awaited, after a failed relay": {with(outside, behind, awaited, relayed(time.Second)), stepSleep, time.Second},
		"not reached":                            {with(behind, direct(time.Second)), stepSleep, time.Second},
		"not reached, the time is over":          {with(behind, direct(0)), stepDeliver, 0},
		"not reached, awaited":                   {with(behind, awaited, direct(100*time.Millisecond)), stepRelay, 0},
		"not reached, awaited, relayed later":    {with(behind, awaited, direct(100*time.Millisecond), relayed(time.Second)), stepSleep, 100 * time.Millisecond},
		"not reached, awaited, relayed sooner":   {with(behind, awaited, direct(500*time.Millisecond), relayed(10*time.Millisecond)), stepSleep, 10 * time.Millisecond},
		"not reached for long, and now a wait begins": {with(behind, awaited, direct(5*time.Second)), stepDeliver, 0},
		"gone":             {with(behind, awaited, over), stepNone, 0},
		"gone and unknown": {with(unknown, over), stepNone, 0},
	} {
		do, at := c.s.next(now)
		if do != c.do || do == stepSleep && time.Duration(at-now) != c.wait {
			t.Errorf("%s: step %d, until %d; want step %d, for %v", name, do, at, c.do, c.wait)
		}
	}
}

// The waits between failed attempts double up to a limit.
func TestBackoff(t *testing.T) {
	var b backoff
	for i, want := range []time.Duration{20, 40, 80, 100, 100} {
		if b.failed(7, 100*time.Millisecond); b.until != 7+int64(want*time.Millisecond) {
			t.Errorf("attempt %d: the next one in %v, want %v", i+1, time.Duration(b.until-7), want*time.Millisecond)
		}
	}
}

// Only members that this node sees and reaches are asked to relay something.
func TestRelaysThroughWhatIsReached(t *testing.T) {
	for what, change := range map[string]func(m *Member){
		"reached": func(*Member) {}, "seen by others": func(m *Member) { m.via = "n1" }, "gone": func(m *Member) { m.gone = true },
		"not reached": func(m *Member) { m.err = errors.New("down") }, "without the cache": func(m *Member) { m.empty = true },
	} {
		m := newMember("n2", 0)
		if change(m); m.relays() != (what == "reached") {
			t.Errorf("%s: relays %v", what, m.relays())
		}
	}
}

// unreachable are peers of which none can be reached.
type unreachable struct {
	view *ring.View

	mu    sync.Mutex // guards asked
	asked []ring.Member
}

func (u *unreachable) View() *ring.View { return u.view }

func (u *unreachable) Call(_ context.Context, to ring.Member, _ *codec.Request, _ *codec.Response) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.asked = append(u.asked, to)
	return errors.New("unreachable")
}

type noCopies struct{}

func (noCopies) FenceKey(string, uint64, codec.Mark, uint64) {}
func (noCopies) FenceTags([]string)                          {}
func (noCopies) FenceAll(bool)                               {}

// alone runs f with the journal of n0, which sees n1 and reaches no member.
func alone(t *testing.T, f func(t *testing.T, j *Journal, u *unreachable)) {
	t.Helper()
	simtime.Test(t, func(t *testing.T) {
		view, err := ring.New([]ring.Member{{Name: "n0", Addr: "n0:1"}, {Name: "n1", Addr: "n1:1"}}, ring.Config{Partitions: 7})
		if err != nil {
			t.Fatal(err)
		}
		began, u := time.Now(), &unreachable{view: view}
		now := func() int64 { return int64(time.Since(began)) }
		ctx, cancel := context.WithCancel(context.Background())
		var running sync.WaitGroup
		j := New(ctx, Config{
			Self: "n0", Incarnation: 1, Peers: u, Copies: noCopies{}, Fences: fence.New(now, int64(time.Minute), 1), Now: now,
			Spawn: func(f func()) bool { running.Go(f); return ctx.Err() == nil }, Life: time.Minute, Timeout: time.Second, NewFor: 15 * time.Second,
		})
		j.ViewChanged()
		f(t, j, u)
		cancel()
		running.Wait()
	})
}

// A member that only other members see has no address here: nothing is sent to it, and nothing is relayed to it.
func TestNothingIsSentWithoutAnAddress(t *testing.T) {
	alone(t, func(t *testing.T, j *Journal, u *unreachable) {
		j.mu.Lock()
		j.addOutside([][]byte{[]byte("n3")}, "n1")
		j.addOutside([][]byte{[]byte("n4")}, "n3") // n3 was in the view then
		j.mu.Unlock()
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		defer cancel()
		w := NewWait()
		j.Begin(ctx, w, 0, Part{Scope: codec.ScopeKeys, Names: []string{"k"}})
		err, ok := errors.AsType[*Unconfirmed](j.Wait(ctx, w))
		if !ok || !slices.Equal(err.Members, []string{"n1", "n3", "n4"}) {
			t.Errorf("err = %v", err)
		}
		if err := j.Exchange(ctx, j.Member("n3")); !errors.Is(err, ErrGone) {
			t.Errorf("an exchange with a member without an address: %v", err)
		}
		u.mu.Lock()
		defer u.mu.Unlock()
		for _, to := range u.asked {
			if to.Addr == "" {
				t.Errorf("a request to %q without an address", to.Name)
			}
		}
	})
}

// A member that leaves between frames is named, even if it had confirmed everything that was started before it left.
func TestMemberThatLeavesBetweenFramesIsNamed(t *testing.T) {
	alone(t, func(t *testing.T, j *Journal, _ *unreachable) {
		j.mu.Lock()
		defer j.mu.Unlock()
		m := j.members["n1"]
		m.confirmed.add(upTo(5))
		for open, want := range map[bool]int{true: 1, false: 0} {
			w := &Wait{waits: span{3, 5}, open: open, done: make(chan struct{})}
			j.waits = []*Wait{w}
			j.remove(m)
			if len(w.failed) != want {
				t.Errorf("more frames follow %v: named %v", open, w.failed)
			}
			m.gone = false
		}
		j.waits = nil
	})
}

// What a member is sent for the callers that wait begins with the first number that one of them waits for and that the
// member has not confirmed. A Wait ends when all of it is confirmed, also beyond a gap.
func TestAwaited(t *testing.T) {
	for name, c := range map[string]struct {
		confirmed []span
		waits     []span
		first     uint64 // 0: none
		left      int    // waits that do not end
	}{
		"no caller waits":        {nil, nil, 0, 0},
		"one number":             {nil, []span{{3, 3}}, 3, 1},
		"it is confirmed":        {[]span{{3, 3}}, []span{{3, 3}}, 0, 0},
		"all of it is confirmed": {[]span{upTo(3)}, []span{{2, 3}}, 0, 0},
		"the last is not":        {[]span{upTo(3)}, []span{{2, 4}}, 4, 1},
		"the first is not":       {[]span{{3, 4}}, []span{{2, 4}}, 2, 1},
		"in order":               {nil, []span{{2, 2}, {5, 6}}, 2, 2},
		"in another order":       {nil, []span{{5, 6}, {2, 2}, {4, 4}}, 2, 3},
		"one is confirmed":       {[]span{{2, 2}}, []span{{5, 6}, {2, 2}}, 5, 1},
	} {
		var j Journal
		m := newMember("n1", 0)
		for _, s := range c.confirmed {
			m.confirmed.add(s)
		}
		for _, s := range c.waits {
			j.waits = append(j.waits, &Wait{waits: s, done: make(chan struct{})})
		}
		if first, ok := j.awaited(m); first != c.first || ok != (c.first > 0) {
			t.Errorf("%s: %d, %v; want %d", name, first, ok, c.first)
		}
		j.members = map[string]*Member{m.name: m}
		if j.endWaits(); len(j.waits) != c.left {
			t.Errorf("%s: %d waits go on, want %d", name, len(j.waits), c.left)
		}
	}
}
