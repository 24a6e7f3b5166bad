package roster

import (
	"cmp"
	"encoding/binary"
	"log/slog"
	"maps"
	"slices"
	"time"

	"github.com/weircache/weir/ring"
)

// A lost member keeps its share of the caps: behind a partition it is alive and still loads, by the divisor that it knew.
// But a process that crashed and restarts under another name would take a part of every cap with it for good. Time alone
// proves nothing. So the share moves only on evidence that the process has ended, or that its node is closed, which takes
// its share away (Node.Close):
//
//	state   event                                                                       next
//	live    its address refuses a connection, or another member answers there           live, with evidence
//	live    it answers a gossip probe, or gossip has another message from it            live, without evidence
//	live    gossip says that it is dead                                                 lost, or ended if there is evidence
//	lost    its address refuses a connection, or another member answers there,
//	        or gossip has a later start at its address                                  ended
//	lost    another member says that this incarnation has ended                         ended
//	lost    Config.GiveUp has passed since it was lost, if that is set                  forgotten
//	lost    it is known by name only, from a member of an earlier version, and no
//	        member has listed it for listedFor                                          forgotten
//	ended   the longest load and endedGrace have passed since                           forgotten, for good
//	any     gossip says that it, or a later incarnation of its name, is alive           live
//
// Gossip knows nothing of lost and ended members; they count in Share until they are forgotten. Each member acts on its
// own evidence or on that of others, which travels with the exchanges of states. A member that has not heard of the
// evidence divides by more, which only makes its share smaller. So a partitioned member needs no evidence of anything: its
// side divides by as many as before.
//
// A machine without power refuses nothing, and neither does an address that no machine has any more. Such a member counts
// until its address answers again or belongs to another member, or for Config.GiveUp.
//
// A refusal proves that nothing listens at the address, as far as this node can see. A firewall that answers on behalf of a
// living member, as REJECT rules do, therefore makes that member look ended. A member that is alive contradicts: it counts
// again at once, and the log says so.
const (
	// endedGrace is how much longer than its longest load an ended member counts: the origin may notice late that nobody
	// waits.
	endedGrace = 10 * time.Second
	// proofEvery is how often this node checks whether the addresses of lost members refuse connections, proofTimeout how
	// long one check waits, and proofTogether how many run at once.
	proofEvery    = 5 * time.Second
	proofTimeout  = time.Second
	proofTogether = 8
	// listedFor is how long a member counts that is known by name only and that no member lists any more: several exchanges
	// of states.
	listedFor = 2 * time.Minute
	// maxEnded bounds the incarnations remembered as ended. The memory keeps a member that has not heard of it from
	// bringing them back.
	maxEnded = 512
	// tellEndedFor is how long others are told of an ended incarnation after it was forgotten here, or last listed as lost
	// by another member. maxTold bounds how many they are told of.
	tellEndedFor = 5 * time.Minute
	maxTold      = 64
)

// An endedStart is an incarnation that no longer counts.
type endedStart struct {
	startID
	at    time.Time // when it is known to have ended
	asked time.Time // when it was forgotten, or another member last listed it as lost
}

// lost is a start that vanished without leaving.
type lost struct {
	addr     string // "": only its name is known, and its incarnation counts as 0
	at       time.Time
	ended    time.Time // since when its process is known to have ended; zero: it may be alive
	listed   time.Time // for a member known by name only: when a member last listed it
	massLoss bool      // it vanished together with half of all members, or more
}

// isAt reports whether the lost member has this address; "" stands for any.
func (l lost) isAt(addr string) bool { return !l.nameOnly() && (addr == "" || addr == l.addr) }

// nameOnly reports whether the member is known by name only.
func (l lost) nameOnly() bool { return l.addr == "" }

// forgets reports whether a lost member no longer counts, why, and when to look again, where 0 means when there is news of
// it. longest is how long a load may take.
func (l lost) forgets(now time.Time, longest, giveUp time.Duration) (why string, again time.Duration) {
	due := func(at time.Time, text string) {
		if left := at.Sub(now); left > 0 {
			again = soonest(again, left)
		} else if why == "" {
			why = text
		}
	}
	if !l.ended.IsZero() {
		due(l.ended.Add(longest+endedGrace), "its process has ended, and so have its loads")
	}
	if giveUp > 0 {
		due(l.at.Add(giveUp), "it has been unreachable for longer than Config.GiveUp")
	}
	if l.nameOnly() {
		due(l.listed.Add(listedFor), "no member lists it")
	}
	return why, again
}

