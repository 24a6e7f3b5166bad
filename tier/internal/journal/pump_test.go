package journal_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/journal"
)

// The states of the first table in member.go, one after the other.
func TestStates(t *testing.T) {
	onStage(t, nil, func(t *testing.T, s *script) {
		s.ViewChanged()
		s.expect("unknown", 0, "n1", "exchange")
		s.begin(nil, "a")
		s.expect("behind", 0, "n1", "[1]")
		s.begin(nil, "b")
		s.expect("behind again", 0, "n1", "[2]")
		if !s.covers("n1", "a") || !s.covers("n1", "b") {
			t.Error("what was confirmed is not covered by the watermark")
		}
		for range 3 {
			s.Tick()
			s.expect("current", 2*time.Second, "n1", "")
		}

		s.set("n1", func(a *actor) { a.has = 1 })
		s.begin(nil, "c")
		s.expect("a gap: it lacks number 2", 0, "n1", "[3], exchange, [2 3]")

		s.set("n1", func(a *actor) { a.incarnation, a.has = 201, 3 })
		s.begin(nil, "d")
		s.expect("another cache", 0, "n1", "[4], exchange")
		if w := s.Member("n1").Watermark(); w == nil || w.Incarnation != 201 {
			t.Errorf("the watermark is %+v", w)
		}

		s.set("n1", func(a *actor) { a.status = codec.StatusUnknown })
		s.begin(nil, "e")
		s.expect("no such cache", 0, "n1", "[5]")
		if s.Member("n1").Watermark() != nil || len(s.Relays("")) != 0 {
			t.Error("a member without the cache has a watermark, or can relay")
		}
		s.expect("empty", time.Minute, "n1", "")
		w := journal.NewWait()
		s.begin(w, "f")
		s.expect("empty, and an invalidation is started", 0, "n1", "exchange")
		if err := s.Wait(t.Context(), w); err != nil || !s.Member("n1").Reply().Empty {
			t.Errorf("the wait ended with %v, the reply is %+v", err, s.Member("n1").Reply())
		}
		s.set("n1", func(a *actor) { a.status, a.has = 0, 6 })
		s.begin(nil, "g")
		s.expect("it has opened the cache", 0, "n1", "exchange, [7]")
		s.begin(nil, "h")
		s.expect("behind", 0, "n1", "[8]")

		other, err := ring.New([]ring.Member{{Name: "n0", Addr: "n0:1"}, {Name: "n1", Addr: "n1:1", Incarnation: 5}}, ring.Config{Partitions: 7})
		if err != nil {
			t.Fatal(err)
		}
		s.set("n1", func(a *actor) { a.down = true })
		s.view.Store(other)
		if s.ViewChanged(); s.Member("n1").Watermark() != nil || len(s.Pending()) != 1 {
			t.Errorf("another start of its node: the watermark is %+v, pending %v", s.Member("n1").Watermark(), s.Pending())
		}
		s.expect("another start of its node", 0, "n1", "exchange")
		s.set("n1", func(a *actor) { a.down = false })
		s.expect("it is reached", time.Second, "n1", "exchange")
		w1 := s.Member("n1").Watermark()
		s.see("n1", "n2")
		s.actors["n2"] = &actor{incarnation: 102}
		s.ViewChanged()
		if s.expect("another start again, of which nothing is known", 0, "n1", "exchange"); s.Member("n1").Watermark() == w1 {
			t.Error("the watermark stayed")
		}
		w1 = s.Member("n1").Watermark()
		s.see("n1")
		s.ViewChanged()
		if s.expect("n2 leaves", 0, "n1", ""); s.Member("n1").Watermark() != w1 || s.Member("n2") != nil {
			t.Error("a view in which n1 stays has changed its watermark, or n2 is still there")
		}
	}, "n1")
}

// A confirmation says nothing about what other members have started: that takes an exchange, two seconds after the last.
func TestConfirmationCoversOnlyWhatWasSent(t *testing.T) {
	onStage(t, nil, func(t *testing.T, s *script) {
		s.meet()
		s.begin(nil, "b") // the totals are not 0
		s.expect("behind", time.Second, "n1", "[1]")
		s.Receive(&codec.News{Invalidations: []codec.Invalidation{ofKey(7, 1)}})
		s.set("n1", func(a *actor) { a.news.Positions = []codec.Position{{Incarnation: 7, Seq: 1}} })
		s.begin(nil, "b")
		if s.expect("behind", time.Second-1, "n1", "[2]"); s.covers("n1", "k") {
			t.Error("n1 counts as having applied what only n0 has")
		}
		s.Tick()
		s.expect("less than two seconds", 1, "n1", "")
		s.Tick()
		if s.expect("two seconds", 0, "n1", "exchange"); !s.covers("n1", "k") {
			t.Error("the exchange has not settled it")
		}
		s.Tick()
		s.expect("nothing is new", time.Minute, "n1", "")
	}, "n1")
}

