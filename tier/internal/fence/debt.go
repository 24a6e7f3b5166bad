package fence

import (
	"strings"

	"github.com/weircache/weir/codec"
)

// A Duty is what must happen, besides carrying a mark, before another member's answer for a key counts.
type Duty uint8

const (
	NoDuty   Duty = iota // nothing: the answer counts
	AskAgain             // more marks can only travel with a request: the answer does not count, and the next request carries another mark
	Exchange             // the member may lack logged invalidations: run an anti-entropy exchange first
)

// A Debt is what another member must learn before its answer for a key counts.
type Debt struct {
	Mark codec.Mark // to be sent with the request; the number 0: none
	Duty Duty
}

// Debt returns what the member that k describes must learn before it answers for the key. stamp is the clock at the
// start of the read that sends the request. An exchange that began after the read always settles what the log has.
//
// Every kind of request takes its answer from here and acts on it as it can. A request for the key carries the mark,
// asks again or runs an exchange first (tier/call.go, internal/owner/previous.go). A multi-get leaves the keys that need more than one
// mark to single reads (tier/many_call.go). A copy that comes unasked is rejected while anything is owed (Commit).
func (f *Fences) Debt(key string, hash, stamp uint64, k *Watermark) Debt {
	slot := Slot(hash)
	s, has := f.shard(slot), k.clocks[slot/SlotsPerShard]
	logged := has < stamp && f.slots[slot].Load() > has
	if !logged && s.carries.Load() == 0 {
		return Debt{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !logged {
		return s.unloggedDebt(key, k)
	}
	return s.debt(key, slot, k)
}

// debt returns the debt of all marks of the key. The caller holds s.mu.
func (s *fenceShard) debt(key string, slot uint32, k *Watermark) Debt {
	has := k.clocks[slot/SlotsPerShard]
	x, ok := s.m[key]
	if !ok && s.floor > has || ok && x.lost > has {
		return Debt{Duty: Exchange}
	}
	d := s.unloggedDebt(key, k)
	for i := range x.marks {
		m := &x.marks[i]
		if m.stamp <= has || m.isTold(k) {
			continue
		}
		if d.Mark.Seq != 0 {
			return Debt{Duty: Exchange}
		}
		d.Mark = m.mark
	}
	return d
}

// unloggedDebt returns the debt of the key's unlogged marks. The caller holds s.mu.
func (s *fenceShard) unloggedDebt(key string, k *Watermark) (d Debt) {
	u := s.unlogged[key]
	for i := range u.marks {
		m := &u.marks[i]
		if m.mark.Seq == 0 || m.isTold(k) {
			continue
		}
		if d.Mark.Seq != 0 {
			d.Duty = AskAgain
			return d
		}
		d.Mark = m.mark
	}
	return d
}

// MarkTold records that a member's cache has applied a mark that a request carried to it.
func (f *Fences) MarkTold(key string, hash uint64, mark codec.Mark, incarnation uint64) {
	s := f.shard(Slot(hash))
	s.mu.Lock()
	defer s.mu.Unlock()
	if x, ok := s.m[key]; ok && x.marks.told(mark, incarnation) {
		s.m[strings.Clone(key)] = x // an assignment replaces the key as well
	}
	if u, ok := s.unlogged[key]; ok && u.marks.told(mark, incarnation) {
		s.unlogged[strings.Clone(key)] = u
	}
}
