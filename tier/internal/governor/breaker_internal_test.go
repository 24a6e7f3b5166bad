package governor

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// A script of events and the states that they lead to. Each word is an event, "time:event=state": b begins a load (=
// whether it was admitted), and o, f or v ends the oldest running load as ok, failed or void.
func TestBreaker(t *testing.T) {
	p := BreakerRules{Failures: 0.5, Minimum: 4, Window: 10 * time.Second, Pause: 5 * time.Second, Probes: 2}
	for name, script := range map[string]string{
		"stays closed below the minimum":       "0:b=yes 0:f=closed 0:b=yes 0:f=closed 0:b=yes 0:f=closed",
		"opens at half of four":                "0:b=yes 0:o=closed 0:b=yes 0:o=closed 0:b=yes 0:f=closed 0:b=yes 0:f=open 0:b=no 4:b=no",
		"below half it stays closed":           "0:b=yes 0:o=closed 0:b=yes 0:o=closed 0:b=yes 0:o=closed 0:b=yes 0:f=closed 0:b=yes 0:f=closed",
		"void loads do not count":              "0:b=yes 0:f=closed 0:b=yes 0:f=closed 0:b=yes 0:f=closed 0:b=yes 0:v=closed 0:b=yes",
		"old failures are forgotten":           "0:b=yes 0:f=closed 0:b=yes 0:f=closed 0:b=yes 0:f=closed 11:b=yes 11:f=closed",
		"within the window they are not":       "0:b=yes 0:f=closed 0:b=yes 0:f=closed 0:b=yes 0:f=closed 9:b=yes 9:f=open",
		"probes close it":                      "0:b=yes 0:f=closed 0:b=yes 0:f=closed 0:b=yes 0:f=closed 0:b=yes 0:f=open 5:b=yes 5:b=yes 5:b=no 6:o=half_open 6:b=no 6:o=closed 6:b=yes",
		"a failed probe opens it":              "0:b=yes 0:f=closed 0:b=yes 0:f=closed 0:b=yes 0:f=closed 0:b=yes 0:f=open 5:b=yes 5:b=yes 6:o=half_open 6:f=open 10:b=no 11:b=yes",
		"a void probe is repeated":             "0:b=yes 0:f=closed 0:b=yes 0:f=closed 0:b=yes 0:f=closed 0:b=yes 0:f=open 5:b=yes 5:b=yes 5:b=no 6:v=half_open 6:b=yes 6:o=half_open 6:o=closed",
		"failures long after the start add up": "100:b=yes 100:f=closed 101:b=yes 101:f=closed 102:b=yes 102:f=closed 103:b=yes 103:f=open",
		"each second is forgotten by itself":   "1:b=yes 1:f=closed 1:b=yes 1:f=closed 10:b=yes 10:o=closed 11:b=yes 11:f=closed 11:b=yes 11:f=closed 11:b=yes 11:f=open",
		"late loads do not count":              "0:b=yes 0:b=yes 0:f=closed 0:b=yes 0:f=closed 0:b=yes 0:f=closed 0:b=yes 0:f=open 5:b=yes 5:f=half_open 5:b=yes",
	} {
		t.Run(name, func(t *testing.T) {
			var b breaker
			var gens []uint64 // of the loads that run
			for i, word := range strings.Fields(script) {
				var at int64
				var ev, want string
				if _, err := fmt.Sscanf(strings.NewReplacer(":", " ", "=", " ").Replace(word), "%d %s %s", &at, &ev, &want); err != nil {
					t.Fatal(err)
				}
				now := at*int64(time.Second) + 1
				got := ""
				if ev == "b" {
					ok, _ := b.admits(p, now)
					if got = "no"; ok {
						got, b = "yes", b.begun(now)
						gens = append(gens, b.gen)
					}
				} else {
					out := map[string]Outcome{"o": OK, "f": Failed, "v": Void}[ev]
					b = b.ended(p, gens[0], out, now)
					gens = gens[1:]
					got = BreakerStates[b.state]
				}
				if got != want {
					t.Fatalf("word %d, %q: got %s", i, word, got)
				}
			}
		})
	}
	off := BreakerRules{Failures: -1, Minimum: 1, Window: time.Second, Pause: time.Second, Probes: 1}
	var b breaker
	for i := range 1000 {
		b = b.begun(int64(i)).ended(off, b.gen, Failed, int64(i))
	}
	if b.state != breakerClosed {
		t.Error("it opened although it is off")
	}
}

// Each change of state starts another generation, and each opening is counted.
func TestBreakerCountsItsOpenings(t *testing.T) {
	p := BreakerRules{Failures: 1, Minimum: 1, Window: time.Second, Pause: time.Second, Probes: 1}
	var b breaker
	now := int64(1)
	for n := range int64(3) { // the first from closed, the others by a failed probe
		gen := b.gen
		b = b.begun(now)
		b = b.ended(p, b.gen, Failed, now)
		if b.state != breakerOpen || b.openings != n+1 || b.gen <= gen {
			t.Fatalf("%+v after %d openings, was generation %d", b, n+1, gen)
		}
		if ok, again := b.admits(p, now); ok || again != now+int64(p.Pause) {
			t.Fatalf("open: %v, try again at %d, want %d", ok, again, now+int64(p.Pause))
		}
		now += int64(p.Pause)
	}
	b = b.begun(now)
	b = b.ended(p, b.gen, OK, now)
	if b.state != breakerClosed || b.openings != 3 {
		t.Errorf("%+v after a probe that succeeded", b)
	}
	off := BreakerRules{Minimum: 1, Window: time.Second, Pause: time.Second, Probes: 1}
	if b = b.ended(off, b.gen, Failed, now); b.state != breakerClosed {
		t.Error("a fraction of 0 opened it")
	}
}

