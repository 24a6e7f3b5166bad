package placement

import (
	"time"

	"github.com/weircache/weir/ring"
	"github.com/weircache/weir/tier/internal/store"
)

const (
	// previousFor is for how long after a move the previous owner is asked at most.
	previousFor = int64(time.Hour)
	// startedTogether is how far apart two members may have started for neither to have had the other's keys: the
	// one that came first may not have read them yet.
	startedTogether = uint64(2 * time.Minute)
	// PreviousMemory is how many answers count to say whether it is worth asking, and previousWorth the share of
	// them that must bring something.
	PreviousMemory = 32
	previousWorth  = 1. / 16
	// After a failure a previous owner is left alone for previousPause, in ns, then twice as long each time.
	previousPause = int64(500 * time.Millisecond)
)

// A former is a member that owned partitions before, or stood in for who did. History.mu guards what changes.
type previousOwner struct {
	member ring.Member
	worth  float64 // the share of the answers that brought something, the last ones counting most
	pause  int64   // after the last failure, 0: there was none since the last answer
	until  int64   // not to be asked before; ns on the cache's clock
}

// move is a partition's last change of owner.
type move struct {
	from  *previousOwner
	older *previousOwner // the owner before that; nil: not known
	stood *previousOwner // who stood in for it, if it was lost and another than this node did; nil: nobody
	at    int64          // ns on the cache's clock
}

// movedTo notes where the partitions of v were before. The caller holds mu.
func (h *History) movedTo(v *ring.View, now int64) {
	old := h.now
	if old == nil || old.Len() == 1 && old.Index(h.Self) == 0 || old.Partitions() != v.Partitions() {
		// It has just come, and its keys were those members' that would have them without it.
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
			if older != nil && (now-m.at > previousFor || older.member.Name == from.Name) {
				older = nil
			}
			*m = move{from: h.former(from), older: older, at: now}
			m.from.worth = 1
			if v.OwnerOf(p).Name == h.Self && v.Index(from.Name) < 0 {
				m.stood = h.standIn(old, p, stood)
			}
		}
		if m.from != nil && now-m.at > previousFor {
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

// settledView is a view without this node and the members that have started with it, or later; nil: there is nobody else, or it is
// the view without this node alone.
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
		return nil // the previous owner is asked alone
	}
	return settled
}

// standIn returns the record, in those of this change, of the member that reads of a partition's keys turned to
// while its owner in the old view could not be reached. With zones it may be another than the next owner.
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

// A prior is what is known of who owned a key before.
type Candidate struct {
	From   *previousOwner // nil: nobody worth asking
	To     ring.Member
	InView bool
	Pause  bool // he is to be left alone for a while
	Lost   bool // he has gone, and what he had with him
}

// Previous returns who owned the key before self.
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
		// Who started later cannot have had it.
		self, _ := h.now.Member(h.Self)
		if m, ok := h.first.Heir(key); ok && m.Incarnation < self.Incarnation {
			f = h.former(m)
		}
	}
	return h.prior(f, now)
}

// Older returns the member that owned the key before the one that previous returns. Where several members have started together,
// that is the one that had the key before any of them: previous may return another newcomer, or nothing where that started later.
func (h *History) Older(hash uint64, now int64) (p Candidate) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.now == nil {
		return p
	}
	i := h.now.PartitionOf(hash)
	switch {
	case h.moves != nil && h.moves[i].from != nil && now-h.moves[i].at > previousFor:
		return p
	case h.moves != nil && h.moves[i].older != nil:
		p = h.prior(h.moves[i].older, now)
	case h.settled != nil && now-h.firstAt <= previousFor:
		p = h.prior(h.former(h.settled.OwnerOf(i)), now)
	}
	if p.Lost {
		return Candidate{}
	}
	return p
}

// StandIn returns who stood in for the owner that the key had before self, if that was lost.
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
	if p = h.prior(m.stood, now); !p.InView { // it is lost too
		return Candidate{}
	}
	return p
}

// prior tells whether f is worth asking. The caller holds mu.
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
	return Candidate{From: f, To: f.member, InView: inView, Pause: now < f.until}
}

// Answered notes what asking f came to.
func (h *History) Answered(f *previousOwner, useful bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	f.pause, f.until = 0, 0
	f.worth -= f.worth / PreviousMemory
	if useful {
		f.worth += 1. / PreviousMemory
	}
}

// Failed notes that f did not answer.
func (h *History) Failed(f *previousOwner, now int64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if now >= f.until {
		f.pause = min(max(2*f.pause, previousPause), int64(time.Minute))
		f.until = now + f.pause
	}
}
