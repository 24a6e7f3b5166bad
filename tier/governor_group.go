package tier

// gather makes t, which does not wait for a permit, stand for all of tickets and no others.
func (g *governor) gather(tickets []*ticket, t *ticket) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, one := range tickets {
		one.into = t
		if i == 0 {
			t.until = one.until
		}
		g.raise(t, one.class, one.depth, one.until)
	}
}

// split makes t stand for itself.
func (g *governor) split(t *ticket) {
	g.mu.Lock()
	defer g.mu.Unlock()
	t.into = nil
}
