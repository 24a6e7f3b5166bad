package wire

// Waiting returns how many bytes of answers wait to be sent on all connections, beyond what each may hold in any case.
func (d *Plane) Waiting() int64 { return d.backlog.bytes.Load() }

// Ticking reports whether the first connection to a member checks its calls every tick, and at which tick it last did.
func (d *Plane) Ticking(member string) (ticking bool, tick int64) {
	l := d.firstLink(member)
	l.out.lock()
	defer l.out.unlock()
	return l.ticking, l.tick
}

// Now returns the age of the first connection to a member, in ticks.
func (d *Plane) Now(member string) int64 { return d.firstLink(member).now() }

// StopTicking does what that connection does after a while without calls. It reports whether the ticking has stopped.
func (d *Plane) StopTicking(member string) bool { return d.firstLink(member).stopTicking() }

func (d *Plane) firstLink(member string) *link { return (*d.peers.Load())[member].slots[0].link.Load() }
