package placement

import (
	"time"

	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/store"
)

const (
	// previousFor is how long after a move the previous owner is still asked.
	previousFor = int64(time.Hour)
	// startedTogether is the largest difference between the starts of two members at which neither counts as having
	// had the other's keys: the first one may not have read them yet.
	startedTogether = uint64(2 * time.Minute)
	// PreviousMemory is how many answers count to decide whether a previous owner is worth asking, and previousWorth
	// is the share of them that must bring a copy.
	PreviousMemory = 32
	previousWorth  = 1. / 16
	// After a failure a previous owner is not asked for previousPause, in ns, and then for twice as long each time.
	previousPause = int64(500 * time.Millisecond)
)

// previousOwner is a member that owned partitions before, or that was the stand-in owner for such a member.
// History.mu guards the fields that change.
type previousOwner struct {
	member ring.Member
	worth  float64 // the share of the answers that brought a copy; recent answers count most
	pause  int64   // the pause after the last failure; 0: no failure since the last answer
	until  int64   // do not ask before; ns on the cache's clock
}

// move is a partition's last change of owner.
type move struct {
	from  *previousOwner
	older *previousOwner // the owner before that; nil: unknown
	stood *previousOwner // its stand-in owner, if it was lost and the stand-in was not this node; nil: none
	at    int64          // ns on the cache's clock
}

// movedTo records where the partitions of v were before. The caller holds mu.
func (h *History) movedTo(v *ring.View, now int64) {
	old := h.now
	if old == nil || old.Len() == 1 && old.Index(h.Self) == 0 || old.Partitions() != v.Partitions() {
		// This node has just joined. Its keys belonged to the members that would own them without it.
		h.first, h.firstAt, h.moves, h.formers = v, now, nil, make(map[string]*previousOwner)
		h.settled = settledView(v, h.Self)
		return
	}
	if h.moves == nil {
		h.moves = make([]move, v.Partitions())
	}
	formers, stood := make(map[string]*previousOwner), make(map[string]*previousOwner)
	for p := range h.moves {
		m := &h.moves[p]
		from := old.OwnerOf(p)
		if from.Name != v.OwnerOf(p).Name {
			older := m.from
			if now-m.at > previousFor {
				older = nil
			}
			*m = move{from: h.former(from), older: older, at: now}
			m.from.worth = 1
			if v.OwnerOf(p).Name == h.Self && v.Index(from.Name) < 0 {
				m.stood = h.standIn(old, p, stood)
			}
		}
		if now-m.at > previousFor { // nothing is kept of members that are no longer asked
			*m = move{}
		}
		if m.from != nil {
			formers[m.from.member.Name] = m.from
		}
		if m.older != nil {
			formers[m.older.member.Name] = m.older
		}
	}
	h.formers = formers
}

// settledView returns a view without this node and without the members that started together with it, or later. It
// returns nil if no other member is left, or if that view only lacks this node.
func settledView(v *ring.View, self string) *ring.View {
	me, ok := v.Member(self)
	if !ok {
		return nil
	}
	var rest []ring.Member
	for _, m := range v.Members() {
		if m.Incarnation+startedTogether < me.Incarnation {
			rest = append(rest, m)
		}
	}
	if len(rest) == 0 || len(rest) >= v.Len()-1 {
		return nil
	}
	settled, err := v.Next(rest)
	if err != nil {
		return nil // only the previous owner is asked
	}
	return settled
}

// standIn returns the record of the member that reads of a partition's keys turned to while its owner in the old view
// could not be reached. records holds the records of this change. With zones that member need not be the next owner.
// The caller holds mu.
func (h *History) standIn(old *ring.View, partition int, records map[string]*previousOwner) *previousOwner {
	m, ok := old.SuccessorOf(partition)
	if !ok {
		return nil
	}
	f := records[m.Name]
	if f == nil {
		f = &previousOwner{member: m, worth: 1}
		records[m.Name] = f
	}
	return f
}