// losses are the starts that are lost, and those that have ended. The table's lock guards them.
type losses struct {
	giveUp time.Duration // Config.GiveUp
	log    *notices
	lost   map[startID]lost // one start of a name may be lost while another one lives
	ended  []endedStart     // starts that were lost and no longer count, oldest first
	peak   int              // largest number of live names ever seen at once
}

// prove records evidence that a lost start ended no later than when. at.Addr is where the evidence was found; "" means that
// another member reports it. It reports whether the start is lost at that address, and whether the evidence is the first.
func (s *losses) prove(at ring.Member, when time.Time) (known, first bool) {
	l, ok := s.lost[startOf(at)]
	if !ok || !l.isAt(at.Addr) {
		return false, false
	}
	if l.ended.IsZero() {
		l.ended, first = when, true
		s.lost[startOf(at)] = l
		s.log.say(slog.LevelInfo, "a lost member has ended: it counts in the division of caps until its loads must have ended", "member", at.Name, "address", l.addr)
	}
	return true, first
}

// forget forgets the lost members that no longer count, and returns when to look again.
func (s *losses) forget(now time.Time, longest time.Duration) (again time.Duration) {
	for at, l := range s.lost {
		why, wait := l.forgets(now, longest, s.giveUp)
		if why == "" {
			again = soonest(again, wait)
			continue
		}
		delete(s.lost, at)
		if !l.ended.IsZero() {
			if len(s.ended) == maxEnded {
				s.ended = slices.Delete(s.ended, 0, 1)
			}
			s.ended = append(s.ended, endedStart{startID: at, at: l.ended, asked: now})
		}
		s.log.say(slog.LevelWarn, "a lost member is forgotten: its share of the caps goes to the others", "member", at.name, "address", l.addr, "reason", why)
	}
	return again
}

// endedRecord returns the record of an ended incarnation, or nil if there is none.
func (s *losses) endedRecord(start startID) *endedStart {
	for i := range s.ended {
		if e := &s.ended[i]; e.startID == start {
			return e
		}
	}
	return nil
}

// revived removes an incarnation from the ended ones, because it is alive.
func (s *losses) revived(id *Identity, addr string) {
	start := startID{id.Name, id.Incarnation}
	l, known := s.lost[start]
	was := known && !l.ended.IsZero()
	s.ended = slices.DeleteFunc(s.ended, func(e endedStart) bool {
		this := e.startID == start
		was = was || this
		return this
	})
	if was {
		s.log.say(slog.LevelError, "a member is alive whose address had refused connections: the origin may have had more loads than its cap; look for a firewall that rejects", "member", id.Name, "address", addr)
	}
}

// unproven lists the lost members that may live: nothing proves that they have ended.
func (s *losses) unproven() []ring.Member {
	var out []ring.Member
	for at, l := range s.lost {
		if l.ended.IsZero() && !l.nameOnly() {
			out = append(out, ring.Member{Name: at.name, Addr: l.addr, Incarnation: at.incarnation})
		}
	}
	return out
}

// append appends what is known of the lost members and of those that have ended recently. Each has a name and an
// address as texts, the incarnation, how many seconds ago it was lost, and how many seconds ago it ended plus one, or 0 if
// that is not known.
func (s *losses) append(buf []byte, now time.Time) []byte {
	seconds := func(since time.Time) uint32 { return uint32(max(now.Sub(since), 0) / time.Second) }
	one := func(m ring.Member, at, ended time.Time) {
		buf = append(append(buf, byte(len(m.Name))), m.Name...)
		buf = append(append(buf, byte(len(m.Addr))), m.Addr...)
		buf = binary.BigEndian.AppendUint64(buf, m.Incarnation)
		buf = binary.BigEndian.AppendUint32(buf, seconds(at))
		if ended.IsZero() {
			buf = binary.BigEndian.AppendUint32(buf, 0)
		} else {
			buf = binary.BigEndian.AppendUint32(buf, seconds(ended)+1)
		}
	}
	for at, l := range s.lost {
		if !l.nameOnly() {
			one(ring.Member{Name: at.name, Addr: l.addr, Incarnation: at.incarnation}, l.at, l.ended)
		}
	}
	sent := 0
	for _, e := range slices.Backward(s.ended) {
		if now.Sub(e.asked) < tellEndedFor && sent < maxTold {
			sent++
			one(ring.Member{Name: e.name, Incarnation: e.incarnation}, e.at, e.at)
		}
	}
	return buf
}

