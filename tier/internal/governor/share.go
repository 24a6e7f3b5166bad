package governor

// WithholdShare keeps the share back until each cache that has called it calls AllowShare or WaiveShare. It reports whether it does: a share
// that has been taken stays.
func (g *Governor) WithholdShare() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.granted {
		return false
	}
	g.asking++
	g.withheld = true
	return true
}

// AllowShare says that the members' words to one cache allow the share. The last that asks lets it count, for good.
func (g *Governor) AllowShare() {
	g.enter()
	defer g.mu.Unlock()
	g.allowed = true
	g.answered()
}

// WaiveShare says that a cache closes before its question is answered.
func (g *Governor) WaiveShare() {
	g.enter()
	defer g.mu.Unlock()
	g.answered()
}

// answered counts one question less. The caller holds mu.
func (g *Governor) answered() {
	if g.asking--; g.asking > 0 || !g.allowed {
		return
	}
	g.withheld, g.granted = false, true
	g.settle(g.part)
	now := g.now()
	for i := range g.queues { // what waited for the share did not wait in an overload
		g.queues[i].filled = now
	}
	g.turn(now)
	g.arm(now)
}

// FitsShare reports whether the loads fit the present share: no load begins from here on that does not.
func (g *Governor) FitsShare() bool {
	g.enter()
	defer g.mu.Unlock()
	g.shares.Add(1) // a goroutine that has asked for a share before asks again
	return g.used <= g.part.share
}

// Running is how many permits are in use: no load begins from here on by a share that is older than the present one.
func (g *Governor) Running() int {
	g.enter()
	defer g.mu.Unlock()
	g.shares.Add(1)
	return g.used
}
