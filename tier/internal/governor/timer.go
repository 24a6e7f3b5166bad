package governor

import (
	"math"
	"time"
)

// Recheck decides whatever is due, for instance after the share has changed.
func (g *Governor) Recheck() {
	g.enter()
	defer g.mu.Unlock()
	now := g.now()
	g.turn(now)
	g.arm(now)
}

// arm sets the timer for the next thing that is due without any call. The caller holds mu.
func (g *Governor) arm(now int64) {
	next := int64(math.MaxInt64)
	p := g.policy()
	for l := laneMiss; l < lanes; l++ {
		if t := g.queues[l].root(); t != nil {
			if at, ever := p.sheds(g.queues[l].filled, t.since); ever {
				next = min(next, at)
			}
		}
	}
	if g.o.Rate > 0 && g.waiting > 0 && g.used < g.permits {
		if _, ok, again := g.token(now); !ok {
			next = min(next, again)
		}
	}
	if g.closed || next == math.MaxInt64 {
		g.disarm()
		return
	}
	if g.timer != nil && g.due <= next {
		return // it checks again when it fires
	}
	g.disarm()
	const least = int64(100 * time.Microsecond) // many fall due together
	g.due = next
	g.wakes.Add(1)
	var own *time.Timer
	own = time.AfterFunc(time.Duration(max(next-now, least)), func() {
		defer g.wakes.Done()
		g.mu.Lock()
		if g.timer == own {
			g.timer = nil
		}
		g.mu.Unlock()
		g.Recheck()
	})
	g.timer = own
}

// disarm stops the timer. The caller holds mu.
func (g *Governor) disarm() {
	if g.timer != nil && g.timer.Stop() {
		g.wakes.Done()
	}
	g.timer = nil
}

// Close undoes an Open. The last Close stops the timer and waits for its call. A load that waits for a permit after
// that waits until its context ends.
func (g *Governor) Close() {
	g.mu.Lock()
	if g.users--; g.users > 0 {
		g.mu.Unlock()
		return
	}
	g.closed = true
	g.disarm()
	g.mu.Unlock()
	g.wakes.Wait()
}

// Open counts one more cache that uses the governor. The first cache may have another Cluster than those before, so
// it must ask for its share.
func (g *Governor) Open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.users == 0 {
		g.asking, g.allowed, g.granted, g.withheld = 0, false, false, false
	}
	g.users++
	g.closed = false
}
