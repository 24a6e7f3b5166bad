package governor

// WithholdShare keeps the share back until each cache that has called it calls AllowShare or WaiveShare. It returns
// false if the share was taken before: such a share stays.
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

// AllowShare records that the members' words to one cache allow the share. When the last asking cache has an answer,
// the share takes effect for good.
func (g *Governor) AllowShare() {
	g.enter()
	defer g.mu.Unlock()
	g.allowed = true
	g.answered()
}

// WaiveShare records that a cache closes before it got an answer.
func (g *Governor) WaiveShare() {
	g.enter()
	defer g.mu.Unlock()
	g.answered()
}

// answered counts one asking cache less. The caller holds mu.
func (g *Governor) answered() {
	if g.asking--; g.asking > 0 || !g.allowed {
		return
	}
	g.withheld, g.granted = false, true
	g.settle(g.part)
	now := g.now()
	for i := range g.queues { // waiting for the share does not count as overload
		g.queues[i].filled = now
	}
	g.turn(now)
	g.arm(now)
}

// FitsShare reports whether the loads fit the present share. From here on no load begins that does not fit it.
func (g *Governor) FitsShare() bool {
	g.enter()
	defer g.mu.Unlock()
	g.shares.Add(1) // a goroutine that asked for the share before this asks again
	return g.used <= g.part.share
}

// Running returns the number of permits in use. From here on no load begins under a share older than the present one.
func (g *Governor) Running() int {
	g.enter()
	defer g.mu.Unlock()
	g.shares.Add(1)
	return g.used
}

// Divide splits a cap among members so that the parts sum to it.
func Divide(limit, members, rank int) int {
	if members <= 1 {
		return limit
	}
	part := limit / members
	if rank < limit%members {
		part++
	}
	return part
}
