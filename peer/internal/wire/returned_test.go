package wire_test

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/internal/testlog"
	"github.com/weircache/weir/peer/internal/wire"
	"github.com/weircache/weir/peer/internal/wiretest"
	"github.com/weircache/weir/ring"
)

// TestReturned checks that a member that was silent for two seconds or more is reported when it answers again, unless
// another member fell silent within three seconds of it: then this node may have been the one that was cut off.
func TestReturned(t *testing.T) {
	for _, c := range []struct {
		name    string
		other   time.Duration // when the other member falls silent, after the first
		silence time.Duration // of each
		want    []string
	}{
		{"alone", time.Hour, 5 * time.Second, []string{"b", "c"}},
		{"a short silence", time.Hour, time.Second, nil},
		{"at once", 0, 5 * time.Second, nil},
		{"just within the time", 3*time.Second - linkTick, 5 * time.Second, nil},
		{"just apart", 3 * time.Second, 5 * time.Second, []string{"b", "c"}},
	} {
		bubble(t, func(t *testing.T) {
			var returned []string // written only while the test waits
			log := new(testlog.Log)
			stalled := map[string]*atomic.Bool{"b": new(atomic.Bool), "c": new(atomic.Bool)}
			servers := make(map[string]*wire.Plane)
			for name := range stalled {
				servers[name] = plane(t, name, nil)
				if _, err := servers[name].Register("n", 7, wiretest.Value("v")); err != nil {
					t.Fatal(err)
				}
			}
			a := plane(t, "a", func(cfg *wire.Config) {
				cfg.Logger = log.Logger()
				cfg.Returned = func(member string) { returned = append(returned, member) }
				cfg.Dial = func(_ context.Context, name string) (net.Conn, error) {
					near, far := net.Pipe()
					go func() {
						if _, err := io.ReadFull(far, make([]byte, len(wire.Magic))); err == nil {
							servers[name].Accept(far, func() {})
						}
					}()
					return stalling{near, stalled[name]}, nil
				}
			})
			call := func(name string) error {
				var resp codec.Response
				defer resp.Release()
				return a.Call(t.Context(), ring.Member{Name: name, Addr: name}, wiretest.Get(0), &resp)
			}
			fallSilent := func(name string) {
				stalled[name].Store(true)
				time.AfterFunc(c.silence, func() { stalled[name].Store(false) })
				if err := call(name); !errors.Is(err, wire.ErrUnreachable) {
					t.Errorf("%s: %s answers: %v", c.name, name, err)
				}
			}
			for name := range stalled {
				if err := call(name); err != nil {
					t.Fatal(err)
				}
			}
			wiretest.Pause(t.Context(), time.Second) // no connection ticks any more
			go fallSilent("b")
			wiretest.Pause(t.Context(), c.other)
			go fallSilent("c")
			wiretest.Pause(t.Context(), time.Minute)
			synctest.Wait()
			if slices.Sort(returned); !slices.Equal(returned, c.want) {
				t.Errorf("%s: %q are reported, want %q\n%s", c.name, returned, c.want, log)
			}
			if n := a.Totals(); n.Opened != 2 || n.Shut != 2 {
				t.Errorf("%s: %+v", c.name, n)
			}
		})
	}
}

// TestNoConnectionInTime checks that a caller whose peer does not accept a connection waits for half a second, that the
// peer is then bypassed and says why, and that one attempt at a time goes on.
func TestNoConnectionInTime(t *testing.T) {
	for _, connections := range []int{1, 2} {
		bubble(t, func(t *testing.T) {
			var hangs atomic.Bool
			hangs.Store(true)
			var at, most atomic.Int64 // attempts at a time
			w := newPair(t, false, gated(nil, nil), func(a, _ *wire.Config) {
				a.Connections = connections
				dial := a.Dial
				a.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
					if !hangs.Load() {
						return dial(ctx, addr)
					}
					most.Store(max(most.Load(), at.Add(1)))
					defer at.Add(-1)
					<-ctx.Done()
					return nil, ctx.Err()
				}
			})
			for i, wait := range []time.Duration{silentAfter, 0, 0} {
				began := time.Now()
				_, _, err := w.get(t.Context(), "hit", 0)
				if took := time.Since(began); !errors.Is(err, wire.ErrUnreachable) || !strings.Contains(err.Error(), "is bypassed: no connection after 500ms") || took != wait {
					t.Errorf("call %d: %v after %v", i, err, took)
				}
			}
			if s := w.a.Peers()[0]; s.Dials != 1 || s.Openings != 1 || s.Breaker != wire.BreakerHalfOpen || !w.a.Bypassed("b") {
				t.Errorf("%+v", s)
			}
			wiretest.Pause(t.Context(), 20*time.Second)
			if s := w.a.Peers()[0]; most.Load() != 1 || s.Dials < 5 || s.Dials > 8 || s.Openings != 1 {
				t.Errorf("%d attempts at a time: %+v", most.Load(), s)
			}
			hangs.Store(false)
			wiretest.Pause(t.Context(), wire.HelloTimeout+backoffMax)
			w.mustGet(t, "hit")
			if w.a.Bypassed("b") || w.a.Bypassed("nobody") {
				t.Error("still bypassed")
			}
		})
	}
}

// TestBreakerStates checks the states that an operator sees: half open while a bypassed peer is being probed, or has a
// connection on which it has yet to answer, and open between two attempts.
func TestBreakerStates(t *testing.T) {
	bubble(t, func(t *testing.T) {
		w, stalled := silentPair(t, gated(nil, nil))
		w.mustGet(t, "hit")
		stalled.Store(true)
		if _, _, err := w.get(t.Context(), "hit", 0); !errors.Is(err, wire.ErrUnreachable) {
			t.Fatal(err)
		}
		if s := w.a.Peers()[0]; s.Connected != 1 || s.Breaker != wire.BreakerHalfOpen {
			t.Errorf("with a silent connection: %+v", s)
		}
		seen := make(map[string]int)
		for range 200 {
			wiretest.Pause(t.Context(), 100*time.Millisecond)
			s := w.a.Peers()[0]
			if seen[s.Breaker]++; s.Breaker == wire.BreakerClosed {
				t.Fatalf("%+v", s)
			}
		}
		if seen[wire.BreakerOpen] < 20 || seen[wire.BreakerHalfOpen] < 100 {
			t.Errorf("seen: %v", seen)
		}
	})
	bubble(t, func(t *testing.T) { // every attempt fails at once
		w := newPair(t, false, nil)
		w.noServer.Store(true)
		for range 10 {
			_, _, _ = w.get(t.Context(), "hit", 0)
			wiretest.Pause(t.Context(), 100*time.Millisecond)
		}
		if s := w.a.Peers()[0]; s.Breaker != wire.BreakerOpen || s.Openings != 1 || s.Connected != 0 {
			t.Errorf("%+v", s)
		}
	})
}