// Attempts to reach a member are spaced: up to five seconds, or half a second while a caller waits.
func TestRetries(t *testing.T) {
	for waits, spaces := range map[bool][]time.Duration{
		false: {20, 40, 80, 160, 320, 640, 1280, 2560, 5000, 5000},
		true:  {20, 40, 80, 160, 320, 500, 500},
	} {
		onStage(t, nil, func(t *testing.T, s *script) {
			s.set("n1", func(a *actor) { a.down = true })
			if s.ViewChanged(); waits {
				s.begin(journal.NewWait(), "a")
			}
			s.expect("at first", 0, "n1", "exchange")
			for _, ms := range spaces {
				s.expect("before the next attempt", ms*time.Millisecond-1, "n1", "")
				s.expect("the next attempt", 1, "n1", "exchange")
			}
			if len(s.Relays("")) != 0 {
				t.Error("a member that is not reached can relay")
			}
			s.set("n1", func(a *actor) { a.down = false })
			s.pass(10 * time.Second)
			if s.expect("reached", time.Minute, "n1", ""); len(s.Relays("")) != 1 {
				t.Error("a member that is reached cannot relay")
			}
			s.set("n1", func(a *actor) { a.down = true })
			s.begin(nil, "b")
			s.pass(0)
			s.expect("the spaces begin at the least again", 20*time.Millisecond-1, "n1", "")
		}, "n1")
	}
}

// One attempt takes a quarter of a Wait's time, within limits, and says under which view it is made.
func TestAttempts(t *testing.T) {
	for timeout, want := range map[time.Duration]time.Duration{time.Second: 250 * time.Millisecond, 200 * time.Millisecond: 100 * time.Millisecond, time.Minute: 2500 * time.Millisecond} {
		onStage(t, func(cfg *journal.Config) { cfg.Timeout = timeout }, func(t *testing.T, s *script) {
			s.ViewChanged()
			s.begin(nil, "a")
			calls := s.pass(time.Second)
			for _, c := range calls {
				if c.timeout != want || c.view != s.View().Fingerprint() {
					t.Errorf("%+v, want the timeout %v and the view %d", c, want, s.View().Fingerprint())
				}
			}
			if len(calls) != 2 { // an exchange that sends what is new
				t.Errorf("%+v", calls)
			}
		}, "n1")
	}
}

// What a caller waits for is relayed to a member that this node does not reach. It confirms what was relayed, and only that.
func TestRelay(t *testing.T) {
	onStage(t, nil, func(t *testing.T, s *script) {
		s.meet()
		s.set("n1", func(a *actor) { a.down = true })
		s.begin(nil, "a")
		s.expect("nobody waits", 0, "n1", "[1]")
		w := journal.NewWait()
		s.begin(w, "b")
		s.expect("a caller waits", 0, "n1", "n2> [2]")
		if err := s.Wait(t.Context(), w); err != nil || s.Counts().Relayed.Load() != 1 {
			t.Errorf("relayed %d times, and the wait ends with %v", s.Counts().Relayed.Load(), err)
		}
		s.expect("it has said that it lacks number 1", 20*time.Millisecond, "n1", "exchange")
		s.begin(journal.NewWait(), "c")
		s.expect("the next one", 0, "n1", "n2> [3]")
		s.set("n1", func(a *actor) { a.lost = true })
		s.begin(nil, "d")
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
		defer cancel()
		err := s.WaitAll(ctx)
		if u, ok := errors.AsType[*journal.Unconfirmed](err); !ok || len(u.Members) != 1 || !errors.Is(err, errDown) || strings.Contains(err.Error(), "through") {
			t.Errorf("the wait ends with %v, want why n1 is not reached", err)
		}
		s.expect("all is awaited", 0, "n1", "n2> [1 2 3 4], n2> [1 2 3 4]")
		s.set("n1", func(a *actor) { a.lost, a.down = false, false })
		s.expect("it is reached", time.Second, "n1", "exchange, [1 2 3 4]")
	}, "n1", "n2")
}

// A member that only others see gets what a caller waits for through the member that named it, or through others.
func TestRelayToAMemberOutside(t *testing.T) {
	onStage(t, nil, func(t *testing.T, s *script) {
		s.see("n1", "n2")
		s.meet()
		s.set("n2", func(a *actor) { a.sees = []string{"n0", "n1", "n2", "n3"} })
		w := journal.NewWait()
		s.begin(w, "a")
		s.expect("n2 names it", 0, "n3", "n2> [1]")
		if err := s.Wait(t.Context(), w); err != nil || len(s.Pending()) > 0 || len(s.Relays("n1")) != 1 {
			t.Errorf("err = %v, pending %v, relays %v", err, s.Pending(), s.Relays("n1"))
		}
		s.begin(nil, "b")
		s.expect("nobody waits", time.Second, "n3", "")

		s.set("n3", func(a *actor) { a.lost = true })
		ctx, cancel := context.WithTimeout(t.Context(), 70*time.Millisecond)
		defer cancel()
		err := s.WaitAll(ctx)
		if err == nil || !strings.Contains(err.Error(), "through n2: down") || !strings.Contains(err.Error(), "through n1: down") {
			t.Errorf("the wait ends with %v", err)
		}
		s.expect("nobody reaches it", 0, "n3", "n2> [2], n1> [2], n2> [2], n1> [2], n2> [2], n1> [2]")
		s.set("n3", func(a *actor) { a.lost = false })
		s.begin(journal.NewWait(), "c")
		s.expect("it is reached", time.Second, "n3", "n2> [3]")
		s.set("n3", func(a *actor) { a.lost = true })
		s.begin(journal.NewWait(), "d")
		s.pass(0)
		s.expect("the spaces begin at the least again", 20*time.Millisecond, "n3", "n2> [4], n1> [4]")

		s.see("n1", "n2", "n3")
		s.set("n3", func(a *actor) { a.lost = false })
		if err := s.Exchange(t.Context(), s.Member("n3")); err != nil {
			t.Errorf("it has come into the view, and an exchange ends with %v", err)
		}
	}, "n1", "n2", "n3")
}

