package governor

// Gather makes t, which does not wait for a permit, stand for all of tickets and for no others.
func (g *Governor) Gather(tickets []*Ticket, t *Ticket) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i, one := range tickets {
		one.into = t
		if i == 0 {
			t.Until = one.Until
		}
		g.raise(t, one.Class, one.Depth, one.Until)
	}
}

// Split makes t stand for itself.
func (g *Governor) Split(t *Ticket) {
	g.mu.Lock()
	defer g.mu.Unlock()
	t.into = nil
}
