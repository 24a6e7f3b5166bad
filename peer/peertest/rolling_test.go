package peertest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier"
)

// steady is a contract under which nothing expires while a test runs.
var steady = tier.Freshness{TTL: 4 * time.Hour, NearTTL: 500 * time.Millisecond, RefreshAhead: -1, Jitter: -1}

// warm reads the keys until all are resident, and returns how many loads that took.
func warm(ctx context.Context, t *testing.T, c *Cluster, keys int) {
	t.Helper()
	for k := range keys {
		if !c.Read(k%len(c.hosts), fmt.Sprintf("k%d", k), tier.AnyAge, c.patience()) {
			t.Fatal("a node is down")
		}
	}
}

// load reads all keys repeatedly from all nodes that are up, until ctx ends.
func load(ctx context.Context, c *Cluster, keys int, pace time.Duration) (wait func()) {
	var wg sync.WaitGroup
	for i := range c.hosts {
		dice := c.random(uint64(500 + i))
		wg.Go(func() {
			for ctx.Err() == nil {
				c.Get(i, fmt.Sprintf("k%d", dice.IntN(keys)), c.patience())
				sleep(ctx, upTo(dice, 2*pace))
			}
		})
	}
	return wg.Wait
}

// failures returns how many reads have failed since a stamp.
func failures(h *History) (n int, first error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, r := range h.reads {
		if r.Err != nil {
			if n++; first == nil {
				first = fmt.Errorf("%s on %s after %v: %w", r.Key, r.Node, r.EndedAt.Sub(r.BeganAt), r.Err)
			}
		}
	}
	return n, first
}

// TestRollingRestartLong checks G9: all nodes restart one by one, under load, and the origin does not notice.
func TestRollingRestartLong(t *testing.T) {
	for _, pause := range []time.Duration{3 * time.Second, 20 * time.Second} {
		t.Run(fmt.Sprint(pause), func(t *testing.T) {
			Bubble(t, func(t *testing.T) {
				const keys = 1000
				c := New(Options{Seed: 7, Nodes: 5, Freshness: steady, Concurrency: 50})
				defer func() {
					if err := c.Stop(); err != nil {
						t.Error(err)
					}
				}()
				for i := range c.hosts {
					if err := c.Start(t.Context(), i); err != nil {
						t.Fatal(err)
					}
				}
				if err := c.Settle(time.Minute); err != nil {
					t.Fatal(err)
				}
				warm(t.Context(), t, c, keys)
				sleep(t.Context(), 20*time.Second)
				before := c.History.Figures()
				c.History.BeginMoves()
				ctx, cancel := context.WithCancel(t.Context())
				wait := load(ctx, c, keys, 5*time.Millisecond)
				for i := range c.hosts {
					if err := c.Leave(t.Context(), i); err != nil {
						t.Error(err)
					}
					if err := c.Start(t.Context(), i); err != nil {
						t.Error(err)
					}
					sleep(t.Context(), pause)
				}
				cancel()
				wait()
				warm(t.Context(), t, c, keys) // the keys that the load has not requested
				c.History.EndMoves()
				after := c.History.Figures()
				loads := after.Loads - before.Loads
				failed, err := failures(c.History)
				by := make(map[string]int64)
				for i := range c.hosts {
					_, cache := c.Node(i)
					for why, n := range cache.Stats().LoadsBy {
						by[why] += n
					}
				}
				t.Logf("%d keys, %d reads, %d loads %v, %d failed", keys, after.Reads-before.Reads, loads, by, failed)
				if loads*100 > keys {
					t.Errorf("%d loads for %d keys", loads, keys)
				}
				if failed > 0 {
					t.Errorf("%d reads failed, the first: %v", failed, err)
				}
				for _, v := range c.History.Check(c.Rules()) {
					t.Error(v)
				}
			})
		})
	}
}