// A member that is far behind and comes back has an exchange, which makes good what the log no longer has. What comes
// afterwards is sent as it is.
func TestLogThatIsTooShort(t *testing.T) {
	onStage(t, func(cfg *journal.Config) { cfg.Limits.Bytes = 300 }, func(t *testing.T, s *script) {
		s.meet()
		s.begin(nil, strings.Repeat("k", 300))
		s.expect("dropped at once", 0, "n1", "exchange, base 1/1 []")
		s.begin(nil, "a")
		s.expect("not dropped", 0, "n1", "[2]")
		s.set("n1", func(a *actor) { a.down = true })
		s.begin(nil, strings.Repeat("k", 300))
		s.begin(nil, "b")
		s.set("n1", func(a *actor) { a.down = false })
		s.expect("dropped while it was away", time.Second, "n1", "exchange, base 1/3 [4]")
		s.begin(nil, "c")
		s.expect("not dropped", 0, "n1", "[5]")
	}, "n1")
}

// A list of retired positions goes to a member only once there was an exchange since the list began: the member may lack
// what the list says, and would flush although the logs have it.
func TestListFollowsAnExchange(t *testing.T) {
	onStage(t, func(cfg *journal.Config) { cfg.Limits.Tracks = 16 }, func(t *testing.T, s *script) {
		var has []codec.Position
		for incarnation := range uint64(3) {
			s.Receive(&codec.News{Invalidations: []codec.Invalidation{ofKey(200+incarnation, 1)}})
			has = append(has, codec.Position{Incarnation: 200 + incarnation, Seq: 1})
		}
		s.set("n1", func(a *actor) { a.news.Positions = has })
		s.ViewChanged()
		s.expect("unknown", time.Hour/2, "n1", "exchange")
		s.begin(nil, "a")
		s.expect("behind", time.Second, "n1", "[1]")
		if err := s.Exchange(t.Context(), s.Member("n1")); err != nil { // at the moment at which the list begins
			t.Error(err)
		}
		s.expect("before the list", 0, "n1", "exchange")
		s.Tick()
		if s.expect("the list is due", 0, "n1", "exchange, [2 3]"); s.Sizes().Retired != 3 {
			t.Fatalf("%+v", s.Sizes())
		}
		s.begin(nil, "b")
		s.expect("behind", 0, "n1", "[4]")
	}, "n1")
}

// A member that says that it has no such cache counts as having all up to the last number that it was sent, also if it
// says so through another member. Once it has confirmed something it has the cache.
func TestMemberWithoutTheCache(t *testing.T) {
	onStage(t, nil, func(t *testing.T, s *script) {
		s.see("n1", "n2")
		s.meet()
		s.set("n1", func(a *actor) { a.status, a.down = codec.StatusUnknown, true })
		s.begin(nil, "a")
		s.pass(0)
		w := journal.NewWait()
		s.begin(w, "b")
		s.expect("relayed", 0, "n1", "n2> [2]")
		for _, wait := range []func(context.Context) error{func(ctx context.Context) error { return s.Wait(ctx, w) }, s.WaitAll} {
			if err := wait(t.Context()); err != nil {
				t.Errorf("the wait ends with %v", err)
			}
		}
		s.expect("empty", time.Minute, "n1", "")

		s.set("n2", func(a *actor) { a.status = codec.StatusUnknown })
		w = journal.NewWait()
		s.begin(w, "c")
		s.set("n1", func(a *actor) { a.down = false })
		s.pass(time.Second)
		if err := s.Wait(t.Context(), w); err != nil {
			t.Errorf("neither has the cache, and the wait ends with %v", err)
		}

		s.set("n2", func(a *actor) { a.status, a.has, a.sees = 0, 3, []string{"n2", "n3"} })
		s.set("n3", func(a *actor) { a.status = codec.StatusUnknown })
		s.begin(nil, "d")
		s.pass(time.Second)
		s.begin(journal.NewWait(), "e")
		s.expect("outside and empty", time.Second, "n3", "n2> [5]")
		s.set("n3", func(a *actor) { a.status, a.has = 0, 5 })
		s.begin(journal.NewWait(), "f")
		s.expect("outside, and it has the cache", time.Second, "n3", "n2> [6]")
		s.see("n1", "n2", "n3")
		s.ViewChanged()
		s.expect("it comes into the view", 0, "n3", "exchange")
	}, "n1", "n2", "n3")
}
