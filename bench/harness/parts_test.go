package harness

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/url"
	"os"
	"reflect"
	"syscall"
	"testing"
	"time"

	"github.com/weircache/weir/bench/scenario"
)

func TestPlan(t *testing.T) {
	s := parse(t, "duration: 9s\nload: [{}]\nfaults:\n  - {at: 1s, do: rolling, every: 3s, for: 1s}\n  - {at: 0s, do: cut, nodes: [1]}\n")
	var got []string
	for _, p := range plan(s) {
		got = append(got, p.at.String()+" "+p.step.String())
	}
	want := []string{"0s cut nodes [1]", "1s leave node 0", "2s join node 0", "2s heal", "4s leave node 1", "5s join node 1", "7s leave node 2", "8s join node 2"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("the plan is %q", got)
	}
}

func TestLedger(t *testing.T) {
	l := newLedger(2, 10*time.Second)
	for _, at := range []time.Duration{-time.Second, 0, time.Second, 9 * time.Second, 10 * time.Second} {
		l.asked(0, at)
	}
	if n := l.due.Load(); n != 1 {
		t.Errorf("%d loads due, not 1: the one in the warm-up does not count, the one after the TTL does", n)
	}
	v1 := l.write(0, at(11*time.Second))
	l.asked(0, 11*time.Second)
	if n := l.due.Load(); n != 2 {
		t.Errorf("%d loads due after a write, not 2", n)
	}
	if s, b, _ := l.staleness(0, 0, 12*time.Second, 0); s != time.Second || b != 0 {
		t.Errorf("stale for %v and %v before the invalidation is confirmed", s, b)
	}
	l.settle(0, v1, 12*time.Second, 0b011)
	if s, b, _ := l.staleness(0, 0, 11500*time.Millisecond, 0); s != 500*time.Millisecond || b != 0 {
		t.Errorf("stale for %v and %v for a call before the confirmation", s, b)
	}
	if s, b, m := l.staleness(0, 0, 14*time.Second, 1); s != 3*time.Second || b != 2*time.Second || m != 0 {
		t.Errorf("stale for %v and %v, %v", s, b, m)
	}
	if s, b, m := l.staleness(0, 0, 14*time.Second, 2); s != 3*time.Second || b != 0 || m != 2*time.Second {
		t.Errorf("on a node that the invalidation could not reach it is stale for %v and %v, %v", s, b, m)
	}
	if s, b, m := l.staleness(0, v1, 14*time.Second, 0); s != 0 || b != 0 || m != 0 {
		t.Errorf("the newest version is stale for %v and %v, %v", s, b, m)
	}
	for range 3 * writesKept {
		l.write(1, at(time.Second))
	}
	if n := len(l.writes[1]); n != writesKept {
		t.Errorf("%d writes are kept", n)
	}
}

// at is a clock that stands at d.
func at(d time.Duration) func() time.Duration { return func() time.Duration { return d } }

// TestWriteIsTimedAfterwards checks that a call which begins after a write's time cannot have got the old version.
func TestWriteIsTimedAfterwards(t *testing.T) {
	l := newLedger(1, time.Minute)
	l.write(0, func() time.Duration {
		if v := l.keys[0].version.Load(); v != 1 {
			t.Errorf("the origin has version %d when the write is timed", v)
		}
		return time.Second
	})
}

func TestJudge(t *testing.T) {
	m := Measures{}
	for _, name := range scenario.Claimable() {
		if _, ok := m.named(name); !ok {
			t.Errorf("a claim about %s, which is no measure", name)
		}
	}
	most, least := 2.0, 0.9
	claims := []scenario.Claim{{Measure: "errors", Most: &most}, {Measure: "hit_ratio", Least: &least}, {Measure: "recover_seconds", Most: &most}}
	r := &Result{Rounds: []Round{{Measures: Measures{Errors: 2, HitRatio: 0.95}}, {Measures: Measures{Errors: 3, HitRatio: 0.9, Recover: Never()}}, {}}}
	r.Rounds[2].Measures.HitRatio = 1
	var held []bool
	for _, v := range Judge(claims, r) {
		held = append(held, v.Held)
	}
	if !reflect.DeepEqual(held, []bool{false, true, false}) {
		t.Errorf("held: %v", held)
	}
	if v := Judge(claims, r); v[0].Value != 3 || !math.IsInf(v[2].Value, 1) {
		t.Errorf("the round that does not hold it is not shown: %+v", v)
	}
	if v := Judge(claims, &Result{}); v != nil {
		t.Errorf("of nothing: %+v", v)
	}
}