// former returns the record of a member. The caller holds mu.
func (h *History) former(m ring.Member) *previousOwner {
	f := h.formers[m.Name]
	if f == nil || f.member.Incarnation != m.Incarnation {
		f = &previousOwner{worth: 1}
		h.formers[m.Name] = f
	}
	f.member = m
	return f
}

// A Candidate is what is known about an earlier owner of a key.
type Candidate struct {
	owner  *previousOwner // nil: no member is worth asking
	To     ring.Member
	InView bool
	Pause  bool // do not ask it for a while
	Lost   bool // it has gone, and its copies with it
}

// Found reports whether there is a member worth asking.
func (c Candidate) Found() bool { return c.owner != nil }

// Previous returns the member that owned the key before this node.
func (h *History) Previous(key string, hash uint64, now int64) (p Candidate) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.now == nil {
		return p
	}
	var f *previousOwner
	i := h.now.PartitionOf(hash)
	if h.moves != nil && h.moves[i].from != nil {
		if f = h.moves[i].from; now-h.moves[i].at > previousFor {
			return p
		}
	} else if h.first.OwnerOf(i).Name == h.Self && now-h.firstAt <= previousFor {
		// A member that started later cannot have had the key.
		self, _ := h.now.Member(h.Self)
		if m, ok := h.first.Heir(key); ok && m.Incarnation < self.Incarnation {
			f = h.former(m)
		}
	}
	return h.prior(f, now)
}

// Older returns the member that owned the key before the one that Previous returns. If several members have started
// together, that is the member that had the key before any of them: Previous may return another joining node, or
// nothing if that node started later.
func (h *History) Older(hash uint64, now int64) (p Candidate) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.now == nil {
		return p
	}
	i := h.now.PartitionOf(hash)
	switch {
	case h.moves != nil && h.moves[i].older != nil && now-h.moves[i].at <= previousFor:
		p = h.prior(h.moves[i].older, now)
	case h.settled != nil && now-h.firstAt <= previousFor:
		p = h.prior(h.former(h.settled.OwnerOf(i)), now)
	}
	if p.Lost {
		return Candidate{}
	}
	return p
}

// StandIn returns the stand-in owner for the key's previous owner, if that was lost.
func (h *History) StandIn(hash uint64, now int64) (p Candidate) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.now == nil || h.moves == nil {
		return p
	}
	m := &h.moves[h.now.PartitionOf(hash)]
	if now-m.at > store.StandInFor {
		return p
	}
	if p = h.prior(m.stood, now); !p.InView { // the stand-in owner is lost as well
		return Candidate{}
	}
	return p
}

// prior reports whether f is worth asking. The caller holds mu.
func (h *History) prior(f *previousOwner, now int64) (p Candidate) {
	if f == nil || f.member.Name == h.Self || f.worth < previousWorth {
		return p
	}
	m, inView := h.now.Member(f.member.Name)
	if inView && m.Incarnation != f.member.Incarnation {
		p.Lost = true
		return p
	}
	if inView {
		f.member = m
	}
	return Candidate{owner: f, To: f.member, InView: inView, Pause: now < f.until}
}

// Answered records whether asking c, which was found, brought a copy.
func (h *History) Answered(c Candidate, useful bool) {
	f := c.owner
	h.mu.Lock()
	defer h.mu.Unlock()
	f.pause, f.until = 0, 0
	f.worth -= f.worth / PreviousMemory
	if useful {
		f.worth += 1. / PreviousMemory
	}
}

// Failed records that c, which was found, did not answer.
func (h *History) Failed(c Candidate, now int64) {
	f := c.owner
	h.mu.Lock()
	defer h.mu.Unlock()
	if now >= f.until {
		f.pause = min(max(2*f.pause, previousPause), int64(time.Minute))
		f.until = now + f.pause
	}
}