func TestRateBucket(t *testing.T) {
	var b bucket
	sec := int64(time.Second)
	took := 0
	for now := int64(0); now <= 10*sec; now += sec / 1000 {
		for {
			next, ok, again := b.take(50, 5, now)
			if !ok {
				if again <= now || again > now+sec/50+sec/1000 {
					t.Fatalf("at %d the next token is said to come at %d", now, again)
				}
				break
			}
			b = next
			took++
		}
	}
	if took < 503 || took > 506 {
		t.Errorf("%d tokens in 10 s of 50/s with a burst of 5, want 505", took)
	}
	if next, ok, _ := (bucket{spent: 10}).earn(0.2).take(0, 10, 0); ok || next.spent != 9.8 {
		t.Errorf("a fifth of a token was a whole one: %+v", next)
	}
}

// Which tickets are served and which are shed, in this order: "when:name", class m unless another is given, and the
// policy's verdicts at some times.
func TestQueuePolicy(t *testing.T) {
	ms := int64(time.Millisecond)
	p := queuePolicy{5 * ms, 100 * ms}
	for _, x := range []struct {
		filled, since, now int64
		over               bool
		sheds              int64
	}{
		{0, 0, 50, false, 100},      // every ticket that waits at the end of the interval is shed
		{0, 0, 100, true, 100},      //
		{0, 98, 99, false, 103},     // except one that has just come
		{0, 500, 503, true, 505},    // after that each is shed after 5 ms
		{450, 450, 500, false, 550}, // a queue that was empty starts a new interval
	} {
		over := p.overloaded(x.filled*ms, x.now*ms)
		at, ever := p.sheds(x.filled*ms, x.since*ms)
		if over != x.over || at != x.sheds*ms || !ever {
			t.Errorf("%+v: overloaded %v, gives up at %v", x, over, time.Duration(at))
		}
	}
	if _, ever := (queuePolicy{5, -1}).sheds(0, 0); ever || (queuePolicy{5, -1}).overloaded(0, 1<<60) {
		t.Error("a negative interval does not turn it off")
	}
	for _, x := range []struct {
		load    float64
		permits int
		want    queuePolicy
	}{
		{0, 1, p}, {40e6, 64, p},
		{40e6, 1, queuePolicy{80 * ms, 320 * ms}},
		{1e9, 0, queuePolicy{2000 * ms, 8000 * ms}},
	} {
		if got := p.fit(x.load, x.permits); got != x.want {
			t.Errorf("%v for %d permits: %+v, want %+v", time.Duration(x.load), x.permits, got, x.want)
		}
	}
}

// For an origin whose load time grows with the running loads, the limit finds what the origin can bear. A warm
// cache's idle time changes nothing. Lasting slowness becomes the new normal.
func TestLimit(t *testing.T) {
	const share, floor = 100, 0.25
	run := func(l limit, now *int64, seconds int, bears int, base time.Duration, demand int, fail float64) limit {
		for end := *now + int64(seconds)*int64(time.Second); *now < end; {
			used := min(l.permits(share, floor), demand)
			cost := base
			if used > bears {
				cost = base * time.Duration(used) / time.Duration(bears) * 2
			}
			*now += max(int64(cost)/int64(used), 1)
			l = l.ended(floor, share, used, cost, float64(*now%1000)/1000 < fail, *now)
		}
		return l
	}
	var now int64
	l := limit{}
	if n := l.permits(share, floor); n != share {
		t.Fatalf("it starts at %d", n)
	}
	l = run(l, &now, 20, 1000, 10*time.Millisecond, 100, 0)
	if n := l.permits(share, floor); n != share {
		t.Errorf("a healthy origin: %d", n)
	}
	slow := run(l, &now, 2, 40, 10*time.Millisecond, 100, 0)
	if n := slow.permits(share, floor); n > 90 || n < 25 {
		t.Errorf("an origin that has come to bear 40: %d", n)
	}
	idle := run(slow, &now, 20, 1000, 10*time.Millisecond, 1, 0)
	if a, b := slow.permits(share, floor), idle.permits(share, floor); a != b {
		t.Errorf("idle time changed it from %d to %d", a, b)
	}
	if n := run(slow, &now, 30, 1000, 10*time.Millisecond, 100, 0).permits(share, floor); n != share {
		t.Errorf("after the recovery: %d", n)
	}
	if n := run(l, &now, 5, 1000, 10*time.Millisecond, 100, 0.9).permits(share, floor); n != 25 {
		t.Errorf("a failing origin: %d, not the floor", n)
	}
	if n := run(l, &now, 120, 1000, 100*time.Millisecond, 100, 0).permits(share, floor); n != share {
		t.Errorf("ten times slower for two minutes: %d", n)
	}
	for _, x := range []struct{ share, want int }{{-1, 0}, {0, 0}, {1, 1}, {3, 1}, {8, 2}} {
		if n := (limit{fraction: 0.01}).permits(x.share, floor); n != x.want {
			t.Errorf("share %d at the floor: %d, want %d", x.share, n, x.want)
		}
	}
}