// forsaken is a cluster in which a member gets no entries from the previous owner.
type forsaken struct{ tier.Cluster }

func (f forsaken) Call(ctx context.Context, to ring.Member, req *codec.Request, resp *codec.Response) error {
	if req.Kind == codec.KindPush || req.Kind == codec.KindGet && req.Flags&codec.FlagPrevious != 0 {
		return errors.New("no")
	}
	return f.Cluster.Call(ctx, to, req, resp)
}

// TestMoves lets nodes leave and start while others read, write and want new values. The checker must find no unnecessary
// load, and must find such loads if entries are not handed over.
func TestMoves(t *testing.T) {
	for _, handed := range []bool{true, false} {
		Bubble(t, func(t *testing.T) {
			const keys = 200
			o := Options{Seed: 9, Nodes: 3, Freshness: steady, Concurrency: 50}
			if !handed {
				o.Wrap = func(c tier.Cluster) tier.Cluster { return forsaken{c} }
			}
			c, stop := whole(t, o)
			defer stop()
			warm(t.Context(), t, c, keys)
			sleep(t.Context(), 20*time.Second)
			ctx, cancel := context.WithCancel(t.Context())
			p := Plan{Keys: keys, Pace: 50 * time.Millisecond}.withDefaults()
			var wg sync.WaitGroup
			for i := range c.hosts {
				wg.Go(func() { c.client(ctx, i, p, c.random(uint64(70+i))) })
			}
			c.History.BeginMoves()
			for i := range c.hosts {
				if err := c.Leave(t.Context(), i); err != nil {
					t.Error(err)
				}
				sleep(ctx, 5*time.Second)
				if err := c.Start(t.Context(), i); err != nil {
					t.Error(err)
				}
				sleep(ctx, 5*time.Second)
			}
			cancel()
			wg.Wait()
			c.History.EndMoves()
			found := false
			for _, v := range c.History.Check(c.Rules()) {
				if found = v.Guarantee == "G9"; handed || !found {
					t.Error(v)
				}
			}
			if !handed && !found {
				t.Error("nothing was handed over, and the checker has not noticed")
			}
		})
	}
}

// TestJoinsTogether checks G9: two nodes join at the same moment. Each asks the member that had a key before either of them
// joined, so the origin does not notice. If entries are not handed over, the checker finds the loads.
func TestJoinsTogether(t *testing.T) {
	for _, handed := range []bool{true, false} {
		Bubble(t, func(t *testing.T) {
			const keys = 400
			o := Options{Seed: 5, Nodes: 5, Freshness: steady, Concurrency: 50}
			if !handed {
				o.Wrap = func(c tier.Cluster) tier.Cluster { return forsaken{c} }
			}
			c := New(o)
			defer func() {
				if err := c.Stop(); err != nil {
					t.Error(err)
				}
			}()
			start := func(hosts ...int) {
				var wg sync.WaitGroup
				for _, i := range hosts {
					wg.Go(func() {
						if err := c.Start(t.Context(), i); err != nil {
							t.Error(err)
						}
					})
				}
				wg.Wait()
				if err := c.Settle(time.Minute); err != nil {
					t.Fatal(err)
				}
			}
			start(0, 1, 2)
			for k := range keys {
				c.Read(k%3, fmt.Sprintf("k%d", k), tier.AnyAge, c.patience())
			}
			sleep(t.Context(), 5*time.Minute)
			before := c.History.Figures().Loads
			c.History.BeginMoves()
			start(3, 4)
			warm(t.Context(), t, c, keys)
			c.History.EndMoves()
			loads := c.History.Figures().Loads - before
			t.Logf("handed %v: %d loads for %d keys", handed, loads, keys)
			if violations := c.History.Check(c.Rules()); handed != (len(violations) == 0) || handed && loads*100 > keys {
				t.Errorf("handed over %v: %d loads for %d keys, %v", handed, loads, keys, violations)
			}
		})
	}
}
