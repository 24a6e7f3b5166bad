package peer

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/peer/internal/wiretest"
	"github.com/weircache/weir/ring"
)

// TestCloseDuringLeave checks that Close cuts short a Leave at any point.
func TestCloseDuringLeave(t *testing.T) {
	for after := time.Duration(0); after < 1500*time.Millisecond; after += 100 * time.Millisecond {
		bubble(t, func(t *testing.T) {
			world := newMemNet()
			simulated(t, world, 1, Config{})
			n2 := simulated(t, world, 2, Config{Join: []string{"10.0.0.1:7946"}})
			var wg sync.WaitGroup
			wg.Go(func() {
				if err := n2.Leave(t.Context()); err != nil {
					t.Error(err)
				}
			})
			pause(t.Context(), after)
			begin := time.Now()
			_ = n2.Close()
			if took := time.Since(begin); took > 2*leaveWait {
				t.Errorf("after %v of leaving Close took %v", after, took)
			}
			wg.Wait()
		})
	}
}

func TestLeave(t *testing.T) {
	bubble(t, func(t *testing.T) {
		world := newMemNet()
		n1 := simulated(t, world, 1, Config{})
		n2 := simulated(t, world, 2, Config{Join: []string{"10.0.0.1:7946"}})
		n3 := simulated(t, world, 3, Config{Join: []string{"10.0.0.1:7946"}})
		awaitNames(t, "n1 n2 n3", n1, n2, n3)
		begin := time.Now()
		done := make(chan error, 1)
		go func() { done <- n2.Leave(t.Context()) }()
		awaitNames(t, "n1 n3", n1, n2, n3)
		t.Logf("out of all views after %v", time.Since(begin))
		if s := stateOf(n1, "n2"); s != StateLeaving {
			t.Errorf("n2 is %q, want %q", s, StateLeaving)
		}
		if n2.unready() == "" {
			t.Error("n2 is ready")
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
		took := time.Since(begin)
		t.Logf("left after %v", took)
		if took < drainTime || took > 2*leaveWait+drainTime {
			t.Errorf("leaving took %v", took)
		}
		synctest.Wait()
		if s := stateOf(n1, "n2"); s != "" {
			t.Errorf("n2 is %q, want it forgotten", s)
		}
	})
}

func TestLeaveEndsWithItsContext(t *testing.T) {
	bubble(t, func(t *testing.T) {
		world := newMemNet()
		simulated(t, world, 1, Config{})
		n2 := simulated(t, world, 2, Config{Join: []string{"10.0.0.1:7946"}})
		world.split("10.0.0.2") // the others cannot hear it
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if err := n2.Leave(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Leave returned %v", err)
		}
		if (endpoint{n2}).unhealthy() == "" {
			t.Error("the node still runs")
		}
	})
}

// TestCloseEndsStreams checks that stalled gossip streams end with the node, not after their timeout.
func TestCloseEndsStreams(t *testing.T) {
	bubble(t, func(t *testing.T) {
		world := newMemNet()
		n := simulated(t, world, 1, Config{})
		conn, err := world.host("10.0.0.9").Dial(t.Context(), n.Addr())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, "\xf4\x09weir/weir\x06"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		begin := time.Now()
		_ = n.Close()
		wiretest.MustEnd(t, conn)
		if took := time.Since(begin); took > 0 {
			t.Errorf("the stream ended %v after Close", took)
		}
	})
}

func TestNameTakenByAnotherNode(t *testing.T) {
	bubble(t, func(t *testing.T) {
		world := newMemNet()
		first := simulated(t, world, 1, Config{Name: "same"})
		pause(t.Context(), time.Second)
		second := simulated(t, world, 2, Config{Name: "same", Join: []string{"10.0.0.1:7946"}})
		for _, n := range []*Node{first, second} {
			await(t, n, "waiting for the second", func(v *ring.View) bool {
				m, _ := v.Member("same")
				return v.Len() == 1 && m.Addr == second.Addr()
			})
		}
		synctest.Wait()
		if first.unready() == "" || second.unready() != "" {
			t.Errorf("readiness: %q and %q", first.unready(), second.unready())
		}
	})
}

// TestColdStart checks that many nodes that start at the same moment, each with all others as seeds, become one cluster,
// and that MinMembers keeps their shares small from the first moment.
func TestColdStart(t *testing.T) {
	const count = 12
	bubble(t, func(t *testing.T) {
		world := newMemNet()
		var ips []string
		names := ""
		for i := 1; i <= count; i++ {
			ips = append(ips, fmt.Sprintf("10.0.0.%d", i))
			names += fmt.Sprintf("n%02d ", i)
		}
		world.SetName("weir.svc", ips...)
		nodes := make([]*Node, count)
		var wg sync.WaitGroup
		for i := range nodes {
			wg.Go(func() {
				nodes[i] = simulated(t, world, i+1, Config{Name: fmt.Sprintf("n%02d", i+1), Join: []string{"weir.svc:7946"}, MinMembers: count})
				if m, _ := nodes[i].Divisor(); m != count {
					t.Errorf("it divides by %d", m)
				}
			})
		}
		wg.Wait()
		awaitNames(t, names[:len(names)-1], nodes...)
		for _, n := range nodes {
			if n.View().Fingerprint() != nodes[0].View().Fingerprint() {
				t.Error("views differ")
			}
		}
	})
}
