package peer

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/internal/testlog"
	"github.com/weircache/weir/ring"
)

func TestThreeNodesAgree(t *testing.T) {
	a := start(t, quick("a"))
	b := start(t, quick("b", a.Addr()))
	c := start(t, quick("c", a.Addr()))
	awaitNames(t, "a b c", a, b, c)
	for _, n := range []*Node{b, c} {
		if n.View().Fingerprint() != a.View().Fingerprint() {
			t.Errorf("%s has another view than a", n.Name())
		}
	}
	if m, _ := a.Divisor(); m != 3 {
		t.Errorf("a divides by %d, want 3", m)
	}
	if reason := b.unready(); reason != "" {
		t.Errorf("b is not ready: %s", reason)
	}

	// A leave is announced: the others drop the member and forget it.
	if err := b.Leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	awaitNames(t, "a c", a, c)

	// A crash is noticed, and the member still counts.
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	awaitNames(t, "a", a)
	if s := stateOf(a, "c"); s != StateLost {
		t.Errorf("c is %q, want %q", s, StateLost)
	}
	if s := stateOf(a, "b"); s != "" {
		t.Errorf("b is %q, want it forgotten", s)
	}
}

func stateOf(n *Node, name string) State {
	for _, m := range n.Members() {
		if m.Name == name {
			return m.State
		}
	}
	return ""
}

func TestRestartUnderTheSameName(t *testing.T) {
	a := start(t, quick("a"))
	b := start(t, quick("b", a.Addr()))
	awaitNames(t, "a b", a, b)
	before, _ := a.View().Member("b")
	_ = b.Close()
	again := start(t, quick("b", a.Addr())) // at another port, long before b's death is noticed
	await(t, a, "waiting for the new b", func(v *ring.View) bool {
		m, _ := v.Member("b")
		return m.Addr == again.Addr() && m.Incarnation > before.Incarnation
	})
	if v := a.View(); v.Len() != 2 {
		t.Errorf("a sees %v", v.Members())
	}
}

func TestPortTaken(t *testing.T) {
	a := start(t, quick("a"))
	cfg := quick("b")
	cfg.Bind = a.Addr()
	_, port, _ := net.SplitHostPort(a.Addr())
	_, err := Start(t.Context(), cfg)
	if !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "TCP port "+port) {
		t.Errorf("the error is %v, want one that names TCP port %s", err, port)
	}

	// Only the UDP half of a port is taken.
	cfg.Bind = onlyUDP(t)
	if _, err := Start(t.Context(), cfg); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(err.Error(), "UDP port") {
		t.Errorf("the error is %v, want one that names the UDP port", err)
	}
}

// onlyUDP takes the UDP half of a port whose TCP half is free.
func onlyUDP(t *testing.T) string {
	t.Helper()
	for {
		pc, err := net.ListenPacket("udp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = pc.Close() })
		ln, err := net.Listen("tcp", pc.LocalAddr().String())
		if err == nil {
			_ = ln.Close()
			return pc.LocalAddr().String()
		}
	}
}

func TestCloseAndLeaveTogether(t *testing.T) {
	a := start(t, quick("a"))
	b := start(t, quick("b", a.Addr()))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			if i%2 == 0 {
				_ = b.Close()
			} else if err := b.Leave(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if err := b.Leave(t.Context()); err != nil {
		t.Error(err)
	}
	if (endpoint{b}).unhealthy() == "" {
		t.Error("b says that it runs")
	}
}

func TestStartEndsWithItsContext(t *testing.T) {
	bubble(t, func(t *testing.T) {
		world := newMemNet()
		world.split("10.0.0.9") // the seed is never reached
		cfg := quick("a", "10.0.0.9:7946")
		cfg.Bind, cfg.Network = "10.0.0.1:7946", world.host("10.0.0.1")
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if n, err := Start(ctx, cfg); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Start returned %v, %v", n, err)
		}
	})
}

// simulated starts a node of a simulated cluster with default timing.
func simulated(t *testing.T, world memNet, i int, cfg Config) *Node {
	t.Helper()
	ip := fmt.Sprintf("10.0.0.%d", i)
	if cfg.Network == nil {
		cfg.Network = world.host(ip)
	}
	if cfg.Bind == "" {
		cfg.Bind = ip + ":7946"
	}
	if cfg.Logger == nil {
		cfg.Logger = quick("").Logger
	}
	if cfg.Name == "" {
		cfg.Name = fmt.Sprintf("n%d", i)
	}
	// memberlist's last probe outlasts Close, and a bubble must not end before it.
	t.Cleanup(func() { pause(context.Background(), healthLevels*time.Second) })
	return start(t, cfg)
}

func TestSplitAndRejoin(t *testing.T) {
	bubble(t, func(t *testing.T) {
		world := newMemNet()
		world.SetName("weir.svc", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4")
		var nodes []*Node
		for i := 1; i <= 4; i++ {
			nodes = append(nodes, simulated(t, world, i, Config{Join: []string{"weir.svc:7946"}}))
		}
		awaitNames(t, "n1 n2 n3 n4", nodes...)

		world.split("10.0.0.3", "10.0.0.4")
		awaitNames(t, "n1 n2", nodes[:2]...)
		awaitNames(t, "n3 n4", nodes[2:]...)
		pause(t.Context(), 2*time.Minute) // long after memberlist has forgotten them
		for _, n := range nodes {
			if m, _ := n.Divisor(); m != 4 {
				t.Errorf("%s divides by %d during the split, want 4", n.Name(), m)
			}
		}

		world.split()
		awaitNames(t, "n1 n2 n3 n4", nodes...)
	})
}

func TestDivisorOverTime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		world := newMemNet()
		divisor := func(n *Node) string {
			synctest.Wait()
			m, r := n.Divisor()
			return fmt.Sprintf("%d/%d", r, m)
		}
		seed := []string{"10.0.0.1:7946"}
		n1 := simulated(t, world, 1, Config{})
		pause(t.Context(), time.Millisecond) // ranks follow the order of the starts
		n2 := simulated(t, world, 2, Config{Join: seed})
		pause(t.Context(), time.Millisecond)
		if d := divisor(n1); d != "0/2" {
			t.Errorf("a join: n1 has %s at once", d)
		}
		if d := divisor(n2); d != "1/2" {
			t.Errorf("n2 starts with %s", d)
		}
		// The third is also announced to n2 before it starts to work.
		n3 := simulated(t, world, 3, Config{Join: seed})
		if d := divisor(n2); d != "1/3" {
			t.Errorf("a join: n2 has %s at once", d)
		}

		// A leave raises the share, but not at once.
		if err := n2.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		awaitNames(t, "n1 n3", n1, n3)
		if d := divisor(n3); d != "2/3" {
			t.Errorf("after a leave n3 has %s at once", d)
		}
		pause(t.Context(), settleTime)
		if d := divisor(n3); d != "1/2" {
			t.Errorf("after a leave and a while n3 has %s", d)
		}

		// Silence never raises the share. A member that joins later divides by as many.
		world.Pause("10.0.0.3")
		awaitNames(t, "n1", n1)
		pause(t.Context(), time.Minute)
		if d := divisor(n1); d != "0/2" {
			t.Errorf("with a silent member n1 has %s", d)
		}
		n4 := simulated(t, world, 4, Config{Join: seed})
		if d := divisor(n4); d != "2/3" {
			t.Errorf("a member that joins then has %s", d)
		}
		_ = n3.Close()
		world.Resume("10.0.0.3")

		// When it is back under its name, it counts once; when it leaves, it does not count any more.
		n3 = simulated(t, world, 3, Config{Join: seed})
		awaitNames(t, "n1 n3 n4", n1, n3, n4)
		if d := divisor(n1); d != "0/3" {
			t.Errorf("with n3 back n1 has %s", d)
		}
		if err := n3.Leave(t.Context()); err != nil {
			t.Fatal(err)
		}
		pause(t.Context(), 2*settleTime)
		if d := divisor(n1); d != "0/2" {
			t.Errorf("after n3 has left n1 has %s", d)
		}
	})
}