func TestOrigin(t *testing.T) {
	bubble(t, func(t *testing.T) {
		s := parse(t, `
duration: 20s
load: [{}]
origin:
  latency: {kind: fixed, p50: 100ms}
  capacity: 2
  growth: 1
  limit: 5
  outages:
    - {from: 10s, to: 11s, kind: error}
    - {from: 12s, to: 13s, kind: hang}
    - {from: 14s, to: 15s, kind: slow, factor: 3}
`)
		l := newLedger(1, time.Minute)
		c := newClock()
		c.set(0)
		o := (&origin{s: s.Origin, sizes: func(int) int { return 100 }, ledger: l, clock: c, line: newTimeline(20 * time.Second), end: 20 * time.Second}).seeded(1)
		one := func() (time.Duration, error) {
			began := time.Now()
			b, err := o.load(t.Context(), 0)
			if err == nil && len(b) != 100 {
				t.Errorf("a value of %d bytes", len(b))
			}
			return time.Since(began), err
		}
		if d, err := one(); d != 100*time.Millisecond || err != nil {
			t.Errorf("a load alone takes %v, %v", d, err)
		}
		took := make(chan time.Duration, 6)
		for range 6 {
			go func() {
				d, err := one()
				if errors.Is(err, ErrRefused) {
					d = -1
				}
				took <- d
			}()
		}
		var sum time.Duration
		for range 6 {
			sum += <-took
		}
		// 100, 100, then 3 with a capacity of 2: half as much again; 200, 250, and one rejected.
		if sum != (100+100+150+200+250)*time.Millisecond-1 {
			t.Errorf("six at once take %v together", sum)
		}
		for _, x := range []struct {
			at, takes time.Duration
			err       error
		}{{10, 100 * time.Millisecond, ErrOrigin}, {12, 1100 * time.Millisecond, nil}, {14, 300 * time.Millisecond, nil}, {16, 100 * time.Millisecond, nil}} {
			time.Sleep(x.at*time.Second - c.now())
			if d, err := one(); d != x.takes || !errors.Is(err, x.err) {
				t.Errorf("at second %d a load takes %v, %v", x.at, d, err)
			}
		}
		if o.peak.Load() != 6 || o.calls.Load() != 11 || o.failed.Load() != 2 || o.running.Load() != 0 {
			t.Errorf("peak %d, calls %d, failed %d, running %d", o.peak.Load(), o.calls.Load(), o.failed.Load(), o.running.Load())
		}
	})
}

func TestRecovery(t *testing.T) {
	points := make([]Point, 20)
	for i := range points {
		points[i] = Point{T: float64(i), Offered: 100, P99: 2}
	}
	faults := []time.Duration{5 * time.Second}
	if r := recovery(points, faults, time.Second); r != 0 {
		t.Errorf("nobody felt it, %v s", r)
	}
	points[5].Errors, points[7].P99 = 50, 100
	if r := recovery(points, faults, time.Second); r != 3 {
		t.Errorf("felt until second 8, %v s", r)
	}
	points[19].Errors = 50
	if r := recovery(points, faults, time.Second); r != Never() {
		t.Errorf("felt to the end, %v s", r)
	}
}

func TestWires(t *testing.T) {
	w := newWires()
	a, b := w.network(0), w.network(1)
	l, err := b.Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	echoed := make(chan struct{})
	go func() {
		defer close(echoed)
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = io.Copy(c, c)
		_ = c.Close()
	}()
	c, err := a.Dial(t.Context(), l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	echo := func(text string) error {
		if _, err := io.WriteString(c, text); err != nil {
			return err
		}
		got := make([]byte, len(text))
		_, err := io.ReadFull(c, got)
		if err == nil && string(got) != text {
			t.Errorf("%q came back as %q", text, got)
		}
		return err
	}
	if err := echo("before"); err != nil {
		t.Fatal(err)
	}
	w.cut([]int{1})
	done := make(chan error, 1)
	go func() { done <- echo("during") }()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := a.Dial(ctx, l.Addr().String()); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a dial across the cut: %v", err)
	}
	select {
	case err := <-done:
		t.Errorf("a byte passed the cut: %v", err)
	default:
	}
	w.heal()
	if err := <-done; err != nil {
		t.Error(err)
	}
	w.cut([]int{0})
	go func() { done <- echo("never") }()
	_ = c.Close()
	if err := <-done; err == nil {
		t.Error("a connection that was closed within a cut gave an answer")
	}
	p, err := a.ListenPacket(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Close() }()
	to, err := net.ResolveUDPAddr("udp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if n, err := p.WriteTo([]byte("lost"), to); n != 4 || err != nil {
		t.Errorf("a datagram that is lost: %d, %v", n, err)
	}
	w.heal()
	<-echoed
}

