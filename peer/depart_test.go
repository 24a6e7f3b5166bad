package peer

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/internal/testlog"
	"github.com/weircache/weir/ring"
)

// TestSecondOfANameLeaves checks that when a second node with a used name leaves gracefully, the first one is back in all
// views at once, the cap was never divided by fewer, and all nodes log what happened.
func TestSecondOfANameLeaves(t *testing.T) {
	bubble(t, func(t *testing.T) {
		world, logs, first := newMemNet(), new(testlog.Log), new(testlog.Log)
		seeds := []string{"10.0.0.1:7946", "10.0.0.2:7946"}
		n1 := simulated(t, world, 1, Config{Join: seeds, MinMembers: 1, Logger: first.Logger()})
		n2 := simulated(t, world, 2, Config{Join: seeds, MinMembers: 1, Logger: logs.Logger()})
		n3 := simulated(t, world, 3, Config{Join: seeds, MinMembers: 1})
		awaitNames(t, "n1 n2 n3", n1, n2, n3)
		pause(t.Context(), 3*time.Second)
		double := simulated(t, world, 4, Config{Name: "n1", Join: seeds, MinMembers: 1})
		awaitNames(t, "n1 n2 n3", double)
		pause(t.Context(), 3*time.Second)
		if reason := n1.unready(); !strings.Contains(reason, "has taken this node's name") {
			t.Errorf("the first one is ready, or for another reason not: %q", reason)
		}
		least, left := 3, make(chan struct{})
		go func() {
			defer close(left)
			if err := double.Leave(t.Context()); err != nil {
				t.Error(err)
			}
		}()
		for range 500 {
			pause(t.Context(), 10*time.Millisecond)
			for _, n := range []*Node{n1, n2, n3} {
				members, _ := n.Divisor()
				least = min(least, members)
			}
		}
		<-left
		for _, n := range []*Node{n1, n2, n3} {
			m, ok := n.View().Member("n1")
			if !ok || m.Addr != n1.Addr() || n.View().Len() != 3 {
				t.Errorf("%s sees n1 at %q, and %s", n.Name(), m.Addr, viewNames(n.View()))
			}
			if reason := n.unready(); reason != "" {
				t.Errorf("%s is not ready: %s", n.Name(), reason)
			}
		}
		if least < 3 {
			t.Errorf("for a while caps were divided by %d", least)
		}
		for log, event := range map[*testlog.Log]string{logs: "event=member_contradicts", first: "event=name_released"} {
			if !strings.Contains(log.String(), event) {
				t.Errorf("no %s in the log:\n%s", event, log)
			}
		}
	})
}

// TestNothingIsLeftOfTheDeparted checks that departed members leave no record and no goroutine behind, whatever their names
// and whatever calls still name them.
func TestNothingIsLeftOfTheDeparted(t *testing.T) {
	bubble(t, func(t *testing.T) {
		world := newMemNet()
		seeds := []string{"10.0.0.1:7946"}
		n1 := simulated(t, world, 1, Config{Join: seeds})
		n2 := simulated(t, world, 2, Config{Join: seeds})
		awaitNames(t, "n1 n2", n1, n2)
		old := []ring.Member{{}} // a member known only by name from others has no address
		ask := func(m ring.Member) error {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			req := codec.Request{Kind: codec.KindGet, Namespace: []byte("n"), Schema: 1, Key: []byte("k")}
			var resp codec.Response
			defer resp.Release()
			return n1.Call(ctx, m, &req, &resp)
		}
		settle := func() int {
			for _, m := range old {
				if err := ask(m); err == nil {
					t.Errorf("%s answers", m.Name)
				}
				if slices.ContainsFunc(peerStats(n1.data), func(p PeerStats) bool { return p.Name == m.Name }) {
					t.Errorf("a late call has made a record of %s", m.Name)
				}
			}
			pause(t.Context(), 2*time.Minute)
			synctest.Wait()
			return runtime.NumGoroutine()
		}
		before := settle()
		for i := range 12 {
			m := simulated(t, world, 10+i, Config{Name: fmt.Sprintf("pod-%d", i), Join: seeds})
			for _, n := range []*Node{n1, n2} {
				await(t, n, m.Name(), func(v *ring.View) bool { return v.Index(m.Name()) >= 0 })
			}
			is, _ := n1.View().Member(m.Name())
			old = append(old, is)
			if err := ask(is); err != nil {
				t.Error(err)
			}
			if i%2 == 0 {
				_ = m.Leave(t.Context())
			} else {
				_ = m.Close()
			}
			_ = ask(is) // while it is leaving
			awaitNames(t, "n1 n2", n1, n2)
		}
		after := settle()
		for _, n := range []*Node{n1, n2} {
			if known := n.Members(); len(known) != 2 {
				t.Errorf("%s remembers %+v", n.Name(), known)
			}
			if peers := n.data.Peers(); len(peers) > 1 {
				t.Errorf("%s has records of %d members", n.Name(), len(peers))
			}
		}
		if after > before {
			buf := make([]byte, 1<<20)
			t.Errorf("%d goroutines, %d before:\n%s", after, before, buf[:runtime.Stack(buf, true)])
		}
	})
}