func TestOtherClustersAndPlacements(t *testing.T) {
	bubble(t, func(t *testing.T) {
		world := newMemNet()
		seed := []string{"10.0.0.1:7946"}
		n1 := simulated(t, world, 1, Config{})
		n2 := simulated(t, world, 2, Config{Join: seed, ClusterName: "other"})
		n3 := simulated(t, world, 3, Config{Join: seed, Ring: ring.Config{Partitions: 271}})
		n4 := simulated(t, world, 4, Config{Join: seed})
		awaitNames(t, "n1 n4", n1, n4)
		pause(t.Context(), time.Minute)
		awaitNames(t, "n1 n4", n1, n4)
		awaitNames(t, "n2", n2)
		awaitNames(t, "n3", n3)
		if n2.unready() == "" {
			t.Error("n2 is ready though its seed has refused it")
		}
		if s := stateOf(n1, "n3"); s != StateRefused {
			t.Errorf("n3 is %q, want %q", s, StateRefused)
		}
		if n1.port.refused.Load() == 0 {
			t.Error("the port of n1 has let the other cluster in")
		}
	})
}

func TestDetectionTime(t *testing.T) {
	bubble(t, func(t *testing.T) {
		world := newMemNet()
		var nodes []*Node
		for i := 1; i <= 3; i++ {
			nodes = append(nodes, simulated(t, world, i, Config{Join: []string{"10.0.0.1:7946"}}))
		}
		awaitNames(t, "n1 n2 n3", nodes...)
		world.split("10.0.0.3") // it is silent, whereas a closed port would refuse
		begin := time.Now()
		awaitNames(t, "n1 n2", nodes[:2]...)
		took := time.Since(begin)
		t.Logf("a silent death was noticed in %v", took)
		if took > 5*time.Second {
			t.Errorf("a silent death was noticed in %v", took)
		}
	})
}

func TestUnreachedSeedsAreNotFatal(t *testing.T) {
	book := &testlog.Log{}
	cfg := quick("a", "127.0.0.1:1")
	cfg.Logger = book.Logger()
	n := start(t, cfg)
	if n.unready() == "" {
		t.Error("the node is ready though no seed has answered")
	}
	if !strings.Contains(book.String(), "no seed answered") {
		t.Errorf("the log does not tell:\n%s", book)
	}
}

// TestManyDeadSeeds checks that one round tries all addresses of a name, however many of them are dead.
func TestManyDeadSeeds(t *testing.T) {
	bubble(t, func(t *testing.T) {
		world := newMemNet()
		n1 := simulated(t, world, 1, Config{})
		ips := []string{"10.0.0.1"}
		for i := range 5 * seedsAtOnce {
			ips = append(ips, fmt.Sprint("10.0.9.", i+1))
		}
		world.SetName("weir.svc", ips...)
		for i := 2; i < 6; i++ {
			n := simulated(t, world, i, Config{Join: []string{"weir.svc:7946"}})
			if n.View().Len() != i { // at once, not after the next attempt
				t.Errorf("n%d starts with %s", i, viewNames(n.View()))
			}
		}
		await(t, n1, "all", func(v *ring.View) bool { return v.Len() == 5 })
	})
}