func TestValues(t *testing.T) {
	b := makeValue(100, 7, 3, -time.Second)
	if v, at, err := readValue(b, 7); v != 3 || at != -time.Second || err != nil || len(b) != 100 {
		t.Errorf("version %d, %v, %v", v, at, err)
	}
	if _, _, err := readValue(b, 8); err == nil {
		t.Error("another key's value was taken")
	}
	if _, _, err := readValue(b[:10], 7); err == nil {
		t.Error("half a header was taken")
	}
}

func TestUniverse(t *testing.T) {
	s := parse(t, "duration: 1s\nload:\n  - {loop: burst, every: 100ms, keys: {kind: fresh}}\n  - {keys: {kind: uniform, count: 7}}\n")
	u, err := newUniverse(s)
	if err != nil {
		t.Fatal(err)
	}
	if len(u.names) != 7+12 || u.streams[0].first != 7 || u.index["key:00000003"] != 3 {
		t.Errorf("%d keys, the fresh ones from %d on", len(u.names), u.streams[0].first)
	}
	s.Load[1].Keys = scenario.Keys{Kind: "trace", File: "/nowhere", Format: "keys"}
	if _, err := newUniverse(s); err == nil {
		t.Error("a trace that is not there was read")
	}
}

// TestSized checks that tiers which are given as a percentage get their bytes, in their proportion.
func TestSized(t *testing.T) {
	const text = "duration: 1s\nvalues: {size: 988}\nload: [{keys: {count: 10000}}]\n" // 1,000 bytes a key
	for cluster, want := range map[string][2]scenario.Bytes{
		"{nodes: 2, percent: 40}":                           {400_000, 1_600_000}, // 1 to 4, the default
		"{nodes: 1, percent: 1}":                            {64 << 10, 64 << 10},
		"{nodes: 1, percent: 2}":                            {64 << 10, 200_000 - 64<<10},
		"{nodes: 1, percent: 10, near: -1}":                 {-1, 1_000_000},
		"{nodes: 1, near: 1MB, owned: 9MB}":                 {1_000_000, 9_000_000},
		"{nodes: 4, percent: 8, near: 64KiB, owned: 64KiB}": {100_000, 100_000},
	} {
		s := parse(t, "cluster: "+cluster+"\n"+text)
		u, err := newUniverse(s)
		if err != nil {
			t.Fatal(err)
		}
		before := *s
		if c := u.sized(s).Cluster; c.Near != want[0] || c.Owned != want[1] {
			t.Errorf("%s: near %d and owned %d", cluster, c.Near, c.Owned)
		}
		if !reflect.DeepEqual(*s, before) {
			t.Errorf("%s: the scenario itself has changed", cluster)
		}
	}
}

// TestRequestsEnd checks that a load ends after its requests, in every round.
func TestRequestsEnd(t *testing.T) {
	s := parse(t, "duration: 1m\norigin: {latency: {kind: fixed, p50: 0s}}\nload: [{callers: 3, keys: {kind: scan, count: 50, requests: 120}}]\n")
	r, err := Run(t.Context(), s, []System{&fake{}}, Options{Rounds: 2})
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range r.Systems[0].Rounds {
		if m := one.Measures; m.Gets != 120 || m.Due != 50 || m.Seconds >= 60 {
			t.Errorf("%+v", m)
		}
	}
}

// TestKindsAreFew checks that errors of one kind count as one, whatever key they name, and that the number of
// different kinds is bounded.
func TestKindsAreFew(t *testing.T) {
	for want, err := range map[string]error{
		"connection refused": &url.Error{Op: "Get", URL: "http://x/key:1", Err: &net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}},
		"connection lost":    &url.Error{Op: "Get", URL: "http://x/key:2", Err: io.EOF},
		"a text of its own":  &url.Error{Op: "Get", URL: "http://x/key:3", Err: errors.New("a text of its own")},
	} {
		if got := kindOf(err); got != want {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
	kinds := map[string]int64{}
	for i := range 1000 {
		addKind(kinds, fmt.Sprint("text ", i), 2)
	}
	if len(kinds) != maxKinds+1 || kinds["text 0"] != 2 || kinds["other"] != 2*(1000-maxKinds) {
		t.Errorf("%d kinds: %v", len(kinds), kinds)
	}
}