// has reports whether a start of a member is lost.
func (s *losses) has(name string) bool {
	for at := range s.lost {
		if at.name == name {
			return true
		}
	}
	return false
}

// wasLost reports whether this start of a member, or an earlier one, is lost and known by more than its name, and did not
// vanish together with half of all members.
func (s *losses) wasLost(id *Identity) bool {
	for at, l := range s.lost {
		if at.name == id.Name && at.incarnation <= id.Incarnation && !l.nameOnly() && !l.massLoss {
			return true
		}
	}
	return false
}

// drop removes this start of a member and the earlier ones, because it is alive or has left.
func (s *losses) drop(id *Identity) {
	maps.DeleteFunc(s.lost, func(at startID, _ lost) bool { return at.name == id.Name && at.incarnation <= id.Incarnation })
}

// add adds a start that vanished beside live members. If the lost starts are at least as many as these, this node may be the
// one that is cut off, and the return of the lost ones must not count against them.
func (s *losses) add(start startID, l lost, live int) {
	s.lost[start] = l
	if len(s.lost) < live {
		return
	}
	for at, l := range s.lost {
		l.massLoss = true
		s.lost[at] = l
	}
}

// bound forgets the oldest lost starts if there are too many. The other side of a split has at most as many members as were
// ever seen at once, so this many are remembered.
func (s *losses) bound() {
	for len(s.lost) > s.peak {
		oldest := slices.MinFunc(slices.Collect(maps.Keys(s.lost)), func(a, b startID) int {
			return cmp.Or(s.lost[a].at.Compare(s.lost[b].at), cmp.Compare(a.name, b.name), cmp.Compare(a.incarnation, b.incarnation))
		})
		delete(s.lost, oldest)
		s.log.say(slog.LevelWarn, "a lost member is forgotten, there are too many", "member", oldest.name)
	}
}

// lostNews is what another member knows of lost starts.
type lostNews struct {
	names   []string // that it counts
	details []byte   // as append writes them
	join    bool     // the member counts, or this node does, from now on, what the other one counted
}

// merge merges what another member knows. take counts a start that is lost there, if it may count here; prove takes evidence
// that a start has ended.
func (s *losses) merge(news lostNews, take func(startID, lost), prove func(ring.Member, time.Time), now time.Time) {
	detailed := make(map[string]bool)
	for buf := news.details; len(buf) > 0; {
		m, l, rest, err := cutLost(buf, now)
		if err != nil {
			break
		}
		buf = rest
		detailed[m.Name] = true
		_, known := s.lost[startOf(m)]
		_, bare := s.lost[startID{name: m.Name}]
		gone := s.endedRecord(startOf(m))
		switch {
		case gone != nil && l.ended.IsZero():
			gone.asked = now
		case gone != nil:
		case bare && !known && l.addr != "":
			delete(s.lost, startID{name: m.Name})
			s.lost[startOf(m)] = l
		default:
			if !known && l.addr != "" {
				take(startOf(m), l)
			}
			if !l.ended.IsZero() {
				prove(ring.Member{Name: m.Name, Incarnation: m.Incarnation}, l.ended)
			}
		}
	}
	for _, name := range news.names {
		bare := startID{name: name}
		switch was, known := s.lost[bare]; {
		case detailed[name]:
		case known && !news.join:
			was.listed = now
			s.lost[bare] = was
		case !known && !s.has(name):
			take(bare, lost{at: now, listed: now})
		}
	}
}

// cutLost reads one entry that losses.append has written, and returns the rest.
func cutLost(buf []byte, now time.Time) (m ring.Member, l lost, rest []byte, err error) {
	if m.Name, buf, err = cutText(buf, MaxName); err != nil {
		return m, l, nil, err
	}
	if len(buf) < 1 || len(buf) < 1+int(buf[0])+16 {
		return m, l, nil, errMeta
	}
	n := 1 + int(buf[0])
	m.Addr = string(buf[1:n])
	m.Incarnation = binary.BigEndian.Uint64(buf[n:])
	ago := func(seconds uint32) time.Time { return now.Add(-time.Duration(seconds) * time.Second) }
	l = lost{addr: m.Addr, at: ago(binary.BigEndian.Uint32(buf[n+8:]))}
	if s := binary.BigEndian.Uint32(buf[n+12:]); s > 0 {
		l.ended = ago(s - 1)
	}
	return m, l, buf[n+16:], nil
}
